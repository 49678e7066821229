"""Was this text in the training data? Scores from per-token log-probabilities.

A model gives each token of a text x its log-probability l_i = log p(x_i | x_<i). Training raises
it, so each score here grows with membership:

    loss          mean of l_i
    zlib          sum of l_i over the bytes of x compressed: is x easy, or known?
    reference     mean of l_i less that of a model that did not see x
    Min-K %       mean of the lowest k % of l_i: a text that was seen has few surprises
    Min-K %++     the same of (l_i - mean) / sd over the vocabulary at place i
    DC-PDD        mean over first occurrences of min(-p_i log q(x_i), cap): rare words known well

Arrays of log-probabilities are ``(n, t)``, a text a row, with a boolean ``mask`` of the same shape
that is true for real tokens. A first token without a prefix should be masked out.

What no score fixes: that members and non-members are otherwise alike. Pages before and after a
date differ in their dates, and a score then measures the date. `dpdq.select.membership_tests`
therefore takes the texts as well and first asks whether they differ without any model.

Which member when: Min-K % as a rule; Min-K %++ where the whole vocabulary's log-probabilities are
to be had, for a little more; a reference model where there is a good one; DC-PDD only with a cap
tuned on texts of known membership.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from dpdq.errors import DataError, OptionError

__all__ = [
    "dc_pdd_score",
    "loss_score",
    "min_k_plus_plus_score",
    "min_k_score",
    "reference_score",
    "zlib_score",
]


def loss_score(log_probs: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Mean log-probability of each text: minus the loss, minus the log-perplexity.

        s = 1/t sum_i l_i

    Grows with how easy a text is, whether it was seen or not.

    Parameters
    ----------
    log_probs
        l, shape (n, t).
    mask
        Whether a token is real, shape (n, t); default all.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members.

    Raises
    ------
    DataError
        Shapes differ, a value is NaN or above 0, or a text has no token.

    Notes
    -----
    Cost: O(n t) time, O(n t) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [Yeom2018] Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting. Yeom,
       2018, CSF.

    Examples
    --------
    >>> loss_score([[-1.0, -3.0]]).tolist()
    [-2.0]
    """
    values, real = _checked(log_probs, mask)
    return np.where(real, values, 0.0).sum(axis=1) / real.sum(axis=1)


def zlib_score(
    log_probs: np.ndarray, texts: Sequence[str], mask: np.ndarray | None = None
) -> np.ndarray:
    """Log-probability of each text over the size to which zlib compresses it.

        s = sum_i l_i / |zlib(x)|

    Takes out how repetitive a text is. Changed from the paper, which divides the mean of l_i: a
    sum over tokens and a size in bytes both grow with length, so their ratio does not.

    Parameters
    ----------
    log_probs
        l, shape (n, t).
    texts
        The texts, n of them.
    mask
        Whether a token is real, shape (n, t); default all.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members; nats a byte.

    Raises
    ------
    DataError
        As `loss_score`, or the number of texts differs.

    Notes
    -----
    Cost: O(n t) and one compression a text, O(n t) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [Carlini2021] Extracting Training Data from Large Language Models. Carlini, 2021, USENIX
       Security.

    Examples
    --------
    >>> plain, rich = zlib_score([[-2.0] * 9, [-2.0] * 9], ["a a a a a", "q8 zt rw 5"])
    >>> bool(plain < rich < 0)
    True
    """
    values, real = _checked(log_probs, mask)
    if len(texts) != len(values):
        raise DataError(f"{len(texts)} texts for {len(values)} rows of log-probabilities")
    sizes = np.array([len(zlib.compress(text.encode("utf-8", "replace"))) for text in texts])
    return np.where(real, values, 0.0).sum(axis=1) / sizes


def reference_score(
    log_probs: np.ndarray, reference_log_probs: np.ndarray, mask: np.ndarray | None = None
) -> np.ndarray:
    """Mean log-probability less that under a model that did not see the texts.

        s = 1/t sum_i (l_i - l'_i)

    As good as the reference: trained on the same law, never on these texts, same tokens.

    Parameters
    ----------
    log_probs, reference_log_probs
        l and l', both shape (n, t).
    mask
        Whether a token is real, shape (n, t); default all.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members.

    Raises
    ------
    DataError
        As `loss_score`, or the two shapes differ.

    Notes
    -----
    Cost: O(n t) time, O(n t) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [Carlini2021] Extracting Training Data from Large Language Models. Carlini, 2021, USENIX
       Security.

    Examples
    --------
    >>> reference_score([[-1.0, -3.0]], [[-2.0, -3.0]]).tolist()
    [0.5]
    """
    return loss_score(log_probs, mask) - loss_score(
        _same_shape(reference_log_probs, log_probs, "reference_log_probs"), mask
    )


