import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from dpdq.distance import divergence_frontier, frechet_distance, frontiers, mauve
from dpdq.errors import DataError, OptionError

masses = st.lists(st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0, 3.0]), min_size=3, max_size=6)


def kl(a, b):
    there = a > 0
    return float(np.sum(a[there] * np.log(a[there] / b[there])))


def plain_mauve(q, p, c=5.0, n_points=25):
    """The definition, written as plainly as possible."""
    q, p = q / q.sum(), p / p.sum()
    curve = [(1.0, 0.0)]
    for mixed in np.linspace(1e-6, 1 - 1e-6, n_points):
        r = mixed * p + (1 - mixed) * q
        curve.append((np.exp(-c * kl(q, r)), np.exp(-c * kl(p, r))))
    curve.append((0.0, 1.0))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(curve, curve[1:], strict=False):
        area += 0.5 * ((x0 - x1) * (y0 + y1) / 2 + (y1 - y0) * (x0 + x1) / 2)
    return area


def test_integral_equals_quadrature():
    rng = np.random.default_rng(0)
    for _ in range(5):
        q, p = rng.dirichlet(np.full(6, 0.5)), rng.dirichlet(np.full(6, 0.5))
        q[0] = p[1] = q[2] = p[2] = 0.0
        p[3] = q[3]
        q, p = q / q.sum(), p / p.sum()

        def inner(mixed, q=q, p=p):
            r = mixed * p + (1 - mixed) * q
            return 2 * (mixed * kl(p, r) + (1 - mixed) * kl(q, r))

        found = divergence_frontier(q, p).frontier_integral
        assert found == pytest.approx(quad(inner, 0, 1, epsabs=1e-11)[0], abs=1e-9)


def test_mauve_of_histograms_equals_a_plain_program():
    rng = np.random.default_rng(1)
    for _ in range(10):
        q, p = rng.integers(0, 5, 12) + (np.arange(12) == 0), rng.integers(0, 5, 12) + 1
        found = divergence_frontier(q, p)
        assert found.mauve == pytest.approx(plain_mauve(q, p), abs=1e-12)
        raised = divergence_frontier(q, p, smoothing=0.5, scaling=2.0, n_points=7).mauve
        assert raised == pytest.approx(plain_mauve(q + 0.5, p + 0.5, 2.0, 7), abs=1e-12)


def test_known_answers():
    same = divergence_frontier([2, 3, 5], [20, 30, 50])
    assert same.mauve == pytest.approx(1.0, abs=1e-12)
    assert same.frontier_integral == 0.0
    apart = divergence_frontier([1, 0], [0, 1])
    assert apart.frontier_integral == 1.0
    # KL(q || R) = -log(1 - l): the curve is ((1 - l)^c, l^c), with area B(c, c + 1) c = 1/252
    fine = divergence_frontier([1, 0], [0, 1], n_points=4001)
    assert fine.mauve == pytest.approx(1 / 252, rel=1e-5)
    # half of q's mass is where p has none: (a + b)/2 - a b log(a/b)/(a - b) = 1 - log 2 in all
    assert divergence_frontier([1, 1], [1, 0]).frontier_integral == pytest.approx(1 - np.log(2))


@given(masses, st.randoms(use_true_random=False))
def test_exchange_scale_and_empty_cells(cells, random):
    q = np.array(cells) + np.array([1.0] + [0.0] * (len(cells) - 1))
    p = np.array([random.choice(cells + [2.0]) for _ in cells]) + np.eye(len(cells))[-1]
    one, other = divergence_frontier(q, p), divergence_frontier(p, q)
    assert other.mauve == pytest.approx(one.mauve, abs=1e-12)
    assert other.frontier_integral == pytest.approx(one.frontier_integral, abs=1e-12)
    np.testing.assert_allclose(other.points[::-1, ::-1], one.points, atol=1e-12)
    assert (np.diff(one.points[:, 0]) <= 1e-12).all()
    assert (np.diff(one.points[:, 1]) >= -1e-12).all()
    assert 0.0 <= one.frontier_integral <= 1.0
    assert 0.0 < one.mauve <= 1.0 + 1e-12
    padded = divergence_frontier(np.append(7 * q, 0.0), np.append(p, 0.0))
    assert padded.mauve == pytest.approx(one.mauve, abs=1e-12)
    assert padded.n_cells == one.n_cells


def test_mauve_equals_a_plain_program():
    """Features to histograms by scikit-learn's own pieces, with the same seeds of k-means."""
    rng = np.random.default_rng(2)
    q, p = rng.normal(0.3, 1.0, size=(150, 6)), rng.normal(size=(170, 6))
    rows = np.vstack([q, p])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    fitted = PCA().fit(rows)
    kept = int(np.argmax(np.cumsum(fitted.explained_variance_ratio_) >= 0.9)) + 1
    points = fitted.transform(rows)[:, :kept]
    found = mauve(q, p, random_state=0)
    assert found.n_components == kept
    assert found.n_clusters == 15
    generator = np.random.default_rng(0)
    generator.integers(0, 2**31 - 1)  # the seed of the components
    values = []
    for seed in [int(generator.integers(0, 2**31 - 1)) for _ in range(5)]:
        labels = KMeans(15, n_init=1, max_iter=500, random_state=seed).fit_predict(points)
        values.append(
            plain_mauve(
                np.bincount(labels[:150], minlength=15).astype(float),
                np.bincount(labels[150:], minlength=15).astype(float),
            )
        )
    np.testing.assert_allclose(sorted(found.seed_values), sorted(values), atol=1e-9)
    assert found.mauve.estimate == pytest.approx(np.mean(values), abs=1e-9)
    assert found.seed_spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_expected_is_what_two_samples_of_one_law_score():
    """60 draws: their mean lies within six standard errors of the permuted one."""
    rng = np.random.default_rng(3)
    found = [
        mauve(rng.normal(size=(120, 3)), rng.normal(size=(100, 3)), n_seeds=2, random_state=draw)
        for draw in range(60)
    ]
    values = np.array([one.mauve.estimate for one in found])
    expected = np.mean([one.expected for one in found])
    assert abs(values.mean() - expected) < 6 * values.std() / np.sqrt(60)
    assert expected < 0.99


