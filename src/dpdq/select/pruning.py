"""Pruning a training set by a score without biasing what is learned.

Of n rows k = r n are kept. Keeping the k largest scores makes the kept rows follow another law than
q: a learner then converges to the minimiser of another loss, and no number of rows repairs that.
At strong pruning (r below some 30 %) random rows, which are few but of the right law, therefore
train better than the hardest ones. `CalibratedPruner` keeps the advantage of a score and repairs
the law: it keeps a k rows by score, draws (1 - a) k uniformly among the others, and lets the drawn
ones stand for all that were not kept,

    sum over the kept of v_i l_i,   v_i = 1 (by score),   v_i = (n - a k) / ((1 - a) k) (drawn)

has the full sum of the losses as its expectation, whatever the scores. What this does not fix is
its variance, which grows with v and with the spread of the losses among the rows not kept, and the
size a, for which 1/2 is a start: a = 0 is random pruning and a = 1 plain pruning by score. On clean
digits and MNIST plain EL2N is best from 30 % kept on and a random subset at 10 %, with a = 1/2 in
between at either end; a fresh random subset each epoch beats the fixed one at 10 % by more than any
score (`bench/pruning.py`, `dpdq.data.pruning_samplers.RepeatedRandomSubset`).

`pruning_bias` says how far the kept rows' mean loss is from that of all rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq._parameters import Parameterised
from dpdq._random import RandomState, as_generator, child_seed, row_keys
from dpdq.errors import DataError, OptionError
from dpdq.results import Estimate
from dpdq.select._base import check_utility
from dpdq.select.chosen import Selection

__all__ = ["CalibratedPruner", "pruning_bias"]


class CalibratedPruner(Parameterised):
    """Keep rows by score, and draw others at random that stand for the rest.

        v_i = 1                            the a k best scores
        v_i = (n - a k) / ((1 - a) k)      (1 - a) k rows drawn uniformly among the others

    Train with the weights, or the bias stays. `Selection.weights` are v scaled to mean one over
    the kept rows (v k / n), so that their weighted mean loss is the unbiased estimate of the mean
    over all rows. With a = 0.5 and 10 % kept a drawn row weighs 19 times as much as one kept by
    score, and a learner that is unsettled by such weights gains from a smaller a.

    Parameters
    ----------
    exploit
        a, the share of the kept rows that is taken by score, from 0 to 1.
    offset
        Share of the rows, at the top of the scores, that is not taken by score; such rows can
        still be drawn (with a = 1 they are dropped). With flipped labels, about their share.

    Raises
    ------
    OptionError
        Options outside their range.

    Notes
    -----
    Cost: O(n log n) time, O(n) memory.
    Held by: tests/select/test_pruning.py::test_weighted_sums_are_unbiased

    The weights were derived here from sampling without replacement; the calibration of the paper's
    own experiments may differ.

    References
    ----------
    .. [M336] Data pruning and neural scaling laws: fundamental limitations of score-based
       algorithms. Ayed, 2023, arXiv 2302.06960.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import CalibratedPruner
    >>> kept = CalibratedPruner(exploit=0.5).select(np.arange(100.0), fraction=0.2, random_state=0)
    >>> len(kept), bool(kept.mask[90:].all())
    (20, True)
    >>> np.unique(kept.weights * 100 / 20).round(6).tolist()  # v: 1, and (100 - 10) / 10
    [1.0, 9.0]
    """

    def __init__(self, exploit: float = 0.5, *, offset: float = 0.0) -> None:
        self.exploit = exploit
        self.offset = offset

    def select(
        self,
        utility: Any,
        *,
        n: int | None = None,
        fraction: float | None = None,
        random_state: RandomState = None,
    ) -> Selection:
        """Choose rows and their weights.

        Parameters
        ----------
        utility
            Score of each row, shape (n_pool,), such as ``EL2N().fit(...).utility()``; minus
            infinity takes a row out of the pool.
        n, fraction
            Rows to keep, or their share: one of the two.
        random_state
            Seed of the draw.

        Returns
        -------
        Selection
            The rows, with mean-one weights.
        """
        for name in ("exploit", "offset"):
            value = getattr(self, name)
            if not 0 <= value <= 1 or (name == "offset" and value == 1):
                raise OptionError(f"{name} is {value}; expected a share from 0 to 1")
        values = check_utility(utility)
        alive = np.flatnonzero(values > -np.inf)
        size = _size(n, fraction, len(alive))
        seed = child_seed(as_generator(random_state))
        order = alive[np.lexsort((row_keys(0, len(values), seed)[alive], -values[alive]))]
        skipped = min(round(self.offset * len(alive)), len(alive) - size)
        taken = min(int(np.floor(self.exploit * size + 0.5)), size)
        if self.exploit < 1 and taken == size < len(alive) and size > 0:
            taken -= 1  # one row at least stands for the rest
        best = order[skipped : skipped + taken]
        others = np.concatenate([order[:skipped], order[skipped + taken :]])
        keys = row_keys(0, len(values), seed + 1)[others]
        drawn = others[np.argsort(keys, kind="stable")[: size - taken]]
        expansion = np.zeros(len(values))
        expansion[best] = 1.0
        if len(drawn):
            expansion[drawn] = len(others) / len(drawn)
        rows = np.sort(np.concatenate([best, drawn])).astype(np.int64)
        reasons = np.full(len(values), 2, dtype=np.int8)
        reasons[best], reasons[drawn] = 0, 1
        reasons[values == -np.inf] = 3
        weights = expansion[rows]
        if len(rows):
            weights = weights / weights.mean()
        text = f"{len(rows):,} of {len(values):,} rows kept: {len(best):,} by score"
        if len(drawn):
            text += (
                f", {len(drawn):,} drawn to stand for the other {len(others):,}; train with the "
                "weights"
            )
        elif size < len(alive):
            text += "; nothing stands for the others, so the loss is biased: see pruning_bias"
        return Selection(
            rows=rows,
            n_pool=len(values),
            mechanism=f"calibrated pruning, exploit {self.exploit:g}",
            utility=values,
            weights=weights,
            cost=float(len(rows)),
            budget=float(size),
            reasons=reasons,
            reason_names=(
                "among the largest scores",
                "drawn to stand for the rest",
                "not drawn",
                "utility is minus infinity",
            ),
            status=text,
        )


def _size(n: int | None, fraction: float | None, rows: int) -> int:
    if (n is None) == (fraction is None):
        raise OptionError("give one of n and fraction")
    if n is not None:
        if int(n) != n or not 0 <= n <= rows:
            raise OptionError(f"n is {n}; expected a whole number of rows from 0 to {rows}")
        return int(n)
    assert fraction is not None
    if not 0 <= fraction <= 1:
        raise OptionError(f"fraction is {fraction}; expected a number from 0 to 1")
    return round(fraction * rows)


def pruning_bias(losses: Any, selection: Selection, *, level: float = 0.95) -> Estimate:
    """How far the kept rows' weighted mean loss is from the mean over all rows.

        sum_kept w_i l_i / sum_kept w_i  -  (1/n) sum_i l_i

    Negative: training on these rows looks easier than the task is; far from zero either way: it is
    another task. Take losses of a model that was not trained on the kept rows (another seed's,
    cross-validated, or that of the scoring runs): a model fits what it saw, which makes the
    difference too small by its overfitting.

    Parameters
    ----------
    losses
        Loss of every row of the pool under one model, shape (n_pool,).
    selection
        What was kept, with its weights.
    level
        Coverage of the interval.

    Returns
    -------
    Estimate
        The difference with a normal interval from the rows' influence on it. The rows are taken
        as independent draws, and the rule that kept them (a cut, a draw) as fixed.

    Raises
    ------
    DataError
        A wrong length, values that are not finite, or nothing kept.

    Notes
    -----
    Cost: O(n) time and memory.
    Held by: tests/select/test_pruning.py::test_the_interval_of_the_bias_covers

    References
    ----------
    .. [M336] Data pruning and neural scaling laws: fundamental limitations of score-based
       algorithms. Ayed, 2023, arXiv 2302.06960.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import pruning_bias, top_k
    >>> losses = np.arange(10.0)
    >>> pruning_bias(losses, top_k(losses, n=2)).estimate
    4.0
    """
    from scipy.special import ndtri

    values = np.asarray(losses, dtype=np.float64)
    if values.shape != (selection.n_pool,) or not np.isfinite(values).all():
        raise DataError(
            f"losses have shape {values.shape}; expected ({selection.n_pool},), one finite number "
            "a row of the pool"
        )
    if not 0 < level < 1:
        raise OptionError(f"level is {level}; expected a number between 0 and 1")
    if not len(selection) or not selection.weights.sum() > 0:
        raise DataError("the selection keeps no row that has weight")
    n = len(values)
    weights = np.zeros(n)
    weights[selection.rows] = selection.weights
    weights /= weights.mean()
    kept = float(np.mean(weights * values))
    whole = float(values.mean())
    influence = weights * (values - kept) - (values - whole)
    error = float(np.sqrt(np.sum(influence**2)) / n)
    reach = float(ndtri(0.5 + level / 2)) * error
    return Estimate(
        estimate=kept - whole,
        low=kept - whole - reach,
        high=kept - whole + reach,
        standard_error=error,
        level=level,
        method="weighted mean loss of the kept rows less the mean of all, influence function",
    )
