import contextlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits

from dpdq.distance import fidelity, prdc
from dpdq.errors import DataError, OptionError

NAMES = ("precision", "recall", "density", "coverage")


def ours(q, p, k=5, **options):
    found = prdc(q, p, n_neighbors=k, **options)
    return np.array([getattr(found, name).estimate for name in NAMES])


def theirs(q, p, k=5):
    with contextlib.redirect_stdout(io.StringIO()):
        found = compute_prdc(real_features=p, fake_features=q, nearest_k=k)
    return np.array([found[name] for name in NAMES])


@pytest.mark.parametrize("d, k", [(1, 1), (3, 5), (64, 5), (64, 20)])
def test_equals_the_package(d, k):
    rng = np.random.default_rng(d)
    q, p = rng.normal(0.3, 0.8, size=(310, d)), rng.normal(size=(420, d))
    np.testing.assert_allclose(ours(q, p, k, n_groups=0), theirs(q, p, k), rtol=0, atol=1e-12)


def test_balls_are_open_where_distances_tie():
    """On a lattice distances are exact in both programs, and every k-th neighbour is tied."""
    rng = np.random.default_rng(0)
    q, p = rng.integers(0, 4, size=(60, 3)), rng.integers(0, 5, size=(70, 3))
    for k in (1, 3, 5):
        np.testing.assert_allclose(ours(q, p, k, n_groups=0), theirs(q, p, k), atol=1e-12)
        # in units of 0.1 the same distances tie in truth, but sums of squares round differently
        found = ours(q * 0.1 + 70.0, p * 0.1 + 70.0, k, n_groups=0)
        np.testing.assert_array_equal(found, ours(q, p, k, n_groups=0))


def test_leaving_out_groups_equals_doing_it():
    """The radii and counts without a group are those of the smaller samples."""
    rng = np.random.default_rng(1)
    q, p, k = rng.normal(size=(90, 3)), rng.normal(size=(110, 3)), 4
    for spare in (0, 8):  # with no spare neighbours radii are found anew
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fidelity, "SPARE", spare)
            sides = [fidelity._Balls(x, k, 5, np.random.default_rng(2)) for x in (q, p)]
            values = fidelity._four(sides[0], sides[1], k)
        assert len(values) == 6
        for g in range(1, 6):
            kept_q, kept_p = q[sides[0].group != g], p[sides[1].group != g]
            np.testing.assert_allclose(values[g], ours(kept_q, kept_p, k, n_groups=0), atol=1e-12)


def test_plain_definition():
    rng = np.random.default_rng(3)
    q, p, k = rng.normal(size=(25, 2)), rng.normal(size=(30, 2)), 3
    radius_p = np.sort(cdist(p, p), axis=1)[:, k]
    radius_q = np.sort(cdist(q, q), axis=1)[:, k]
    across = cdist(p, q)
    inside = across < radius_p[:, None]
    expected = [
        inside.any(axis=0).mean(),
        (across < radius_q).any(axis=1).mean(),
        inside.sum() / (k * len(q)),
        inside.any(axis=1).mean(),
    ]
    np.testing.assert_allclose(ours(q, p, k, n_groups=0), expected)


def test_expectations_under_one_law():
    """Mean density 1 and coverage 1 - prod (N - l)/(N + M - l), in one and in ten dimensions.

    Six standard errors of 150 draws: false alarm below 1e-8.
    """
    rng = np.random.default_rng(4)
    for d in (1, 10):
        found = [
            prdc(rng.normal(size=(80, d)), rng.normal(size=(50, d)), n_neighbors=3, n_groups=0)
            for _ in range(150)
        ]
        for name in ("density", "coverage"):
            values = np.array([getattr(one, name).estimate for one in found])
            expected = getattr(found[0], f"expected_{name}")
            assert abs(values.mean() - expected) < 6 * values.std() / np.sqrt(150)


