"""ULSIF: the closed-form score against brute force, known answers, bounds."""

import numpy as np
import pytest

from dpdq.errors import OptionError
from dpdq.ratio import ULSIF
from dpdq.ratio.least_squares import leave_one_out_scores


def brute_force(q, p, centers, bandwidth, ridge, share_q, share_p, offset, floor):
    """The criterion with every row scored by a fit without it, refitted from scratch."""

    def bumps(x):
        return np.exp(-((x[:, None] - centers) ** 2).sum(-1) / (2 * bandwidth**2))

    def ratio(keep_q, keep_p, x):
        w, v = share_q * keep_q, share_p * keep_p
        w, v = w / w.sum(), v / v.sum()
        gram = (bumps(q).T * w) @ bumps(q)
        target = v @ bumps(p) - offset * (w @ bumps(q))
        theta = np.linalg.solve(gram + ridge * np.eye(len(centers)), target)
        return max((offset + bumps(x) @ theta)[0], floor)

    all_q, all_p = np.ones(len(q)), np.ones(len(p))
    score = 0.0
    for i in range(len(q)):
        score += share_q[i] * ratio(np.arange(len(q)) != i, all_p, q[i : i + 1]) ** 2 / 2
    for j in range(len(p)):
        score -= share_p[j] * ratio(all_q, np.arange(len(p)) != j, p[j : j + 1])
    return score


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(30, 30), (25, 40), (40, 18)])
def test_leave_one_out_equals_brute_force(sizes, offset, weighted):
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(sizes[0], 2)), 0.7 * rng.normal(size=(sizes[1], 2)) + 0.5
    share_q, share_p = np.ones(sizes[0]), np.ones(sizes[1])
    if weighted:
        share_q, share_p = rng.uniform(0.2, 3, sizes[0]), rng.uniform(0.2, 3, sizes[1])
    share_q, share_p = share_q / share_q.sum(), share_p / share_p.sum()
    centers = np.vstack([p[:8], q[:4]])
    bandwidths, ridges = np.array([0.2, 0.7, 2.0]), np.array([1e-3, 0.1, 3.0])
    fast = leave_one_out_scores(
        q, p, centers, bandwidths, ridges, share_q=share_q, share_p=share_p, offset=offset
    )
    slow = [
        [
            brute_force(q, p, centers, bandwidth, ridge, share_q, share_p, offset, 0.01)
            for ridge in ridges
        ]
        for bandwidth in bandwidths
    ]
    np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-9)


def test_published_estimator_without_offset():
    """offset=0 solves (H + ridge I) theta = h, as in the paper."""
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(200, 1)), rng.normal(size=(150, 1)) + 0.5
    model = ULSIF(bandwidths=[0.8], ridges=[0.05], offset=0, standardise=False).fit(q, p)
    center = (q.mean(0) + p.mean(0)) / 2
    z_q, z_p = q - center, p - center

    def bumps(x):
        return np.exp(-((x - model.centers_.T) ** 2) / (2 * 0.64))

    gram = bumps(z_q).T @ bumps(z_q) / 200
    theta = np.linalg.solve(gram + 0.05 * np.eye(len(gram)), bumps(z_p).mean(0))
    expected = np.log(np.maximum(bumps(z_q) @ theta, 0.01))
    np.testing.assert_allclose(model.log_ratio(q), expected, atol=1e-7)


def test_chosen_cell_has_the_smallest_score():
    rng = np.random.default_rng(0)
    model = ULSIF(random_state=0).fit(rng.normal(size=(900, 2)), rng.normal(size=(800, 2)) + 0.5)
    a, b = np.unravel_index(model.scores_.argmin(), model.scores_.shape)
    assert (model.bandwidth_, model.ridge_) == (model.bandwidths_[a], model.ridges_[b])
    assert model.scores_.shape == (8, 10)
    assert model.scores_.min() < -0.5  # better than the constant ratio


def test_no_structure_where_there_is_none():
    rng = np.random.default_rng(0)
    model = ULSIF(random_state=0).fit(rng.normal(size=(2000, 3)), rng.normal(size=(2000, 3)))
    assert np.abs(model.log_ratio(rng.normal(size=(500, 3)))).mean() < 0.15


def test_far_rows_have_the_ratio_of_the_offset():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(500, 1)), rng.normal(size=(500, 1)) + 1
    model = ULSIF(random_state=0).fit(q, p)
    assert abs(model.log_ratio([[1e6]])[0]) < 1e-9


def test_bounded_below_by_the_floor():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(1000, 1)), 0.05 * rng.normal(size=(1000, 1)) + 3
    found = ULSIF(floor=0.02, random_state=0).fit(q, p).log_ratio(np.linspace(-4, 4, 200)[:, None])
    assert found.min() >= np.log(0.02) - 1e-12
    assert np.isfinite(found).all()


def test_blocks_change_nothing(monkeypatch):
    from dpdq.ratio import _bumps

    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(700, 2)), rng.normal(size=(600, 2)) + 0.5
    one = ULSIF(random_state=0).fit(q, p).log_ratio(q)
    monkeypatch.setattr(_bumps, "BLOCK", 100)
    np.testing.assert_allclose(one, ULSIF(random_state=0).fit(q, p).log_ratio(q), atol=1e-9)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_centers": 1}, "n_centers is 1; expected at least 2"),
        ({"floor": 0}, "floor is 0; expected a positive number"),
        ({"bandwidths": "silverman"}, "Unknown bandwidths 'silverman'. Choose 'auto' or a list"),
        ({"ridges": [0.0]}, "expected positive finite numbers"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        ULSIF(**options).fit(np.zeros((5, 1)), np.ones((5, 1)))
