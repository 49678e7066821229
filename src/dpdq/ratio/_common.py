"""What the ratio estimators share: checks of arrays and weights, content hashes, one loss.

The loss is the balanced logistic loss

    loss(log r) = ½ E_q[log(1 + r)] + ½ E_p[log(1 + 1/r)],

proper (the true r alone minimises it), bounded for bounded log r, symmetric in q and p, and equal
to log 2 for the constant ratio r = 1, whatever the sizes of the two samples.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from scipy.special import expit

from dpdq._optional import is_torch
from dpdq._random import mix64
from dpdq.errors import DataError, InputTypeError

__all__ = [
    "DENSE_BYTES",
    "FREQUENT",
    "Array",
    "as_rows",
    "as_weights",
    "content_folds",
    "content_hash",
    "fit_affine",
    "folds_of_hashes",
    "is_sparse",
    "logistic_losses",
    "loss_with_error",
    "softplus",
    "stack_rows",
    "unit_numbers",
    "validation_split",
]

Array = np.ndarray[Any, Any]

DENSE_BYTES = 2**28
"""A sparse matrix that would be larger than this as a dense one is not made dense."""

FREQUENT = 20
"""From how many occurrences on equal rows are a cell of a discrete law."""

_GOLDEN = 0x9E3779B97F4A7C15
_MISSING_BITS = np.uint64(0x7FF8000000000000)


def is_sparse(x: object) -> bool:
    """Whether ``x`` is a SciPy sparse matrix, told without importing scipy.sparse."""
    sparse = sys.modules.get("scipy.sparse")
    return sparse is not None and bool(sparse.issparse(x))


def as_rows(
    x: object,
    side: str,
    *,
    width: int | None = None,
    missing: bool = False,
    sparse: bool = False,
) -> Array:
    """Check that ``x`` is a matrix of finite numbers (NaN allowed on demand); float64 out.

    A sparse matrix comes out as a canonical CSR array where ``sparse`` says that it may, and else
    as a dense one up to `DENSE_BYTES`.
    """
    if is_sparse(x):
        return _as_sparse_rows(x, side, width, missing, sparse)
    if is_torch(x):
        x = _from_torch(x, side)
    try:
        array = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputTypeError(
            f"{side} has type {type(x).__name__} and does not become numbers; give a 2-D array of "
            "floats, or a table (pandas, Polars, Arrow) for columns of mixed kinds"
        ) from None
    if array.ndim != 2:
        raise DataError(
            f"{side} has shape {array.shape}; expected 2 dimensions, (n_samples, n_features)"
        )
    _check_width(array.shape[1], side, width)
    # A finite sum proves finite terms at a fraction of the cost of looking at each of them.
    if not np.isfinite(array.sum()):
        bad = np.isinf(array) if missing else ~np.isfinite(array)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            _refuse_values(side, int(bad.sum()), row, column, missing)
    return array


def _check_width(found: int, side: str, width: int | None) -> None:
    if found == 0:
        raise DataError(f"{side} has no column; expected at least 1")
    if width is not None and found != width:
        raise DataError(f"{side} has {found} columns; expected {width}, as in the fit")


def _refuse_values(side: str, count: int, row: int, column: int, missing: bool) -> None:
    wanted = "finite numbers or NaN" if missing else "finite numbers"
    raise DataError(
        f"{side} holds {count} values that are not {wanted} "
        f"(first at row {row}, column {column}); drop or impute them"
    )


def _from_torch(tensor: Any, side: str) -> Array:
    if tensor.is_complex() or tensor.is_sparse or tensor.is_quantized:
        raise InputTypeError(
            f"{side} is a tensor of {tensor.dtype} and layout {tensor.layout}; "
            "give a strided tensor of real numbers"
        )
    return tensor.detach().cpu().double().numpy()


def _as_sparse_rows(x: Any, side: str, width: int | None, missing: bool, sparse: bool) -> Any:
    from scipy.sparse import csr_array

    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise InputTypeError(
            f"{side} is sparse with {x.ndim} dimensions and dtype {x.dtype}; expected 2 dimensions "
            "of real numbers"
        )
    _check_width(x.shape[1], side, width)
    size = 8 * x.shape[0] * x.shape[1]
    if not sparse and size > DENSE_BYTES:
        raise DataError(
            f"{side} is sparse and would take {size / 2**30:.1f} GiB as a dense matrix, over the "
            f"limit of {DENSE_BYTES / 2**30:g} GiB; LogisticRatio and ClassifierRatio take it as "
            "it is, or reduce it first, for example by sklearn.decomposition.TruncatedSVD"
        )
    rows = csr_array(x, dtype=np.float64)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    bad = np.isinf(rows.data) if missing else ~np.isfinite(rows.data)
    if bad.any():
        first = int(np.argmax(bad))
        row = int(np.searchsorted(rows.indptr, first, side="right")) - 1
        _refuse_values(side, int(bad.sum()), row, int(rows.indices[first]), missing)
    return rows if sparse else rows.toarray()


def as_weights(weights: object, n: int, side: str) -> Array:
    """Weights scaled to mean one over the rows they keep; uniform for None."""
    if weights is None:
        return np.ones(n)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise DataError(f"weights_{side} has shape {array.shape}; expected ({n},), one a row")
    if not np.isfinite(array).all() or (array < 0).any():
        raise DataError(f"weights_{side} holds negative or non-finite values; expected 0 or more")
    kept = array > 0
    if not kept.any():
        raise DataError(f"weights_{side} are all zero; expected at least one positive weight")
    return array / array[kept].mean()


def content_hash(x: Array, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A uint64 a row that depends on its values alone; -0.0 equals 0.0 and NaN equals NaN.

    A sparse row has the hash of the same row as a dense one.
    """
    offset = seed * 0xD1B54A32D192ED03
    if is_sparse(x):
        return _sparse_content_hash(x, offset)
    total = np.zeros(len(x), dtype=np.uint64)
    for j in range(x.shape[1]):
        bits = _value_bits(np.ascontiguousarray(x[:, j], dtype=np.float64))
        total += mix64(bits ^ np.uint64(((j + 1) * _GOLDEN + offset) % 2**64))
    return mix64(total)


