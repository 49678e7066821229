import math

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from sklearn.datasets import load_digits

from dpdq.distance import sliced_wasserstein, sliced_wasserstein_test, wasserstein
from dpdq.distance._directions import SliceLaw, _climb_law, _Draws
from dpdq.distance._slices import Slices
from dpdq.distance._sphere import angle_law, orthogonal_directions, uniform_directions
from dpdq.distance.sliced import prepare
from dpdq.errors import DataError, OptionError

EPS = np.finfo(np.float32).eps / 2


def two(rng, n=120, m=120, d=5):
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.4 + 0.3


# ---------------------------------------------------------------------------------- the distance


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(100, 100), (90, 140), (60, 120)])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_pot(order, sizes, weighted):
    rng = np.random.default_rng(0)
    q, p = two(rng, *sizes)
    theta = uniform_directions(40, 5, rng)
    u, v = (rng.random(n) + 0.1 for n in sizes) if weighted else (None, None)
    shares = (u / u.sum(), v / v.sum()) if weighted else (None, None)
    peer = ot.sliced_wasserstein_distance(q, p, *shares, projections=theta.T, p=order)
    options = {"order": order, "projections": theta, "weights_q": u, "weights_p": v}
    found = sliced_wasserstein(q, p, precision="float64", random_state=0, **options)
    assert found.estimate == pytest.approx(peer, rel=1e-10)
    short = sliced_wasserstein(q, p, random_state=0, **options)
    assert short.estimate == pytest.approx(peer, rel=1e-5)
    assert found.low <= found.estimate <= found.high


@pytest.mark.parametrize("law", ["normal", "cauchy", "tied", "far"])
def test_float32_is_within_its_bound(law):
    rng = np.random.default_rng(1)
    for d in (2, 32, 200):
        q = {"cauchy": rng.standard_cauchy}.get(law, rng.normal)(size=(300, d))
        p = rng.normal(size=(300, d))
        if law == "tied":
            q, p = q.round(), p.round()
        if law == "far":
            q, p = q + 1e7, p + 1e7
        for order in (1, 2, 3.5):
            options = {"order": order, "n_projections": 30, "random_state": 3}
            exact = sliced_wasserstein(q, p, precision="float64", **options).estimate
            short = sliced_wasserstein(q, p, **options).estimate
            radius = prepare(q, p, order)[1]
            assert abs(exact - short) <= 2 * (d + 2) * EPS * radius + 4 * EPS * exact


def test_one_dimension_is_the_exact_distance():
    rng = np.random.default_rng(2)
    q, p, w = rng.normal(size=80), rng.normal(1, 2, size=50), rng.random(80)
    for order in (1, 2):
        exact = wasserstein(q, p, order=order, weights_q=w)
        for projections in ("uniform", "max", "vmf"):
            found = sliced_wasserstein(
                q, p, order=order, projections=projections, weights_q=w, precision="float64"
            )
            assert found.estimate == pytest.approx(exact, rel=1e-12)
            assert found.projection_standard_error == 0


def test_a_shift_has_a_closed_form():
    """E |theta.s|^r over the sphere: |s|^2 / d for r = 2."""
    rng = np.random.default_rng(3)
    q, shift = rng.normal(size=(400, 6)), np.array([2.0, -1.0, 0.0, 0.0, 0.5, 0.0])
    length = np.linalg.norm(shift)
    found = sliced_wasserstein(q, q + shift, n_projections=20_000, random_state=0)
    # five and a half standard errors of the directions: false alarm below 1e-7
    error = found.projection_standard_error
    assert abs(found.estimate - length / math.sqrt(6)) < 5.5 * error
    assert error < 0.02 * length
    top = sliced_wasserstein(q, q + shift, projections="max", precision="float64", random_state=0)
    assert top.estimate == pytest.approx(length, rel=1e-6)
    assert abs(top.direction @ shift) == pytest.approx(length, rel=1e-6)
    cone = sliced_wasserstein(q, q + shift, projections="vmf", kappa=30, random_state=0)
    law = angle_law(6, 30.0)
    mean_square = law.cosine_variance + law.mean_cosine**2
    assert cone.estimate == pytest.approx(length * math.sqrt(mean_square), rel=0.03)
    assert found.estimate < cone.estimate < top.estimate


