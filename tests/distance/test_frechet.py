import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from dpdq.distance import frechet_distance, frechet_distance_from_moments
from dpdq.errors import DataError, OptionError


def covariance(rng, d, condition):
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return basis * np.geomspace(1.0, condition, d) @ basis.T


def moments(rng, d, condition=100.0):
    return rng.normal(size=d), covariance(rng, d, condition)


@pytest.mark.parametrize("d", [1, 5, 120])
def test_equals_the_matrix_square_root(d):
    rng = np.random.default_rng(d)
    (m, a), (k, b) = moments(rng, d), moments(rng, d)
    expected = ((m - k) ** 2).sum() + np.trace(a + b) - 2 * np.trace(sqrtm(a @ b)).real
    assert frechet_distance_from_moments(m, a, k, b) == pytest.approx(expected, rel=1e-9)


def test_equals_high_precision():
    rng = np.random.default_rng(0)
    (m, a), (k, b) = moments(rng, 6), moments(rng, 6)
    with mpmath.workdps(40):
        product = mpmath.matrix(a.tolist()) * mpmath.matrix(b.tolist())
        values, _ = mpmath.eig(product)
        roots = sum(mpmath.sqrt(mpmath.re(value)) for value in values)
        exact = sum((mpmath.mpf(x) - mpmath.mpf(y)) ** 2 for x, y in zip(m, k, strict=True))
        exact += mpmath.fsum(np.diag(a)) + mpmath.fsum(np.diag(b)) - 2 * roots
    assert frechet_distance_from_moments(m, a, k, b) == pytest.approx(float(exact), rel=1e-12)


def test_diagonal_covariances_have_a_closed_form():
    rng = np.random.default_rng(1)
    s, t = rng.uniform(0, 3, 9), rng.uniform(0, 3, 9)
    s[0] = t[1] = s[2] = t[2] = 0.0  # flat in one law, in the other, in both
    found = frechet_distance_from_moments(np.zeros(9), np.diag(s**2), np.ones(9), np.diag(t**2))
    assert found == pytest.approx(9 + ((s - t) ** 2).sum(), rel=1e-7)


def test_never_complex_never_negative():
    rng = np.random.default_rng(2)
    for d, n in ((30, 5), (30, 31), (30, 400)):
        x = rng.normal(size=(n, d)) * np.geomspace(1e-4, 1e4, d)
        found = frechet_distance(x, x, n_groups=0).estimate
        assert isinstance(found, float)
        assert 0.0 <= found <= 1e-10 * x.var(axis=0).sum()
    zero = np.zeros((3, 3))
    assert frechet_distance_from_moments(np.zeros(3), zero, np.zeros(3), zero) == 0.0
    assert frechet_distance_from_moments(np.zeros(3), np.eye(3), np.zeros(3), zero) == 3.0
    assert frechet_distance_from_moments(np.zeros(3), zero, np.zeros(3), np.eye(3)) == 3.0


@pytest.mark.parametrize("n_q, n_p", [(10, 12), (10, 100), (100, 10), (100, 90)])
def test_samples_and_moments_agree(n_q, n_p):
    """Fewer rows than features on either side go through factors, not covariances."""
    rng = np.random.default_rng(3)
    q, p = rng.normal(size=(n_q, 20)), rng.normal(1.0, 2.0, size=(n_p, 20))
    found = frechet_distance(q, p, n_groups=0).estimate
    expected = frechet_distance_from_moments(
        q.mean(axis=0), np.cov(q, rowvar=False), p.mean(axis=0), np.cov(p, rowvar=False)
    )
    assert found == pytest.approx(expected, rel=1e-6)
    if min(n_q, n_p) > 20:
        assert found == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_rotation_translation_and_exchange_change_nothing(seed):
    rng = np.random.default_rng(seed)
    d = int(rng.integers(1, 6))
    q, p = rng.normal(size=(30, d)), rng.normal(0.5, 2.0, size=(25, d))
    value = frechet_distance(q, p, n_groups=0).estimate
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    moved = frechet_distance(q @ turn + 7.0, p @ turn + 7.0, n_groups=0).estimate
    assert moved == pytest.approx(value, rel=1e-9)
    assert frechet_distance(p, q, n_groups=0).estimate == pytest.approx(value, rel=1e-10)
    order = rng.permutation(30)
    assert frechet_distance(q[order], p, n_groups=0).estimate == pytest.approx(value, rel=1e-12)
    assert frechet_distance(3 * q, 3 * p, n_groups=0).estimate == pytest.approx(9 * value, rel=1e-9)


def test_weights_mean_what_the_design_says():
    rng = np.random.default_rng(4)
    q, p = rng.normal(size=(40, 3)), rng.normal(size=(50, 3))
    counts = rng.integers(0, 4, 40)
    options = {"n_groups": 0, "unbiased_covariance": False}
    weighted = frechet_distance(q, p, weights_q=counts, **options).estimate
    repeated = frechet_distance(np.repeat(q, counts, axis=0), p, **options).estimate
    assert weighted == pytest.approx(repeated, rel=1e-11)
    one = frechet_distance(q, p, weights_q=counts, random_state=0)
    scaled = frechet_distance(q, p, weights_q=counts * 0.3, random_state=0)
    kept = frechet_distance(q[counts > 0], p, weights_q=counts[counts > 0], random_state=0)
    for other in (scaled, kept):
        assert other.estimate == pytest.approx(one.estimate)
        assert other.standard_error == pytest.approx(one.standard_error)
    same = frechet_distance(q, p, weights_q=np.full(40, 3.0), random_state=0)
    assert same.estimate == pytest.approx(frechet_distance(q, p, random_state=0).estimate)