def _value_bits(values: Array) -> Array:
    values = values + 0.0  # -0.0 becomes 0.0
    return np.where(np.isnan(values), _MISSING_BITS, values.view(np.uint64))


def _sparse_content_hash(x: Any, offset: int) -> Array:
    """Every cell's share where it is stored, and what a zero would have had where it is not."""
    numbers = np.arange(1, x.shape[1] + 1, dtype=np.uint64)
    keys = numbers * np.uint64(_GOLDEN) + np.uint64(offset % 2**64)
    zeros = mix64(keys)  # the bits of 0.0 are all zero
    place = np.asarray(x.indices)
    shares = mix64(_value_bits(x.data) ^ keys[place]) - zeros[place]
    # Sums modulo 2^64, so that differences of a running sum are exact.
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(shares, dtype=np.uint64)])
    return mix64(running[x.indptr[1:]] - running[x.indptr[:-1]] + zeros.sum(dtype=np.uint64))


def stack_rows(q: Any, p: Any) -> Any:
    """Rows of q above rows of p, dense or sparse."""
    if is_sparse(q) or is_sparse(p):
        from scipy.sparse import vstack

        return vstack([q, p], format="csr")
    return np.vstack([q, p])


def content_folds(q: Array, p: Array, n_folds: int, seed: int = 0) -> tuple[Array, Array]:
    """Fold numbers by content, balanced in size; equal rows share a fold on both sides.

    A content that occurs 20 times or more is a cell of a discrete law, not a copy that a model
    could recognise: its rows are dealt out over the folds in turn, on each side alike.
    """
    return folds_of_hashes(content_hash(q, seed), content_hash(p, seed), n_folds)


def folds_of_hashes(hash_q: Array, hash_p: Array, n_folds: int) -> tuple[Array, Array]:
    """`content_folds` from hashes of the rows."""
    _, inverse, counts = np.unique(
        np.concatenate([hash_q, hash_p]), return_inverse=True, return_counts=True
    )
    # The distinct rows in hash order are cut where the cumulated rows pass k/K of all.
    middle = np.cumsum(counts) - counts / 2
    by_content = np.minimum((middle * n_folds / len(inverse)).astype(np.int64), n_folds - 1)
    often = counts >= FREQUENT
    sides = []
    for content in (inverse[: len(hash_q)], inverse[len(hash_q) :]):
        folds = by_content[content]
        rows = often[content]
        folds[rows] = (folds[rows] + _turns(content[rows])) % n_folds
        sides.append(folds)
    return sides[0], sides[1]


def _turns(content: Array) -> Array:
    """For each row, how many earlier rows have its content."""
    order = np.argsort(content, kind="stable")
    ordered = content[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])[: len(content)]
    turns = np.empty(len(content), dtype=np.int64)
    turns[order] = np.arange(len(content)) - np.repeat(first, np.diff(np.r_[first, len(content)]))
    return turns


def validation_split(
    q: Array, p: Array, fraction: float, seed: int, *, at_least: int = 5
) -> tuple[Array, Array] | None:
    """Masks of held-out rows by content, or None where a side has too few rows to spare.

    The rule looks at a row's values alone, so that it is symmetric in q and p and equal rows fall
    on the same side of the split; rows of a content that occurs 20 times or more are split among
    themselves, the n-th of q as the n-th of p.
    """
    limit = np.uint64(min(fraction, 1.0) * float(2**64 - 2**12))
    hashes = [content_hash(q, seed), content_hash(p, seed)]
    _, inverse, counts = np.unique(np.concatenate(hashes), return_inverse=True, return_counts=True)
    often = (counts >= FREQUENT)[inverse]
    cut = q.shape[0]
    for keys, content, rows in zip(
        hashes, (inverse[:cut], inverse[cut:]), (often[:cut], often[cut:]), strict=True
    ):
        if rows.any():
            keys[rows] = mix64(keys[rows] + _turns(content[rows]).astype(np.uint64))
    held_q, held_p = hashes[0] < limit, hashes[1] < limit
    for held in (held_q, held_p):
        if held.sum() < at_least or (~held).sum() < at_least:
            return None
    return held_q, held_p