def test_weights_mean_what_the_design_says():
    rng = np.random.default_rng(4)
    q, p = two(rng, 40, 50)
    counts = rng.integers(0, 4, 40)
    for order in (1, 2):
        options = {"order": order, "random_state": 0, "precision": "float64", "n_projections": 30}
        weighted = sliced_wasserstein(q, p, weights_q=counts, **options)
        repeated = sliced_wasserstein(np.repeat(q, counts, axis=0), p, **options)
        assert weighted.estimate == pytest.approx(repeated.estimate, rel=1e-10)
        scaled = sliced_wasserstein(q, p, weights_q=7.5 * counts, **options)
        assert scaled.estimate == pytest.approx(weighted.estimate, rel=1e-12)
        kept = sliced_wasserstein(q[counts > 0], p, weights_q=counts[counts > 0], **options)
        assert kept.standard_error == pytest.approx(weighted.standard_error, rel=1e-9)
        even = sliced_wasserstein(q, p, weights_q=np.ones(40), **options)
        assert even.standard_error == pytest.approx(
            sliced_wasserstein(q, p, **options).standard_error, rel=0.02
        )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_invariances(seed, scale, move):
    rng = np.random.default_rng(seed)
    q, p = two(rng, 30, 25, 3)
    options = {"random_state": 1, "precision": "float64", "n_projections": 20}
    found = sliced_wasserstein(q, p, **options).estimate
    assert found >= 0
    shuffled = sliced_wasserstein(rng.permutation(q), rng.permutation(p), **options).estimate
    assert shuffled == pytest.approx(found, rel=1e-10)
    assert sliced_wasserstein(p, q, **options).estimate == pytest.approx(found, rel=1e-10)
    moved = sliced_wasserstein(scale * q + move, scale * p + move, **options).estimate
    assert moved == pytest.approx(scale * found, rel=1e-9)
    assert sliced_wasserstein(q, q, **options).estimate == 0


def test_the_same_seed_gives_the_same_bits():
    q, p = two(np.random.default_rng(5), 300, 200)
    for projections in ("uniform", "max", "vmf"):
        one, again = (
            sliced_wasserstein(q, p, projections=projections, random_state=7) for _ in range(2)
        )
        assert one.to_dict() == again.to_dict()


def test_bias_is_one_sided_and_the_interval_holds():
    """The plug-in is never below the truth on average, and both ends hold at q = p and away."""
    rng = np.random.default_rng(6)
    for order, shift in ((1, 0.0), (2, 0.0), (1, 1.0), (2, 1.0)):
        truth = shift * (0.5 if order == 1 else math.sqrt(1 / 3))  # d = 3: E|t| = 1/2
        below = above = 0
        estimates = []
        for k in range(50):
            q, p = rng.normal(size=(60, 3)), rng.normal(size=(80, 3))
            p[:, 0] += shift
            found = sliced_wasserstein(q, p, order=order, n_projections=100, random_state=k)
            below += found.low > truth
            above += found.high < truth
            estimates.append(found.estimate)
        assert np.mean(estimates) > truth
        # at a miss rate of 5 % on a side more than 13 of 50 have probability below 1e-6
        assert below <= 13
        assert above <= 13


def test_standard_error_is_the_spread_of_estimates():
    rng = np.random.default_rng(7)
    theta = uniform_directions(30, 4, rng)
    for order, weighted in ((1, False), (2, False), (2, True)):
        values, errors = [], []
        for _ in range(150):
            q, p = two(rng, 200, 150, 4)
            w = np.exp(0.5 * q[:, 0]) if weighted else None
            slices, _ = prepare(q / 10, p / 10, order, w)
            slices = Slices(q, p, order, w)
            values.append(slices.costs(theta).mean())
            errors.append(math.sqrt(slices.sampling_variance(theta, 30)))
        # the spread of 150 draws has a relative error of 6 %; five and a half of them
        assert np.std(values) == pytest.approx(np.mean(errors), rel=0.33)