def min_k_score(
    log_probs: np.ndarray, mask: np.ndarray | None = None, *, fraction: float = 0.2
) -> np.ndarray:
    """Min-K % Prob: the mean of the lowest log-probabilities of each text.

        s = mean of the k lowest l_i,   k = max(1, floor(fraction t))

    At ``fraction=1`` it is `loss_score`. On small character models of real text, members and others
    drawn alike, its AUC is 0.86 where the loss has 0.80 and zlib 0.83; of large models that saw
    each text about once, studies without a shift report AUCs near 0.5 for all of these scores.

    Parameters
    ----------
    log_probs
        l, shape (n, t).
    mask
        Whether a token is real, shape (n, t); default all.
    fraction
        Share of the tokens, above 0 and at most 1; one token at least.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members.

    Raises
    ------
    DataError
        Shapes differ, a value is NaN or above 0, or a text has no token.
    OptionError
        The fraction is outside (0, 1].

    Notes
    -----
    Cost: O(n t log t) time, O(n t) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [M242] Detecting Pretraining Data from Large Language Models. Shi, 2024, arXiv 2310.16789.
    .. [Duan2024] Do Membership Inference Attacks Work on Large Language Models? Duan, 2024,
       arXiv 2402.07841.

    Examples
    --------
    >>> min_k_score([[-1.0, -5.0, -2.0, -0.1, -3.0]], fraction=0.4).tolist()
    [-4.0]
    """
    values, real = _checked(log_probs, mask)
    return _lowest(values, real, fraction)


def min_k_plus_plus_score(
    log_probs: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    fraction: float = 0.2,
) -> np.ndarray:
    """Min-K %++: the mean of the lowest log-probabilities, standardised over the vocabulary.

        z_i = (l_i - mu_i) / sd_i,   s = mean of the k lowest z_i
        mu_i = sum_v p(v | x_<i) log p(v | x_<i),   sd_i^2 the variance of log p(v | x_<i), v ~ p

    Asks whether a token is likely for its place, not likely as such. Where the model is certain
    (sd_i = 0) z_i is 0. A model that is confident in general gains nothing.

    Parameters
    ----------
    log_probs
        l, shape (n, t).
    means, deviations
        mu and sd of the log-probabilities of the vocabulary under the model at each place, shape
        (n, t).
    mask
        Whether a token is real, shape (n, t); default all.
    fraction
        Share of the tokens, above 0 and at most 1; one token at least.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members.

    Raises
    ------
    DataError
        Shapes differ, values are NaN, deviations negative, or a text has no token.
    OptionError
        The fraction is outside (0, 1].

    Notes
    -----
    Cost: O(n t log t) time, O(n t) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [Zhang2025] Min-K%++: Improved Baseline for Detecting Pre-Training Data from Large Language
       Models. Zhang, 2025, ICLR, arXiv 2404.02936.

    Examples
    --------
    >>> min_k_plus_plus_score([[-1.0, -5.0]], [[-2.0, -3.0]], [[1.0, 2.0]], fraction=0.5).tolist()
    [-1.0]
    """
    values, real = _checked(log_probs, mask)
    centre = np.where(real, _same_shape(means, values, "means"), 0.0)
    spread = np.where(real, _same_shape(deviations, values, "deviations"), 0.0)
    if np.isnan(centre).any() or not (spread >= 0).all():
        raise DataError("means hold NaN, or deviations are NaN or negative, at unmasked tokens")
    sure = spread == 0
    z = np.where(sure, 0.0, (values - centre) / np.where(sure, 1.0, spread))
    return _lowest(z, real, fraction)


