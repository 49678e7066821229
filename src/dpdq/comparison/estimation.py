"""Log dP/dQ of every row: learnt on a sample, cross-fitted, scored in blocks.

Folds are cut so that no row is scored by a model that saw it, an equal row, or a row of its group.
By content the fold is a function of the row's own hash, so equal rows share it. By group or time
two equal rows (or, by time, two rows of a group) may fall into different folds; then the rows of
the sample that would tell a model about its own test fold are left out of that model's training.

A content that occurs 20 times or more is no copy that a model could recognise but a cell of a
discrete law: held out whole, it would be scored by a model that knows nothing of it. Its rows are
dealt out over the folds in turn, on each side alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq._random import mix64
from dpdq._threads import parallel_map
from dpdq.comparison.sides import Side
from dpdq.data import Column, ExclusionMask, Features, assign_folds
from dpdq.engine import Engine
from dpdq.errors import DataError
from dpdq.passes import BLOCK_ROWS, Pass
from dpdq.ratio import ULSIF, CrossFittedRatio, GradientBoostingRatio, LogisticRatio
from dpdq.ratio._common import FREQUENT
from dpdq.ratio.selection import CONSTANT

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["N_FOLDS", "Estimation", "cut_folds", "estimate_ratio", "score_all"]

N_FOLDS = 5

_FEWEST_TRAINING_ROWS = 10


@dataclasses.dataclass
class Estimation:
    """What was learnt from the sample.

    Attributes
    ----------
    features
        The recipe, fitted on the pooled sample.
    fitted
        The cross-fitted ratio.
    dense_q, dense_p, codes_q, codes_p
        The sample's features in both views.
    fold_rule
        What the folds follow: ``"content"``, ``"group"`` or ``"time"``.
    shift
        What was added to every log ratio so that E_q[r] = 1 over all rows of q.
    """

    features: Features
    fitted: CrossFittedRatio
    dense_q: np.ndarray
    dense_p: np.ndarray
    codes_q: np.ndarray
    codes_p: np.ndarray
    fold_rule: str
    shift: float = 0.0

    @property
    def constant(self) -> bool:
        """Whether no estimator beat r = 1."""
        return self.fitted.estimator_ == CONSTANT

    @property
    def scorer(self) -> Scorer:
        """What scores rows, and nothing else."""
        return Scorer(self.features, self.fitted, self.shift)

    def view(self, table: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return the features that the winner reads."""
        return self.scorer.view(table)

    def score(self, table: pa.Table | pa.RecordBatch, folds: np.ndarray) -> np.ndarray:
        """Return log dP/dQ of rows, each by the model of its fold."""
        return self.scorer.score(table, folds)