def test_projection_error_is_the_spread_over_seeds():
    q, p = two(np.random.default_rng(8), 100, 100)
    found = [sliced_wasserstein(q, p, n_projections=50, random_state=k) for k in range(100)]
    spread = np.std([one.estimate for one in found])
    error = np.mean([one.projection_standard_error for one in found])
    assert spread == pytest.approx(error, rel=0.33)


def test_gradient_is_that_of_the_cost():
    rng = np.random.default_rng(9)
    for sizes, weighted in (((40, 40), False), ((40, 30), False), ((40, 30), True)):
        q, p = two(rng, *sizes)
        w = rng.random(40) + 0.2 if weighted else None
        for order in (1, 2, 3):
            slices = Slices(q, p, order, w)
            theta, move = uniform_directions(6, 5, rng), uniform_directions(6, 5, rng)
            costs, gradients = slices.gradients(theta)
            np.testing.assert_allclose(costs, slices.costs(theta), rtol=1e-12)
            h = 1e-6
            up, down = slices.costs(theta + h * move), slices.costs(theta - h * move)
            np.testing.assert_allclose((up - down) / (2 * h), (gradients * move).sum(1), atol=2e-4)


def test_max_finds_the_largest_direction_in_the_plane():
    rng = np.random.default_rng(10)
    for k in range(5):
        q, p = rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) @ rng.normal(size=(2, 2))
        angles = np.linspace(0, np.pi, 4001)
        grid = np.column_stack([np.cos(angles), np.sin(angles)])
        slices, scale = prepare(q, p, 2)
        best = scale * math.sqrt(slices.costs(grid).max())
        found = sliced_wasserstein(q, p, projections="max", precision="float64", random_state=k)
        assert found.estimate >= best * (1 - 1e-5)


# ------------------------------------------------------------------------- laws of directions


@pytest.mark.parametrize("d", [2, 3, 10, 64, 784])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 20.0, 900.0])
def test_von_mises_fisher_equals_quadrature(d, kappa):
    law = angle_law(d, kappa)
    if d <= 64 and kappa > 0:
        order = d / 2 - 1
        exact = (
            special.gammaln(d / 2)
            - order * math.log(kappa / 2)
            + math.log(special.ive(order, kappa))
            + kappa
        )
        assert law.log_normaliser == pytest.approx(exact, abs=1e-9)
        ratio = special.ive(order + 1, kappa) / special.ive(order, kappa)
        assert law.mean_cosine == pytest.approx(ratio, abs=1e-10)
    step = max(1e-4 * kappa, 1e-5)
    up = angle_law(d, kappa + step)
    slope = (up.kl - law.kl) / step
    assert slope == pytest.approx((kappa + step / 2) * law.cosine_variance, abs=2e-4)
    assert law.kl >= 0
    if kappa == 0:
        assert law.kl == 0
        assert law.cosine_variance == pytest.approx(1 / d, rel=1e-10)


def test_draws_follow_their_law():
    rng = np.random.default_rng(11)
    location = uniform_directions(1, 5, rng)[0]
    n = 200_000
    for kappa in (0.5, 8.0, 300.0):
        theta = SliceLaw(location, kappa).draw(n, rng)
        np.testing.assert_allclose(np.linalg.norm(theta, axis=1), 1, atol=1e-12)
        law, cosine = angle_law(5, kappa), theta @ location
        error = math.sqrt(law.cosine_variance / n)
        assert abs(cosine.mean() - law.mean_cosine) < 5.5 * error
        density = integrate.quad(
            lambda t, k=kappa: math.exp(k * (t - 1)) * (1 - t * t), -1, law.mean_cosine
        )[0]
        total = integrate.quad(lambda t, k=kappa: math.exp(k * (t - 1)) * (1 - t * t), -1, 1)[0]
        assert np.mean(cosine < law.mean_cosine) == pytest.approx(density / total, abs=0.007)


def test_reparameterised_angles_move_with_kappa():
    u = np.linspace(0.01, 0.99, 99)
    for d, kappa in ((3, 2.0), (20, 15.0), (200, 300.0)):
        _, slope = angle_law(d, kappa).angles(u)
        h = 1e-3 * kappa
        up, down = angle_law(d, kappa + h).angles(u)[0], angle_law(d, kappa - h).angles(u)[0]
        np.testing.assert_allclose((up - down) / (2 * h), slope, rtol=2e-3, atol=1e-7)


