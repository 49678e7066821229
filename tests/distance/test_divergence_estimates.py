"""Divergences from samples: coverage of the bounds, known answers, refusals.

Coverage checks are binomial: of 500 draws, a bound that holds with probability 0.95 holds in
fewer than 89.8 % with probability 5e-7. The short versions take 60 draws and ask for 78 %.
"""

import numpy as np
import pytest

from dpdq.distance.divergence_estimates import (
    NO_UPPER_END,
    estimate_divergences,
    logistic_model_intervals,
)
from dpdq.divergences import divergence
from dpdq.errors import DataError, OptionError
from dpdq.ratio import CrossFittedRatio, GradientBoostingRatio, LogisticRatio

NAMES = (
    "kl",
    "reverse_kl",
    "jensen_shannon",
    "pearson_chi2",
    "total_variation",
    "squared_hellinger",
)


def truth(distance):
    """Divergences of two Gaussians of equal covariance at this Mahalanobis distance."""
    z = np.linspace(-14, 14 + 2 * distance, 200_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    log_r = distance * z - distance**2 / 2
    return {
        name: float(np.trapezoid(density * divergence(name).f(log_r), z))
        * divergence(name).scale_to_report
        for name in NAMES
    }


def draw(dimensions, distance, n, seed, m=None):
    rng = np.random.default_rng([seed, dimensions])
    p = rng.normal(size=(m or n, dimensions)) + distance / np.sqrt(dimensions)
    return rng.normal(size=(n, dimensions)), p


def cross_fitted(q, p, estimator, n_folds=5):
    fitted = CrossFittedRatio({"only": (estimator, "x")}, n_folds).fit(
        {"x": q}, {"x": p}, np.arange(len(q)) % n_folds, np.arange(len(p)) % n_folds
    )
    return fitted.log_ratio_q_, fitted.log_ratio_p_


def lower_bound_coverage(dimensions, distance, n, draws, estimator):
    exact = truth(distance)
    held = dict.fromkeys(NAMES, 0)
    for seed in range(draws):
        found = estimate_divergences(*cross_fitted(*draw(dimensions, distance, n, seed), estimator))
        for name in NAMES:
            held[name] += found[name].low <= exact[name] + 1e-12
    return {name: count / draws for name, count in held.items()}


def interval_coverage(dimensions, distance, n, draws):
    exact = truth(distance)
    held = dict.fromkeys(NAMES, 0)
    for seed in range(draws):
        found = logistic_model_intervals(*draw(dimensions, distance, n, seed))
        for name in NAMES:
            held[name] += found[name].low - 1e-12 <= exact[name] <= found[name].high
    return {name: count / draws for name, count in held.items()}


@pytest.mark.parametrize("dimensions", [1, 5, 20])
@pytest.mark.parametrize("distance", [0.0, 0.5, 2.0])
def test_lower_bounds_hold(dimensions, distance):
    coverage = lower_bound_coverage(dimensions, distance, 300, 60, LogisticRatio(ridge=0.01))
    assert min(coverage.values()) >= 0.78, coverage


@pytest.mark.parametrize("dimensions", [1, 5, 20])
@pytest.mark.parametrize("distance", [0.0, 0.5, 1.0])
def test_model_intervals_cover(dimensions, distance):
    coverage = interval_coverage(dimensions, distance, 400, 60)
    assert min(coverage.values()) >= 0.78, coverage


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [1, 5, 20])
@pytest.mark.parametrize("distance", [0.0, 0.25, 1.0, 3.0])
def test_lower_bounds_hold_in_500_draws(dimensions, distance):
    coverage = lower_bound_coverage(dimensions, distance, 500, 500, LogisticRatio())
    assert min(coverage.values()) >= 0.898, coverage


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0.0, 1.0])
def test_lower_bounds_hold_for_trees(distance):
    trees = GradientBoostingRatio(random_state=0)
    coverage = lower_bound_coverage(5, distance, 500, 60, trees)
    assert min(coverage.values()) >= 0.78, coverage


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [1, 5, 20])
@pytest.mark.parametrize("distance", [0.0, 0.25, 0.5, 1.0, 2.0])
def test_model_intervals_cover_in_500_draws(dimensions, distance):
    coverage = interval_coverage(dimensions, distance, 500, 500)
    assert min(coverage.values()) >= 0.898, coverage


