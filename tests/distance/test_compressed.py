import numpy as np
import pytest
from scipy import stats

from dpdq.distance import kernel_tests, mmd_test
from dpdq.distance.compressed import coreset_block_sums, halve, thinned_blocks
from dpdq.distance.kernel_blocks import block_sums, squared_mmd
from dpdq.distance.permutation import permutation_design
from dpdq.kernels import GaussianKernel, kernel_matrix


def most_rejections(n_draws, level=0.05):
    """A valid test rejects more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


def test_halving_keeps_one_row_of_each_pair():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(5, 30, 2))
    stays = halve(points, GaussianKernel([1.0, 0.5]), np.array([0, 1, 0, 1, 1]))
    assert stays.shape == (5, 15)
    assert (stays // 2 == np.arange(15)).all()
    # the other coin keeps the other half
    other = halve(points, GaussianKernel([1.0, 0.5]), np.array([1, 0, 1, 0, 0]))
    assert (stays + other == 4 * np.arange(15) + 1).all()


def squared_error(points, rows, h):
    """Squared MMD between all points and those that stay."""
    full = kernel_matrix(points, points, GaussianKernel(h))
    mass = np.full(len(points), -1 / len(points))
    mass[rows] += 1 / len(rows)
    return mass @ full @ mass


def test_a_half_is_nearly_as_good_as_all():
    """Kernel halving against chance: in two columns the error of a half falls many times over."""
    rng = np.random.default_rng(2)
    kept, chance = [], []
    for _ in range(10):
        points = rng.normal(size=(256, 2))
        rows = halve(points[None], GaussianKernel(1.0), rng.integers(0, 2, 1))[0]
        kept.append(squared_error(points, rows, 1.0))
        chance.append(squared_error(points, rng.permutation(256)[:128], 1.0))
    # ratio 0.005 as measured
    assert np.mean(kept) < 0.1 * np.mean(chance)


def test_signs_are_those_of_the_plain_walk():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(12, 2))
    full = kernel_matrix(points, points, GaussianKernel(0.7))
    signs = []
    for i in range(6):
        pull = sum(
            sign * (full[2 * i] - full[2 * i + 1]) @ (np.eye(12)[2 * j] - np.eye(12)[2 * j + 1])
            for j, sign in enumerate(signs)
        )
        signs.append(1.0 if i == 0 else -np.sign(pull))
    found = halve(points[None], GaussianKernel(0.7), np.array([1]), sweeps=0)[0]
    assert (found == np.arange(0, 12, 2) + (np.array(signs) < 0)).all()


@pytest.mark.parametrize("sizes", [(3000, 2500), (500, 9000)])
def test_blocks_keep_their_own_rows_and_mass(sizes):
    rng = np.random.default_rng(4)
    points = rng.normal(size=(sum(sizes), 2))
    design = permutation_design(*sizes, n_permutations=9, max_blocks=32, rng=rng)
    kernel = GaussianKernel([2.0, 1.0])
    rows, counts = thinned_blocks(points, design, kernel, coreset_rows=1000, rng=rng)
    assert len(np.unique(rows)) == len(rows) == counts.sum()
    assert 500 <= len(rows) <= 2000
    for block, own in enumerate(np.split(rows, np.cumsum(counts)[:-1])):
        assert set(own) <= set(design.order[design.starts[block] : design.starts[block + 1]])
    sums, stayed = coreset_block_sums(points, design, kernel, coreset_rows=1000, rng=rng)
    exact = block_sums(points, design, kernel)
    assert stayed == pytest.approx(len(rows), rel=0.01)
    assert (sums.sizes == design.sizes).all()
    # means of the kernel over pairs of blocks
    area = np.outer(design.sizes, design.sizes)
    assert np.abs(sums.sums / area - exact.sums / area).max() < 0.06
    there = squared_mmd(sums, design.labels)
    assert np.abs(there - squared_mmd(exact, design.labels)).max() < 0.01


def test_nothing_to_thin_is_the_exact_test():
    rng = np.random.default_rng(5)
    q, p = rng.normal(size=(100, 2)), rng.normal(size=(80, 2)) + 0.3
    compressed = mmd_test(q, p, method="compressed", random_state=0)
    exact = mmd_test(q, p, method="aggregated", random_state=0)
    assert compressed.pvalue == exact.pvalue
    assert compressed.statistic == exact.statistic
    assert compressed.method == "compressed MMD, permutation of rows"


@pytest.mark.parametrize("law", ["normal", "ties", "heavy tails"])
def test_level(law, monkeypatch):
    monkeypatch.setattr(kernel_tests, "CORESET_ROWS", 400)
    draw = {
        "normal": lambda rng, n: rng.normal(size=(n, 2)),
        "ties": lambda rng, n: rng.integers(0, 3, (n, 2)),
        "heavy tails": lambda rng, n: rng.standard_t(1, (n, 2)) ** 5,
    }[law]
    n_draws, rejected = 40, 0
    rng = np.random.default_rng(6)
    for seed in range(n_draws):
        result = mmd_test(
            draw(rng, 2200),
            draw(rng, 1400),
            method="compressed",
            n_permutations=19,
            random_state=seed,
        )
        assert result.details["rows_exact"] <= 1800
        rejected += result.pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)


def test_power_is_above_that_of_as_many_rows_drawn_by_chance(monkeypatch):
    """A shift that 300 of 3,000 rows cannot show, and 300 thinned ones do."""
    monkeypatch.setattr(kernel_tests, "CORESET_ROWS", 600)
    rng = np.random.default_rng(7)
    thinned = chance = 0
    for seed in range(12):
        q, p = rng.normal(size=(3000, 2)), rng.normal(size=(3000, 2)) + 0.09
        options = {"n_permutations": 39, "random_state": seed}
        thinned += mmd_test(q, p, method="compressed", **options).pvalue <= 0.05
        chance += mmd_test(q[:300], p[:300], **options).pvalue <= 0.05
    # power 0.97 against 0.15: 6 of 12 and fewer, or 9 and more, have probability below 1e-6
    assert thinned >= 7
    assert chance <= 8


def test_digits(shared_data, monkeypatch):
    """Thinned MNIST: one digit in five replaced by sevens is found."""
    monkeypatch.setattr(kernel_tests, "CORESET_ROWS", 1000)
    with np.load(shared_data / "mnist_t10k.npz") as file:
        name = next(key for key in file if key != "y")
        images = file[name].reshape(10_000, -1)[:, ::13] / 255.0
        digit = file["y"]
    rng = np.random.default_rng(8)
    rows = rng.permutation(10_000)
    q, p = images[rows[:2000]], images[rows[2000:4000]].copy()
    assert mmd_test(q, p, method="compressed", random_state=0).pvalue > 0.005
    p[:400] = images[rng.permutation(np.flatnonzero(digit == 7))[:400]]
    assert mmd_test(q, p, method="compressed", random_state=0).pvalue == 0.005