def dc_pdd_score(
    log_probs: np.ndarray,
    tokens: np.ndarray,
    reference_counts: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    cap: float = 0.01,
) -> np.ndarray:
    """DC-PDD: cross-entropy of the model's token probabilities against token frequencies.

        a_i = min(-p_i log q(x_i), cap),   q(v) = (c_v + 1) / (sum_u c_u + V)
        s = mean of a_i over the first occurrence of each distinct token

    p_i = exp(l_i). A common word has high p and high q and says little. The cap decides much: the
    authors tune it for each data set, and at 0.01 nearly every token of a good model reaches it.

    Parameters
    ----------
    log_probs
        l, shape (n, t).
    tokens
        Number of each token in the vocabulary, shape (n, t).
    reference_counts
        c: how often each token stands in a reference corpus of the same tokeniser, shape (V,).
    mask
        Whether a token is real and has a prefix, shape (n, t); default all but the first column.
    cap
        Above 0; infinity for none.

    Returns
    -------
    ndarray of shape (n,)
        Scores, larger for members.

    Raises
    ------
    DataError
        Shapes differ, values are NaN, a token is outside the vocabulary, or a text has no token.
    OptionError
        The cap is not above 0.

    Notes
    -----
    Cost: O(n t log t) time, O(n t + V) memory.
    Held by: tests/select/test_membership.py::test_scores_equal_plain_loops

    References
    ----------
    .. [M382] Pretraining Data Detection for Large Language Models: A Divergence-based Calibration
       Method. Zhang, 2024, arXiv 2409.14781.

    Examples
    --------
    >>> counts = [90, 7, 0]
    >>> dc_pdd_score([[0.0, -1.0, -1.0]], [[0, 1, 2]], counts, cap=9.0).round(3).tolist()
    [1.312]
    """
    if not cap > 0:
        raise OptionError(f"cap is {cap}; expected above 0")
    if mask is None:
        mask = np.ones(np.shape(log_probs), dtype=bool)
        mask[:, :1] = False
    values, real = _checked(log_probs, mask)
    names = _same_shape(tokens, values, "tokens").astype(np.int64)
    counts = np.asarray(reference_counts, dtype=np.float64)
    if counts.ndim != 1 or not (counts >= 0).all():
        raise DataError("reference_counts must be one count a token of the vocabulary, shape (V,)")
    if real.any() and not ((names[real] >= 0) & (names[real] < len(counts))).all():
        raise DataError(f"tokens must be numbers from 0 to {len(counts) - 1}, rows of the counts")
    log_q = np.log(counts + 1.0) - math.log(counts.sum() + len(counts))
    names = np.where(real, names, 0)
    amount = np.minimum(-np.exp(values) * log_q[names], cap)
    # A stable sort by token brings the first occurrence to the front of its run.
    keyed = np.where(real, names, len(counts))
    order = np.argsort(keyed, axis=1, kind="stable")
    ordered = np.take_along_axis(keyed, order, axis=1)
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first &= ordered < len(counts)
    amount = np.take_along_axis(amount, order, axis=1)
    return np.where(first, amount, 0.0).sum(axis=1) / first.sum(axis=1)


def _checked(log_probs: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(log_probs, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] == 0:
        raise DataError(f"log_probs have shape {values.shape}; expected (n, t), a text a row")
    real = np.ones(values.shape, dtype=bool) if mask is None else np.asarray(mask)
    if real.shape != values.shape or real.dtype != np.bool_:
        raise DataError(
            f"mask has shape {real.shape} and type {real.dtype}; expected booleans of shape "
            f"{values.shape}"
        )
    empty = ~real.any(axis=1)
    if empty.any():
        raise DataError(f"row {int(empty.argmax())} has no unmasked token; drop such texts")
    bad = real & ~(values <= 1e-6)
    if bad.any():
        row, place = np.argwhere(bad)[0]
        raise DataError(
            f"log_probs: {int(bad.sum())} values are NaN or above 0 (first at row {row}, token "
            f"{place}); give natural logarithms of probabilities"
        )
    return np.where(real, values, 0.0), real


def _same_shape(given: Any, like: Any, name: str) -> np.ndarray:
    values = np.asarray(given, dtype=np.float64)
    if values.shape != np.shape(like):
        raise DataError(f"{name} have shape {values.shape}; expected {np.shape(like)}")
    return values


def _lowest(values: np.ndarray, real: np.ndarray, fraction: float) -> np.ndarray:
    if not 0.0 < fraction <= 1.0:
        raise OptionError(f"fraction is {fraction}; expected above 0 and at most 1")
    k = np.maximum(1, np.floor(fraction * real.sum(axis=1) + 1e-9)).astype(np.int64)
    ordered = np.sort(np.where(real, values, np.inf), axis=1)
    chosen = np.arange(values.shape[1]) < k[:, None]
    return np.where(chosen, ordered, 0.0).sum(axis=1) / k