def test_tight_for_the_true_ratio():
    """With the true critic the held-out value is an unbiased estimate of the divergence."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, 200_000), rng.normal(1, 1, 200_000)
    found, exact = estimate_divergences(q - 0.5, p - 0.5), truth(1.0)
    for name in NAMES:
        error = found[name].standard_error
        assert abs(found[name].estimate - exact[name]) < 5 * error
        assert error < 0.05 * max(exact[name], 0.1)


def test_effective_sample_size_is_the_inverse_of_one_plus_chi2():
    rng = np.random.default_rng(0)
    q, p = rng.normal(0, 1, (20_000, 1)), rng.normal(0.8, 1, (20_000, 1))
    model = LogisticRatio().fit(q, p)
    r = np.exp(model.log_ratio(q))
    share = r.sum() ** 2 / (r**2).sum() / len(q)
    assert share == pytest.approx(np.exp(-0.64), abs=0.05)  # 1 + chi2 = exp(distance²)
    found = logistic_model_intervals(q, p)["pearson_chi2"]
    assert 1 / (1 + found.high) < np.exp(-0.64) < 1 / (1 + found.low)


def test_constant_ratio_gives_zero():
    found = estimate_divergences(np.zeros(50), np.zeros(40))
    for name in NAMES:
        assert found[name].estimate == 0
        assert found[name].low == 0
        assert found[name].high is None
        assert found[name].reason == NO_UPPER_END


def test_a_wrong_critic_is_negative_and_bounds_nothing():
    rng = np.random.default_rng(0)
    found = estimate_divergences(0.5 - rng.normal(0, 1, 500), 0.5 - rng.normal(1, 1, 500))
    for name in NAMES:
        assert found[name].estimate < 0
        assert found[name].low == 0


def test_exchange_of_the_sides():
    """KL of (q, p) is reverse KL of (p, q); the symmetric ones stay."""
    q, p = draw(2, 1.0, 400, 0)
    log_q, log_p = (0.7 * side.sum(axis=1) - 0.5 for side in (q, p))
    forth, back = estimate_divergences(log_q, log_p), estimate_divergences(-log_p, -log_q)
    for one, other in (
        ("kl", "reverse_kl"),
        ("jensen_shannon", "jensen_shannon"),
        ("squared_hellinger", "squared_hellinger"),
        ("total_variation", "total_variation"),
    ):
        assert forth[one].estimate == pytest.approx(back[other].estimate, abs=1e-12)
        assert forth[one].low == pytest.approx(back[other].low, abs=1e-12)
    forth, back = logistic_model_intervals(q, p), logistic_model_intervals(p, q)
    assert forth["kl"].estimate == pytest.approx(back["reverse_kl"].estimate, abs=1e-6)
    assert forth["kl"].high == pytest.approx(back["reverse_kl"].high, abs=1e-6)


def test_scales_of_the_report():
    rng = np.random.default_rng(0)
    found = estimate_divergences(rng.normal(-60, 1, 4000), rng.normal(60, 1, 4000))
    assert 0.6 < found["jensen_shannon"].estimate < np.log(2) + 1e-12
    assert 0.9 < found["total_variation"].estimate < 1 + 1e-12
    assert 0.85 < found["squared_hellinger"].estimate < 1 + 1e-12
    assert found["kl"].estimate < 0.5 * np.log(4000) + 1  # cut off by the bounded critic


def test_few_huge_ratios_do_not_fool_the_bound():
    """One row in 300 of q has r = 200: samples that miss it must not claim too much."""
    rng = np.random.default_rng(0)
    rate, r = 1 / 300, 200.0
    rest = (1 - rate * r) / (1 - rate)
    exact = rate * r * np.log(r) + (1 - rate * r) * np.log(rest)
    held = 0
    for _ in range(300):
        q = np.where(rng.random(200) < rate, np.log(r), np.log(rest))
        p = np.where(rng.random(200) < rate * r, np.log(r), np.log(rest))
        held += estimate_divergences(q, p)["kl"].low <= exact
    assert held / 300 >= 0.87  # 95 % or more, less 6 standard errors


def test_units_widen_the_bound():
    q, p = draw(1, 1.0, 300, 0)
    log_q, log_p = q[:, 0] - 0.5, p[:, 0] - 0.5
    ten_q, ten_p = np.repeat(log_q, 10), np.repeat(log_p, 10)
    units_q, units_p = np.repeat(np.arange(300), 10), np.repeat(np.arange(300, 600), 10)
    one = estimate_divergences(log_q, log_p, clip=2.0)
    grouped = estimate_divergences(ten_q, ten_p, units_q=units_q, units_p=units_p, clip=2.0)
    naive = estimate_divergences(ten_q, ten_p, clip=2.0)
    for name in NAMES:
        assert grouped[name].estimate == pytest.approx(one[name].estimate, abs=1e-12)
        assert grouped[name].standard_error == pytest.approx(one[name].standard_error, rel=0.01)
        assert naive[name].standard_error < 0.4 * one[name].standard_error
    half = estimate_divergences(ten_q, log_p, units_q=units_q, clip=2.0)
    assert half["kl"].standard_error == pytest.approx(one["kl"].standard_error, rel=0.01)
    x_q, x_p = np.repeat(q, 10, axis=0), np.repeat(p, 10, axis=0)
    single = logistic_model_intervals(q, p)
    tens = logistic_model_intervals(x_q, x_p, units_q=units_q, units_p=units_p)
    for name in NAMES:
        assert tens[name].estimate == pytest.approx(single[name].estimate, rel=0.01, abs=1e-6)
        assert tens[name].standard_error == pytest.approx(single[name].standard_error, rel=0.02)


def test_integer_weights_are_repeated_rows():
    rng = np.random.default_rng(0)
    log_q, log_p = rng.normal(size=50), rng.normal(size=40) + 0.3
    w = rng.integers(0, 4, 50)
    weighted = estimate_divergences(log_q, log_p, weights_q=w, clip=1.5)
    repeated = estimate_divergences(np.repeat(log_q, w), log_p, clip=1.5)
    for name in NAMES:
        assert weighted[name].estimate == pytest.approx(repeated[name].estimate, abs=1e-12)


def test_model_lends_its_upper_end():
    q, p = draw(3, 1.0, 1000, 0)
    model = logistic_model_intervals(q, p)
    alone = estimate_divergences(*cross_fitted(q, p, LogisticRatio()))
    both = estimate_divergences(*cross_fitted(q, p, LogisticRatio()), model=model)
    for name in NAMES:
        assert both[name].high == max(model[name].high, both[name].estimate)
        assert both[name].assumption == "if log dP/dQ is linear in the features"
        assert both[name].reason == ""
        assert both[name].low < alone[name].low  # two-sided: it leaves half the error below


def test_model_matches_brute_force_delta():
    """The analytic bias against the jackknife's, and the standard error against its spread."""
    q, p = draw(3, 1.0, 150, 5)
    full = logistic_model_intervals(q, p)

    def plug_in(q, p):
        model = LogisticRatio(ridge=1e-8).fit(q, p)
        member = divergence("kl").standard()
        sides = [model.log_ratio(side) for side in (q, p)]
        return sum((member.f(log_r) / (1 + np.exp(log_r))).mean() for log_r in sides)

    whole = plug_in(q, p)
    without_q = np.array([plug_in(np.delete(q, i, 0), p) for i in range(150)])
    without_p = np.array([plug_in(q, np.delete(p, i, 0)) for i in range(150)])
    bias = 149 * (without_q.mean() - whole) + 149 * (without_p.mean() - whole)
    variance = 149 / 150 * sum(((part - part.mean()) ** 2).sum() for part in (without_q, without_p))
    assert whole - full["kl"].estimate == pytest.approx(bias, rel=0.15)
    assert full["kl"].standard_error == pytest.approx(np.sqrt(variance), rel=0.1)


