"""Weight or not? What a shift costs a model that is right, and whether yours is.

A model p(y | x; b) that is right at some b learns it from q as well as from p. Fitted on n rows of
q without weights, its expected excess log loss on p is

    tr(I_p I_q^-1) / (2 n),   I = E[z z' v(z'b)],   v = 1 (linear), pi (1 - pi) (logistic)

with z = (1, features) and the Fisher information I under the covariates of either side: d / (2 n)
without a shift. Weights cannot beat that; they only pay with variance,

    tr(I_p H^-1 G H^-1) / (2 n),   H = E_q[w z z' v],  G = E_q[w² z z' v]

A model that is wrong everywhere converges to the best fit on q without weights and to the best fit
on p with them, so that weights win once n is large enough. Which of the two holds is a question
to the data: do the coefficients move when rows are weighted (a Hausman test), and does the weighted
fit do better on held-out rows, themselves weighted to stand for p?

What none of it sees: P(Y|X) different in q and p. Only labels of p can tell.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.special import expit

from dpdq._random import RandomState, as_generator
from dpdq._threads import one_thread_each
from dpdq.errors import InputTypeError, OptionError
from dpdq.results import Estimate, Result
from dpdq.reweight._base import Weighter
from dpdq.reweight._common import Array, check_choice, check_positive
from dpdq.reweight._outcome_models import (
    estimation_costs,
    estimator_losses,
    fit_model,
    hausman,
    held_out_gain,
    label_numbers,
    linear_losses,
    scaled_design,
)
from dpdq.reweight._problem import make_problem

__all__ = ["ShiftCost", "WeightingAdvice", "shift_cost", "weighting_advice"]

_MODELS = ("linear", "logistic")
_FEWEST = 10.0  # rows of q that a direction of p must be worth
_NO_CLAIM = "valid only if P(Y|X) is the same in q and p"


@dataclasses.dataclass(frozen=True, repr=False)
class ShiftCost(Result):
    """What a covariate shift costs a model that is right.

    Attributes
    ----------
    cost
        Expected excess log loss on p in nats a row, of the unweighted fit on q; None where q does
        not cover p.
    cost_without_shift
        The same if p were q: d / (2 n).
    inflation
        The first by the second.
    n_q, n_parameters
        Rows and parameters (with the intercept).
    uncovered
        Combinations of features that vary in p and hardly in q, the worst first.
    rows_of_worst
        How many rows of p the n rows of q are worth in the least covered direction.
    status
        What that means.
    """

    cost: float | None
    cost_without_shift: float
    inflation: float | None
    n_q: int
    n_parameters: int
    uncovered: tuple[str, ...]
    rows_of_worst: float
    status: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class WeightingAdvice(Result):
    """Whether to weight, and why.

    Attributes
    ----------
    weight
        Whether the weighted fit is shown to be better on p.
    gain
        Loss on p of the unweighted fit minus that of the weighted one, on held-out rows of q under
        their weights; positive if weighting helps.
    loss
        ``"log loss"`` or ``"squared error"``.
    model
        What was fitted.
    statistic, freedom, pvalue
        Of the test that weighting moves no coefficient, which holds if the model is right; None for
        an estimator of your own.
    cost_unweighted, cost_weighted
        Excess log loss on p in nats a row that estimation alone would cost if the model were right;
        None for an estimator of your own.
    effective_sample_size
        Of the weights.
    status
        The advice in words.
    """

    weight: bool
    gain: Estimate
    loss: str
    model: str
    statistic: float | None
    freedom: int | None
    pvalue: float | None
    cost_unweighted: float | None
    cost_weighted: float | None
    effective_sample_size: float
    status: str = ""


def shift_cost(
    q: Any,
    p: Any,
    *,
    model: str = "linear",
    y: Any = None,
    moments: Any = 1,
    interactions: Any = (),
) -> ShiftCost:
    """What the shift from q to p costs a linear or logistic model that is right.

        cost = tr(I_p I_q^-1) / (2 n) nats a row;  sigma² times twice that in squared error

    Says nothing of a model that is wrong: use `weighting_advice` for that. It is the leading term
    of a large n: with directions of p worth only a few rows of q it is too small, and these are
    named instead.

    Parameters
    ----------
    q, p
        Covariates: arrays of shape (n_q, d) and (n_p, d), or tables.
    model
        ``"linear"`` or ``"logistic"``.
    y
        Labels on q for ``"logistic"``, two values, shape (n_q,).
    moments, interactions
        Functions of the covariates that the model is linear in; as in a weighter's ``fit``.

    Returns
    -------
    ShiftCost
        The cost, that without a shift, and directions that q does not cover.

    Raises
    ------
    OptionError
        An unknown model, or a logistic one without labels.
    DataError
        Data that cannot be used as they are.

    Notes
    -----
    Cost: O(n k²) time, O(n k) memory for k functions.
    Held by: tests/reweight/test_advice.py::test_cost_equals_a_simulation

    References
    ----------
    .. [M350] Maximum Likelihood Estimation is All You Need for Well-Specified Covariate Shift. Ge,
       2023, ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import shift_cost
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (4000, 1)), rng.normal(0, 2, (4000, 1))
    >>> round(shift_cost(q=q, p=p).inflation, 1)  # (1 + 4) / (1 + 1)
    2.5
    """
    check_choice("model", model, _MODELS)
    if model == "logistic" and y is None:
        raise OptionError("a logistic model's information depends on its fit: give y, labels of q")
    with one_thread_each():
        problem = make_problem(
            q, p, targets=None, weights_q=None, weights_p=None, kept_q=None, kept_p=None,
            types=None, bins=None, moments=moments, interactions=interactions,
        )  # fmt: skip
        rows_p, weights_p = problem.sample_of_p("shift_cost")
        mean_p, covariance_p, _, _ = problem.functions.moments(rows_p, weights_p)
        gap = problem.mean_q - mean_p
        line, names = scaled_design(
            problem,
            (problem.mean_q + mean_p) / 2,
            (problem.covariance_q + covariance_p) / 2 + np.outer(gap, gap) / 4,
        )
        z_q, z_p = line.matrix(problem.q), line.matrix(rows_p)
        n = z_q.shape[1]
        v_q, v_p = np.ones(n), np.ones(z_p.shape[1])
        if model == "logistic":
            theta = fit_model(z_q, label_numbers(y, n, model)[0], np.ones(n), model)
            v_q, v_p = (expit(theta @ z) * expit(-theta @ z) for z in (z_q, z_p))
        info_q, info_p = (z_q * v_q) @ z_q.T / n, (z_p * v_p) @ z_p.T / z_p.shape[1]
        # eigenvalues of I_q where I_p + I_q is the unit: well defined though I_q be singular
        shares, vectors = eigh(info_q, info_p + info_q)
    shares = np.clip(shares, 0.0, 1.0)
    ratios = (1 - shares) / np.maximum(shares, 1e-300)  # eigenvalues of I_p I_q^-1
    worth = n / np.maximum(ratios, 1e-300)
    poor = np.flatnonzero(worth < _FEWEST)
    uncovered = tuple(_direction(vectors[:, j], names) for j in poor)
    t = len(names) + 1
    without = t / (2 * n)
    worst = float(worth.min())
    if uncovered:
        return ShiftCost(
            None, without, None, n, t, uncovered, worst,
            f"q hardly covers {len(uncovered)} of {t} directions that p varies in, such as "
            f"{uncovered[0]}: no fit on q can know what happens there, weighted or not; collect "
            "such rows, or fix these coefficients from elsewhere",
        )  # fmt: skip
    cost = float(ratios.sum()) / (2 * n)
    status = (
        f"if the model is right, the shift costs it {cost:.2g} nats a row on p "
        f"({cost / without:.2g} times what it would cost without a shift), and no weighting does "
        "better"
    )
    return ShiftCost(cost, without, cost / without, n, t, (), worst, status)


def weighting_advice(
    weighter: Weighter,
    y: Any,
    *,
    model: str = "auto",
    estimator: Any = None,
    X: Any = None,
    n_folds: int = 5,
    level: float = 0.95,
    concept_pvalue: float | None = None,
    random_state: RandomState = 0,
) -> WeightingAdvice:
    """Whether a model fitted with these weights does better on p than one without.

        gain = E_q[w (loss of the unweighted fit - loss of the weighted fit)], on held-out rows
        H = (b_w - b)' V^-1 (b_w - b),  chi-square if the model is right and P(Y|X) is the same

    V is the sandwich variance of the difference, which needs no equal variances. The interval of
    the gain takes the fitted models as they are and knows that the weights were estimated, where
    the weighter's own `estimate` does. Misleads where P(Y|X) differs between q and p (give
    ``concept_pvalue``), where weights stand for p on the margins alone, and where they rest on a
    few rows: then the gain is as unsure as they are.

    Parameters
    ----------
    weighter
        A fitted weighter.
    y
        Labels on the rows of q of its fit, shape (n_q,): numbers, or two classes.
    model
        ``"linear"`` or ``"logistic"`` in the weighter's margins; ``"auto"`` takes logistic for two
        values.
    estimator, X
        Judge a scikit-learn estimator of your own instead, on rows X of q as it takes them.
    n_folds
        Folds of the held-out comparison.
    level
        Of the gain's interval.
    concept_pvalue
        p-value of a test that P(Y|X) is the same in q and p, such as `dpdq.shift.concept_shift`.
    random_state
        Deals rows into folds.

    Returns
    -------
    WeightingAdvice
        The advice with its evidence.

    Raises
    ------
    OptionError
        An unknown model, an estimator without X or without ``sample_weight``.
    DataError
        Labels that are missing or of a wrong length.

    Notes
    -----
    Cost: 2 (n_folds + 1) fits; O(n k) memory for k margins.
    Held by: tests/reweight/test_advice.py::test_quadratic_truth_asks_for_weights

    Changed from the paper: it says that weights pay only for a model that is wrong; the two checks
    of that are ours.

    References
    ----------
    .. [M350] Maximum Likelihood Estimation is All You Need for Well-Specified Covariate Shift. Ge,
       2023, ICLR 2024.
    .. [Hausman1978] Specification Tests in Econometrics. Hausman, 1978, Econometrica 46.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.reweight import EntropyBalancing, weighting_advice
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.uniform(0, 2, (2000, 1)), rng.uniform(0.5, 2, (2000, 1))
    >>> weighter = EntropyBalancing().fit(q=q, p=p)
    >>> right = 1 + 2 * q[:, 0] + rng.normal(size=2000)
    >>> weighting_advice(weighter, right).weight
    False
    >>> weighting_advice(weighter, q[:, 0] ** 4).weight
    True
    """
    if not isinstance(weighter, Weighter):
        raise InputTypeError(f"weighter is a {type(weighter).__name__}; give a fitted weighter")
    problem = weighter._fitted()
    check_choice("model", model, ("auto", *_MODELS))
    check_positive("n_folds", n_folds, zero=True, least=2)
    kept = weighter._kept
    labels, kind = label_numbers(y, len(kept), model)
    labels, weights, design = labels[kept], weighter.weights_[kept], problem.weights_q
    folds = np.arange(len(labels)) % int(n_folds)
    folds = as_generator(random_state).permutation(folds)
    gain = np.zeros(len(kept))
    statistic = freedom = pvalue = plain_cost = weighted_cost = None
    with one_thread_each():
        if estimator is None:
            line, _ = scaled_design(problem, problem.mean_q, problem.covariance_q)
            z = line.matrix(problem.q)
            losses = linear_losses(z, labels, kind)
            statistic, freedom, pvalue = hausman(z, labels, design, weights, kind)
            plain_cost, weighted_cost = estimation_costs(
                problem, line, z, labels, design, weights, kind
            )
        else:
            losses = estimator_losses(estimator, X, y, kept, kind)
        gain[kept] = held_out_gain(losses, folds, design, weights)
    found = weighter.estimate(gain, level=level)
    assert isinstance(found, Estimate)
    if found.low is None:  # a method without errors of its own: its weights as they are
        found = weighter._weights.mean(gain, level=level)
    loss = "log loss" if kind == "logistic" else "squared error"
    found = dataclasses.replace(
        found, method=f"held-out {loss} under the weights, {int(n_folds)} folds; {_NO_CLAIM}"
    )
    size = weighter._weights.effective_sample_size
    better = found.low is not None and found.low > 0
    status = _advice(found, loss, pvalue, plain_cost, weighted_cost, concept_pvalue)
    if not weighter._weights.ok:
        status += f". {weighter._weights.status}"
    return WeightingAdvice(
        better,
        found,
        loss,
        kind if estimator is None else type(estimator).__name__,
        statistic,
        freedom,
        pvalue,
        plain_cost,
        weighted_cost,
        size,
        status,
    )


def _direction(vector: Array, names: list[str]) -> str:
    """The features that a direction is mostly made of."""
    loads = np.abs(vector[1:])
    order = [int(j) for j in np.argsort(-loads)[:3] if loads[j] >= 0.3 * loads.max()]
    signs = np.sign(vector[1:]) * np.sign(vector[1 + order[0]])
    return " ".join(
        (f"{'+' if signs[j] > 0 else '-'} " if place else "") + names[j]
        for place, j in enumerate(order)
    )


def _advice(
    gain: Estimate,
    loss: str,
    pvalue: float | None,
    plain: float | None,
    weighted: float | None,
    concept_pvalue: float | None,
) -> str:
    assert gain.estimate is not None
    assert gain.low is not None
    assert gain.high is not None
    span = f"{gain.low:.2g} to {gain.high:.2g}"
    if gain.low > 0:
        text = f"Weight: it lowers the {loss} on p by {gain.estimate:.2g} ({span})"
    elif gain.high < 0:
        text = (
            f"Do not weight: it raises the {loss} on p by {-gain.estimate:.2g} "
            f"({-gain.high:.2g} to {-gain.low:.2g})"
        )
    else:
        text = (
            f"Weighting is not shown to help: it changes the {loss} on p by "
            f"{-gain.estimate:.2g} ({-gain.high:.2g} to {-gain.low:.2g}), and fewer effective rows "
            "are its price"
        )
    if pvalue is not None:
        text += (
            f". The coefficients move with the weights (p = {pvalue:.2g}): the model is not right "
            "on all of q"
            if pvalue < 0.05
            else f". The coefficients do not move with the weights (p = {pvalue:.2g}): nothing "
            "speaks against the model"
        )
    if plain is not None and weighted is not None:
        text += (
            f". Were the model right, its coefficients would cost {plain:.2g} nats a row on p "
            f"without weights and {weighted:.2g} with them"
        )
    if concept_pvalue is not None and concept_pvalue < 0.05:
        text += (
            f". P(Y|X) differs between q and p (p = {concept_pvalue:.2g}), which weights cannot "
            "mend: train on labels of p"
        )
    return text
