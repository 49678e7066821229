"""Texts that a good model expects and a poor one does not: the log ratio of two models.

    u(x) = [log p_T(x) - log p_R(x)] / L(x)^a,   T the teacher, R the reference

T is a strong model, R a weak one of the same kind of text. What both find easy (boilerplate,
repetition) has a ratio near zero, and so has what neither can foretell (noise); between them stands
what there is to learn. The likelihood of one model cannot tell these apart: its highest values are
the trivial texts, its lowest the noise.

log p(x) is the sum over the tokens of x. The length L is of the text, not of a model, so that two
models with different tokens can be compared: the reference's tokens, or whatever is given. a = 1
ranks by what a token brings, a = 0 by what the text brings, and prefers long ones. It is log dP/dQ
with p the teacher's law and q the reference's, and as such depends on both models alone: no target
is asked for, and a teacher that likes the wrong things selects them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.select._base import Utility
from dpdq.select.ngrams import as_texts

__all__ = ["LikelihoodRatio", "likelihood_ratio"]


def likelihood_ratio(
    teacher: Any,
    reference: Any,
    *,
    mask: Any = None,
    lengths: Any = None,
    length_power: float = 1.0,
) -> np.ndarray:
    """Log ratio of two models' likelihoods of each text, by length.

        u_i = (sum_t log p_T(x_it | before) - sum_t log p_R(x_it | before)) / L_i^length_power

    A teacher and a reference that learned from different kinds of text rank by that difference
    before anything else; the published pair differs in size alone.

    Parameters
    ----------
    teacher, reference
        Log-probabilities of tokens, shape (n, t), with ``mask`` or NaN where a text has ended; or a
        sequence of n vectors; or log-likelihoods of whole texts, shape (n,). The two need not have
        the same tokens, nor the same form.
    mask
        Which tokens count, shape (n, t), for every side of that shape.
    lengths
        L, shape (n,), such as bytes. Default the reference's tokens, else the teacher's.
    length_power
        1 for the ratio a token, 0 for that of the whole text.

    Returns
    -------
    ndarray of shape (n,)
        Utilities in nats; minus infinity for a text of length zero.

    Raises
    ------
    DataError
        Unequal numbers of texts, or log-probabilities that are positive or plus infinity.
    OptionError
        ``length_power`` is not zero and nothing tells the lengths.

    Notes
    -----
    Cost: O(n t) time and memory.
    Held by: tests/select/test_likelihood.py::test_chosen_half_trains_a_better_student

    References
    ----------
    .. [M114] MiniPLM: Knowledge Distillation for Pre-Training Language Models. Gu, 2024, arXiv
       2410.17215.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.select import likelihood_ratio
    >>> teacher, reference = [[-1.0, -1.0], [-3.0, np.nan]], [[-2.0, -4.0], [-3.5, np.nan]]
    >>> likelihood_ratio(teacher, reference).tolist()
    [2.0, 0.5]
    """
    sums_t, tokens_t = _sums(teacher, mask, "teacher")
    sums_r, tokens_r = _sums(reference, mask, "reference")
    if len(sums_t) != len(sums_r):
        raise DataError(
            f"teacher has {len(sums_t)} texts and reference {len(sums_r)}; expected the same texts"
        )
    if mask is not None and tokens_t is None and tokens_r is None:
        raise OptionError("mask is for token log-probabilities; both sides are of whole texts")
    if lengths is not None:
        size = np.asarray(lengths, dtype=np.float64)
        if size.shape != sums_t.shape:
            raise DataError(f"lengths has shape {size.shape}; expected {sums_t.shape}, one a text")
        if not np.isfinite(size).all() or (size < 0).any():
            raise DataError("lengths holds negative or non-finite values; expected 0 or more")
    elif tokens_r is not None or tokens_t is not None:
        size = tokens_r if tokens_r is not None else tokens_t
        assert size is not None
    elif length_power == 0:
        size = np.ones(len(sums_t))
    else:
        raise OptionError(
            "log-likelihoods of whole texts do not tell their lengths; give lengths, such as "
            "bytes, or length_power=0"
        )
    out = np.full(len(sums_t), -np.inf)
    some = (size > 0) & (sums_t > -np.inf)
    out[some] = (sums_t[some] - sums_r[some]) / size[some] ** length_power
    if (out == np.inf).any():
        row = int((out == np.inf).argmax())
        raise DataError(
            f"reference gives probability zero at row {row}, where teacher does not; smooth it"
        )
    return out


def _sums(values: Any, mask: Any, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Log-likelihood of each text, and its number of tokens where they are known."""
    if isinstance(values, Sequence) and values and np.ndim(values[0]) == 1:
        return _ragged([np.asarray(each, dtype=np.float64) for each in values], mask, name)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 1:
        if np.isnan(array).any():
            raise DataError(f"{name} holds NaN (first at row {int(np.isnan(array).argmax())})")
        _check_signs(array, name)
        return array, None
    if array.ndim != 2:
        raise DataError(f"{name} has shape {array.shape}; expected (n, tokens) or (n,)")
    if mask is not None:
        counted = np.asarray(mask).astype(bool)
        if counted.shape != array.shape:
            raise DataError(f"mask has shape {counted.shape}; {name} has {array.shape}")
        if np.isnan(array[counted]).any():
            raise DataError(f"{name} holds NaN at tokens that mask counts")
    else:
        counted = ~np.isnan(array)
    kept = np.where(counted, array, 0.0)
    _check_signs(kept, name)
    return kept.sum(axis=1), counted.sum(axis=1).astype(np.float64)


