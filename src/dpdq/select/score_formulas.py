"""Scores of training rows as functions of whole arrays.

Each is its definition in one expression; the theory, and accumulators that reach the same numbers
from batches, stand in `dpdq.select.training_scores`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpdq._optional import is_torch
from dpdq.errors import DataError, OptionError
from dpdq.gradients.regression import residual_norms

__all__ = ["el2n", "forgetting_events", "self_influence", "variance_of_gradients"]


def to_numpy(values: Any) -> np.ndarray:
    """An array of anything, of a torch tensor on any device too."""
    if is_torch(values):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def finite_numbers(values: Any, name: str) -> np.ndarray:
    """Values as float64, or an error that names the first bad row."""
    array = to_numpy(values).astype(np.float64)
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        raise DataError(
            f"{name}: {int(bad.sum())} of {len(array)} rows hold missing or infinite values (first "
            f"at row {int(bad.argmax())}); look for a diverged run"
        )
    return array


def check_norms(values: Any, name: str = "norms") -> np.ndarray:
    """Norms as float64, not negative."""
    norms = finite_numbers(values, name)
    if (norms < 0).any():
        raise DataError(f"{name} hold negative values; expected norms of gradients")
    return norms


def el2n(scores: Any, labels: Any, *, inputs: str = "logits") -> np.ndarray:
    """Length of the error vector p - e_y of each row, from one model.

        |p_i - e_{y_i}|^2 = (1 - p_{iy})^2 + sum_{k != y} p_ik^2,   from 0 to sqrt(2)

    From a single run it is noisy; average over runs with `EL2N`.

    Parameters
    ----------
    scores
        Shape (n, classes); NumPy or torch.
    labels
        Class numbers from 0, shape (n,).
    inputs
        ``"logits"`` or ``"probabilities"``: what ``scores`` are.

    Returns
    -------
    ndarray of shape (n,)
        Scores; larger is harder.

    Raises
    ------
    DataError
        Shapes that do not fit, labels that are no class numbers.
    OptionError
        Unknown ``inputs``.

    Notes
    -----
    Cost: O(n c) time and memory.
    Held by: tests/select/test_training_scores.py::test_el2n_is_the_norm_of_the_error

    References
    ----------
    .. [M131] Deep Learning on a Data Diet: Finding Important Examples Early in Training.
       Paul, 2021, arXiv 2107.07075.

    Examples
    --------
    >>> from dpdq.select.score_formulas import el2n
    >>> el2n([[0.0, 0.0], [0.0, 50.0]], [0, 0]).round(4)
    array([0.7071, 1.4142])
    """
    if inputs not in ("logits", "probabilities"):
        raise OptionError(f"Unknown inputs {inputs!r}. Choose one of 'logits', 'probabilities'.")
    values = finite_numbers(scores, "scores")
    if values.ndim != 2:
        raise DataError(f"scores have shape {values.shape}; expected (n, classes)")
    if inputs == "probabilities" and (
        (values < 0).any() or not np.allclose(values.sum(axis=1), 1.0, atol=1e-3)
    ):
        raise DataError("probabilities are negative or do not add up to one; are they logits?")
    return residual_norms(values, to_numpy(labels), logits=inputs == "logits")


def forgetting_events(correct: Any) -> np.ndarray:
    """How often each row went from right to wrong; rows that were never right get one count a step.

        F_i = #{t < T : right at t, wrong at t + 1},   T where the row was never right

    T is above any count that can be reached, so rows that were never learned stand at the top.

    Parameters
    ----------
    correct
        Whether each row was right, shape (T, n), in order of time.

    Returns
    -------
    ndarray of shape (n,)
        Counts, as floats.

    Raises
    ------
    DataError
        A wrong shape.

    Notes
    -----
    Cost: O(T n) time and memory.
    Held by: tests/select/test_training_scores.py::test_forgetting_counts_transitions

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.
    .. [Toneva2019] An Empirical Study of Example Forgetting during Deep Neural Network Learning.
       Toneva, 2019, ICLR.

    Examples
    --------
    >>> from dpdq.select.score_formulas import forgetting_events
    >>> forgetting_events([[1, 0, 0], [0, 0, 1], [1, 0, 1]]).tolist()
    [1.0, 3.0, 0.0]
    """
    right = to_numpy(correct).astype(bool)
    if right.ndim != 2 or not len(right):
        raise DataError(f"correct has shape {right.shape}; expected (steps, rows)")
    counts = (right[:-1] & ~right[1:]).sum(axis=0).astype(np.float64)
    counts[~right.any(axis=0)] = len(right)
    return counts


def z_within_class(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """z-scores within each class; 0 where a class has no spread."""
    _, codes = np.unique(labels, return_inverse=True)
    n = np.bincount(codes)
    mean = np.bincount(codes, values) / n
    moved = values - mean[codes]
    spread = np.sqrt(np.bincount(codes, moved**2) / n)
    flat = spread <= 1e-12 * np.maximum(np.abs(mean), np.finfo(float).tiny)
    return np.where(flat[codes], 0.0, moved / np.where(flat, 1.0, spread)[codes])


def variance_of_gradients(gradients: Any, labels: Any) -> np.ndarray:
    """How much the true logit's gradient in the input moves over checkpoints, within the class.

        V_i = mean_j sqrt(mean_t (s_tij - mean_t s_tij)^2),   then (V_i - mean) / sd over the class

    Despite the name a standard deviation, with divisor T. Compares rows within a class only: a
    class that is hard as a whole is not found. Take checkpoints of one stage (early, or late).

    Parameters
    ----------
    gradients
        s, shape (T, n, ...), such as from `dpdq.gradients.true_logit_input_gradients`.
    labels
        Class of each row, shape (n,).

    Returns
    -------
    ndarray of shape (n,)
        z-scores; 0 for a class without spread.

    Raises
    ------
    DataError
        Fewer than two checkpoints, or lengths that differ.

    Notes
    -----
    Cost: O(T n d) time and memory.
    Held by: tests/select/test_training_scores.py::test_variance_of_gradients_by_hand

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.
    .. [Agarwal2022] Estimating Example Difficulty using Variance of Gradients.
       Agarwal, 2022, arXiv 2008.11600.

    Examples
    --------
    >>> from dpdq.select.score_formulas import variance_of_gradients
    >>> variance_of_gradients([[[0.0], [1.0]], [[2.0], [1.0]]], [0, 0]).tolist()
    [1.0, -1.0]
    """
    values = finite_numbers(gradients, "gradients")
    classes = to_numpy(labels)
    if values.ndim < 2 or len(values) < 2 or classes.shape != (values.shape[1],):
        raise DataError(
            f"gradients have shape {values.shape} and labels {classes.shape}; expected "
            "(checkpoints, n, ...) of at least two checkpoints, and (n,)"
        )
    spread = values.std(axis=0).reshape(values.shape[1], -1).mean(axis=1)
    return z_within_class(spread, classes)


def self_influence(norms: Any, learning_rates: Any) -> np.ndarray:
    """How much training on a row lowers the row's own loss, to first order (TracIn).

        S_i = sum_t eta_t |grad l_i(theta_t)|^2

    Parameters
    ----------
    norms
        Gradient norms at each checkpoint, shape (T, n).
    learning_rates
        eta, the rate at each checkpoint (times steps between checkpoints, if these differ),
        shape (T,) or one number.

    Returns
    -------
    ndarray of shape (n,)
        Self-influences; rows that only memorising can fit stand high.

    Raises
    ------
    DataError
        Shapes that do not fit, negative norms or rates.

    Notes
    -----
    Cost: O(T n) time and memory.
    Held by: tests/select/test_training_scores.py::test_self_influence_is_the_fall_of_the_loss

    References
    ----------
    .. [M389] Influence Scores at Scale for Efficient Language Data Sampling.
       Anand, 2023, arXiv 2311.16298.
    .. [Pruthi2020] Estimating Training Data Influence by Tracing Gradient Descent.
       Pruthi, 2020, NeurIPS.

    Examples
    --------
    >>> from dpdq.select.score_formulas import self_influence
    >>> self_influence([[1.0, 2.0], [0.0, 1.0]], [0.1, 0.2]).round(3).tolist()
    [0.1, 0.6]
    """
    values = check_norms(norms)
    rates = np.asarray(learning_rates, dtype=np.float64)
    if values.ndim != 2 or rates.shape not in ((), (len(values),)) or (rates < 0).any():
        raise DataError(
            f"norms have shape {values.shape} and learning_rates {rates.shape}; expected "
            "(checkpoints, n) and one rate of at least 0 a checkpoint"
        )
    return np.broadcast_to(rates, len(values)) @ values**2