def test_intervals_are_safe():
    """Wider than the spread of estimates, by at most a factor of about two."""
    rng = np.random.default_rng(5)
    found = [
        prdc(rng.normal(0.3, 0.8, size=(200, 8)), rng.normal(size=(200, 8)), random_state=draw)
        for draw in range(80)
    ]
    for name in NAMES:
        parts = [getattr(one, name) for one in found]
        estimates = np.array([part.estimate for part in parts])
        error = np.sqrt(np.mean([part.standard_error**2 for part in parts]))
        assert 0.9 < error / estimates.std() < 2.5
        covered = sum(part.low <= estimates.mean() <= part.high for part in parts)
        # a valid 95 % interval misses more than 16 of 80 with probability below 1e-6
        assert covered >= 64


@given(st.integers(0, 10**6))
def test_rotation_scale_order_and_exchange(seed):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(20, 3)), rng.normal(size=(25, 3))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    one = ours(q, p, 3, n_groups=0)
    np.testing.assert_array_equal(ours(4 * q @ turn, 4 * p @ turn, 3, n_groups=0), one)
    np.testing.assert_array_equal(ours(q[::-1], p[rng.permutation(25)], 3, n_groups=0), one)
    exchanged = ours(p, q, 3, n_groups=0)
    assert (exchanged[0], exchanged[1]) == (one[1], one[0])


def test_real_digits_as_the_paper_says():
    """M381: halves agree, dropped classes lower coverage, outliers move density less."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(6).permutation(len(images))
    images, labels = images[order], labels[order]
    p, q, of_q = images[:898], images[898:], labels[898:]
    halves = prdc(q, p, random_state=0)
    assert halves.density.low < 1.0 < halves.density.high
    assert halves.coverage.low < halves.expected_coverage < halves.coverage.high
    assert halves.expected_coverage == pytest.approx(1 - 0.5**5, abs=0.01)
    covered = [ours(q[of_q < classes], p, n_groups=0)[3] for classes in (10, 9, 8, 7, 6, 5)]
    assert (np.diff(covered) < 0).all()
    outliers = np.random.default_rng(7).uniform(0, 16, size=(2, 64))
    spoilt = np.vstack([p, outliers])
    generated = np.vstack([q, np.random.default_rng(8).uniform(0, 16, size=(300, 64))])
    change = np.abs(ours(generated, spoilt, n_groups=0) - ours(generated, p, n_groups=0))
    assert change[2] < 0.5 * change[0]


def test_status_says_what_to_do():
    rng = np.random.default_rng(9)
    p = rng.normal(size=(300, 4))
    assert "nothing speaks against" in prdc(rng.normal(size=(300, 4)), p, random_state=0).status
    half = np.abs(rng.normal(size=(300, 4)))
    assert "no generated row near" in prdc(half, p, random_state=0).status
    assert "crowd" in prdc(0.6 * rng.normal(size=(300, 4)), p, random_state=0).status
    assert "thinner places" in prdc(3 * rng.normal(size=(300, 4)), p, random_state=0).status
    few = prdc(rng.normal(size=(50, 4)), p, random_state=0)
    assert "could reach only 0.5" in few.status
    assert few.to_dict()["coverage"]["estimate"] == few.coverage.estimate


def test_wrong_input_is_refused():
    x = np.arange(20.0)[:, None]
    with pytest.raises(OptionError, match="n_neighbors is 0; expected at least 1"):
        prdc(x, x, n_neighbors=0)
    with pytest.raises(DataError, match="p has 5 rows; expected at least 6"):
        prdc(x, x[:5])
    with pytest.raises(DataError, match="too few to leave out a 6th"):
        prdc(x, x[:6])
    with pytest.raises(OptionError, match="n_groups is 1"):
        prdc(x, x, n_groups=1)
    with pytest.raises(DataError, match="q: 1 of 20 rows hold missing"):
        prdc(np.where(x == 3, np.nan, x), x)