@dataclasses.dataclass(frozen=True)
class Scorer:
    """The recipe and the models, small enough to be sent to other processes."""

    features: Features
    fitted: CrossFittedRatio
    shift: float

    def view(self, table: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return the features that the winner reads."""
        if self.fitted.estimator_ == CONSTANT:
            return np.zeros((table.num_rows, 1))
        codes = self.fitted.view_ == "codes"
        return self.features.codes(table) if codes else self.features.dense(table)

    def score(self, table: pa.Table | pa.RecordBatch, folds: np.ndarray) -> np.ndarray:
        """Return log dP/dQ of rows, each by the model of its fold."""
        return self.fitted.score(self.view(table), folds) + self.shift


def cut_folds(q: Side, p: Side, seed: int) -> str:
    """Give every row its fold; return the rule: time if given, else group, else content."""
    rule = "time" if q.time is not None else "group" if q.group is not None else "content"
    q.folds, p.folds = assign_folds(
        q.content,
        p.content,
        group_q=q.group if rule == "group" else None,
        group_p=p.group if rule == "group" else None,
        time_q=q.time,
        time_p=p.time,
        n_folds=N_FOLDS,
        seed=seed,
    )
    often = _frequent_contents(q, p)
    for side, offset in ((q, 0), (p, 1)):
        rows = np.flatnonzero(_is_in(side.content, often))
        if rows.size == 0:
            continue
        if rule == "content":  # n-th row of a content: fold (hash + n) mod K, on both sides alike
            side.folds = side.folds.copy()
            turn = _turn_within(side.content[rows]) + side.content[rows] % np.uint64(N_FOLDS)
            side.folds[rows] = (turn % np.uint64(N_FOLDS)).astype(np.uint8)
        else:  # the exclusion of equal rows must not see them as equal
            side.content = side.content.copy()
            side.content[rows] = mix64(rows.astype(np.uint64) * np.uint64(2) + np.uint64(offset))
    return rule


def _frequent_contents(q: Side, p: Side) -> np.ndarray:
    """Sorted hashes that occur at least `FREQUENT` times on both sides together."""
    contents, counts = np.unique(np.concatenate([q.content, p.content]), return_counts=True)
    return contents[counts >= FREQUENT]


def _is_in(content: np.ndarray, often: np.ndarray) -> np.ndarray:
    if often.size == 0:
        return np.zeros(content.size, dtype=bool)
    place = np.minimum(np.searchsorted(often, content), often.size - 1)
    return often[place] == content


def _turn_within(content: np.ndarray) -> np.ndarray:
    """For each row, how many earlier rows have its content."""
    order = np.argsort(content, kind="stable")
    ordered = content[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    run = np.arange(content.size) - np.repeat(first, np.diff(np.r_[first, content.size]))
    turn = np.empty(content.size, np.uint64)
    turn[order] = run
    return turn


def _training_masks(q: Side, p: Side, rule: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Which sampled rows may train which model, where folds do not follow content."""
    if rule == "content":
        return None
    use_group = rule == "time" and q.group is not None and p.group is not None
    masks = []
    for side in (q, p):
        content = side.content[side.rows]
        group = side.group[side.rows] if use_group and side.group is not None else None
        mask = ExclusionMask(content, group, n_folds=N_FOLDS)
        for other in (q, p):
            for start in range(0, other.n_rows, BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                mask.update(
                    other.content[block],
                    other.folds[block],
                    other.group[block] if use_group and other.group is not None else None,
                )
        folds = side.folds[side.rows]
        masks.append(np.stack([mask.training_mask(k, folds) for k in range(N_FOLDS)], axis=1))
    for side, mask in zip((q, p), masks, strict=True):
        fewest = int(mask.sum(axis=0).min())
        if fewest < _FEWEST_TRAINING_ROWS:
            raise DataError(
                f"equal rows or groups of {side.name} are spread over the folds by {rule} so that "
                f"only {fewest} of its rows could train a model without knowing its test rows; "
                f"leave out --{rule}, or compare columns in which rows differ"
            )
    return masks[0], masks[1]


def estimate_ratio(
    q: Side,
    p: Side,
    sample_q: pa.Table,
    sample_p: pa.Table,
    columns: list[Column],
    *,
    infinite: str,
    rule: str,
    seed: int,
) -> Estimation:
    """Fit the recipe and the candidates on the sample.

    Parameters
    ----------
    q, p
        The sides, with folds.
    sample_q, sample_p
        Their sampled rows.
    columns
        Columns with their kinds.
    infinite
        ``"refuse"`` or ``"missing"``.
    rule
        From `cut_folds`.
    seed
        Of the estimators.

    Returns
    -------
    Estimation
        The recipe and the cross-fitted ratio.
    """
    features = Features(infinite=infinite).fit(sample_q, sample_p, columns)
    dense_q, dense_p = features.dense(sample_q), features.dense(sample_p)
    codes_q, codes_p = features.codes(sample_q), features.codes(sample_p)
    candidates = {
        "gradient boosting": (
            GradientBoostingRatio(
                categorical_features=features.categorical_codes, random_state=seed
            ),
            "codes",
        ),
        "logistic": (LogisticRatio(), "dense"),
        "uLSIF": (ULSIF(random_state=seed), "dense"),
    }
    if dense_q.shape[1] == 0:
        raise DataError("every common column is constant: nothing can differ between q and p")
    fitted = CrossFittedRatio(candidates, N_FOLDS).fit(
        {"dense": dense_q, "codes": codes_q},
        {"dense": dense_p, "codes": codes_p},
        q.folds[q.rows],
        p.folds[p.rows],
        training_masks=_training_masks(q, p, rule),
    )
    return Estimation(features, fitted, dense_q, dense_p, codes_q, codes_p, rule)


class _Score(Pass[list[np.ndarray], np.ndarray]):
    """Log ratios of all rows of a side."""

    def __init__(self, scorer: Scorer, folds: np.ndarray, columns: list[str]) -> None:
        self.scorer = scorer
        self.folds = folds
        self.columns = columns

    def fingerprint(self) -> Any:
        fitted = self.scorer.fitted
        known = [fitted.log_ratio_q_, fitted.log_ratio_p_, self.scorer.shift]
        return [known, self.folds, self.columns]

    def init(self) -> list[np.ndarray]:
        return []

    def map(
        self, state: list[np.ndarray], batch: pa.RecordBatch, first_row: int
    ) -> list[np.ndarray]:
        folds = self.folds[first_row : first_row + batch.num_rows]
        state.append(self.scorer.score(batch, folds.astype(np.int64)))
        return state

    def merge(self, left: list[np.ndarray], right: list[np.ndarray]) -> list[np.ndarray]:
        return left + right

    def finish(self, state: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(state)


def score_all(
    estimation: Estimation,
    q: Side,
    p: Side,
    columns: list[str],
    advance: Callable[[int], None] | None = None,
    engine: Engine | None = None,
) -> None:
    """Score every row of both sides and shift so that the mean of r over q is one."""
    if estimation.constant:
        q.log_ratio, p.log_ratio = np.zeros(q.n_rows), np.zeros(p.n_rows)
        return
    done = {"q": 0, "p": 0}
    where = engine or Engine()

    def score_side(side: Side) -> np.ndarray:
        fitted = estimation.fitted
        if len(side.rows) == side.n_rows:  # the sample is everything: already scored
            scored = fitted.log_ratio_q_ if side.name == "q" else fitted.log_ratio_p_
            return scored.copy()

        def report(rows: int) -> None:
            done[side.name] = rows
            if advance is not None:
                advance(done["q"] + done["p"])

        job = _Score(estimation.scorer, side.folds, columns)
        return where.run(job, side.source, progress=report)

    if where.name == "local":
        q.log_ratio, p.log_ratio = parallel_map(score_side, (q, p))
    else:  # which has workers of its own
        q.log_ratio, p.log_ratio = score_side(q), score_side(p)
    largest = float(q.log_ratio.max())
    more = -(largest + float(np.log(np.mean(np.exp(q.log_ratio - largest)))))
    q.log_ratio += more
    p.log_ratio += more
    estimation.shift += more
