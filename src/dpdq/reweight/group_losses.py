"""The worst of a few known groups: train for it, and report it.

    min over the model of  max over groups g of  E[l | g]

Where groups are known (hospital, dialect, background of a picture), p is any mixture of them, and
the worst mixture is the worst group. `group_dro_loss` follows it online: shares of the groups grow
with the exponential of their losses, and the model descends on the mean under these shares.

What the definition does not fix: groups that the model can fit by heart have no training loss, and
then nothing is learnt from their being worst. Group losses need regularisation (early stopping or
strong weight decay), and small groups the adjustment C / sqrt(n_g), which asks for the smaller
training loss that a small group needs for the same loss on new rows. A group with noisier labels is
worst forever and takes over; compare groups by what is achievable in them.

`worst_group` is the report. The smallest of several noisy means is too small on average, so that
its interval is not that of one mean: it covers the worst group's value, whichever group that is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import betaincinv

from dpdq._optional import is_torch
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate, Result
from dpdq.reweight._losses import (
    Array,
    as_codes,
    as_rows,
    as_shares,
    check_scale,
    like,
    pick_rows,
    plain,
)
from dpdq.weights.means import ratio_mean

__all__ = ["group_dro_loss", "GroupDRO", "GroupMean", "WorstGroup", "worst_group"]


def group_dro_loss(
    losses: Array,
    groups: Any,
    *,
    group_weights: Any,
    step_size: float = 0.01,
    adjustment: float = 0.0,
    group_sizes: Any = None,
    weights: Any = None,
) -> tuple[Array, Array]:
    """Mean of the groups' losses under shares that move towards the worst group.

        v_g <- v_g exp(step_size (l_g + adjustment / sqrt(n_g))),  scaled to sum to one
        loss = sum_g v_g l_g,     l_g the mean loss of group g in the batch

    The shares are moved first and carry no gradient; the adjustment moves them but is no part of
    the loss. A group with no rows in the batch keeps its share (before scaling) and adds nothing to
    the loss; draw batches with equal numbers of rows a group where groups are rare. Needs
    regularisation to work at all (see the module).

    Parameters
    ----------
    losses
        One loss a row, shape (n,); NumPy or torch.
    groups
        Integers 0 to G - 1, shape (n,).
    group_weights
        v of the step before, shape (G,), 0 or more, on any scale; all ones at first.
    step_size
        0 or more; 0 keeps the shares as they are.
    adjustment
        C, 0 or more; 1 to 5 in the paper.
    group_sizes
        n_g, rows of each group in the training data, shape (G,); needed with an adjustment.
    weights
        Importance weights of the rows of q, shape (n,); 0 drops a row.

    Returns
    -------
    loss
        A scalar, float64 or tensor.
    group_weights
        v for the next step, shape (G,), which sum to one.

    Raises
    ------
    DataError
        If shapes disagree, a group is outside 0 to G - 1, or no share is positive.
    OptionError
        If a number is out of its range.

    Notes
    -----
    Cost: O(n + G) time, O(n) memory.
    Held by: tests/reweight/test_group_losses.py::test_one_step_by_hand

    Absent groups keep their shares; the authors' code lets an adjustment raise them as well.

    References
    ----------
    .. [Sagawa2020] Distributionally Robust Neural Networks for Group Shifts: On the Importance of
       Regularization for Worst-Case Generalization. Sagawa, 2020, ICLR.

    Examples
    --------
    >>> loss, shares = group_dro_loss([1.0, 1.0, 3.0], [0, 0, 1], group_weights=[1, 1], step_size=1)
    >>> shares.round(3), float(round(loss, 3))
    (array([0.119, 0.881]), 2.762)
    """
    array, _ = as_rows(losses, "losses")
    start, _ = as_rows(group_weights, "group_weights")
    shares = _group_shares(start, array)
    step_size = check_scale("step_size", step_size, zero=True)
    adjustment = check_scale("adjustment", adjustment, zero=True)
    n, k = array.shape[0], shares.shape[0]
    codes = as_codes(groups, n, k, "groups", array)
    rows = np.flatnonzero(as_shares(weights, n) > 0)
    parts = like(as_shares(weights, n)[rows], array)
    codes, kept = pick_rows(codes, rows), pick_rows(array, rows)
    mass = _sum_groups(parts, codes, k)
    seen = mass > 0
    means = _sum_groups(parts * kept, codes, k) / (mass + 1.0 * ~seen)
    exponent = means.detach() if is_torch(means) else means
    if adjustment:
        exponent = exponent + like(adjustment / np.sqrt(_sizes(group_sizes, k)), array)
    exponent = step_size * exponent * seen
    moved = shares * _exp(exponent - exponent.max())
    moved = moved / moved.sum()
    return (moved * means).sum(), moved


class GroupDRO:
    """`group_dro_loss` that remembers its group weights.

    Parameters
    ----------
    n_groups
        G.
    step_size, adjustment, group_sizes
        As in `group_dro_loss`.

    Attributes
    ----------
    group_weights
        Shares of the groups, shape (G,); float64 NumPy until the first batch, then like its losses.

    Raises
    ------
    OptionError
        If n_groups is not a positive integer.

    Notes
    -----
    Cost: O(n + G) time a batch, O(G) state.
    Held by: tests/reweight/test_group_losses.py::test_group_dro_raises_the_worst_group

    References
    ----------
    .. [Sagawa2020] Distributionally Robust Neural Networks for Group Shifts: On the Importance of
       Regularization for Worst-Case Generalization. Sagawa, 2020, ICLR.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 3)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-2)
    >>> batches = [(torch.randn(8, 2), torch.arange(8) % 3, torch.arange(8) % 2)]
    >>> group_dro = GroupDRO(n_groups=2, step_size=0.1)
    >>> for x, y, g in batches:
    ...     losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    ...     loss = group_dro(losses, g)
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    """

    group_weights: Array

    def __init__(
        self,
        n_groups: int,
        *,
        step_size: float = 0.01,
        adjustment: float = 0.0,
        group_sizes: Any = None,
    ) -> None:
        if not isinstance(n_groups, (int, np.integer)) or n_groups < 1:
            raise OptionError(f"n_groups is {n_groups!r}; give an integer, 1 or more")
        self.step_size = step_size
        self.adjustment = adjustment
        self.group_sizes = group_sizes
        self.group_weights = np.full(int(n_groups), 1.0 / n_groups)

    def __repr__(self) -> str:
        return f"GroupDRO(n_groups={len(self.group_weights)}, step_size={self.step_size:g})"

    def __call__(self, losses: Array, groups: Any, *, weights: Any = None) -> Array:
        """Move the group weights by a batch and return its loss."""
        loss, self.group_weights = group_dro_loss(
            losses,
            groups,
            group_weights=self.group_weights,
            step_size=self.step_size,
            adjustment=self.adjustment,
            group_sizes=self.group_sizes,
            weights=weights,
        )
        return loss

    def state_dict(self) -> dict[str, list[float]]:
        """What a checkpoint has to keep, as plain numbers."""
        return {"group_weights": plain(self.group_weights).tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Parameters
        ----------
        state
            What `state_dict` gave.
        """
        found = np.asarray(state["group_weights"], dtype=np.float64)
        if found.shape != tuple(self.group_weights.shape):
            raise DataError(
                f"the checkpoint has {found.size} groups, where this has {len(self.group_weights)}"
            )
        self.group_weights = found


