import math

import numpy as np
import pytest

from dpdq.distance.kernel_blocks import BlockSums, block_sums, squared_mmd
from dpdq.distance.permutation import (
    ROWS_ALONE,
    permutation_design,
    permutation_pvalue,
    stopped_pvalue,
)
from dpdq.distance.random_features import feature_block_sums, frequencies
from dpdq.errors import DataError, OptionError
from dpdq.kernels import EnergyKernel, ExponentialKernel, GaussianKernel, kernel_matrix


def design_of(n_q, n_p, seed=0, n_permutations=19, **units):
    return permutation_design(
        n_q, n_p, n_permutations=n_permutations, rng=np.random.default_rng(seed), **units
    )


def labels_of_rows(design, b):
    """Which pooled row is called q in permutation b."""
    called = np.zeros(len(design.order), bool)
    called[design.order] = np.repeat(design.labels[b], design.sizes) > 0.5
    return called


def naive_squared_mmd(full, called_q):
    """The double loop over rows."""
    q, p = np.flatnonzero(called_q), np.flatnonzero(~called_q)
    inside = [full[np.ix_(s, s)].sum() - np.trace(full[np.ix_(s, s)]) for s in (q, p)]
    pairs = [len(s) * (len(s) - 1) for s in (q, p)]
    across = full[np.ix_(q, p)].mean()
    return inside[0] / pairs[0] + inside[1] / pairs[1] - 2 * across