def test_turned_draws_keep_their_law_and_gradient():
    rng = np.random.default_rng(12)
    q, p = two(rng, 60, 60, 4)
    slices = Slices(q, p, 2.0)
    location = uniform_directions(1, 4, rng)[0]
    towards = orthogonal_directions(location, 1, rng)[0]
    draws = _Draws(location, 1.5, rng.random(500), orthogonal_directions(location, 500, rng))
    turned = draws.moved(towards, 0.7, 0.0)
    np.testing.assert_allclose(turned.theta @ turned.location, draws.theta @ location, atol=1e-12)
    np.testing.assert_allclose(turned.across @ turned.location, 0, atol=1e-12)
    value, climbed, _ = _climb_law(slices, draws, 0.0, free=False)
    assert value >= slices.costs(draws.theta).mean()
    assert climbed.log_kappa == 1.5


# -------------------------------------------------------------------------------------- the test


@pytest.mark.parametrize("projections", ["uniform", "max", "vmf", "adaptive"])
def test_level(projections):
    rng = np.random.default_rng(13)
    n_rounds, hits = 40, 0
    for k in range(n_rounds):
        q, p = rng.normal(size=(16, 6)).round(1), rng.normal(size=(24, 6)).round(1)
        found = sliced_wasserstein_test(
            q, p, projections=projections, n_projections=10, n_permutations=39, random_state=k
        )
        hits += found.pvalue <= 0.05
    # of 40 draws of a valid 5 % test more than 11 reject with probability below 1e-6
    assert hits <= 11


@pytest.mark.parametrize("sizes", [(9, 9), (7, 11)])
def test_permuted_statistic_is_that_of_the_distance(sizes):
    rng = np.random.default_rng(14)
    q, p = two(rng, *sizes, 3)
    found = sliced_wasserstein_test(q, p, n_projections=7, n_permutations=19, random_state=3)
    same = sliced_wasserstein(q, p, n_projections=7, precision="float64", random_state=3)
    assert found.statistic == pytest.approx(same.estimate, rel=1e-10)
    assert found.effect.estimate == pytest.approx(same.estimate, rel=1e-10)
    assert found.pvalue >= 1 / 20


def test_learnt_directions_see_more_at_equal_rows():
    """Digits with a shift in one block of pixels, both methods on 60 rows a side.

    Of 14 draws the uniform directions find about half, the cone nearly all.
    """
    images = load_digits().data
    block = [27, 28, 35, 36]
    uniform, cone = [], []
    for k in range(14):
        rows = np.random.default_rng(k).permutation(len(images))[:240]
        q, p = images[rows[:120]], images[rows[120:]].copy()
        p[:, block] += 4.0
        options = {"n_projections": 50, "n_permutations": 99, "random_state": k}
        uniform.append(sliced_wasserstein_test(q[:60], p[:60], **options).pvalue)
        found = sliced_wasserstein_test(q, p, projections="vmf", kappa=128.0, **options)
        assert found.n_q == 60
        cone.append(found.pvalue)
    assert np.sum(np.less_equal(cone, 0.05)) >= np.sum(np.less_equal(uniform, 0.05))
    assert np.mean(cone) < np.mean(uniform)


def test_real_columns_that_differ_are_named(shared_data):
    import pyarrow.parquet as pq

    names = ["age", "education-num", "hours-per-week"]
    table = pq.read_table(shared_data / "adult.parquet")
    names = [n for n in table.column_names if n.replace("_", "-") in names]
    assert len(names) == 3
    x = np.column_stack([table[n].to_numpy().astype(float) for n in names])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    older = x[:, 0] > 0
    rng = np.random.default_rng(15)
    q, p = x[rng.choice(np.flatnonzero(~older), 3000)], x[rng.choice(np.flatnonzero(older), 3000)]
    found = sliced_wasserstein(q, p, projections="max", random_state=0)
    assert np.abs(found.direction).argmax() == 0
    assert found.low > 1
    assert not found.status
    half = rng.permutation(len(x))
    q, p = x[half[:3000]], x[half[3000:6000]]
    same = sliced_wasserstein(q, p, random_state=0)
    assert same.low == 0
    assert "sliced_wasserstein_test says whether it is real" in same.status
    assert sliced_wasserstein_test(q, p, n_projections=20, random_state=0).pvalue > 1e-3


