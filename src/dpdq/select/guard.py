"""Could members and non-members be told apart without the model?

A score tells members from non-members. That is evidence of membership only if nothing but
membership differs: where members are pages from before a date and non-members pages from after
it, the dates alone tell them apart, and so does any model score that depends on dates. Hence a
*blind* baseline that never saw the model: a classifier on the texts, or on lengths, dates and
other features. Let A_model and A_blind be the two AUCs on the same texts.

    blind test accepts                              the evidence is sound
    it rejects, and A_model is surely above A_blind    the evidence is discounted: the excess
    it rejects, and it is not                       the evidence is refused

What this does not fix: a blind test that accepts shows no more than that it found nothing, so the
result says which AUC it would have found; and a difference that this classifier cannot see, the
model may see.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from dpdq._random import RandomState, as_generator
from dpdq.distance._common import normal_quantile
from dpdq.distance.detectable import detectable_auc
from dpdq.distance.permutation import permutation_design, permutation_pvalue
from dpdq.distance.roc import SHARED_TRAINING, auc_interval, placements
from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.kernels import GaussianKernel, kernel_matrix, median_heuristic
from dpdq.results import Estimate, Result
from dpdq.select._grams import gram_blocks
from dpdq.select.ngrams import as_texts

__all__ = ["BlindGuard", "blind_guard"]

_ROWS = 1_500  # of each side that the blind classifier looks at
_BITS = 18


@dataclasses.dataclass(frozen=True, repr=False)
class BlindGuard(Result):
    """What can be told about membership without the model.

    Attributes
    ----------
    evidence
        ``"sound"``, ``"discounted"`` or ``"refused"``; without scores ``"sound"`` or ``"refused"``.
    pvalue
        Of "members and non-members are one law", by permutation.
    blind_auc
        AUC of the cross-fitted blind classifier, with its interval.
    model_auc
        AUC of the model's scores on the same texts.
    excess
        ``model_auc`` less ``blind_auc``, paired, with its interval.
    detectable
        Smallest AUC that the blind test finds with 80 % power at these sizes.
    n_members, n_nonmembers
        Texts looked at on each side.
    status
        The outcome in a sentence.
    """

    evidence: str
    pvalue: float
    blind_auc: Estimate
    model_auc: Estimate | None
    excess: Estimate | None
    detectable: float
    n_members: int
    n_nonmembers: int
    status: str = ""


def blind_guard(
    members: Any,
    nonmembers: Any,
    *,
    scores_members: np.ndarray | None = None,
    scores_nonmembers: np.ndarray | None = None,
    n_folds: int = 5,
    n_permutations: int = 199,
    units_members: np.ndarray | None = None,
    units_nonmembers: np.ndarray | None = None,
    level: float = 0.05,
    random_state: RandomState = None,
) -> BlindGuard:
    """Ask a classifier that never saw the model to tell members from non-members.

        excess = AUC(model's score) - AUC(blind classifier),  on the same texts, fold by fold

    The classifier is kernel least squares, cross-fitted: on hashed 1- and 2-grams and on length
    for texts, on columns as they are for features. Its AUC is tested by permuting the labels and
    fitting again, which is exact: P(p <= level) <= level where the sides are one law.

    Chunks of one document share words: give documents as units, or the test rejects where chunks
    were split by document. A blind classifier on few texts is weak: read ``detectable``.

    Parameters
    ----------
    members, nonmembers
        Texts (lists or columns of strings), or features such as dates and lengths, shapes (n, d)
        and (m, d).
    scores_members, scores_nonmembers
        The model's scores, larger for members; shapes (n,) and (m,).
    n_folds
        Folds of the cross-fit.
    n_permutations
        B.
    units_members, units_nonmembers
        Integer unit of each text; units stay in one fold and are permuted as wholes.
    level
        Of the blind test; intervals cover 95 %.
    random_state
        Seed of folds, permutations, and of the draw where a side has more than 1,500 texts.

    Returns
    -------
    BlindGuard
        The verdict on the evidence with both AUCs and their paired difference.

    Raises
    ------
    DataError
        A side has fewer than ten texts, shapes differ, or values are not finite.
    OptionError
        Scores or units of one side only, a level outside (0, 1), fewer than 2 folds.
    InputTypeError
        One side are texts and the other features.

    Notes
    -----
    Cost: O(n^3) time and O(n^2) memory in the texts looked at, at most 3,000; B more AUCs.
    Held by: tests/select/test_blind_guard.py::test_level_without_a_shift

    References
    ----------
    .. [Das2024] Blind Baselines Beat Membership Inference Attacks for Foundation Models. Das,
       2024, arXiv 2406.16201.
    .. [DeLong1988] Comparing the Areas under Two or More Correlated Receiver Operating
       Characteristic Curves: A Nonparametric Approach. DeLong, 1988, Biometrics 44.

    Examples
    --------
    >>> old = [f"report {i} of the year 2019, page {i % 7}" for i in range(60)]
    >>> new = [f"report {i} of the year 2024, page {i % 5}" for i in range(60)]
    >>> blind_guard(old, new, random_state=0).evidence
    'refused'
    """
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; expected between 0 and 1")
    if n_folds < 2:
        raise OptionError(f"n_folds is {n_folds}; expected at least 2")
    for one, two, name in (
        (scores_members, scores_nonmembers, "scores"),
        (units_members, units_nonmembers, "units"),
    ):
        if (one is None) != (two is None):
            raise OptionError(
                f"{name}_members and {name}_nonmembers go together; give both or neither"
            )
    rng = as_generator(random_state)
    sides = [_checked(nonmembers, "nonmembers"), _checked(members, "members")]
    sizes = [len(side) for side in sides]
    chosen = [np.sort(rng.permutation(n)[:_ROWS]) for n in sizes]
    gram = _gram_of(sides, chosen)
    units = _picked((units_nonmembers, units_members), sizes, chosen, "units")
    scores = _picked((scores_nonmembers, scores_members), sizes, chosen, "scores")
    n_q, n_p = len(chosen[0]), len(chosen[1])
    design = permutation_design(
        n_q,
        n_p,
        n_permutations=n_permutations,
        units_q=None if units is None else units[0],
        units_p=None if units is None else units[1],
        max_blocks=n_q + n_p,
        rng=rng,
    )
    labels = np.empty((n_permutations + 1, n_q + n_p))
    labels[:, design.order] = 1.0 - np.repeat(design.labels, design.sizes, axis=1)
    folds = _folds(units, n_q, n_p, n_folds, rng)
    blind = _crossfit(gram, labels, folds)
    values = np.array(
        [_fold_auc(own, one > 0.5, folds) for own, one in zip(blind, labels, strict=True)]
    )
    pvalue = permutation_pvalue(values)
    units_q, units_p = (None, None) if units is None else units
    blind_auc = auc_interval(
        blind[0, :n_q],
        blind[0, n_q:],
        folds_q=folds[:n_q],
        folds_p=folds[n_q:],
        units_q=units_q,
        units_p=units_p,
    )
    model_auc = excess = None
    if scores is not None:
        model_auc = auc_interval(scores[0], scores[1], units_q=units_q, units_p=units_p)
        excess = _excess(np.concatenate(scores), blind[0], folds, n_q, units)
    found = pvalue <= level
    if not found:
        evidence = "sound"
    elif excess is not None and excess.low is not None and excess.low > 0:
        evidence = "discounted"
    else:
        evidence = "refused"
    detectable = detectable_auc(n_q, n_p, alpha=level, se_inflation=math.sqrt(SHARED_TRAINING))
    result = BlindGuard(
        evidence, pvalue, blind_auc, model_auc, excess, detectable, n_members=n_p, n_nonmembers=n_q
    )
    return dataclasses.replace(result, status=_status(result))


def _status(result: BlindGuard) -> str:
    seen = f"without the model AUC {result.blind_auc.estimate:.3f}, p = {result.pvalue:.3g}"
    if result.evidence == "sound":
        return (
            f"members and non-members look alike ({seen}); a blind AUC of "
            f"{result.detectable:.2f} would have been found"
        )
    if result.evidence == "discounted":
        excess = result.excess
        assert excess is not None
        return (
            f"members and non-members differ {seen}; of the model's AUC only the excess "
            f"{excess.estimate:.3f} (at least {excess.low:.3f}) can speak of membership"
        )
    return (
        f"members and non-members differ {seen}, and the model adds nothing that is sure; draw "
        "both from one source and time, or match them, and test again"
    )


def _checked(side: Any, name: str) -> Any:
    """Texts as an Arrow array, features as a matrix."""
    if isinstance(side, np.ndarray) and side.dtype.kind in "fiub":
        points = side.astype(np.float64)
        points = points[:, None] if points.ndim == 1 else points
        if points.ndim != 2 or not np.isfinite(points).all():
            raise DataError(f"{name} must be finite features of shape (n, d)")
        found: Any = points
    else:
        found = as_texts(side, name)
    if len(found) < 10:
        raise DataError(f"{name} are {len(found)}; the blind test needs ten of each side")
    return found


def _picked(
    both: tuple[Any, Any], sizes: list[int], chosen: list[np.ndarray], name: str
) -> list[np.ndarray] | None:
    if both[0] is None or both[1] is None:
        return None
    out = []
    for values, n, rows, side in zip(both, sizes, chosen, ("nonmembers", "members"), strict=True):
        array = np.asarray(values)
        if array.shape != (n,):
            raise DataError(f"{name}_{side} has shape {array.shape}; expected ({n},)")
        out.append(array[rows])
    return out


def _gram_of(sides: list[Any], chosen: list[np.ndarray]) -> np.ndarray:
    """Kernel matrix of the pooled rows, non-members first; it sees no label."""
    if all(isinstance(side, np.ndarray) for side in sides):
        if sides[0].shape[1] != sides[1].shape[1]:
            raise DataError(
                f"members have {sides[1].shape[1]} features and nonmembers {sides[0].shape[1]}"
            )
        points = np.vstack([side[rows] for side, rows in zip(sides, chosen, strict=True)])
        return _smooth(points)
    if any(isinstance(side, np.ndarray) for side in sides):
        raise InputTypeError("one side are texts and the other features; give the same of both")
    import pyarrow as pa

    texts: Any = pa.concat_arrays(
        [side.take(pa.array(rows)) for side, rows in zip(sides, chosen, strict=True)]
    )
    words, lengths = _word_features(texts)
    linear = np.asarray((words @ words.T).todense())
    return linear + 0.5 * _smooth(lengths)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Gaussian kernel of columns brought to one scale, by median distance."""
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    width = median_heuristic(scaled) if spread.any() else 1.0
    return kernel_matrix(scaled, scaled, GaussianKernel(width if width > 0 else 1.0))


def _word_features(texts: Any) -> tuple[Any, np.ndarray]:
    """Rows of log counts of hashed n-grams, times rarity, of norm one; and log lengths."""
    from scipy.sparse import csr_array

    rows, columns, lengths = [], [], []
    first = 0
    for grams in gram_blocks(texts, 2, _BITS):
        counts = np.diff(grams.starts)
        owner = first + np.repeat(np.arange(len(counts)), counts)
        for each in grams.buckets:
            inside = each >= 0
            rows.append(owner[inside])
            columns.append(each[inside])
        lengths.append(np.column_stack([grams.sizes, counts]))
        first += len(counts)
    at, bucket = np.concatenate(rows), np.concatenate(columns)
    shape = (first, 2**_BITS)
    matrix: Any = csr_array((np.ones(len(at)), (at, bucket)), shape=shape)
    matrix.sum_duplicates()
    seen = np.bincount(matrix.indices, minlength=shape[1])
    matrix.data = np.log1p(matrix.data) * np.log((1 + first) / (1 + seen[matrix.indices]))
    norm = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(np.where(norm > 0, norm, 1.0), np.diff(matrix.indptr))
    return matrix, np.log1p(np.concatenate(lengths))


def _folds(
    units: list[np.ndarray] | None, n_q: int, n_p: int, n_folds: int, rng: np.random.Generator
) -> np.ndarray:
    """A fold for each row, or for each unit: nothing here knows the labels of rows."""
    if units is None:
        return rng.permutation(np.arange(n_q + n_p) % n_folds)
    names, unit_of = np.unique(np.concatenate(units), return_inverse=True)
    return rng.permutation(np.arange(len(names)) % n_folds)[unit_of]


def _crossfit(gram: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Cross-fitted scores of kernel least squares, for all label vectors at once."""
    from scipy.linalg import cho_factor, cho_solve

    scores = np.empty(labels.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        train, test = np.flatnonzero(~inside), np.flatnonzero(inside)
        own = gram[np.ix_(train, train)]
        penalty = 0.1 * float(np.trace(own)) / len(train)
        factor = cho_factor(own + max(penalty, 1e-9) * np.eye(len(train)), lower=True)
        targets = labels[:, train] - labels[:, train].mean(axis=1, keepdims=True)
        scores[:, test] = (gram[np.ix_(test, train)] @ cho_solve(factor, targets.T)).T
    return scores


def _fold_auc(scores: np.ndarray, is_p: np.ndarray, folds: np.ndarray) -> float:
    total = pairs = 0.0
    for fold in np.unique(folds):
        own, label = scores[folds == fold], is_p[folds == fold]
        n_pairs = float(label.sum()) * float((~label).sum())
        if n_pairs:
            total += n_pairs * float(placements(own[label], own[~label]).mean())
            pairs += n_pairs
    return total / pairs if pairs else 0.5


def _excess(
    model: np.ndarray,
    blind: np.ndarray,
    folds: np.ndarray,
    n_q: int,
    units: list[np.ndarray] | None,
) -> Estimate:
    """Paired difference of two AUCs, by the difference of their structural components.

    Doubled variance, as for any cross-fitted AUC: the folds share training rows.
    """
    is_p = np.arange(len(model)) >= n_q
    parts = []
    for fold in np.unique(folds):
        q = np.flatnonzero((folds == fold) & ~is_p)
        p = np.flatnonzero((folds == fold) & is_p)
        if len(q) and len(p):
            parts.append((q, p))
    pairs = sum(len(q) * len(p) for q, p in parts)
    component = np.zeros(len(model))
    difference = 0.0
    for q, p in parts:
        weight = len(q) * len(p) / pairs
        of_p = placements(model[p], model[q]) - placements(blind[p], blind[q])
        of_q = placements(blind[q], blind[p]) - placements(model[q], model[p])
        own = float(of_p.mean())
        difference += weight * own
        component[p] = weight * (of_p - own) / len(p)
        component[q] = weight * (of_q - own) / len(q)
    if units is not None:
        _, unit_of = np.unique(np.concatenate(units), return_inverse=True)
        component = np.bincount(unit_of, weights=component)
    smallest = min(n_q, len(model) - n_q)
    variance = max(SHARED_TRAINING * float(component @ component), 0.5 / smallest**2)
    reach = normal_quantile(0.95) * math.sqrt(variance)
    return Estimate(
        difference,
        max(-1.0, difference - reach),
        min(1.0, difference + reach),
        math.sqrt(variance),
        method="difference of paired AUCs, DeLong variance with shared training rows",
    )