@dataclasses.dataclass(frozen=True, repr=False)
class GroupMean(Result):
    """The mean of one group.

    Attributes
    ----------
    group
        Its label.
    n
        Rows that count.
    mean
        With its simultaneous interval.
    """

    group: Any
    n: int
    mean: Estimate


@dataclasses.dataclass(frozen=True, repr=False)
class WorstGroup(Result):
    """The worst group and how it stands among the others.

    Attributes
    ----------
    group
        The label of the group with the worst mean.
    value
        That mean, with an interval for the worst group's true mean, whichever group it is.
    average
        Mean over all rows.
    rivals
        Groups whose intervals reach the worst one's: any of them may be the worst.
    groups
        All groups, worst first.
    status
        What this says, and what to do next.
    """

    group: Any
    value: Estimate
    average: float
    rivals: tuple[Any, ...]
    groups: tuple[GroupMean, ...]
    status: str


def worst_group(
    values: Any,
    groups: Any,
    *,
    higher_is_better: bool = True,
    level: float = 0.95,
    weights: Any = None,
) -> WorstGroup:
    """Worst group mean of a score or loss, with an interval that knows it was picked.

        min_g mean_g,   interval  [min_g low_g, min_g high_g],   each at level 1 - (1 - level) / G

    If all intervals hold, the smallest true mean lies between the smallest lower and the smallest
    upper end; Bonferroni's correction makes them hold together. Zeros and ones get exact binomial
    intervals (Clopper-Pearson), other values Student's, which needs groups of 30 or more rows where
    values are skewed. Rows count as independent.

    Parameters
    ----------
    values
        One number a row, shape (n,): correct or not, a score, a loss.
    groups
        Labels of any kind, shape (n,).
    higher_is_better
        Whether the worst mean is the smallest; False for losses.
    level
        Of the intervals, together.
    weights
        Importance weights of the rows, shape (n,); 0 drops a row.

    Returns
    -------
    WorstGroup

    Raises
    ------
    DataError
        If shapes disagree or a value that counts is NaN or infinite.
    OptionError
        If the level is not between 0 and 1.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/reweight/test_group_losses.py::test_interval_covers_the_worst_of_equal_groups

    References
    ----------
    .. [Clopper1934] The Use of Confidence or Fiducial Limits Illustrated in the Case of the
       Binomial. Clopper, 1934, Biometrika 26.

    Examples
    --------
    >>> report = worst_group([1, 1, 1, 0, 1, 0, 0, 0], list("aaaabbbb"))
    >>> report.group, report.value.estimate, report.rivals
    (np.str_('b'), 0.25, (np.str_('a'),))
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level!r}; give a number between 0 and 1")
    y = plain(as_rows(values, "values")[0])
    labels = np.asarray(groups.detach().cpu() if is_torch(groups) else groups)
    if labels.shape != y.shape:
        raise DataError(f"groups has shape {labels.shape}; give one label a row, {y.shape}")
    shares = as_shares(weights, y.size)
    rows = np.flatnonzero(shares > 0)
    y, labels, shares = y[rows], labels[rows], shares[rows]
    if not np.isfinite(y).all():
        first = int(rows[np.argmax(~np.isfinite(y))])
        raise DataError(f"values: row {first} is NaN or infinite; drop it or give it a number")
    names, codes = np.unique(labels, return_inverse=True)
    binary = weights is None and bool(np.isin(y, (0.0, 1.0)).all())
    each = 1.0 - (1.0 - level) / len(names)
    sign = 1.0 if higher_is_better else -1.0
    found: list[GroupMean] = []
    for code, name in enumerate(names):
        inside = codes == code
        mean = (
            _binomial(y[inside], each)
            if binary
            else ratio_mean(shares[inside], y[inside], None, each, "")
        )
        found.append(GroupMean(name, int(np.count_nonzero(inside)), mean))
    found.sort(key=lambda item: sign * _number(item.mean.estimate))
    return _judge(found, float(shares @ y), sign, level)


def _judge(found: list[GroupMean], average: float, sign: float, level: float) -> WorstGroup:
    worst = found[0]
    ends = [(item.mean.low, item.mean.high) for item in found]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    lows, highs = [end[0] for end in known], [end[1] for end in known]
    complete = len(known) == len(ends)
    pick = min if sign > 0 else max
    # A group without an interval may be worse without limit; it cannot make the worst better.
    low = pick(lows) if complete or (sign < 0 and known) else None
    high = pick(highs) if complete or (sign > 0 and known) else None
    alone = next((item for item in found if item.mean.low is None), None)
    reason = "" if alone is None else f"group {alone.group}: {alone.mean.reason}"
    value = Estimate(
        worst.mean.estimate, low, high, worst.mean.standard_error, level,
        f"{'smallest' if sign > 0 else 'largest'} of {len(found)} means, simultaneous intervals",
        reason,
    )  # fmt: skip
    reach = worst.mean.high if sign > 0 else worst.mean.low
    rivals = tuple(item.group for item in found[1:] if not _clear(item.mean, reach, sign))
    estimate = _number(worst.mean.estimate)
    text = f"Group {worst.group} is worst: {estimate:.4g} against {average:.4g} over all rows"
    if len(found) == 1:
        text = f"One group only: {estimate:.4g}; give groups to compare."
    elif rivals:
        some = ", ".join(map(str, rivals[:5])) + (" and others" if len(rivals) > 5 else "")
        text += f"; not settled, {some} may be worse: collect rows there before acting on it."
    else:
        text += ", and clearly so: look at its labels first, then train for it (GroupDRO)."
    return WorstGroup(worst.group, value, average, rivals, tuple(found), text)


def _clear(mean: Estimate, reach: float | None, sign: float) -> bool:
    """Whether a group's interval lies on the better side of the worst one's."""
    end = mean.low if sign > 0 else mean.high
    return end is not None and reach is not None and sign * end > sign * reach


def _binomial(y: np.ndarray, level: float) -> Estimate:
    n, hits = y.size, float(y.sum())
    tail = (1.0 - level) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    mean = hits / n
    error = math.sqrt(mean * (1 - mean) / n)
    return Estimate(mean, low, high, error, level, "Clopper-Pearson")


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _group_shares(group_weights: Array, losses: Array) -> Array:
    shares = like(group_weights, losses)
    if is_torch(shares):
        shares = shares.detach()
    total = float(shares.sum())
    if not (bool((shares >= 0).all()) and 0 < total < math.inf):
        raise DataError("group_weights must be 0 or more, finite, and not all 0; start with ones")
    return shares / total


def _sizes(group_sizes: Any, k: int) -> np.ndarray:
    if group_sizes is None:
        raise OptionError("adjustment needs group_sizes, the rows of each group in the data")
    sizes = plain(as_rows(group_sizes, "group_sizes")[0])
    if sizes.size != k or not (sizes > 0).all():
        raise DataError(f"group_sizes must be {k} numbers above 0, one a group")
    return sizes


def _sum_groups(values: Array, codes: Array, k: int) -> Array:
    if is_torch(values):
        return values.new_zeros(k).index_add(0, codes, values)
    return np.bincount(codes, values, k)


def _exp(x: Array) -> Array:
    return x.exp() if is_torch(x) else np.exp(x)
