"""f-divergences from two samples: what can be bounded, and what only a model can tell.

For every critic L, that is for every guess of log r = log dP/dQ,

    D_f(P || Q) >= J(L) = E_p[f'(e^L)] - E_q[f*(f'(e^L))],   equality at L = log r.

With L learnt on other rows, the two means are ordinary sample means, and J minus a normal quantile
of their standard error is a lower confidence bound on D_f whatever the estimator of the ratio and
however wrong it is. A poor critic costs height, not validity. Nothing bounds D_f from above: a
speck of p where q has no mass, too small to have been sampled, makes KL and chi-square infinite.

The means must be of bounded terms for their standard errors to be believed: a rare row of q with
r = 1000 carries much of E_q[r] and is absent from most samples. |L| is therefore held to half the
logarithm of the smaller sample size, or a third of it for chi-square, whose terms are r² (fixed
before looking). What lies beyond is not seen, so that large divergences are reported far too low;
"at least" is meant literally.

An upper end needs an assumption. If log r is linear in given features, the logistic fit and the
pooled rows, weighted by what the fit says they are worth, give the divergence as a smooth function
of sample means:

    D_f = E_q[f(r)] = E_q[phi(L)] + E_p[phi(L)],   phi = f(r) / (1 + r),

since E_q[g] = E_q[g/(1+r)] + E_p[g/(1+r)] for any g when r is right. phi grows like f(r)/r, so
that even chi-square has terms of the size of r and not r².
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, ndtri

from dpdq.divergences import Divergence, divergence
from dpdq.errors import DataError, OptionError
from dpdq.ratio._common import unit_numbers
from dpdq.ratio.logistic import LogisticRatio
from dpdq.results import Estimate

__all__ = ["DivergenceEstimate", "estimate_divergences", "logistic_model_intervals"]

REPORTED = (
    "kl",
    "reverse_kl",
    "jensen_shannon",
    "pearson_chi2",
    "total_variation",
    "squared_hellinger",
)
LINEAR_ASSUMPTION = "if log dP/dQ is linear in the features"
NO_UPPER_END = "from samples alone no upper bound exists: read the lower end as 'at least'"

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True, repr=False)
class DivergenceEstimate(Estimate):
    """An `Estimate` of a divergence, with what its upper end assumes.

    Attributes
    ----------
    assumption
        What has to be true for ``high`` to hold (and, from `logistic_model_intervals`, for the
        whole interval); empty where nothing is assumed.
    """

    assumption: str = ""


def estimate_divergences(
    log_ratio_q: object,
    log_ratio_p: object,
    *,
    weights_q: object = None,
    weights_p: object = None,
    units_q: object = None,
    units_p: object = None,
    level: float = 0.95,
    clip: float | None = None,
    model: Mapping[str, DivergenceEstimate] | None = None,
) -> dict[str, DivergenceEstimate]:
    """Bound six divergences from below, by log ratios of rows that their models have not seen.

        D_f >= E_p[f'(r)] - E_q[f*(f'(r))],  low = max(0, mean - z se)

    The estimate is the held-out value itself: biased downwards, negative where the critic is worse
    than none. Large divergences (above about log(n)/2 nats) are cut off by the bound on the
    critic. Jensen-Shannon is the divergence below log 2 and squared Hellinger is 1 - BC, half the
    rows of the generator table. Total variation's bound counts only where Jensen-Shannon's is
    above zero: the two vanish together, and the smooth one is the better judge of zero, where
    cross-fitted sign critics are too bold.

    Parameters
    ----------
    log_ratio_q, log_ratio_p
        Cross-fitted log dP/dQ at the rows of q and of p, shapes (n_q,) and (n_p,).
    weights_q, weights_p
        Importance weights; standard errors treat a row as one observation. Default uniform.
    units_q, units_p
        Labels of rows that belong together; standard errors then treat a label as one
        observation, across sides too. Default every row for itself.
    level
        Confidence of the one-sided lower bound, and of the interval where ``model`` is given.
    clip
        Bound of |log r| in the critic. Default half the logarithm of the number of units on the
        smaller side, a third of it for chi-square. Choose it before seeing the data.
    model
        What `logistic_model_intervals` returned: lends its upper ends and their assumption; the
        lower ends then leave (1 - level)/2 below them.

    Returns
    -------
    dict of str to DivergenceEstimate
        By name: kl, reverse_kl, jensen_shannon, pearson_chi2, total_variation,
        squared_hellinger; ``high`` is None without ``model``.

    Raises
    ------
    DataError
        Empty or non-finite log ratios, or arrays of unequal length.
    OptionError
        ``level`` outside (0, 1), or ``clip`` not positive.

    Notes
    -----
    Cost: O(n) time, O(n) memory.
    Held by: tests/distance/test_divergence_estimates.py::test_lower_bounds_hold

    References
    ----------
    .. [Nguyen2010] Estimating Divergence Functionals and the Likelihood Ratio by Convex Risk
       Minimization. Nguyen, 2010, IEEE Transactions on Information Theory 56.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.distance.divergence_estimates import estimate_divergences
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, 5000), rng.normal(1, 1, 5000)
    >>> found = estimate_divergences(q - 0.5, p - 0.5)  # the true log ratio is x - 1/2
    >>> found["kl"].low < 0.5 < found["kl"].low + 0.1
    True
    >>> found["kl"].reason
    "from samples alone no upper bound exists: read the lower end as 'at least'"
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level}; expected between 0 and 1")
    if clip is not None and not clip > 0:
        raise OptionError(f"clip is {clip}; expected a positive number")
    log_q, log_p = _log_ratios(log_ratio_q, "q"), _log_ratios(log_ratio_p, "p")
    share_q, share_p = _shares(weights_q, len(log_q), "q"), _shares(weights_p, len(log_p), "p")
    groups = _groups(units_q, units_p, len(log_q), len(log_p))
    if groups is None:
        smaller = min(len(log_q), len(log_p))
    else:
        smaller = min(len(np.unique(groups[: len(log_q)])), len(np.unique(groups[len(log_q) :])))
    half = 0.5 * np.log(max(smaller, 2))
    z = float(ndtri(level if model is None else (1 + level) / 2))

    found: dict[str, DivergenceEstimate] = {}
    for name in REPORTED:
        member = divergence(name).standard()  # exactly 0 at r = 1; J does not change
        scale = divergence(name).scale_to_report
        bound = clip if clip is not None else (half / 1.5 if name == "pearson_chi2" else half)
        value, error = _variational(
            member, np.clip(log_q, -bound, bound), np.clip(log_p, -bound, bound),
            share_q, share_p, groups,
        )  # fmt: skip
        value, error = value * scale, error * scale
        found[name] = DivergenceEstimate(
            estimate=value,
            low=max(0.0, value - z * error),
            standard_error=error,
            level=level,
            method=f"held-out variational value, critic held to |log r| <= {bound:.3g}",
            reason=NO_UPPER_END,
        )
    if found["jensen_shannon"].low == 0:
        found["total_variation"] = dataclasses.replace(found["total_variation"], low=0.0)
    if model is not None:
        for name, lent in model.items():
            own = found[name]
            if lent.high is None:
                found[name] = dataclasses.replace(own, reason=lent.reason)
                continue
            high = max(lent.high, own.estimate or 0.0)
            found[name] = dataclasses.replace(own, high=high, reason="", assumption=lent.assumption)
    return found


