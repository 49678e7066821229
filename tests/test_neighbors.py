import numpy as np
import pytest
from scipy.spatial.distance import cdist

from dpdq import neighbors
from dpdq.errors import DataError, OptionError
from dpdq.neighbors import count_within, nearest_neighbors, pair_distances, visit_pairs


def brute(x, y, k, itself):
    every = np.sqrt(((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2))
    if itself:
        np.fill_diagonal(every, np.inf)
    rows = np.argsort(every, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(every, rows, axis=1), rows


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(neighbors, "ROWS", 7)
    monkeypatch.setattr(neighbors, "COLUMNS", 11)


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("itself", [True, False])
@pytest.mark.parametrize("d", [1, 3, 40])
def test_equals_brute_force_to_the_last_bit(small_tiles, d, itself, offset):
    rng = np.random.default_rng(d)
    x, y = rng.normal(size=(50, d)) + offset, rng.normal(size=(31, d)) + offset
    for k in (1, 5, 30):
        distances, rows = nearest_neighbors(x, None if itself else y, n_neighbors=k)
        expected, expected_rows = brute(x, x if itself else y, k, itself)
        np.testing.assert_array_equal(distances, expected)
        np.testing.assert_array_equal(rows, expected_rows)


def test_ties_are_ties(small_tiles):
    """Multiples of 0.1 tie in truth and not in floating point products; copies tie everywhere."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, size=(80, 3)) * 0.1 + 1e4
    x[40:] = x[rng.integers(0, 40, 40)]
    distances, rows = nearest_neighbors(x, n_neighbors=6)
    expected, expected_rows = brute(x, x, 6, True)
    np.testing.assert_array_equal(distances, expected)
    np.testing.assert_array_equal(rows, expected_rows)
    # no row lies strictly within its nearest distance but itself, unless it is at distance zero
    nearest = distances[:, 0]
    inside = count_within(x, x, nearest)
    np.testing.assert_array_equal(inside, np.where(nearest > 0, 1, 0))


def test_counts_equal_brute_force(small_tiles):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(60, 5)), rng.normal(size=(45, 5))
    radii = rng.uniform(0, 4, 60)
    every = cdist(x, y)
    np.testing.assert_array_equal(count_within(x, y, radii), (every < radii[:, None]).sum(axis=1))
    assert count_within(x, y, 1e9).tolist() == [45] * 60
    assert count_within(x, y, 0.0).tolist() == [0] * 60


def test_visit_finds_every_pair_once(small_tiles):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(33, 2))
    radii_x, radii_y = rng.uniform(0, 1, 40), rng.uniform(0, 1, 33)
    every = cdist(x, y)
    for by_x, by_y in ((True, True), (True, False), (False, True)):
        found = list(
            visit_pairs(
                x,
                y,
                lambda i, j, distances: list(zip(i, j, distances, strict=True)),
                radii_x=radii_x if by_x else None,
                radii_y=radii_y if by_y else None,
            )
        )
        pairs = {(i, j): distance for part in found for i, j, distance in part}
        assert len(pairs) == sum(len(part) for part in found)
        near = (by_x & (every < radii_x[:, None])) | (by_y & (every < radii_y))
        assert set(pairs) == set(zip(*np.nonzero(near), strict=True))
        assert all(abs(every[where] - distance) < 1e-14 for where, distance in pairs.items())


def test_distances_are_symmetric_to_the_last_bit():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(300, 37)) * 1e3, rng.normal(size=(300, 37))
    i, j = rng.integers(0, 300, 5000), rng.integers(0, 300, 5000)
    np.testing.assert_array_equal(pair_distances(x, y, i, j), pair_distances(y, x, j, i))
    one = np.array([pair_distances(x, y, i[m : m + 1], j[m : m + 1])[0] for m in range(50)])
    np.testing.assert_array_equal(pair_distances(x, y, i, j)[:50], one)


def test_outliers_and_scales_are_no_trouble():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 4))
    x[7] = 1e9
    expected, _ = brute(x, x, 3, True)
    np.testing.assert_array_equal(nearest_neighbors(x, n_neighbors=3)[0], expected)
    for scale in (1e-140, 1e140):
        distances, _ = nearest_neighbors(scale * x[:50], n_neighbors=3)
        np.testing.assert_allclose(distances / scale, brute(x[:50], x[:50], 3, True)[0], rtol=1e-12)


def test_real_images_equal_scikit_learn(shared_data):
    from sklearn.neighbors import NearestNeighbors

    images = np.load(shared_data / "mnist_t10k.npz")
    x = images["x" if "x" in images else next(iter(images))].reshape(10_000, -1)[:3000]
    x = x.astype(np.float64)
    theirs = NearestNeighbors(n_neighbors=6, algorithm="brute").fit(x).kneighbors(x)[0]
    distances, _ = nearest_neighbors(x, n_neighbors=5)
    np.testing.assert_allclose(distances, theirs[:, 1:], rtol=1e-9)


def test_wrong_input_is_refused():
    x = np.zeros((5, 2))
    with pytest.raises(OptionError, match="n_neighbors is 0; expected at least 1"):
        nearest_neighbors(x, n_neighbors=0)
    with pytest.raises(DataError, match="n_neighbors is 5, but there are only 4 other rows"):
        nearest_neighbors(x, n_neighbors=5)
    with pytest.raises(DataError, match="x has 2 features and y has 3"):
        nearest_neighbors(x, np.zeros((4, 3)), n_neighbors=1)
    with pytest.raises(OptionError, match="needs radii_x, radii_y or both"):
        next(visit_pairs(x, x, lambda i, j, d: None))
    with pytest.raises(DataError, match=r"radii have shape \(3,\)"):
        count_within(x, x, np.ones(3))
    with pytest.raises(DataError, match="radii must be numbers that are not negative"):
        count_within(x, x, -1.0)
    with pytest.raises(DataError, match="divide both sides by one scale"):
        nearest_neighbors(np.array([[0.0], [1e200]]), n_neighbors=1)
