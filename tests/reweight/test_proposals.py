"""Gaussian mixtures to draw from: densities, draws, weighted fits."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture as Peer

from dpdq.errors import DataError, OptionError
from dpdq.reweight.proposals import GaussianMixture, fit_gaussian_mixture


def two():
    return GaussianMixture(
        [0.3, 0.7],
        [[0.0, 0.0], [3.0, -1.0]],
        [[[1.0, 0.5], [0.5, 2.0]], [[0.5, 0.0], [0.0, 0.1]]],
    )


def test_density_is_scipys():
    g = two()
    x = np.random.default_rng(0).normal(size=(50, 2)) * 3
    by_hand = sum(
        s * multivariate_normal(m, c).pdf(x)
        for s, m, c in zip(g.shares, g.means, g.covariances, strict=True)
    )
    assert g.log_density(x) == pytest.approx(np.log(by_hand))
    assert pickle.loads(pickle.dumps(g)).log_density(x) == pytest.approx(g.log_density(x))
    assert repr(g) == "GaussianMixture(2 components in 2 dimensions)"


def test_draws_have_the_moments():
    """40,000 draws; means and covariances within six standard errors."""
    g = two()
    x = g.sample(40_000, random_state=0)
    mean = g.shares @ g.means
    second = np.einsum("k,kij->ij", g.shares, g.covariances)
    second += np.einsum("k,ki,kj->ij", g.shares, g.means - mean, g.means - mean)
    assert x.mean(axis=0) == pytest.approx(mean, abs=6 * np.sqrt(second.max() / 40_000))
    assert np.cov(x, rowvar=False) == pytest.approx(second, abs=6 * 2 * second.max() / 200)
    assert np.array_equal(x[:5], g.sample(40_000, random_state=0)[:5])


def test_mixing_adds_components():
    g, wide = two(), GaussianMixture([1.0], [[0.0, 0.0]], [np.eye(2) * 9])
    mixed = g.mixed_with(wide, 0.2)
    x = np.random.default_rng(0).normal(size=(20, 2)) * 3
    density = 0.8 * np.exp(g.log_density(x)) + 0.2 * np.exp(wide.log_density(x))
    assert np.exp(mixed.log_density(x)) == pytest.approx(density)
    assert g.mixed_with(wide, 0.0) is g


def test_around_is_the_sample_covariance():
    x = load_iris(return_X_y=True)[0]
    g = GaussianMixture.around(x, widen=2.0)
    assert g.means[0] == pytest.approx(x.mean(axis=0))
    assert g.covariances[0] == pytest.approx(4 * np.cov(x, rowvar=False))


def test_fit_finds_a_mixture_from_weighted_rows():
    """Rows of one law, weighted to another, against rows of that other law."""
    g = two()
    wide = GaussianMixture([1.0], [[1.5, -0.5]], [np.eye(2) * 8])
    x = wide.sample(30_000, random_state=0)
    fitted = fit_gaussian_mixture(x, g.log_density(x) - wide.log_density(x), 2, random_state=1)
    order = np.argsort(fitted.means[:, 0])
    assert fitted.shares[order] == pytest.approx(g.shares, abs=0.03)
    assert fitted.means[order] == pytest.approx(g.means, abs=0.15)
    assert fitted.covariances[order] == pytest.approx(g.covariances, abs=0.25)
    # whole weights are repeated rows, up to the pseudo-rows
    y = x[:3000]
    counts = np.random.default_rng(0).integers(0, 3, len(y))
    with np.errstate(divide="ignore"):
        weighted = fit_gaussian_mixture(y, np.log(counts), 1)
    repeated = fit_gaussian_mixture(np.repeat(y, counts, axis=0), np.zeros(counts.sum()), 1)
    assert weighted.means == pytest.approx(repeated.means)
    assert weighted.covariances == pytest.approx(repeated.covariances, rel=2e-3)


def test_fit_is_as_likely_as_scikit_learns_on_iris():
    x = load_iris(return_X_y=True)[0]
    ours = fit_gaussian_mixture(x, np.zeros(len(x)), 3, random_state=0).log_density(x).mean()
    peer = Peer(3, random_state=0).fit(x).score(x)
    assert ours > peer - 0.7  # pseudo-rows widen on purpose, at 150 rows much
    assert ours < peer + 0.05


def test_few_effective_rows_take_fewer_components():
    x = np.random.default_rng(0).normal(size=(100, 2))
    log_weights = np.where(np.arange(100) < 8, 0.0, -50.0)
    assert len(fit_gaussian_mixture(x, log_weights, 5, random_state=0).shares) == 1


def test_failures_name_what_is_wrong():
    eye = np.eye(2)[None]
    for call, error, text in (
        (lambda: GaussianMixture([1.0], [0.0, 0.0], eye), OptionError, "do not fit"),
        (lambda: GaussianMixture([0.5], [[0.0, 0.0]], eye), OptionError, "sum to 1"),
        (lambda: GaussianMixture([1.0], [[0.0, 0.0]], -eye), OptionError, "positive definite"),
        (lambda: GaussianMixture.around(np.zeros((2, 2))), DataError, "2 rows in 2 dimensions"),
        (lambda: GaussianMixture.around(np.ones((9, 2))), DataError, "do not vary"),
        (lambda: fit_gaussian_mixture([1.0, 2.0], [-np.inf, -np.inf], 1), DataError, "no weight"),
        (lambda: fit_gaussian_mixture([1.0, 1.0], [0.0, 0.0], 1), DataError, "all equal"),
    ):
        with pytest.raises(error, match=text):
            call()