# ------------------------------------------------------------------------------------ refusals


def test_refusals():
    x = np.zeros((5, 2))
    with pytest.raises(OptionError, match="Unknown projections 'min'. Choose one of 'uniform', "):
        sliced_wasserstein(x, x, projections="min")
    with pytest.raises(OptionError, match="Unknown precision 'half'. Choose one of 'float32'"):
        sliced_wasserstein(x, x, precision="half")
    with pytest.raises(OptionError, match="order is 0.5"):
        sliced_wasserstein(x, x, order=0.5)
    with pytest.raises(OptionError, match="n_projections is 0"):
        sliced_wasserstein(x, x, n_projections=0)
    with pytest.raises(OptionError, match="kappa is given"):
        sliced_wasserstein(x, x, kappa=3.0)
    with pytest.raises(OptionError, match="kappa is -1"):
        sliced_wasserstein(x, x, projections="vmf", kappa=-1.0)
    with pytest.raises(DataError, match="q has 2 features and p has 3"):
        sliced_wasserstein(x, np.zeros((5, 3)))
    with pytest.raises(DataError, match=r"projections has shape \(2, 3\); expected \(L, 2\)"):
        sliced_wasserstein(x, x, projections=np.ones((2, 3)))
    with pytest.raises(DataError, match="none of them zero"):
        sliced_wasserstein(x, x, projections=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"weights_q has shape \(4,\)"):
        sliced_wasserstein(x, x, weights_q=np.ones(4))
    with pytest.raises(DataError, match="p: 1 of 5 rows hold missing"):
        sliced_wasserstein(x, np.where(np.arange(10).reshape(5, 2) == 3, np.nan, 0.0))
    with pytest.raises(OptionError, match="Unknown projections 'best'"):
        sliced_wasserstein_test(x, x, projections="best")
    with pytest.raises(DataError, match="q has 5 rows; projections='max' needs at least 8"):
        sliced_wasserstein_test(x, x, projections="max")
    with pytest.raises(OptionError, match="n_permutations is 0"):
        sliced_wasserstein_test(x, x, n_permutations=0)


def test_few_rows_and_constants():
    one = sliced_wasserstein([[0.0, 0.0]], [[3.0, 4.0]], projections=[[3.0, 4.0]])
    assert one.estimate == pytest.approx(5.0)
    assert one.low is None
    assert "too few for an interval" in one.reason
    same = sliced_wasserstein(np.ones((9, 2)), np.ones((9, 2)), random_state=0)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    for projections in ("max", "vmf"):
        flat = sliced_wasserstein(np.ones((9, 2)), np.ones((9, 2)), projections=projections)
        assert flat.estimate == 0
    few = sliced_wasserstein_test([[0.0], [1.0]], [[5.0], [6.0]], random_state=0)
    assert "no p-value below 0.17 is possible" in few.status
    huge = sliced_wasserstein([[0.0, 1e300]], [[0.0, -1e300]], n_projections=4, random_state=0)
    assert math.isfinite(huge.estimate)


def test_float32_and_float64_permutations_agree(monkeypatch):
    from dpdq.distance import sliced_tests

    rng = np.random.default_rng(16)
    for sizes in ((40, 40), (40, 25)):
        q, p = two(rng, *sizes, 4)
        p -= 0.2
        long = sliced_wasserstein_test(q, p, n_projections=10, random_state=0)
        monkeypatch.setattr(sliced_tests, "_FLOAT64_ROWS", 0)
        short = sliced_wasserstein_test(q, p, n_projections=10, random_state=0)
        monkeypatch.undo()
        assert short.pvalue == long.pvalue
        assert short.statistic == pytest.approx(long.statistic, rel=1e-5)