def test_standard_error_holds_the_spread():
    rng = np.random.default_rng(4)
    found = [
        mauve(
            rng.normal(0.5, 1.0, size=(150, 3)), rng.normal(size=(150, 3)), n_seeds=2,
            random_state=draw,
        )
        for draw in range(60)
    ]  # fmt: skip
    values = np.array([one.mauve.estimate for one in found])
    error = np.sqrt(np.mean([one.mauve.standard_error**2 for one in found]))
    assert 0.75 < error / values.std() < 1.8


def corrupted(images, labels, rng):
    """Three kinds of corruption, each growing."""
    return {
        "modes": [images[labels < classes] for classes in (10, 7, 4)],
        "noise": [images + rng.normal(0, sd, images.shape) for sd in (0.0, 4.0, 8.0)],
    }


def test_real_digits_fall_with_corruption():
    """M297: monotone in dropped modes and in noise; the curve's ends tell the two apart."""
    rng = np.random.default_rng(5)
    images, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(images))
    features = PCA(20, random_state=0).fit_transform(images[order])
    labels = labels[order]
    p, real, of_real = features[:800], features[800:], labels[800:]
    for kind, samples in corrupted(real, of_real, rng).items():
        found = [mauve(q, p, n_seeds=3, random_state=0) for q in samples]
        values = [one.mauve.estimate for one in found]
        assert values[0] > values[1] > values[2]
        assert found[0].mauve.low < found[0].expected < found[0].mauve.high + 0.02
        curve = found[2].points
        misses = curve[1, 1] < curve[-2, 0]
        assert misses == (kind == "modes")
        assert ("misses what p makes" if misses else "makes what p does not") in found[2].status
    mixture = GaussianMixture(5, covariance_type="diag", random_state=0).fit(p)
    sampled = mauve(mixture.sample(900)[0], p, n_seeds=3, random_state=0)
    assert sampled.mauve.high < sampled.expected


@pytest.mark.slow
def test_spread_over_samples_beside_the_frechet_distance():
    """At n = 500 a side, dropped modes against none: both metrics stand clear of their spread."""
    rng = np.random.default_rng(6)
    images, labels = load_digits(return_X_y=True)
    features = PCA(20, random_state=0).fit_transform(images)
    found = {"mauve": {10: [], 7: []}, "frechet": {10: [], 7: []}}
    for draw in range(15):
        order = rng.permutation(len(features))
        p = features[order[:500]]
        rest = order[500:]
        for classes in (10, 7):
            q = features[rest[labels[rest] < classes][:500]]
            value = mauve(q, p, n_seeds=3, random_state=draw).mauve.estimate
            found["mauve"][classes].append(value)
            found["frechet"][classes].append(frechet_distance(q, p, n_groups=0).estimate)
    for values in found.values():
        gap = abs(np.mean(values[10]) - np.mean(values[7]))
        assert gap > 3 * max(np.std(values[10]), np.std(values[7]))


def test_few_distinct_rows_make_few_cells():
    rng = np.random.default_rng(7)
    corners = np.eye(3)
    q, p = corners[rng.integers(0, 3, 100)], corners[rng.integers(0, 3, 90)]
    found = mauve(q, p, random_state=0)
    assert found.n_clusters == 3
    assert found.seed_spread < 1e-12
    exact = divergence_frontier(q.sum(axis=0), p.sum(axis=0)).mauve
    assert found.mauve.estimate == pytest.approx(exact)


def test_same_seed_same_numbers():
    rng = np.random.default_rng(8)
    q, p = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    first, again = (mauve(q, p, random_state=1) for _ in range(2))
    assert first.to_dict() == again.to_dict()
    assert first.seed_values != mauve(q, p, random_state=2).seed_values
    assert frontiers.mauve is mauve


def test_wrong_input_is_refused():
    x = np.arange(40.0).reshape(20, 2)
    for options, text in (
        ({"scaling": 0.0}, "scaling is 0.0; expected a positive number"),
        ({"n_points": 1}, "n_points is 1; expected at least 2"),
        ({"smoothing": -1.0}, "smoothing is -1.0"),
    ):
        with pytest.raises(OptionError, match=text):
            divergence_frontier([1, 2], [2, 1], **options)
        with pytest.raises(OptionError, match=text):
            mauve(x, x, **options)
    for options, text in (
        ({"n_seeds": 1}, "n_seeds is 1; expected at least 2"),
        ({"n_clusters": 1}, "n_clusters is 1; expected 'auto' or 2 to 40"),
        ({"n_clusters": "many"}, "n_clusters is 'many'"),
        ({"explained_variance": 0.0}, "explained_variance is 0.0"),
    ):
        with pytest.raises(OptionError, match=text):
            mauve(x, x, **options)
    with pytest.raises(DataError, match="q has 2 cells and p has 3"):
        divergence_frontier([1, 2], [1, 2, 3])
    with pytest.raises(DataError, match="p must hold finite masses"):
        divergence_frontier([1, 2], [0, 0])
    with pytest.raises(DataError, match="q has 9 rows; expected at least 10"):
        mauve(x[:9], x)
    with pytest.raises(DataError, match="all rows of q and p have one direction"):
        mauve(np.ones((20, 2)), np.ones((20, 2)))
