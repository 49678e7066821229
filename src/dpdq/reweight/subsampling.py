"""Groups made equal by throwing rows away, and whether that can pay.

A linear classifier trained to the end separates by the largest margin: along its direction the
boundary is the midpoint of the *facing extremes*, (largest of the lower group + smallest of the
upper group) / 2. With n_0 rows against n_1 < n_0 the larger group's extreme lies further out, and
the boundary is pushed into the smaller group by

    displacement = [M(n_0) - M(n_1)] / 2,    M(n) = expected maximum of n draws

                   bounded tail     about 0                     (0.02 half-widths at 5000 : 50)
                   Gaussian         about [sqrt(2 ln n_0) - sqrt(2 ln n_1)] / 2     (0.71 sd)
                   tail index a     of order n_0^(1/a)          (40 for Student's t with 2 degrees)

Weights do not move extremes, so they do not help such a classifier; equal group sizes do. On five
pairs of digits at 110 : 12 rows the mean worst-group accuracy of logistic regression without
regularisation is 0.907 as it is, 0.922 with class weights and 0.937 subsampled; with C = 0.1 it
is 0.015, 0.935 and 0.922: weights are then the better way.

What the definition does not fix: whether the boundary hangs on extremes at all. A classifier that
is regularised, stopped early, or whose groups overlap averages over many rows; there weights say
the same as subsampling and keep all rows. The diagnostic looks along one direction, which was
itself fitted: give it scores of rows that were held out.

Which one: `tail_diagnostic` first, `GroupBalancedSubsampler` where it says so, and worst-group
error on held-out rows (`dpdq.reweight.worst_group`) as the judge.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from dpdq._parameters import Parameterised
from dpdq._random import RandomState, as_generator, child_seed
from dpdq.data.samplers import QuotaSampler
from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.results import Estimate, Result
from dpdq.reweight.extreme_tails import extreme_displacement, fit_hill, hill_tail_index

__all__ = [
    "GroupBalancedSubsampler",
    "TailDiagnostic",
    "tail_diagnostic",
]


class GroupBalancedSubsampler(Parameterised):
    """Equally many rows of every group, drawn without replacement.

        n_g = min over groups of their rows,   rows uniform inside a group

    Throws information away: mean error grows where the boundary does not hang on extremes, and on
    a small group everything depends on few rows. Over epochs `sampler` throws nothing away, since
    each epoch draws other rows of the large groups.

    Parameters
    ----------
    size
        Rows of each group; ``None``: those of the smallest.
    random_state
        Seed of the draw.

    Attributes
    ----------
    rows_
        Row numbers that stay, ascending, int64.
    counts_
        Group -> rows there were.
    status_
        What was thrown away.

    Raises
    ------
    OptionError
        A size that a group does not have.

    Notes
    -----
    Cost: O(n log n) time.
    Held by: tests/reweight/test_subsampling.py::test_groups_become_equal

    References
    ----------
    .. [M311] Why does Throwing Away Data Improve Worst-Group Error?. Chaudhuri, 2023, ICML.

    Examples
    --------
    >>> balanced = GroupBalancedSubsampler(random_state=0).fit(["a"] * 6 + ["b"] * 2)
    >>> len(balanced.rows_), balanced.status_
    (4, 'kept 4 of 8 rows, 2 of each of 2 groups')
    """

    rows_: np.ndarray
    counts_: dict[Any, int]
    status_: str

    def __init__(self, *, size: int | None = None, random_state: RandomState = None) -> None:
        self.size = size
        self.random_state = random_state

    def fit(self, groups: Any) -> Self:
        """Choose the rows.

        Parameters
        ----------
        groups
            Group of each row, shape (n,).

        Returns
        -------
        Self
            This object.
        """
        labels = np.asarray(groups)
        if labels.ndim != 1 or len(labels) == 0:
            raise DataError(f"groups have shape {labels.shape}; expected (n,), one label a row")
        names, counts = np.unique(labels, return_counts=True)
        have = dict(zip(names.tolist(), counts.tolist(), strict=True))
        size = int(counts.min()) if self.size is None else self.size
        least = names[counts.argmin()].item()
        if not 1 <= size <= counts.min():
            raise OptionError(
                f"size is {size}; group {least!r} has {counts.min()} rows, give 1 to that many"
            )
        self._seed = child_seed(as_generator(self.random_state))
        self._labels, self._size = labels, size
        self.counts_ = have
        self.rows_ = np.sort(self.sampler(rank=0, world_size=1).epoch_rows(0))
        self.status_ = (
            f"kept {len(self.rows_)} of {len(labels)} rows, {size} of each of {len(have)} groups"
        )
        return self

    def fit_resample(self, X: Any, y: Any, groups: Any = None) -> tuple[Any, Any]:
        """Rows with equal group sizes, in their order.

        Parameters
        ----------
        X
            Rows, shape (n, d): an array or a frame.
        y
            Class of each row, shape (n,).
        groups
            Group of each row; ``None`` takes y.

        Returns
        -------
        tuple
            The rows and classes that stay, of the kinds that came.
        """
        from sklearn.utils import _safe_indexing  # rows of anything, as scikit-learn takes them

        self.fit(y if groups is None else groups)
        for name, value in (("X", X), ("y", y)):
            n = value.shape[0] if hasattr(value, "shape") else len(value)
            if n != len(self._labels):
                raise DataError(f"{name} has {n} rows and groups {len(self._labels)}; align them")
        return _safe_indexing(X, self.rows_), _safe_indexing(y, self.rows_)

    def sampler(self, **options: Any) -> QuotaSampler:
        """A sampler for torch's ``DataLoader``: equal groups, other rows each epoch.

        Parameters
        ----------
        **options
            Those of `dpdq.data.samplers.QuotaSampler`; its seed is this object's by default.

        Returns
        -------
        QuotaSampler
            Its first epoch holds the rows of ``rows_``.
        """
        if "_labels" not in vars(self):
            raise NotFittedError("GroupBalancedSubsampler is not fitted; call fit(groups) first")
        quotas = dict.fromkeys(self.counts_, self._size)
        return QuotaSampler(self._labels, quotas, **{"seed": self._seed, **options})


@dataclasses.dataclass(frozen=True, repr=False)
class TailDiagnostic(Result):
    """What the size of the larger group does to a boundary that hangs on extremes.

    Attributes
    ----------
    larger, smaller
        The groups.
    n_larger, n_smaller
        Their rows in training.
    tail_larger, tail_smaller
        Hill's index of the tails that face each other, in units of the direction, about the
        medians.
    distance
        Between the medians of the groups.
    displacement
        Half of what the larger group's expected largest score of n_larger rows exceeds that of
        n_smaller rows: by how much subsampling moves the midpoint of the extremes.
    predicted
        The same by a power law of the estimated index, too large where the tail is none; None
        for an index of at most 1.
    relative
        ``displacement`` in halves of ``distance``.
    newly_right
        Share of the smaller group between both boundaries: wrong before, right after.
    overlap
        Whether the groups' extremes pass each other, so that no margin exists.
    status
        Advice.
    """

    larger: Any
    smaller: Any
    n_larger: int
    n_smaller: int
    tail_larger: Estimate
    tail_smaller: Estimate
    distance: float
    displacement: float
    predicted: float | None
    relative: float
    newly_right: float
    overlap: bool
    status: str = ""


def tail_diagnostic(
    scores: Any,
    groups: Any,
    *,
    sizes: Mapping[Any, int] | None = None,
    n_tail: int | None = None,
) -> TailDiagnostic:
    """Would equal group sizes move the boundary of a largest-margin classifier?

    The displacement compares the larger group's extreme with the expected extreme of as many of
    its rows as the smaller group has, exactly, by counting subsets; no tail law enters it. Hill's
    index beside it says whether it would go on growing with the data.

    Only for a classifier whose boundary hangs on extremes. In high dimension training scores of a
    separating direction pile up at the margin and look bounded: give scores of held-out rows.

    Parameters
    ----------
    scores
        Projection of rows on the direction, such as ``decision_function``, shape (n,).
    groups
        Two groups, one label a row, shape (n,).
    sizes
        Group -> rows in training; ``None``: the rows of ``scores``. The larger group's extreme
        is never taken to be further out than that of its rows here.
    n_tail
        Rows of a tail for Hill's estimate.

    Returns
    -------
    TailDiagnostic
        Displacement, tails and advice.

    Raises
    ------
    DataError
        Not two groups, scores that are not finite, fewer than 12 rows in a group, or a group
        whose scores do not spread.
    OptionError
        Sizes of other groups.

    Notes
    -----
    Cost: O(n log n) time.
    Held by: tests/reweight/test_subsampling.py::test_displacements_by_simulation

    References
    ----------
    .. [M311] Why does Throwing Away Data Improve Worst-Group Error?. Chaudhuri, 2023, ICML.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> scores = np.concatenate([rng.normal(size=5000), 12.0 + rng.normal(size=50)])
    >>> found = tail_diagnostic(scores, np.repeat(["many", "few"], [5000, 50]))
    >>> round(found.displacement, 1), found.overlap
    (0.5, False)
    """
    x, labels = np.asarray(scores, dtype=np.float64), np.asarray(groups)
    if x.ndim != 1 or labels.shape != x.shape or not np.isfinite(x).all():
        raise DataError(
            f"scores have shape {x.shape} and groups {labels.shape}; give (n,) finite scores and a "
            "label for each"
        )
    names, codes = np.unique(labels, return_inverse=True)
    counts = np.bincount(codes)
    if len(names) != 2 or counts.min() < 12:
        raise DataError(
            f"there are {len(names)} groups of {counts.tolist()} rows; give two of at least 12"
        )
    n_train = _train_sizes(names.tolist(), counts, sizes)
    large = int(n_train.argmax())
    n_large, n_small = int(n_train[large]), int(n_train[1 - large])
    many, few = x[codes == large], x[codes == 1 - large]
    # Turned so that the larger group lies below and its upper tail faces the smaller group.
    sign = 1.0 if np.median(many) <= np.median(few) else -1.0
    many, few = sign * many, sign * few
    center = float(np.median(many)), float(np.median(few))
    tails = _facing_tail(many - center[0], n_tail), _facing_tail(center[1] - few, n_tail)
    before = _expected_maximum(many, min(n_large, len(many)))
    after = _expected_maximum(many, min(n_small, len(many)))
    displacement, smallest = 0.5 * (before - after), float(few.min())
    strip = (few > 0.5 * (after + smallest)) & (few <= 0.5 * (before + smallest))
    distance = center[1] - center[0]
    relative = displacement / (0.5 * distance) if distance > 0 else math.inf
    overlap = float(many.max()) >= smallest
    return TailDiagnostic(
        larger=names[large].item(),
        smaller=names[1 - large].item(),
        n_larger=n_large,
        n_smaller=n_small,
        tail_larger=tails[0],
        tail_smaller=tails[1],
        distance=distance,
        displacement=displacement,
        predicted=_predicted(many - center[0], n_large, n_small, n_tail),
        relative=relative,
        newly_right=float(strip.mean()),
        overlap=overlap,
        status=_advice(tails[0], relative, n_small / n_large, overlap),
    )


def _train_sizes(
    names: list[Any], counts: np.ndarray, sizes: Mapping[Any, int] | None
) -> np.ndarray:
    if sizes is None:
        return counts
    if set(sizes) != set(names) or min(sizes.values()) < 1:
        raise OptionError(f"sizes are {dict(sizes)}; give rows of the groups {names}")
    return np.array([sizes[name] for name in names])


def _facing_tail(excess: np.ndarray, n_tail: int | None) -> Estimate:
    if np.count_nonzero(excess > 0) < 6:
        raise DataError("a group's scores do not spread; there is no tail to look at")
    return hill_tail_index(excess, n_tail=n_tail)


def _expected_maximum(values: np.ndarray, size: int) -> float:
    """Mean over all subsets of a size of their largest value."""
    ordered = np.sort(values)[::-1]
    n = len(ordered)
    before = np.arange(n - size + 1)  # so many larger values are not in the subset
    later = np.log((n - size - before[:-1]) / (n - 1.0 - before[:-1]))
    weights = size / n * np.exp(np.concatenate([[0.0], np.cumsum(later)]))
    return float(weights @ ordered[: n - size + 1])


def _predicted(excess: np.ndarray, n_large: int, n_small: int, n_tail: int | None) -> float | None:
    k, cutoff, inverse = fit_hill(excess, n_tail)
    if not 0 < inverse < 1:
        return None
    scale = cutoff * (k / len(excess)) ** inverse  # the tail is (x / scale)^-a
    return scale * extreme_displacement(n_large, n_small, tail=1.0 / inverse)


def _advice(tail: Estimate, relative: float, share: float, overlap: bool) -> str:
    heavy = tail.estimate is not None and tail.estimate < 4
    kind = (
        "no tail index"
        if tail.estimate is None
        else f"tail index {tail.estimate:.2g}, {'heavy' if heavy else 'not heavy'}"
    )
    moved = f"equal sizes move the extremes' midpoint by {100 * relative:.2g} % of the way between"
    lost = f"keeps {100 * share:.2g} % of the larger group"
    if overlap:
        return (
            f"The groups overlap along this direction ({kind}), so that a boundary averages over "
            "rows: compare weights and subsampling by worst-group error on held-out rows."
        )
    if relative >= 0.1:
        return f"Subsample ({lost}) if trained to the end: {moved} centre and boundary; {kind}."
    if relative < 0.02:
        return f"Keep all rows: {moved} centre and boundary; {kind}."
    return f"Try both: {moved} centre and boundary, and subsampling {lost}; {kind}."
