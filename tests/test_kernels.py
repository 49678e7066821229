import math

import numpy as np
import pytest

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.kernels import (
    EnergyKernel,
    ExponentialKernel,
    GaussianKernel,
    LaplaceKernel,
    bandwidth_grid,
    check_points,
    distance_tile,
    kernel_matrix,
    kernel_sums,
    map_tiles,
    median_heuristic,
    standard_points,
    symmetric_tiles,
)


def brute_force(name, x, y, h):
    difference = x[:, None, :] - y[None, :, :]
    if name == "gaussian":
        return np.exp(-(difference**2).sum(axis=2) / (2 * h**2))
    if name == "laplace":
        return np.exp(-np.abs(difference).sum(axis=2) / h)
    length = np.sqrt((difference**2).sum(axis=2))
    return -length if name == "energy" else np.exp(-length / h)


def test_points_are_checked():
    assert check_points([1, 2], "q").shape == (2, 1)
    with pytest.raises(DataError, match=r"p: 2 of 3 rows hold missing or infinite values \(first"):
        check_points([[1.0], [np.inf], [np.nan]], "p")
    with pytest.raises(DataError, match=r"q has shape \(0, 2\); expected at least one row"):
        check_points(np.empty((0, 2)), "q")
    with pytest.raises(DataError, match=r"expected \(n_samples, n_features\)"):
        check_points(np.zeros((2, 2, 2)), "q")
    with pytest.raises(InputTypeError, match="q must be an array of numbers"):
        check_points(["a", "b"], "q")


@pytest.mark.parametrize("name", ["gaussian", "laplace", "exponential", "energy"])
def test_kernels_equal_their_formulas(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) + 1
    kernel = {
        "gaussian": GaussianKernel(0.7),
        "laplace": LaplaceKernel(0.7),
        "exponential": ExponentialKernel(0.7),
        "energy": EnergyKernel(),
    }[name]
    assert np.allclose(
        kernel_matrix(x, y, kernel), brute_force(name, x, y, 0.7), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("form", [GaussianKernel, LaplaceKernel, ExponentialKernel])
def test_bandwidths_by_squaring_equal_bandwidths_alone(form):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 2))
    ratio = 2**0.5 if form is GaussianKernel else 2.0
    family = form([3.0 * ratio**-j for j in range(9)])
    assert list(family.bandwidths) == sorted(family.bandwidths, reverse=True)
    distances = distance_tile(x, x, family.metric)
    for h, tile in zip(family.bandwidths, family.each(distances), strict=True):
        assert np.allclose(tile, next(form(h).each(distances)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("law", ["normal", "heavy", "far", "clusters"])
def test_float32_tiles_are_within_their_bound(law):
    rng = np.random.default_rng(2)
    x = {
        "normal": rng.normal(size=(200, 10)),
        "heavy": rng.standard_t(1, size=(200, 3)) ** 3,
        "far": 1e6 + rng.normal(size=(200, 3)),
        "clusters": rng.integers(0, 3, (200, 1)) * 1e3 + 1e-2 * rng.normal(size=(200, 1)),
    }[law]
    points, _ = standard_points(x)
    grid = [3.0 * 2 ** (-j / 2) for j in range(8)] + list(bandwidth_grid(points))
    kernel = GaussianKernel(grid)
    exact = distance_tile(points, points, "euclidean")
    rough = distance_tile(points, points, "euclidean", out=np.empty((200, 200), np.float32))
    for one, two in zip(kernel.each(exact), kernel.each(rough), strict=True):
        assert two.dtype == np.float32
        assert np.abs(one - two).max() < 1e-6


def test_standard_points_keep_proportions_and_range():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(101, 4)) * 7 + 1000
    points, scale = standard_points(x)
    assert np.allclose(points * scale + np.median(x, axis=0), x)
    huge, _ = standard_points(np.array([[1e308], [-1e308], [0.0], [1.0], [2.0]]))
    assert np.isfinite(huge).all()
    assert np.abs(huge).max() <= 1e15
    mostly_zero, scale = standard_points(np.r_[np.zeros(9), 5.0][:, None])
    assert scale == 5.0
    assert standard_points(np.ones((4, 2)))[1] == 1.0


def test_tiles_cover_each_pair_once():
    seen = np.zeros((11, 11), int)
    for rows, columns in symmetric_tiles(11, 4):
        seen[rows, columns] += 1
        if rows != columns:
            seen[columns, rows] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("kernel", [GaussianKernel(2.0), LaplaceKernel(2.0), EnergyKernel()])
def test_kernel_sums_equal_the_full_matrix(kernel):
    rng = np.random.default_rng(4)
    x, weights = rng.normal(size=(1100, 2)), rng.normal(size=(1100, 2))
    first, second = kernel_sums(x, kernel, weights)
    full = kernel_matrix(x, x, kernel)
    np.fill_diagonal(full, kernel.diagonal)
    assert np.allclose(first, full @ weights, atol=1e-9)
    assert np.allclose(second, full**2 @ weights, atol=1e-9)


def test_median_heuristic_leaves_out_coincidences():
    assert median_heuristic([0.0, 0.0, 0.0, 4.0]) == 4.0
    assert median_heuristic(np.ones(5)) == 1.0
    rng = np.random.default_rng(5)
    x = rng.normal(size=(5000, 2))
    assert median_heuristic(x) == pytest.approx(math.sqrt(4 * math.log(2)), rel=0.05)
    assert median_heuristic(3 * x + 1) == pytest.approx(3 * median_heuristic(x))
    assert median_heuristic([[0.0, 0.0], [3.0, 4.0]], metric="cityblock") == 7.0


def test_bandwidth_grid_covers_the_distances():
    x = np.random.default_rng(6).normal(size=(300, 3))
    grid = bandwidth_grid(x, 10)
    ratios = np.asarray(grid[:-1]) / np.asarray(grid[1:])
    assert len(grid) == 10
    assert np.allclose(ratios, ratios[0])
    assert grid[-1] < median_heuristic(x) < grid[0]


def test_bandwidths_are_checked():
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(OptionError, match="expected positive numbers"):
            GaussianKernel(bad)
    with pytest.raises(OptionError, match="takes one bandwidth, not 2"):
        kernel_matrix([0.0], [1.0], GaussianKernel([1.0, 2.0]))
    assert repr(GaussianKernel([1.0, 2.0])) == "GaussianKernel([2.0, 1.0])"


@pytest.mark.parametrize("n_cores", [1, 2, 5])
def test_work_comes_back_in_order(monkeypatch, n_cores):
    monkeypatch.setattr("dpdq._threads.usable_cores", lambda: n_cores)
    assert list(map_tiles(lambda i: i * i, range(700))) == [i * i for i in range(700)]

    def fail(i):
        if i == 3:
            raise ZeroDivisionError
        return i

    with pytest.raises(ZeroDivisionError):
        list(map_tiles(fail, range(9)))
    assert list(map_tiles(fail, [])) == []