def test_extrapolation_removes_bias():
    """M293, both sides finite: |bias| of "both" below that of "q" below that of the plug-in.

    Over 60 draws the biases are 0.18, 0.09 and about 0.01 with standard errors below 0.008: an
    order that fails by chance with probability below 1e-9.
    """
    rng = np.random.default_rng(5)
    d, shift, scale, exact = 16, 0.1, 0.9, 16 * (0.1**2 + 0.1**2)
    found = {False: [], "q": [], "both": []}
    covered = 0
    for draw in range(60):
        q = rng.normal(shift, scale, size=(800, d))
        p = rng.normal(size=(800, d))
        for extrapolate, values in found.items():
            groups = 10 if extrapolate == "both" and draw < 40 else 0
            result = frechet_distance(
                q, p, extrapolate=extrapolate, n_groups=groups, random_state=draw
            )
            values.append(result.estimate)
            if groups:
                covered += result.low <= exact <= result.high
    bias = {name: abs(np.mean(values) - exact) for name, values in found.items()}
    assert bias["both"] < 0.5 * bias["q"] < 0.5 * bias[False]
    assert bias["both"] < 0.04
    # a valid 95 % interval misses more than 11 of 40 with probability below 1e-6
    assert covered >= 29


def test_extrapolation_repairs_a_ranking():
    """The right law on 100 rows against one with 15 % too little spread on 400.

    Differences over draws are 0.18 and -0.19 with standard deviations 0.06 and 0.09: a mean of 12
    has the wrong sign with probability below 1e-9.
    """
    plug_in, both = [], []
    for draw in range(12):
        rng = np.random.default_rng(draw)
        spread = np.geomspace(1.0, 0.05, 40)
        p, right, wrong = (rng.normal(size=(n, 40)) * spread for n in (400, 100, 400))
        for values, extrapolate in ((plug_in, False), (both, "both")):
            pair = [
                frechet_distance(q, p, extrapolate=extrapolate, n_groups=0, random_state=0).estimate
                for q in (right, 0.85 * wrong)
            ]
            values.append(pair[0] - pair[1])
    assert np.mean(plug_in) > 0
    assert np.mean(both) < 0


def test_intervals_of_the_plug_in_hold_its_spread():
    rng = np.random.default_rng(7)
    found = [
        frechet_distance(
            rng.normal(0.5, 1.0, size=(100, 3)), rng.normal(size=(80, 3)), random_state=draw
        )
        for draw in range(200)
    ]
    estimates = np.array([one.estimate for one in found])
    errors = np.array([one.standard_error for one in found])
    ratio = np.sqrt((errors**2).mean()) / estimates.std()
    assert 0.85 < ratio < 1.4
    covered = sum(one.low <= estimates.mean() <= one.high for one in found)
    # a valid 95 % interval misses more than 28 of 200 with probability below 1e-6
    assert covered >= 172


def test_real_digits_halves_are_nearer_than_classes():
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(8).permutation(len(images))
    images, labels = images[order], labels[order]
    halves = frechet_distance(images[:900], images[900:], extrapolate="both", random_state=0)
    plug_in = frechet_distance(images[:900], images[900:], n_groups=0)
    dropped = frechet_distance(
        images[:900][labels[:900] < 7], images[900:], extrapolate="both", random_state=0
    )
    assert halves.low < 0.0 < halves.high
    assert plug_in.estimate > halves.high
    assert dropped.low > halves.high


def test_same_seed_same_bits():
    rng = np.random.default_rng(9)
    q, p = rng.normal(size=(60, 4)), rng.normal(size=(60, 4))
    first = frechet_distance(q, p, extrapolate="both", random_state=3)
    assert first == frechet_distance(q, p, extrapolate="both", random_state=3)
    assert first != frechet_distance(q, p, extrapolate="both", random_state=4)


def test_wrong_input_is_refused():
    x, one = np.zeros((9, 2)), np.eye(2)
    with pytest.raises(OptionError, match=r"Unknown extrapolate 'p'. Choose one of False, 'both'"):
        frechet_distance(x, x, extrapolate="p")
    with pytest.raises(OptionError, match="n_groups is 1; expected at least 2, or 0"):
        frechet_distance(x, x, n_groups=1)
    with pytest.raises(OptionError, match="smallest_share is 1.5"):
        frechet_distance(x, x, extrapolate="both", smallest_share=1.5)
    with pytest.raises(DataError, match="q has 9 rows, too few for this"):
        frechet_distance(x, x, extrapolate="both", smallest_share=0.1)
    with pytest.raises(DataError, match="q has 2 features and p has 3"):
        frechet_distance(x, np.zeros((9, 3)))
    with pytest.raises(DataError, match="weights_p must be finite and not negative"):
        frechet_distance(x, x, weights_p=-np.ones(9))
    with pytest.raises(DataError, match="q has 1 rows of positive weight"):
        frechet_distance(x, x, weights_q=np.eye(9)[0])
    with pytest.raises(DataError, match=r"cov_p has shape \(3, 3\); expected \(2, 2\)"):
        frechet_distance_from_moments(np.zeros(2), one, np.zeros(2), np.eye(3))
    with pytest.raises(DataError, match="cov_q is not symmetric"):
        frechet_distance_from_moments(np.zeros(2), one + [[0, 1], [0, 0]], np.zeros(2), one)
    with pytest.raises(DataError, match="negative eigenvalues"):
        frechet_distance_from_moments(np.zeros(2), [[1, 2], [2, 1]], np.zeros(2), one)
    with pytest.raises(DataError, match="negative eigenvalues"):
        frechet_distance_from_moments(np.zeros(2), one, np.zeros(2), [[1, 2], [2, 1]])