def logistic_model_intervals(
    q: object,
    p: object,
    *,
    units_q: object = None,
    units_p: object = None,
    level: float = 0.95,
) -> dict[str, DivergenceEstimate]:
    """Two-sided intervals of six divergences, if log dP/dQ is linear in the features.

        D_f = mean_q phi(L) + mean_p phi(L) - bias,  phi = f(r) / (1 + r),  L = a + x'b

    (a, b) is the logistic fit to all rows. The standard error follows the influence of every row
    through the fit and through the means; the bias of fitting and evaluating on the same rows is
    removed to second order, and the variance of its quadratic part added, so that the interval
    also holds at and near q = p, where the first order vanishes. Chi-square gets its interval on
    the scale of log(1 + chi-square), which is minus the log of the share of effective rows. Total
    variation is not smooth at q = p: its bias is removed in proportion to that of the square root
    of the Jensen-Shannon divergence, to which it is proportional there.

    Everything, the lower end too, is wrong where log r is not linear: add squares, products or
    indicators to the features if it may not be. No interval is given where the fit is poor in
    rows: fewer than 10 a side for each feature, or p and q so well separated that less than 5
    rows a feature remain in the overlap.

    Parameters
    ----------
    q, p
        Features of shape (n_q, d) and (n_p, d).
    units_q, units_p
        Labels of rows that belong together; default every row for itself.
    level
        Coverage of the interval.

    Returns
    -------
    dict of str to DivergenceEstimate
        By name, as `estimate_divergences`; ends are None, with the reason, where refused.

    Raises
    ------
    DataError
        A wrong shape, unequal widths, non-finite values, or fewer than 2 rows on a side.

    Notes
    -----
    Cost: O(n d²) time, O(n d) memory.
    Held by: tests/distance/test_divergence_estimates.py::test_model_intervals_cover

    References
    ----------
    .. [Qin1998] Inferences for Case-Control and Semiparametric Two-Sample Density Ratio Models.
       Qin, 1998, Biometrika 85.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.distance.divergence_estimates import logistic_model_intervals
    >>> rng = np.random.default_rng(0)
    >>> q, p = rng.normal(0, 1, (2000, 3)), rng.normal(0.5, 1, (2000, 3))
    >>> found = logistic_model_intervals(q=q, p=p)["kl"]  # the truth is 3/8
    >>> bool(found.low < 0.375 < found.high), found.assumption
    (True, 'if log dP/dQ is linear in the features')
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level}; expected between 0 and 1")
    fit = LogisticRatio(ridge=1e-8).fit(q, p)
    n_q, n_p, width = fit.n_q_, fit.n_p_, fit.n_features_in_ + 1
    if min(n_q, n_p) < 10 * width:
        return _refused(
            f"the smaller side has {min(n_q, n_p)} rows for {fit.n_features_in_} features; "
            "the model's interval needs 10 rows a feature",
            level,
        )
    linear = _LinearModel(fit, q, p, _groups(units_q, units_p, n_q, n_p))
    if linear.overlap_rows < 5 * width:
        return _refused(
            f"only {linear.overlap_rows:.0f} rows' worth of q and p overlap under the model; "
            f"its interval needs 5 for each of {fit.n_features_in_} features",
            level,
        )
    z = float(ndtri((1 + level) / 2))
    found: dict[str, DivergenceEstimate] = {}
    plug_in: dict[str, float] = {}
    for name in REPORTED:
        member = divergence(name).standard()
        scale = divergence(name).scale_to_report
        value, bias, error = (scale * number for number in linear.functional(member))
        plug_in[name] = value
        centre = value - bias
        low, high = centre - z * error, centre + z * error
        if name == "pearson_chi2":
            relative = z * error / (1 + max(centre, 0.0))
            low = np.expm1(np.log1p(max(centre, 0.0)) - relative) + min(centre, 0.0)
            high = np.expm1(np.log1p(max(centre, 0.0)) + relative) + min(centre, 0.0)
        elif name == "total_variation":
            smooth, whole = found["jensen_shannon"], plug_in["jensen_shannon"]
            by_smooth = value * np.sqrt(max(smooth.high or 0.0, 0.0) / max(whole, 1e-300))
            centre = value * np.sqrt(max(smooth.estimate or 0.0, 0.0) / max(whole, 1e-300))
            low = centre - z * error if smooth.low else 0.0
            high = max(centre + z * error, by_smooth)
        found[name] = DivergenceEstimate(
            estimate=float(centre),
            low=max(0.0, float(low)),
            high=max(0.0, float(high)),
            standard_error=float(error),
            level=level,
            method="logistic model on pooled rows, bias removed to second order",
            assumption=LINEAR_ASSUMPTION,
        )
    return found


def _variational(
    member: Divergence,
    log_q: Array,
    log_p: Array,
    share_q: Array,
    share_p: Array,
    groups: Array | None,
) -> tuple[float, float]:
    """J(L) and its standard error."""
    gain, cost = member.f_prime(log_p), member.conjugate_at_prime(log_q)
    mean_gain, mean_cost = float(share_p @ gain), float(share_q @ cost)
    influence_q, influence_p = share_q * (cost - mean_cost), share_p * (gain - mean_gain)
    n_q, n_p = len(log_q), len(log_p)
    if groups is None:
        # Dividing by n - 1 rather than n, on each side.
        variance = float(
            influence_q @ influence_q * n_q / max(n_q - 1, 1)
            + influence_p @ influence_p * n_p / max(n_p - 1, 1)
        )
    else:
        sums = np.bincount(groups, weights=np.concatenate([-influence_q, influence_p]))
        variance = float(sums @ sums) * len(sums) / max(len(sums) - 1, 1)
    return mean_gain - mean_cost, float(np.sqrt(variance))


class _LinearModel:
    """The logistic fit, each row's influence on it, and functionals of both.

    Row i of a side with shares 1/n_side moves the coefficients by u_i (first derivative in the
    row's share), where A u_i = -(s_i - mean s), s_i the row's score and A the Hessian. V = sum of
    share_i² u_i u_i' is the sandwich covariance.
    """

    def __init__(self, fit: LogisticRatio, q: object, p: object, groups: Array | None) -> None:
        x = np.vstack([fit.standardised_design(q), fit.standardised_design(p)])
        self.sides = (slice(0, fit.n_q_), slice(fit.n_q_, len(x)))
        share = np.repeat([1 / fit.n_q_, 1 / fit.n_p_], [fit.n_q_, fit.n_p_])
        log_ratio = x @ fit.theta_
        s = expit(log_ratio)
        curvature = s * (1 - s)
        # Four s (1 - s) is one where q and p are equally likely and fades with their separation.
        self.overlap_rows = float(4 * curvature.sum() * min(fit.n_q_, fit.n_p_) / len(x))
        residual = s.copy()
        residual[self.sides[1]] -= 1.0
        scores = x * (residual / 2)[:, None]
        for side in self.sides:
            scores[side] -= scores[side].mean(axis=0)
        hessian = (x.T * (share * curvature / 2)) @ x
        hessian.flat[:: len(hessian) + 1] += fit.ridge_ + 1e-12
        factor = cho_factor(hessian)
        steps = -cho_solve(factor, scores.T).T * share[:, None]  # share_i u_i
        if groups is not None:
            totals = np.zeros((int(groups.max()) + 1, x.shape[1]))
            np.add.at(totals, groups, steps)
            self.covariance = totals.T @ totals
            own = totals[groups]  # the step of the row's whole unit
        else:
            self.covariance = steps.T @ steps
            own = steps
        self.x, self.share, self.log_ratio, self.s = x, share, log_ratio, s
        self.steps, self.own, self.groups = steps, own, groups
        self.quadratic = np.einsum("ij,ij->i", x @ self.covariance, x)  # x'Vx
        # Half the bias of the coefficients, twice: third derivatives, and each row's own Hessian.
        third = x.T @ (share * curvature * (1 - 2 * s) / 2 * self.quadratic)
        mixed = np.zeros(x.shape[1])
        for side in self.sides:
            rows, weight = x[side], share[side] * curvature[side] / 2
            mixed += rows.T @ (weight * np.einsum("ij,ij->i", rows, own[side]))
            mixed -= rows.T @ (weight * (rows @ (share[side] @ own[side])))
        self.second = -cho_solve(factor, third + 2 * mixed)

    def functional(self, member: Divergence) -> tuple[float, float, float]:
        """Plug-in value, bias and standard error of E_q[phi] + E_p[phi]."""
        log_ratio, s, share, x = self.log_ratio, self.s, self.share, self.x
        f, slope, h = member.f(log_ratio), member.f_prime(log_ratio), member.h(log_ratio)
        phi = f * (1 - s)
        first = s * slope - phi * s
        second = s * (1 - 2 * s) * (slope - f * (1 - s)) + h * (1 - s)
        gradient = x.T @ (share * first)
        influence = self.steps @ gradient
        cross = 0.0
        for side in self.sides:
            influence[side] += share[side] * (phi[side] - phi[side].mean())
            mean = x[side].T @ first[side] / len(phi[side])
            rows = np.einsum("ij,ij->i", x[side], self.own[side]) * first[side]
            cross += float(share[side] @ (rows - self.own[side] @ mean))
        if self.groups is not None:
            influence = np.bincount(self.groups, weights=influence)
        bias = (gradient @ self.second + float(share @ (second * self.quadratic)) + 2 * cross) / 2
        bend = (x.T * (share * second)) @ x @ self.covariance
        variance = influence @ influence + np.einsum("ij,ji->", bend, bend) / 2
        return float(share @ phi), float(bias), float(np.sqrt(max(variance, 0.0)))


def _refused(reason: str, level: float) -> dict[str, DivergenceEstimate]:
    return {
        name: DivergenceEstimate(estimate=None, level=level, reason=reason) for name in REPORTED
    }


def _log_ratios(values: object, side: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise DataError(
            f"log_ratio_{side} has shape {array.shape}; expected (n_{side},) with at least one row"
        )
    if not np.isfinite(array).all():
        raise DataError(f"log_ratio_{side} holds non-finite values; expected finite log ratios")
    return array


def _shares(weights: object, n: int, side: str) -> Array:
    if weights is None:
        return np.full(n, 1 / n)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (n,):
        raise DataError(f"weights_{side} has shape {array.shape}; expected ({n},), one a row")
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise DataError(
            f"weights_{side} must be finite, 0 or more, and not all zero; drop or repair them"
        )
    return array / array.sum()


def _groups(units_q: object, units_p: object, n_q: int, n_p: int) -> Array | None:
    """Numbers of the units over both sides, or None where every row is its own."""
    if units_q is None and units_p is None:
        return None
    return unit_numbers(units_q, units_p, n_q, n_p)