def test_model_refuses_without_rows():
    q, p = draw(20, 1.0, 100, 0)
    found = logistic_model_intervals(q, p)
    assert found["kl"].estimate is None
    assert found["kl"].reason == (
        "the smaller side has 100 rows for 20 features; the model's interval needs 10 rows a "
        "feature"
    )
    q, p = draw(1, 30.0, 100, 0)
    found = logistic_model_intervals(q, p)
    assert found["kl"].high is None
    assert "rows' worth of q and p overlap under the model" in found["kl"].reason
    lent = estimate_divergences(-q[:, 0], p[:, 0], model=found)
    assert lent["kl"].high is None
    assert lent["kl"].reason == found["kl"].reason


def test_adult_by_age(shared_data):
    """Real rows, mixed columns: positive bounds that respect the inequalities between them."""
    import pyarrow.parquet as pq

    names = ["age", "education-num", "hours-per-week", "marital-status", "sex"]
    table = pq.read_table(shared_data / "adult.parquet", columns=names)
    age, years, hours = (np.asarray(table[name], dtype=float) for name in names[:3])
    codes = [
        np.unique(np.asarray(table[name].cast("string")), return_inverse=True)[1]
        for name in names[3:]
    ]
    x = np.column_stack([years, hours, *(np.eye(code.max() + 1)[code] for code in codes)])
    q, p = x[age < 40][:6000], x[age >= 40][:5000]
    model = logistic_model_intervals(q, p)
    found = estimate_divergences(*cross_fitted(q, p, LogisticRatio()), model=model)
    for name in NAMES:
        assert 0 < found[name].low < found[name].estimate < found[name].high
        # The critic of linear form can do no better than the linear model's own value.
        assert found[name].low < model[name].high
    variation, hellinger = model["total_variation"].estimate, model["squared_hellinger"].estimate
    assert hellinger <= variation <= np.sqrt(2 * hellinger)
    assert model["jensen_shannon"].estimate <= variation * np.log(2)
    assert variation <= np.sqrt(model["kl"].estimate / 2)  # Pinsker
    assert model["kl"].estimate <= np.log1p(model["pearson_chi2"].estimate)


def test_refusals():
    with pytest.raises(OptionError, match="level is 95; expected between 0 and 1"):
        estimate_divergences([0.0], [0.0], level=95)
    with pytest.raises(OptionError, match="clip is 0; expected a positive number"):
        estimate_divergences([0.0], [0.0], clip=0)
    with pytest.raises(DataError, match=r"log_ratio_p has shape \(0,\); expected \(n_p,\)"):
        estimate_divergences([0.0], [])
    with pytest.raises(DataError, match="log_ratio_q holds non-finite values"):
        estimate_divergences([np.inf], [0.0])
    with pytest.raises(DataError, match=r"units_q has shape \(2,\); expected \(1,\)"):
        estimate_divergences([0.0], [0.0], units_q=[1, 2])
    with pytest.raises(DataError, match="weights_q must be finite, 0 or more, and not all zero"):
        estimate_divergences([0.0], [0.0], weights_q=[0.0])
