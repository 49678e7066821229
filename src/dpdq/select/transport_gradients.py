"""Rows whose extra mass would bring the pool nearest to the target: gradients of optimal transport.

Let OT(q, p) be the cost of moving q into p, and f the dual potential of q. f is the derivative of
OT by the mass at a row, up to a constant, as masses must sum to one. Taking mass from all other
rows alike settles the constant (the calibrated gradient),

    d OT / d q_i = f_i - sum_{j != i} f_j / (n - 1)        u_i = -d OT / d q_i

A model that was trained on q and is then trained a little on a choice of rows has seen a mixture of
both. What brings that mixture towards p is not what looks like p, but what q has too little of: a
row in the middle of a region that q covers well has a small gradient, however typical of p it is.

Entropy (epsilon > 0) smooths the potentials and settles them where exact transport has many;
the smoothed potential also says what a row would be worth that was not in the problem,

    f(x) = -epsilon log sum_j p_j exp((g_j - c(x, y_j)) / epsilon),   epsilon -> 0: min_j c - g_j

so that a pool of any size is scored from a problem of a few thousand rows.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.special import logsumexp

from dpdq._optional import require
from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.distance.sinkhorn import AUTO_EPSILON, solve_entropic, transport_cost, typical_cost
from dpdq.errors import NotFittedError, OptionError
from dpdq.ratio._common import as_rows, as_weights
from dpdq.select._base import Utility

__all__ = ["TransportGradient"]

_BLOCK = 4_096


class TransportGradient(Utility):
    """How fast transport to the target becomes cheaper as a row gains mass.

        u(x) = mean_q f - f(x),  times n / (n - 1) for a row of the problem

    Euclidean: columns or embeddings must be on comparable scales. The gradient holds for a small
    budget. The largest utilities lie side by side and do not know of each other, so of a budget
    that would close the gap many rows are spent on one place; choose again after adding some. Rows
    of q far from all of p have the smallest utilities, outliers of p give their neighbours large
    ones. Needs POT (``pip install "dpdq[ot]"``).

    Parameters
    ----------
    epsilon
        Entropy, in the unit of the cost; ``"auto"`` is 0.05 times the median cost between pool and
        target; 0 is exact transport.
    order
        r >= 1 of the cost |x - y|^r.
    max_rows
        Rows a side in the transport problem; of more, as many are drawn by chance, and all others
        are scored through the potential's extension.
    max_iterations
        Of Sinkhorn's algorithm at the final epsilon.
    tolerance
        Share of mass that may be misplaced at the end.
    random_state
        Seed of the rows that are drawn.

    Attributes
    ----------
    gradients_
        Calibrated gradients of the problem's rows of q, shape (n,).
    rows_q_, rows_p_
        Which rows the problem has.
    epsilon_
        The entropy used.
    converged_
        Whether the tolerance was met; if not, take a larger epsilon or more iterations.

    Notes
    -----
    Cost: O(iterations n m) time, or O(n^3) exactly, O(n m) memory: about 2 s and 130 MiB at 2,000
    rows a side; scoring O(m d) a row.
    Held by: tests/select/test_transport_gradients.py::test_exact_gradients_are_finite_differences

    With epsilon > 0 the potential is that of the smoothed problem, which only approximates the
    gradient of exact transport, as in the paper.

    References
    ----------
    .. [M036] Get more for less: Principled Data Selection for Warming Up Fine-Tuning in LLMs. Kang,
       2024, arXiv 2405.02774.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import TransportGradient
    >>> rng = np.random.default_rng(0)
    >>> pool = rng.normal(size=(300, 2))
    >>> target = rng.normal(size=(300, 2)) + [[1, 0]]
    >>> utility = TransportGradient().fit(q=pool, p=target).utility(pool)
    >>> bool(np.corrcoef(utility, pool[:, 0])[0, 1] > 0.9)
    True
    """

    gradients_: np.ndarray

    def __init__(
        self,
        *,
        epsilon: float | str = "auto",
        order: float = 2.0,
        max_rows: int = 2_000,
        max_iterations: int = 2_000,
        tolerance: float = 1e-3,
        random_state: RandomState = None,
    ) -> None:
        self.epsilon = epsilon
        self.order = order
        self.max_rows = max_rows
        self.max_iterations = max_iterations
        self.tolerance = tolerance
        self.random_state = random_state

    def fit(self, q: Any, p: Any, *, weights_q: Any = None, weights_p: Any = None) -> Self:
        """Solve the transport of the pool, or a part of it, to the target.

        Parameters
        ----------
        q
            The pool, standing for what the model has been trained on, shape (n, d).
        p
            The target, shape (m, d).
        weights_q, weights_p
            Importance weights of rows, any scale; zero drops the row.

        Returns
        -------
        Self
            The utility.

        Raises
        ------
        DataError
            Shapes that do not fit, or non-finite values.
        MissingDependencyError
            Without POT.
        """
        self._check()
        ot: Any = require("ot", "TransportGradient")
        all_q = as_rows(q, "q")
        all_p = as_rows(p, "p", width=all_q.shape[1])
        rng = as_generator(self.random_state)
        x, a, self.rows_q_ = self._side(all_q, as_weights(weights_q, len(all_q), "q"), rng)
        y, b, self.rows_p_ = self._side(all_p, as_weights(weights_p, len(all_p), "p"), rng)
        with one_thread_each():
            cost = transport_cost(x, y, self.order)
            unit = typical_cost(cost, a, b) or 1.0
            eps = AUTO_EPSILON * unit if isinstance(self.epsilon, str) else float(self.epsilon)
            if eps > 0:
                found: Any = solve_entropic(
                    ot, cost / unit, a, b, eps / unit, self.max_iterations, self.tolerance
                )
                f, g = unit * found.f, unit * found.g
                self.converged_ = found.marginal_error <= self.tolerance
            else:
                log: Any = ot.emd(a, b, cost, numItermax=10_000_000, log=True)[1]
                f, g = np.asarray(log["u"]), np.asarray(log["v"])
                self.converged_ = log["warning"] is None
        self.epsilon_ = eps
        self._target, self._shift, self._share = y, g, b
        self._level = float(a @ f)
        # Mass comes from the other rows in proportion to what they have.
        self.gradients_ = (f - self._level) / np.maximum(1.0 - a, 1e-300)
        return self

    def _check(self) -> None:
        if isinstance(self.epsilon, str):
            if self.epsilon != "auto":
                raise OptionError(f"Unknown epsilon {self.epsilon!r}. Choose 'auto' or a number.")
        elif not self.epsilon >= 0:
            raise OptionError(f"epsilon is {self.epsilon}; expected 0 or more")
        if not self.order >= 1:
            raise OptionError(f"order is {self.order}; expected at least 1")
        if self.max_rows < 2:
            raise OptionError(f"max_rows is {self.max_rows}; expected at least 2")

    def _side(
        self, rows: np.ndarray, weights: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        some = np.flatnonzero(weights > 0)
        if len(some) > self.max_rows:
            some = np.sort(rng.choice(some, self.max_rows, replace=False))
        share = weights[some] / weights[some].sum()
        return rows[some], share, some

    def utility(self, pool: Any) -> np.ndarray:
        """Minus the gradient at each row, shape (n,), through the potential's extension.

        Rows of the problem have -``gradients_`` here up to the factor n / (n - 1).
        """
        if "gradients_" not in vars(self):
            raise NotFittedError("TransportGradient is not fitted; call fit(q, p) first")
        rows = as_rows(pool, "pool", width=self._target.shape[1])
        out = np.empty(len(rows))
        with one_thread_each():
            for at in range(0, len(rows), _BLOCK):
                gain = self._shift - transport_cost(
                    rows[at : at + _BLOCK], self._target, self.order
                )
                if self.epsilon_ > 0:
                    smooth: Any = logsumexp(gain / self.epsilon_, axis=1, b=self._share)
                    out[at : at + _BLOCK] = self.epsilon_ * smooth
                else:
                    out[at : at + _BLOCK] = gain.max(axis=1)
        return out + self._level

    def _counts(self, n: int) -> tuple[int, int]:
        return 0, n * len(self._target)