def softplus(x: Array) -> Array:
    """log(1 + e^x) without overflow."""
    out = np.abs(x)
    np.negative(out, out=out)
    np.exp(out, out=out)
    np.log1p(out, out=out)
    out += np.maximum(x, 0.0)
    return out


def logistic_losses(log_ratio_q: Array, log_ratio_p: Array) -> tuple[Array, Array]:
    """Each row's share of the balanced logistic loss: log(1 + r) on q, log(1 + 1/r) on p."""
    return softplus(log_ratio_q), softplus(-log_ratio_p)


def loss_with_error(
    log_ratio_q: Array,
    log_ratio_p: Array,
    weights_q: Array,
    weights_p: Array,
    units_q: object = None,
    units_p: object = None,
) -> tuple[float, float]:
    """Balanced logistic loss and its standard error, by groups where these are given."""
    loss_q, loss_p = logistic_losses(log_ratio_q, log_ratio_p)
    share_q, share_p = weights_q / weights_q.sum() / 2, weights_p / weights_p.sum() / 2
    mean_q, mean_p = 2 * share_q @ loss_q, 2 * share_p @ loss_p
    influence_q, influence_p = share_q * (loss_q - mean_q), share_p * (loss_p - mean_p)
    influence = np.concatenate([influence_q, influence_p])
    if units_q is not None or units_p is not None:
        groups = unit_numbers(units_q, units_p, len(loss_q), len(loss_p))
        influence = np.bincount(groups, weights=influence)
    return float(mean_q / 2 + mean_p / 2), float(np.sqrt(influence @ influence))


def fit_affine(
    score_q: Array,
    score_p: Array,
    weights_q: Array,
    weights_p: Array,
) -> tuple[float, float]:
    """Intercept a and slope b of log r = a + b score by balanced logistic loss.

    A normal prior around (0, 1), worth one row, keeps both finite where the held-out rows are
    separable and leaves (0, 1) untouched where they say nothing; a negative slope becomes zero.
    """
    z = np.concatenate([score_q, score_p])
    sign = np.concatenate([np.ones(len(score_q)), -np.ones(len(score_p))])
    n = 2.0 / (1.0 / len(score_q) + 1.0 / len(score_p))
    share = np.concatenate([weights_q / weights_q.sum(), weights_p / weights_p.sum()]) / 2
    prior, strength = np.array([0.0, 1.0]), 1.0 / n
    design = np.column_stack([np.ones(len(z)), z])
    theta = prior.copy()

    def objective(theta: Array) -> float:
        gap = theta - prior
        return float(share @ softplus(sign * (design @ theta)) + strength * gap @ gap / 2)

    value = objective(theta)
    for _ in range(50):
        s = expit(sign * (design @ theta))
        gradient = design.T @ (share * sign * s) + strength * (theta - prior)
        curvature = share * s * (1 - s)
        hessian = (design.T * curvature) @ design + strength * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        scale = 1.0
        while objective(theta - scale * step) > value + 1e-15 and scale > 1e-4:
            scale /= 2
        theta = theta - scale * step
        new = objective(theta)
        if abs(value - new) < 1e-12:
            break
        value = new
    intercept, slope = float(theta[0]), float(theta[1])
    if slope < 0:
        intercept, slope = 0.0, 0.0
    return intercept, slope


def unit_numbers(units_q: object, units_p: object, n_q: int, n_p: int) -> Array:
    """Numbers 0, 1, ... of the units that rows belong to, q first; a label counts on both sides.

    Rows of a side without labels are units of their own.
    """
    sides: list[Array | None] = []
    for side, units, n in (("q", units_q, n_q), ("p", units_p, n_p)):
        labels = None if units is None else np.asarray(units)
        if labels is not None and labels.shape != (n,):
            raise DataError(f"units_{side} has shape {labels.shape}; expected ({n},), one a row")
        sides.append(labels)
    left, right = sides
    if left is not None and right is not None:
        return np.unique(np.concatenate([left, right]), return_inverse=True)[1]
    if left is not None:
        numbers = np.unique(left, return_inverse=True)[1]
        return np.concatenate([numbers, numbers.max() + 1 + np.arange(n_p)])
    if right is not None:
        numbers = np.unique(right, return_inverse=True)[1]
        return np.concatenate([numbers.max() + 1 + np.arange(n_q), numbers])
    return np.arange(n_q + n_p)