def _ragged(rows: list[np.ndarray], mask: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    if len({len(row) for row in rows}) == 1:
        sums, tokens = _sums(np.stack(rows), mask, name)
        assert tokens is not None
        return sums, tokens
    if mask is not None:
        raise OptionError(f"mask is for arrays (n, tokens); {name} is a sequence of vectors")
    widest = max(len(row) for row in rows)
    padded = np.full((len(rows), widest), np.nan)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    sums, tokens = _sums(padded, None, name)
    assert tokens is not None
    return sums, tokens


def _check_signs(values: np.ndarray, name: str) -> None:
    # Densities may exceed one, log-probabilities of tokens may not; a rounding error may.
    if (values > 1e-3).any():
        raise DataError(
            f"{name} has positive values (largest {values.max():.3g}); expected log-probabilities, "
            "not losses"
        )


class LikelihoodRatio(Utility):
    """`likelihood_ratio` of two models that are given as functions of texts.

        u(x) = [log p_T(x) - log p_R(x)] / L(x)^length_power

    Runs both models over the pool, the teacher being the cost. Where log-probabilities are stored
    already, call `likelihood_ratio` on them.

    Parameters
    ----------
    teacher, reference
        Functions of a list of texts that return what `likelihood_ratio` takes. To score in other
        processes they must pickle.
    length_power
        1 for the ratio a token, 0 for that of the whole text.

    Notes
    -----
    Cost: that of the two models; L is the reference's tokens, or bytes where both return
    log-likelihoods of whole texts.
    Held by: tests/select/test_likelihood.py::test_models_as_functions

    References
    ----------
    .. [M114] MiniPLM: Knowledge Distillation for Pre-Training Language Models. Gu, 2024, arXiv
       2410.17215.

    Examples
    --------
    >>> from dpdq.select import LikelihoodRatio
    >>> teacher = lambda texts: [[-0.5 if mark == "a" else -3.0 for mark in x] for x in texts]
    >>> reference = lambda texts: [[-1.5] * len(x) for x in texts]
    >>> LikelihoodRatio(teacher, reference).fit().utility(["aaa", "ab", "bb"]).tolist()
    [1.0, -0.25, -1.5]
    """

    def __init__(
        self,
        teacher: Callable[[list[str]], Any],
        reference: Callable[[list[str]], Any],
        *,
        length_power: float = 1.0,
    ) -> None:
        self.teacher = teacher
        self.reference = reference
        self.length_power = length_power

    def fit(self, q: Any = None, p: Any = None) -> Self:
        """Check that both models can be called; neither side teaches anything.

        Parameters
        ----------
        q, p
            Ignored: the models have learned already.

        Returns
        -------
        Self
            The utility.

        Raises
        ------
        InputTypeError
            A model is no function.
        """
        for name, model in (("teacher", self.teacher), ("reference", self.reference)):
            if not callable(model):
                raise InputTypeError(
                    f"{name} is of type {type(model).__name__}; give a function of texts, or call "
                    "likelihood_ratio on stored log-probabilities"
                )
        return self

    def utility(self, pool: Any) -> np.ndarray:
        """The log ratio of each text, shape (n,).

        Parameters
        ----------
        pool
            A list, array or column of strings.

        Returns
        -------
        ndarray of shape (n,)
            Nats a token, or a byte; minus infinity for an empty text.
        """
        self.fit()
        texts = [text or "" for text in as_texts(pool, "pool").to_pylist()]
        if not texts:
            return np.zeros(0)
        teacher, reference = self.teacher(texts), self.reference(texts)
        whole = all(np.ndim(side[0]) == 0 for side in (teacher, reference))
        lengths = [len(text.encode()) for text in texts] if whole else None
        return likelihood_ratio(teacher, reference, lengths=lengths, length_power=self.length_power)

    def _counts(self, n: int) -> tuple[int, int]:
        return 0, 2 * n
