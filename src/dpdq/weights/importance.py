"""The noun of the room: weights of the rows of q towards p."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate
from dpdq.weights._vectors import as_labels, as_log_weights, as_mask, as_vector
from dpdq.weights.log_weights import effective_size, is_flat, log_sum
from dpdq.weights.means import ratio_mean
from dpdq.weights.pareto_tail import FEWEST_ROWS, ParetoTail, fit_tail
from dpdq.weights.resampling import RESAMPLING

__all__ = ["Weights"]

_FEWEST_EFFECTIVE_ROWS = 10.0


class Weights:
    """Importance weights of the rows of q towards p.

        w_i proportional to exp(log_weights_i), with mean one over the kept rows

    A row is dropped by log weight -infinity or by the mask. Weights do not change once made; the
    methods that tame them return new ones.

    They cannot know what they have not seen: where p has mass and q no rows, they look fine. That
    is what the overlap check of a comparison is for.

    Parameters
    ----------
    log_weights
        Shape (n,), natural logs on any scale; a torch tensor is copied to NumPy.
    mask
        Shape (n,) booleans, true for the rows to keep.

    Attributes
    ----------
    log
        Log weights, shape (n,), with logmeanexp 0 over the kept rows; read-only.

    Raises
    ------
    DataError
        If a log weight is NaN or infinite (with the first such row), or no row is kept.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/test_weights.py::test_scale_and_mean

    Examples
    --------
    >>> w = Weights([0.0, 1.0, float("-inf"), 0.0])
    >>> w.values.round(3)
    array([0.636, 1.728, 0.   , 0.636])
    >>> w.mean([1.0, 2.0, 50.0, 3.0]).estimate
    2.0
    """

    log: np.ndarray

    def __init__(self, log_weights: Any, *, mask: Any = None) -> None:
        array = np.array(as_log_weights(log_weights))
        if mask is not None:
            array = np.where(as_mask(mask, array.size), array, -np.inf)
            if array.max() == -np.inf:
                raise DataError("mask keeps no row with a positive weight; keep at least one")
        kept = np.count_nonzero(array > -np.inf)
        array -= log_sum(array) - math.log(kept)
        array.flags.writeable = False
        object.__setattr__(self, "log", array)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Weights do not change; make new ones instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Weights do not change; {name!r} stays")

    def __len__(self) -> int:
        return self.log.size

    def __getstate__(self) -> dict[str, Any]:
        return {"log": self.log}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["log"].flags.writeable = False
        self.__dict__.update(state)

    @classmethod
    def uniform(cls, n: int) -> Weights:
        """Weigh n rows alike.

        Examples
        --------
        >>> Weights.uniform(3).values
        array([1., 1., 1.])
        """
        if n < 1:
            raise OptionError(f"n is {n}; give the number of rows, at least 1")
        return cls(np.zeros(n))

    @classmethod
    def from_values(cls, values: Any) -> Weights:
        """Build weights from plain non-negative numbers on any scale; zero drops the row.

        Raises
        ------
        DataError
            If a value is negative, NaN or infinite (with the first such row), or none is positive.

        Examples
        --------
        >>> Weights.from_values([2, 0, 4]).normalised.round(3)
        array([0.333, 0.   , 0.667])
        """
        array = as_vector(values, "weights")
        wrong = ~((array >= 0) & (array < np.inf))
        if wrong.any():
            raise DataError(
                f"weights: {np.count_nonzero(wrong)} of {array.size} values are negative, NaN or "
                f"infinite (first at row {np.argmax(wrong)}); give finite weights, 0 or more"
            )
        if not array.any():
            raise DataError(f"weights: none of {array.size} values is positive; give at least one")
        with np.errstate(divide="ignore"):
            return cls(np.log(array))

    # What they are.

    @cached_property
    def values(self) -> np.ndarray:
        """Weights with mean one over the kept rows, shape (n,), 0 where dropped; read-only."""
        array = np.exp(self.log)
        array.flags.writeable = False
        return array

    @property
    def normalised(self) -> np.ndarray:
        """Weights that sum to one, shape (n,)."""
        return self.values / self.values.sum()

    @property
    def kept(self) -> np.ndarray:
        """Which rows have a positive weight, shape (n,) booleans."""
        return self.log > -np.inf

    @cached_property
    def n_kept(self) -> int:
        """Number of rows that are not dropped."""
        return int(np.count_nonzero(self.kept))

    @property
    def largest(self) -> float:
        """The largest weight, in units of the mean."""
        return math.exp(float(self.log.max()))

    # Whether they can be trusted.

    @cached_property
    def effective_sample_size(self) -> float:
        """Kish's (sum w)^2 / sum w^2; see `effective_sample_size`."""
        return effective_size(self.log)

    @cached_property
    def _tail(self) -> ParetoTail | str:
        rows = np.flatnonzero(self.kept)
        return fit_tail(self.log[rows], rows)

    @property
    def khat(self) -> float | None:
        """Shape of the tail, None where there is no tail to fit; see `pareto_khat`."""
        return None if isinstance(self._tail, str) else self._tail.khat

    @property
    def khat_reason(self) -> str:
        """Why k-hat is None; empty where it is not."""
        return self._tail if isinstance(self._tail, str) else ""

    @property
    def khat_limit(self) -> float:
        """The largest k-hat to trust at this number of kept rows, min(1 - 1 / log10 n, 0.7)."""
        return 0.0 if self.n_kept < 10 else min(1 - 1 / math.log10(self.n_kept), 0.7)

    @cached_property
    def is_constant(self) -> bool:
        """Whether all kept rows weigh the same."""
        return is_flat(self.log[self.kept])

    def share_of_top(self, fraction: float = 0.01) -> float:
        """Share of the total weight that the heaviest rows carry.

        Parameters
        ----------
        fraction
            Of the kept rows, above 0 and at most 1; rounded up to whole rows.

        Examples
        --------
        >>> Weights.uniform(200).share_of_top(0.01)
        0.01
        """
        if not 0 < fraction <= 1:
            raise OptionError(f"fraction is {fraction}; give a number above 0 and at most 1")
        count = min(math.ceil(fraction * self.n_kept), self.log.size)
        cut = self.log.size - count
        return float(np.partition(self.values, cut)[cut:].sum() / self.values.sum())

    @property
    def ok(self) -> bool:
        """Whether means under these weights can be trusted; `status` says why."""
        return self._judge()[0]

    @property
    def status(self) -> str:
        """One sentence: what these weights are good for, and what to do if they are not."""
        return self._judge()[1]

    def _judge(self) -> tuple[bool, str]:
        size, rows = self.effective_sample_size, self.n_kept
        worth = f"{rows:,} rows count as {_count(size)} ({_percent(size / rows)})"
        cure = (
            "smooth, clip or temper them and say so, or find rows of q like those of p that "
            "carry the weight"
        )
        if rows == 1:
            return False, "Not trustworthy: one row is kept; keep more."
        if self.is_constant:
            return True, f"All {rows:,} rows weigh the same, so nothing is reweighted."
        if self.khat is not None and self.khat > self.khat_limit:
            return False, (
                f"Not trustworthy: k-hat {self.khat:.2f} exceeds its limit {self.khat_limit:.2f}, "
                f"so a few rows decide the answer and its error is unknown; {cure}."
            )
        if size < _FEWEST_EFFECTIVE_ROWS:
            return False, f"Not trustworthy: {worth}, too few to average over; {cure}."
        if self.khat is None and rows < FEWEST_ROWS:
            return False, f"Not judged: {self.khat_reason}; {worth}."
        if self.khat is None:
            return True, f"Trustworthy: {self.khat_reason}; {worth}."
        return True, (
            f"Trustworthy: k-hat {self.khat:.2f} is within its limit {self.khat_limit:.2f}; "
            f"{worth}."
        )

    # Taming them.

    def clip(self, *, quantile: float | None = None, maximum: float | None = None) -> Weights:
        """Cut the largest weights down to a ceiling.

        Lowers the variance at the price of a bias towards q; the rows of p that q lacks most are
        the ones that lose.

        Parameters
        ----------
        quantile
            Ceiling as a quantile of the kept weights, above 0 and at most 1.
        maximum
            Ceiling in units of the mean weight, above 0. Give one of the two.

        Returns
        -------
        Weights
            With mean one again, so that the largest may exceed the ceiling by the mass cut off.

        References
        ----------
        .. [Ionides2008] Truncated Importance Sampling. Ionides, 2008, J. Comput. Graph. Stat. 17.

        Examples
        --------
        >>> Weights.from_values([1.0, 1.0, 7.0]).clip(maximum=1.0).values.round(3)
        array([0.6, 0.6, 1.8])
        """
        if (quantile is None) == (maximum is None):
            raise OptionError("clip takes either quantile or maximum; give exactly one")
        if quantile is not None:
            if not 0 < quantile <= 1:
                raise OptionError(f"quantile is {quantile}; give a number above 0 and at most 1")
            ceiling = float(np.quantile(self.log[self.kept], quantile, method="lower"))
        else:
            assert maximum is not None
            if not (maximum > 0 and math.isfinite(maximum)):
                raise OptionError(f"maximum is {maximum}; give a finite number above 0")
            ceiling = math.log(maximum)
        return Weights(np.minimum(self.log, ceiling))

    def temper(self, power: float) -> Weights:
        """Raise the weights to a power: 1 leaves them, 0 makes them uniform over the kept rows.

        Powers between interpolate geometrically between q and p.

        Parameters
        ----------
        power
            0 or more.

        Examples
        --------
        >>> Weights([0.0, 2.0]).temper(0.5).log.round(4)
        array([-0.6201,  0.3799])
        """
        if not (power >= 0 and math.isfinite(power)):
            raise OptionError(f"power is {power}; give a finite number, 0 or more")
        if power == 0:
            return Weights(np.where(self.kept, 0.0, -np.inf))
        return Weights(self.log * power)

    def smooth(self) -> Weights:
        """Replace the largest weights by the quantiles of the Pareto law fitted to them.

        Pareto smoothing: the ranks stay, the noise of the largest goes, and none exceeds the
        largest raw weight. Less biased than clipping; above the k-hat limit it does not make the
        answer right, and k-hat of the raw weights stays the diagnostic. Weights without a tail
        (``khat`` None) come back as they are.

        Notes
        -----
        Cost: O(n) time, O(n) memory.
        Held by: tests/test_weights.py::test_smoothing_keeps_ranks_and_cuts_noise

        References
        ----------
        .. [Vehtari2024] Pareto Smoothed Importance Sampling. Vehtari, 2024, JMLR 25.
        """
        tail = self._tail
        if isinstance(tail, str):
            return self
        log_weights = self.log.copy()
        log_weights[tail.rows] = np.minimum(tail.log_quantiles(), self.log.max())
        return Weights(log_weights)

    # Using them.

    def resample(
        self,
        n: int | None = None,
        *,
        random_state: RandomState = None,
        method: Literal["systematic", "multinomial", "residual"] = "systematic",
    ) -> np.ndarray:
        """Draw row numbers with replacement, in proportion to the weights.

        Row i comes n w_i / sum(w) times on average. Systematic resampling (one random offset, then
        even steps) gives each row that number rounded up or down; residual resampling takes the
        whole parts for certain and draws the rest; multinomial draws are independent.

        Parameters
        ----------
        n
            Number of draws; by default the number of kept rows.
        random_state
            Seed or generator.
        method
            ``"systematic"``, ``"multinomial"`` or ``"residual"``.

        Returns
        -------
        numpy.ndarray
            Row numbers, shape (n,), ascending.

        Raises
        ------
        OptionError
            If the method is unknown or n is not positive.

        Notes
        -----
        Cost: O(rows + n) time (multinomial and residual O(rows + n log n)), O(rows + n) memory.
        Held by: tests/test_weights.py::test_resampling_is_unbiased

        References
        ----------
        .. [Kitagawa1996] Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space
           Models. Kitagawa, 1996, J. Comput. Graph. Stat. 5.
        .. [Liu1998] Sequential Monte Carlo Methods for Dynamic Systems. Liu, 1998, JASA 93.

        Examples
        --------
        >>> Weights.from_values([1, 2, 0, 1]).resample(4, random_state=0)
        array([0, 1, 1, 3])
        """
        n = self.n_kept if n is None else int(n)
        if n < 1:
            raise OptionError(f"n is {n}; give the number of draws, at least 1")
        if method not in RESAMPLING:
            choices = ", ".join(f"'{choice}'" for choice in RESAMPLING)
            raise OptionError(f"Unknown method {method!r}. Choose one of {choices}.")
        rows = np.flatnonzero(self.kept)
        return rows[RESAMPLING[method](self.values[rows], n, as_generator(random_state))]

    def mean(
        self,
        y: Any,
        *,
        groups: Any = None,
        level: float = 0.95,
    ) -> Estimate:
        """Estimate the mean of y under p by the ratio estimator sum(w y) / sum(w).

            variance = sum (w_i (y_i - mean))^2 / (sum w)^2 * m / (m - 1)

        by linearisation, each row (or group) one observation, with m the effective number of
        them; the interval takes Student's law with m - 1 degrees of freedom. It accounts for the
        draw of the rows, not for an error of the weights, and is too short where `ok` is false:
        ``reason`` then says so.

        Parameters
        ----------
        y
            Shape (n,); values of dropped rows are not looked at.
        groups
            Shape (n,), labels of rows that belong together and count as one observation.
        level
            Nominal coverage.

        Returns
        -------
        Estimate

        Raises
        ------
        DataError
            If y or groups have another length, or y of a kept row is not finite.

        Notes
        -----
        Cost: O(n) time (O(n log n) with groups), O(n) memory.
        Held by: tests/test_weights.py::test_coverage_of_the_mean

        References
        ----------
        .. [Hajek1971] Comment on an Essay by D. Basu. Hájek, 1971, Foundations of Statistical
           Inference.

        Examples
        --------
        >>> Weights.uniform(4).mean([1.0, 2.0, 3.0, 4.0])
        Estimate(2.5, 95 % interval 0.4457 to 4.554)
        """
        if not 0 < level < 1:
            raise OptionError(f"level is {level}; give a number between 0 and 1")
        y = as_vector(y, "y")
        if y.size != self.log.size:
            raise DataError(f"y has {y.size} rows, the weights have {self.log.size}; align them")
        wrong = self.kept & ~np.isfinite(y)
        if wrong.any():
            raise DataError(
                f"y: {np.count_nonzero(wrong)} of {self.n_kept} kept rows are not finite (first at "
                f"row {np.argmax(wrong)}); drop them from the weights (mask) or fill them"
            )
        labels = None if groups is None else as_labels(groups, y.size)[self.kept]
        reason = "" if self.ok else self.status
        return ratio_mean(self.values[self.kept], y[self.kept], labels, level, reason)

    # Showing them.

    def to_dict(self) -> dict[str, Any]:
        """Summarise in JSON types; the weights themselves are not in it."""
        return {
            "n_rows": len(self),
            "n_kept": self.n_kept,
            "effective_sample_size": self.effective_sample_size,
            "share_effective": self.effective_sample_size / self.n_kept,
            "khat": self.khat,
            "khat_reason": self.khat_reason,
            "khat_limit": self.khat_limit,
            "top_one_percent_share": self.share_of_top(0.01),
            "largest": self.largest,
            "ok": self.ok,
            "sentence": self.status,
        }

    def __repr__(self) -> str:
        dropped = len(self) - self.n_kept
        note = f" ({dropped:,} dropped)" if dropped else ""
        size = self.effective_sample_size
        khat = "none" if self.khat is None else f"{self.khat:.2f}"
        rows = f"{len(self):,} row{'s' * (len(self) != 1)}"
        return (
            f"weights for {rows} of q{note} towards p: effective "
            f"sample size {_count(size)} ({_percent(size / self.n_kept)}), k-hat {khat}"
        )


def _count(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 else f"{100 * share:.2g} %"
