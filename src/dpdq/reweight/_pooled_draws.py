"""Draws of several laws put together, and what they say about laws that have not drawn yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import logsumexp

from dpdq.errors import DataError, OptionError, OverlapError
from dpdq.reweight.proposals import GaussianMixture

__all__ = ["Pool", "Problem", "best_coefficients"]


def best_coefficients(a: np.ndarray, b: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Cov(a_i, b) / Var(b) under weights that sum to one; 0 where b does not vary."""
    off = b - w @ b
    variance = float(w @ np.square(off))
    if variance <= 1e-12 * float(w @ np.square(b)):
        return np.zeros(a.shape[1])
    return (w * off) @ (a - w @ a) / variance


class Problem:
    """The functions, p and h, each evaluated with its answers checked."""

    def __init__(
        self, functions: Callable[[np.ndarray], Any], log_p: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        self.functions, self.log_p = functions, log_p
        self.log_h: Callable[[np.ndarray], np.ndarray] | None = None
        self.h_is_p, self.integral = False, 1.0

    def set_control(self, control: Any) -> None:
        """Take h as p, as nothing, or as a function with its integral."""
        if isinstance(control, str):
            if control != "p":
                raise OptionError(f"Unknown control {control!r}. Choose 'p', None or (log h, H).")
            self.h_is_p = True
        elif control is not None:
            self.log_h, self.integral = control

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Values of the functions (0 where p is), log p and log h."""
        phi = np.asarray(self.functions(x), dtype=np.float64)
        phi = phi[:, None] if phi.ndim == 1 else phi
        log_p = np.asarray(self.log_p(x), dtype=np.float64)
        if phi.ndim != 2 or len(phi) != len(x) or log_p.shape != (len(x),):
            raise DataError(
                f"functions gave {phi.shape} and p {log_p.shape} for {len(x)} rows; expected "
                f"({len(x)}, m) and ({len(x)},)"
            )
        log_h = log_p if self.h_is_p else None
        if self.log_h is not None:
            log_h = np.asarray(self.log_h(x), dtype=np.float64)
        for name, values in (("p", log_p), ("h", log_p if log_h is None else log_h)):
            if np.isnan(values).any() or (values == np.inf).any():
                raise DataError(f"the log density of {name} is NaN or infinite at a draw")
        if not np.isfinite(phi[log_p > -np.inf]).all():
            raise DataError("functions gave values that are not finite where p is positive")
        return np.where(log_p[:, None] > -np.inf, phi, 0.0), log_p, log_h


class Pool:
    """All draws of the rounds, each weighed by the mixture of the laws that drew them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.laws: list[GaussianMixture] = []
        self.counts: list[int] = []
        self.x = np.empty((0, 0))

    def draw(self, law: GaussianMixture, n: int, seed: int) -> None:
        """Add a round of draws of a law."""
        x = law.sample(n, random_state=seed)
        phi, log_p, log_h = self.problem.evaluate(x)
        if self.laws:
            x, phi = np.concatenate([self.x, x]), np.concatenate([self.phi, phi])
            log_p = np.concatenate([self.log_p, log_p])
            log_h = None if log_h is None else np.concatenate([self.log_h, log_h])
        elif not phi.any():
            raise OverlapError(
                f"all functions are 0 at all {n:,} first draws; widen the initial law towards "
                "where they are not, or draw more in a round"
            )
        self.x, self.phi, self.log_p = x, phi, log_p
        self.log_h = np.full(len(x), -np.inf) if log_h is None else log_h
        self.laws.append(law)
        self.counts.append(n)
        logs = np.stack([each.log_density(x) for each in self.laws])
        shares = np.array(self.counts) / sum(self.counts)
        self._log_drawn = np.asarray(logsumexp(logs + np.log(shares)[:, None], axis=0))

    def log_drawn(self) -> np.ndarray:
        """Log density of the mixture of all laws that drew."""
        return self._log_drawn

    def importance(self, importance: str | Sequence[float]) -> np.ndarray:
        """Weight of each function in the sum of variances."""
        m = self.phi.shape[1]
        if isinstance(importance, str):
            if importance == "equal":
                return np.ones(m)
            if importance != "relative":
                raise OptionError(
                    f"Unknown importance {importance!r}. Choose one of 'relative', 'equal', or "
                    "give numbers."
                )
            terms = self.phi * np.exp(self.log_p - self.log_drawn())[:, None]
            squares = np.square(terms.mean(axis=0)) + terms.var(axis=0) / len(terms)
            return np.divide(1.0, squares, out=np.zeros(m), where=squares > 0)
        u = np.asarray(importance, dtype=np.float64)
        if u.shape != (m,) or not (u >= 0).all() or not u.any():
            raise OptionError(f"importance is {importance!r}; give {m} numbers, not all 0")
        return u

    def coefficients(self, law: GaussianMixture) -> np.ndarray:
        """Best c under a law."""
        log_g = law.log_density(self.x)
        log_w = log_g - self.log_drawn()
        w = np.exp(log_w - logsumexp(log_w))
        a = self.phi * np.exp(self.log_p - log_g)[:, None]
        return best_coefficients(a, np.exp(self.log_h - log_g), w)

    def log_root(self, c: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Log of sqrt(sum_i u_i (phi_i p - c_i h)^2)."""
        top = np.maximum(self.log_p, self.log_h)
        top = np.where(np.isfinite(top), top, 0.0)
        off = self.phi * np.exp(self.log_p - top)[:, None] - np.exp(self.log_h - top)[:, None] * c
        with np.errstate(divide="ignore"):
            return 0.5 * np.log(np.square(off) @ u) + top

    def variance(self, law: GaussianMixture, u: np.ndarray) -> float:
        """Summed weighted variance of one draw of a law, with its best coefficients."""
        c, log_g, log_m = self.coefficients(law), law.log_density(self.x), self.log_drawn()
        second = float(np.exp(2.0 * self.log_root(c, u) - log_g - log_m).mean())
        terms = self.phi * np.exp(self.log_p - log_m)[:, None]
        terms = terms - c * np.exp(self.log_h - log_m)[:, None]
        return max(second - float(u @ np.square(terms.mean(axis=0))), 0.0)