DESIGNS = {
    "rows": (30, 40, {}),
    "blocks": (900, 700, {}),
    "one side large": (40, 1800, {}),
    "units": (
        700,
        600,
        {"units_q": np.arange(700) // 3, "units_p": 1000 + np.arange(600) // 4},
    ),
    "units on both sides": (
        600,
        600,
        {"units_q": np.arange(600) // 4, "units_p": 75 + np.arange(600) // 5},
    ),
    "many units on both sides": (
        1200,
        1200,
        {"units_q": np.arange(1200), "units_p": np.arange(1200)},
    ),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_engine_equals_naive_loop(name):
    n_q, n_p, units = DESIGNS[name]
    rng = np.random.default_rng(1)
    points = np.vstack([rng.normal(size=(n_q, 3)), 0.2 + rng.normal(size=(n_p, 3))])
    design = design_of(n_q, n_p, **units)
    kernel = GaussianKernel([2.0, 0.5])
    exact = squared_mmd(block_sums(points, design, kernel, dtype=np.float64), design.labels)
    rough = squared_mmd(block_sums(points, design, kernel), design.labels)
    assert np.abs(rough - exact).max() < 2e-6
    for k, h in enumerate(kernel.bandwidths):
        full = kernel_matrix(points, points, GaussianKernel(h))
        naive = [
            naive_squared_mmd(full, labels_of_rows(design, b)) for b in range(len(design.labels))
        ]
        assert np.abs(exact[k] - naive).max() < 1e-10
        assert permutation_pvalue(exact[k]) == permutation_pvalue(np.array(naive))


@pytest.mark.parametrize("name", DESIGNS)
def test_designs_keep_rows_and_labels(name):
    n_q, n_p, units = DESIGNS[name]
    design = design_of(n_q, n_p, **units)
    assert sorted(design.order) == list(range(n_q + n_p))
    assert design.sizes.min() > 0
    assert (labels_of_rows(design, 0) == (np.arange(n_q + n_p) < n_q)).all()
    changed = [(labels_of_rows(design, b) != labels_of_rows(design, 0)).any() for b in range(1, 20)]
    assert all(changed)
    for b in range(20):
        called = labels_of_rows(design, b)
        if not units:
            assert called.sum() == n_q
            continue
        side = np.arange(n_q + n_p) < n_q
        owner = np.concatenate([units["units_q"], units["units_p"]])
        for unit in np.unique(owner)[::7]:
            flipped = (called != side)[owner == unit]
            assert flipped.all() or not flipped.any()


def test_small_designs_permute_single_rows():
    assert design_of(20, ROWS_ALONE - 20).unit == "row"
    assert len(design_of(20, ROWS_ALONE - 20).sizes) == ROWS_ALONE
    assert design_of(900, 700).unit == "block of rows"
    assert design_of(2000, 2000, units_q=np.arange(2000), units_p=9999 + np.arange(2000)).unit == (
        "block of units"
    )


def test_a_small_side_keeps_single_rows_against_a_huge_one():
    design = design_of(12, 200_000)
    assert design.unit == "row"
    assert (design.sizes[:12] == 1).all()
    assert len(design.sizes) <= 520
    assert design.smallest_pvalue == 1 / 20


def test_parts_keep_blocks():
    design = design_of(3000, 2000)
    part = design.part(2)
    assert (part.sizes == np.minimum(design.sizes, 2)).all()
    for block in (0, 5, len(part.sizes) - 1):
        rows = part.order[part.starts[block] : part.starts[block + 1]]
        assert set(rows) <= set(design.order[design.starts[block] : design.starts[block + 1]])
    assert part.labels is design.labels


def test_huge_unit_numbers_stay_apart():
    units_q = np.array([2**64 - 1, 2**64 - 2, 5, 6], dtype=np.uint64)
    design = design_of(4, 4, units_q=units_q, units_p=np.arange(10, 14))
    assert len(design.sizes) == 8


def test_too_few_units_say_the_smallest_pvalue():
    design = design_of(40, 40, units_q=np.zeros(40, int), units_p=np.r_[[1] * 20, [2] * 20])
    assert design.smallest_pvalue == pytest.approx(1 / 3)
    pair = design_of(9, 9, units_q=np.zeros(9, int), units_p=np.zeros(9, int))
    assert pair.smallest_pvalue == pytest.approx(1 / 2)
    fixed = design_of(9, 9, units_q=np.zeros(9, int), units_p=np.zeros(9, int) + (np.arange(9) > 3))
    assert fixed.smallest_pvalue == pytest.approx(1 / 2)


def test_one_row_on_a_side_falls_back_to_the_biased_form():
    points = np.arange(6.0)[:, None]
    design = design_of(2, 4, units_q=np.array([0, 0]), units_p=np.array([1, 2, 3, 4]))
    assert min((design.labels @ design.sizes).min(), 2) == 1
    values = squared_mmd(block_sums(points, design, EnergyKernel()), design.labels)
    assert np.isfinite(values).all()
    full = kernel_matrix(points, points, EnergyKernel())
    called = labels_of_rows(design, 0)
    signed = np.where(called, 1 / called.sum(), -1 / (~called).sum())
    assert values[0, 0] == pytest.approx(signed @ full @ signed)


def test_null_deviation_equals_the_dense_one_and_the_spread_of_permutations():
    rng = np.random.default_rng(3)
    n = 150
    points = rng.normal(size=(2 * n, 2))
    kernel = GaussianKernel([4.0, 0.5])
    design = design_of(n, n, n_permutations=4000)
    sums = block_sums(points, design, kernel, dtype=np.float64)
    found = sums.null_deviation()
    spread = squared_mmd(sums, design.labels)[:, 1:].std(axis=1)
    assert np.allclose(math.sqrt(2) * (2 / n) * found, spread, rtol=0.1)
    full = kernel_matrix(points, points, GaussianKernel(0.5))
    np.fill_diagonal(full, 0.0)
    centring = np.eye(2 * n) - 1 / (2 * n)
    centred = centring @ full @ centring
    np.fill_diagonal(centred, 0.0)
    assert found[1] == pytest.approx(math.sqrt((centred**2).sum() / (2 * n * (2 * n - 1))))


@pytest.mark.parametrize("form", [GaussianKernel, ExponentialKernel])
def test_random_features_approach_the_kernel(form):
    rng = np.random.default_rng(4)
    points = rng.normal(size=(300, 3))
    design = design_of(100, 200)
    kernel = form([3.0, 1.0])
    exact = block_sums(points, design, kernel, dtype=np.float64)
    rough = feature_block_sums(points, design, kernel, n_frequencies=20_000, rng=rng)
    # 20,000 draws of a cosine: six standard errors are 6 / sqrt(40,000)
    assert np.abs(exact.sums - rough.sums).max() < 0.045
    with pytest.raises(OptionError, match="no random features for the energy kernel"):
        feature_block_sums(points, design, EnergyKernel(), n_frequencies=5, rng=rng)


def test_frequencies_are_orthogonal_draws_of_the_spectral_law():
    rng = np.random.default_rng(8)
    draws = frequencies(GaussianKernel([2.0]), 5, 10_000, rng)[0]
    first = draws[:, :5] / np.linalg.norm(draws[:, :5], axis=0)
    assert np.allclose(first.T @ first, np.eye(5), atol=1e-12)
    # six standard errors of a variance from 10,000 draws
    assert np.allclose(draws.var(axis=1), 0.25, atol=6 * 0.25 * math.sqrt(2 / 10_000))
    cauchy = frequencies(ExponentialKernel([2.0]), 1, 10_000, rng)[0, 0]
    assert abs(np.mean(np.abs(cauchy) < 0.5) - 0.5) < 6 * 0.5 / 100


def test_random_features_fold_blocks_like_rows():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(9000, 2))
    design = design_of(3000, 6000)
    kernel = GaussianKernel([1.0])
    sums = feature_block_sums(points, design, kernel, n_frequencies=7, rng=np.random.default_rng(9))
    rows = design_of(3000, 6000)
    assert (rows.order == design.order).all()
    z = frequencies(kernel, 2, 7, np.random.default_rng(9))[0]
    angles = points @ z
    features = np.hstack([np.cos(angles), np.sin(angles)])
    folded = np.add.reduceat(features[design.order], design.starts[:-1])
    gram = folded @ folded.T / 7 - np.diag(design.sizes)
    assert np.allclose(sums.sums[0], gram, atol=1e-2)


def test_ties_count_against_the_alternative_and_p_is_never_zero():
    assert permutation_pvalue(np.array([5.0, 1.0, 2.0, 3.0])) == 0.25
    assert permutation_pvalue(np.array([5.0, 5.0 * (1 - 1e-10), 5.0, 1.0])) == 0.75
    assert permutation_pvalue(np.zeros(10)) == 1.0


def test_designs_are_checked():
    with pytest.raises(OptionError, match="n_permutations is 0"):
        design_of(5, 5, n_permutations=0)
    with pytest.raises(OptionError, match="units_q and units_p go together"):
        design_of(5, 5, units_q=np.arange(5))
    with pytest.raises(DataError, match=r"units_p has shape \(4,\)"):
        design_of(5, 5, units_q=np.arange(5), units_p=np.arange(4))
    with pytest.raises(DataError, match="units_q has shape .* and type float64"):
        design_of(5, 5, units_q=np.zeros(5), units_p=np.arange(5))


def test_block_sums_do_not_depend_on_cores(monkeypatch):
    rng = np.random.default_rng(6)
    points = rng.normal(size=(1500, 4))
    design = design_of(700, 800)
    found = []
    for cores in (1, 3):
        monkeypatch.setattr("dpdq._threads.usable_cores", lambda cores=cores: cores)
        found.append(block_sums(points, design, GaussianKernel([1.0, 0.3])).sums)
    assert (found[0] == found[1]).all()
    assert isinstance(BlockSums(found[0], design.sizes, 1.0).null_deviation(), np.ndarray)


def test_stopped_pvalue_is_valid_and_decides_as_all_permutations_do():
    """Exchangeable statistics, ties among them: P(p <= alpha) <= alpha for every alpha.

    4,000 draws: a share six standard errors above alpha has probability below 1e-8.
    """
    rng = np.random.default_rng(10)
    n_draws, n_permutations, levels = 4000, 39, np.array([0.025, 0.05, 0.1, 0.2, 0.5])
    for statistics in (
        rng.normal(size=(n_draws, n_permutations + 1)),
        rng.integers(0, 4, (n_draws, n_permutations + 1)).astype(float),
    ):
        found, drawn = np.array(
            [stopped_pvalue(row[0], iter(row[1:]), n_permutations) for row in statistics]
        ).T
        room = 6 * np.sqrt(levels * (1 - levels) / n_draws)
        assert ((found[:, None] <= levels).mean(axis=0) <= levels + room).all()
        full = np.array([permutation_pvalue(row, tolerance=0.0) for row in statistics])
        assert ((found <= 0.05) == (full <= 0.05)).all()
        assert found.min() > 0
        assert drawn.mean() < 20
    assert stopped_pvalue(5.0, iter([1.0] * 19), 19) == (0.05, 19)
    assert stopped_pvalue(5.0, iter([5.0 * (1 - 1e-12)]), 19) == (1.0, 1)


def test_weighted_block_sums_equal_the_double_loop():
    rng = np.random.default_rng(11)
    points, weights = rng.normal(size=(1400, 2)), rng.gamma(2.0, size=1400)
    units = {"units_q": np.arange(600) // 3, "units_p": 900 + np.arange(800) // 2}
    for design in (design_of(600, 800), design_of(600, 800, **units), design_of(30, 1370)):
        full = kernel_matrix(points, points, GaussianKernel(0.8)) * np.outer(weights, weights)
        np.fill_diagonal(full, 0.0)
        ordered = full[np.ix_(design.order, design.order)]
        naive = np.add.reduceat(np.add.reduceat(ordered, design.starts[:-1]), design.starts[:-1], 1)
        kernel = GaussianKernel([0.8])
        found = block_sums(points, design, kernel, weights=weights, dtype=np.float64).sums[0]
        assert np.allclose(found, naive, rtol=1e-10)
        rough = feature_block_sums(
            points, design, kernel, n_frequencies=4000, weights=weights, rng=rng
        )
        assert rough.sums[0].sum() == pytest.approx(naive.sum(), rel=0.05)


def test_fewer_blocks_on_request():
    design = permutation_design(
        5000, 3000, n_permutations=9, max_blocks=64, rng=np.random.default_rng(0)
    )
    assert 50 <= len(design.sizes) <= 68
    assert (labels_of_rows(design, 0) == (np.arange(8000) < 5000)).all()
