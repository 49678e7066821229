"""Importance sampling of many means at once: identities, coverage, rare events, Sobol indices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from dpdq.errors import DataError, NotFittedError, OptionError, OverlapError
from dpdq.reweight.importance_sampling import AdaptiveImportanceSampling, control_variate_means
from dpdq.reweight.proposals import GaussianMixture, fit_gaussian_mixture


def standard(d, scale=1.0):
    return GaussianMixture([1.0], np.zeros((1, d)), scale**2 * np.eye(d)[None])


def rare(x):
    """Four functions of a rare event, s > 3 with s = sum x / 2, in four dimensions."""
    s = x.sum(axis=1) / 2.0
    return np.stack([s > 3.0, s > 3.5, x[:, 0] * (s > 3.0), np.maximum(s - 3.0, 0.0)], axis=1)


RARE = np.array([norm.sf(3), norm.sf(3.5), norm.pdf(3) / 2, norm.pdf(3) - 3 * norm.sf(3)])


def ishigami(x):
    return np.sin(x[:, 0]) * (1 + 0.1 * x[:, 2] ** 4) + 7 * np.sin(x[:, 1]) ** 2


def sobol(z):
    """E[Y], E[Y^2] and E[Y Y_i], Y_i sharing coordinate i: all Sobol indices of first order."""
    u = -np.pi + 2 * np.pi * norm.cdf(z)
    y, values = ishigami(u[:, :3]), []
    for i in range(3):
        other = u[:, 3:].copy()
        other[:, i] = u[:, i]
        values.append(y * ishigami(other))
    return np.stack([y, y**2, *values], axis=1)


_V1, _V2, _V13 = 0.5 * (1 + np.pi**4 / 50) ** 2, 49 / 8, 0.01 * np.pi**8 * 8 / 225
SOBOL = 3.5**2 + np.array([3.5 - 3.5**2, _V1 + _V2 + _V13, _V1, _V2, 0.0])


def relative_variance(estimates, truth):
    return sum((e.standard_error / t) ** 2 for e, t in zip(estimates, truth, strict=True))


# ------------------------------------------------------------- the function
def test_control_variates_by_hand():
    rng = np.random.default_rng(0)
    log_r, log_h = rng.normal(size=30) - 0.5, rng.normal(size=30) - 0.5
    phi = rng.normal(size=(30, 2))
    found = control_variate_means(phi, log_r, log_ratio_control=log_h, integral=1.3)
    for i in range(2):
        a, b = phi[:, i] * np.exp(log_r), np.exp(log_h)
        c = np.cov(a, b)[0, 1] / b.var(ddof=1)
        assert found[i].estimate == pytest.approx(a.mean() - c * (b.mean() - 1.3))
        design = np.c_[np.ones(30), b - 1.3]
        fit = np.linalg.lstsq(design, a, rcond=None)
        assert found[i].estimate == pytest.approx(fit[0][0])  # a regression's intercept
        assert found[i].standard_error == pytest.approx(np.sqrt(fit[1][0] / 30 / 28))
    given = control_variate_means(phi, log_r, log_ratio_control=log_h, coefficients=[0.5, 0.0])
    rest = phi[:, 0] * np.exp(log_r) - 0.5 * np.exp(log_h)
    assert given[0].estimate == pytest.approx(rest.mean() + 0.5)
    assert given[0].standard_error == pytest.approx(rest.std(ddof=1) / np.sqrt(30))
    plain = control_variate_means(phi, log_r)
    assert plain[1].estimate == pytest.approx(given[1].estimate)
    # h = p makes the mean of a constant exact.
    exact = control_variate_means(np.full(30, 4.0), log_r, log_ratio_control=log_r)[0]
    assert exact.estimate == pytest.approx(4.0)
    assert exact.standard_error == pytest.approx(0.0, abs=1e-12)
    # rows where p is 0 count as zeros, whatever phi is there
    log_r[3], phi[3] = -np.inf, np.nan
    assert np.isfinite(control_variate_means(phi, log_r)[0].estimate)


def test_smoothing_cuts_the_noise_of_heavy_tails():
    """Draws from a law too narrow: mean squared error over 200 samples, fixed seeds."""
    errors = {False: [], True: []}
    told = 0
    for seed in range(200):
        x = 0.6 * np.random.default_rng(seed).normal(size=1000)
        log_r = np.log(0.6) - x**2 / 2 + x**2 / (2 * 0.36)
        for smooth in errors:
            found = control_variate_means(x**2, log_r, smooth=smooth)[0]
            errors[smooth].append(found.estimate - 1.0)
            told += "k-hat" in found.reason and "few draws decide" in found.reason
    assert np.mean(np.square(errors[True])) < np.mean(np.square(errors[False]))
    assert told > 200  # nearly all are told not to be trusted
    x = np.random.default_rng(0).normal(size=1000)
    fine = control_variate_means(x**2, np.zeros(1000), smooth=True)[0]
    assert fine.estimate == pytest.approx(np.mean(x**2), rel=0.02)
    assert fine.reason == ""
    assert "Pareto-smoothed" in fine.method


# ------------------------------------------------------------- the sampler
@pytest.mark.slow
def test_intervals_cover():
    """150 runs of 3 functions, nominal 95 %: 450 intervals, of which 88.5 % to 99.5 % must hold.

    Independent runs put the count's standard deviation below 8 of 450 even if the three functions
    moved together, and the bounds lie four of these away; the seeds are fixed.
    """
    p, wide = standard(2), standard(2, 1.6)

    def functions(x):
        return np.stack([x[:, 0] > 2.5, x.sum(axis=1) ** 2, np.exp(x[:, 1])], axis=1)

    truth = np.array([norm.sf(2.5), 2.0, np.exp(0.5)])
    covered, off = 0, []
    for seed in range(150):
        model = AdaptiveImportanceSampling(1500, n_components=2, random_state=seed)
        found = model.fit(functions, p, wide).estimates_
        covered += sum(e.low <= t <= e.high for e, t in zip(found, truth, strict=True))
        off.append([(e.estimate - t) / e.standard_error for e, t in zip(found, truth, strict=True)])
    assert 0.885 * 450 <= covered <= 0.995 * 450
    assert np.abs(np.mean(off, axis=0)).max() < 5.5 / np.sqrt(150)  # unbiased


def test_beats_separate_and_plain_sampling():
    """Summed squared relative errors at an equal budget of 8,000 draws, 6 fixed seeds."""
    p, wide, budget = standard(4), standard(4, 1.7), 8000
    joint, separate, plain, own = [], [], [], []
    for seed in range(6):
        model = AdaptiveImportanceSampling(budget, random_state=seed).fit(rare, p, wide)
        found = [e.estimate for e in model.estimates_]
        joint.append(np.square(found / RARE - 1).sum())
        own.append(relative_variance(model.estimates_, RARE))
        found = []
        for i in range(4):
            one = AdaptiveImportanceSampling(budget // 4, random_state=seed)
            try:
                one.fit(lambda x, i=i: rare(x)[:, i], p, wide)
                found.append(one.estimates_[0].estimate)
            except OverlapError:  # 200 draws of a round hit nothing
                found.append(0.0)
        separate.append(np.square(found / RARE - 1).sum())
        drawn = rare(p.sample(budget, random_state=seed)).mean(axis=0)
        plain.append(np.square(drawn / RARE - 1).sum())
    assert np.mean(joint) < 0.1 * np.mean(separate)
    assert np.mean(joint) < 0.02 * np.mean(plain)
    assert np.mean(own) == pytest.approx(np.mean(joint), rel=0.8)  # and the errors say so


@pytest.mark.slow
def test_sobol_indices_of_ishigami():
    """Summed relative variance at 10,000 draws: below plain draws and far below separate ones."""
    p = standard(6)
    variance = sobol(p.sample(200_000, random_state=99)).var(axis=0)
    plain = float((variance / SOBOL**2).sum() / 10_000)
    joint, separate, inside = [], [], 0
    for seed in range(8):
        model = AdaptiveImportanceSampling(10_000, random_state=seed).fit(sobol, p, p)
        joint.append(relative_variance(model.estimates_, SOBOL))
        inside += sum(e.low <= t <= e.high for e, t in zip(model.estimates_, SOBOL, strict=True))
        apart = [
            AdaptiveImportanceSampling(2000, random_state=seed)
            .fit(lambda x, i=i: sobol(x)[:, i], p, p)
            .estimates_[0]
            for i in range(5)
        ]
        separate.append(relative_variance(apart, SOBOL))
    assert np.mean(joint) < 0.95 * plain
    assert np.mean(joint) < 0.4 * np.mean(separate)
    assert inside >= 32  # of 40


def test_known_means_of_a_law_fitted_to_real_data():
    """p is a mixture fitted to tumours; its tails are known from the normal law."""
    x = load_breast_cancer().data[:, [0, 1]]
    p = fit_gaussian_mixture(x, np.zeros(len(x)), 3, random_state=0)
    radius, texture = 28.0, 38.0

    def tail(j, limit):
        spread = np.sqrt(p.covariances[:, j, j])
        return float(p.shares @ norm.sf((limit - p.means[:, j]) / spread))

    truth = [tail(0, radius), tail(1, texture), float(p.shares @ p.means[:, 0])]

    def functions(z):
        return np.stack([z[:, 0] > radius, z[:, 1] > texture, z[:, 0]], axis=1)

    initial = GaussianMixture.around(x, widen=1.7)
    model = AdaptiveImportanceSampling(6000, random_state=1).fit(functions, p, initial)
    for found, value in zip(model.estimates_, truth, strict=True):
        assert abs(found.estimate - value) < 5.5 * found.standard_error
        assert found.standard_error < 0.25 * value
    assert np.exp(model.log_ratio_).mean() == pytest.approx(1, abs=0.1)
    assert len(model.weights_) == model.n_final_


def test_rounds_stop_when_they_no_longer_pay():
    p, wide = standard(4), standard(4, 1.7)
    model = AdaptiveImportanceSampling(8000, random_state=0).fit(rare, p, wide)
    assert 1 < len(model.rounds_) < 8
    assert model.rounds_[-1].decision.startswith("stopped")
    assert model.rounds_[0].decision.startswith("went on")
    assert model.rounds_[0].after < 0.1 * model.rounds_[0].before
    assert model.n_final_ + 800 * len(model.rounds_) == 8000
    assert "fresh ones" in model.status_
    limited = AdaptiveImportanceSampling(8000, max_rounds=1, random_state=0).fit(rare, p, wide)
    assert len(limited.rounds_) == 1
    assert limited.rounds_[0].decision == "no draws left for another round"
    again = clone(model).fit(rare, p, wide)
    assert again.estimates_ == model.estimates_
    # Where p is the best law already, one round suffices.
    idle = AdaptiveImportanceSampling(4000, control=None, random_state=0)
    idle.fit(lambda x: np.ones(len(x)), standard(2), standard(2))
    assert len(idle.rounds_) == 1


def test_controls_and_importance():
    p, wide = standard(2), standard(2, 1.5)

    def functions(x):
        return np.stack([np.ones(len(x)), x[:, 0] ** 2], axis=1)

    exact = AdaptiveImportanceSampling(2000, random_state=0).fit(functions, p, wide).estimates_[0]
    assert exact.estimate == pytest.approx(1, abs=1e-9)
    assert exact.standard_error < 1e-9
    own = AdaptiveImportanceSampling(
        2000, control=(lambda x: p.log_density(x) + np.log(3.0), 3.0), random_state=0
    ).fit(functions, p, wide)
    assert own.estimates_[0].estimate == pytest.approx(1, abs=1e-9)
    assert own.coefficients_[0] == pytest.approx(1 / 3, abs=1e-6)
    for importance in ("equal", [0.0, 1.0]):
        model = AdaptiveImportanceSampling(2000, importance=importance, random_state=0)
        found = model.fit(functions, p.log_density, wide).estimates_[1]
        assert abs(found.estimate - 1) < 5.5 * found.standard_error
    none = AdaptiveImportanceSampling(2000, control=None, smooth=True, random_state=0)
    found = none.fit(lambda x: x[:, 0] > 1.0, p, wide).estimates_[0]
    assert abs(found.estimate - norm.sf(1.0)) < 6 * found.standard_error
    assert none.coefficients_ == pytest.approx(0)


def test_failures_name_what_is_wrong():
    p = standard(2)
    model = AdaptiveImportanceSampling(1000, random_state=0)

    def run(functions=lambda x: x, density=p, **options):
        return AdaptiveImportanceSampling(1000, random_state=0, **options).fit(
            functions, density, p
        )

    for call, error, text in (
        (lambda: model.weights_, NotFittedError, "call fit first"),
        (lambda: run(lambda x: x[:, 0] > 9), OverlapError, "all functions are 0 at all 100 first"),
        (lambda: run(n_round=600), OptionError, "n_round is 600 of a budget of 1000"),
        (lambda: run(defensive=0.0), OptionError, "defensive is 0.0"),
        (lambda: run(n_components=0), OptionError, "n_components is 0"),
        (lambda: run(control="q"), OptionError, "Unknown control 'q'"),
        (lambda: run(importance="rare"), OptionError, "Unknown importance 'rare'"),
        (lambda: run(importance=[1.0]), OptionError, "give 2 numbers"),
        (lambda: run(lambda x: x[:3]), DataError, r"functions gave \(3, 2\)"),
        (lambda: run(lambda x: x / 0 * np.nan), DataError, "not finite where p is positive"),
        (
            lambda: run(density=lambda x: np.full(len(x), np.nan)),
            DataError,
            "log density of p is NaN",
        ),
        (lambda: control_variate_means([1.0, 2.0], [0.0, 0.0]), DataError, "n at least 3"),
        (lambda: control_variate_means([1.0] * 4, [np.inf] * 4), DataError, "not finite"),
        (lambda: control_variate_means([1.0] * 4, [0.0] * 4, level=2), OptionError, "level is 2"),
        (
            lambda: control_variate_means([1.0] * 4, [0.0] * 4, log_ratio_control=[0.0]),
            DataError,
            r"expected \(4,\)",
        ),
    ):
        with np.errstate(all="ignore"), pytest.raises(error, match=text):
            call()
    nothing = control_variate_means(np.zeros(9), np.zeros(9))[0]
    assert nothing.reason.startswith("all draws gave the same number")
