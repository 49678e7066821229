import numpy as np
import pytest
from scipy import stats

from dpdq.distance import mmd, mmd_test
from dpdq.errors import DataError, OptionError

METHODS = ["single", "aggregated", "random_features"]


def most_rejections(n_draws, level=0.05):
    """A valid test rejects more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


def normal(rng, n, d):
    return rng.normal(size=(n, d))


def perturbed_uniform(rng, n, d, amplitude, periods):
    """Density 1 + amplitude prod_j sin(2 pi periods x_j) on the unit cube."""
    x = rng.random((6 * n, d))
    density = 1 + amplitude * np.prod(np.sin(2 * np.pi * periods * x), axis=1)
    return x[rng.random(6 * n) * (1 + amplitude) < density][:n]


LAWS = {
    "8 against 300": lambda rng: (normal(rng, 8, 3), normal(rng, 300, 3)),
    "ties": lambda rng: (rng.integers(0, 2, (20, 2)), rng.integers(0, 2, (30, 2))),
    "heavy tails": lambda rng: (
        rng.standard_t(1, (25, 2)) ** 5,
        rng.standard_t(1, (25, 2)) ** 5,
    ),
    "200 dimensions": lambda rng: (normal(rng, 20, 200), normal(rng, 30, 200)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_level(law, method):
    n_draws = 60 if method == "random_features" else 100
    rng = np.random.default_rng(7)
    rejected = 0
    for seed in range(n_draws):
        q, p = LAWS[law](rng)
        options = {"n_permutations": 19, "random_state": seed}
        rejected += mmd_test(q, p, method=method, **options).pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)
    if law != "ties":
        # an exact test rejects at least once in 60 draws with probability 0.95, and here it does
        assert rejected > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_level_with_blocks(method):
    """More rows than blocks, unequal sides, and rows left over."""
    n_draws = 200
    rng = np.random.default_rng(8)
    rejected = sum(
        mmd_test(
            normal(rng, 907, 2),
            normal(rng, 350, 2),
            method=method,
            n_permutations=19,
            random_state=seed,
        ).pvalue
        <= 0.05
        for seed in range(n_draws)
    )
    assert rejected <= most_rejections(n_draws)


def test_level_of_units():
    """Rows of a unit share a centre: by row the test is wrong, by unit it is right."""
    n_draws = 100
    rng = np.random.default_rng(9)
    units_q, units_p = np.repeat(np.arange(10), 8), np.repeat(np.arange(10, 20), 8)
    by_unit = by_row = 0
    for seed in range(n_draws):
        q = normal(rng, 10, 2)[units_q] + 0.3 * normal(rng, 80, 2)
        p = normal(rng, 10, 2)[units_p - 10] + 0.3 * normal(rng, 80, 2)
        options = {"method": "single", "n_permutations": 19, "random_state": seed}
        by_unit += mmd_test(q, p, units_q=units_q, units_p=units_p, **options).pvalue <= 0.05
        by_row += mmd_test(q, p, **options).pvalue <= 0.05
    assert by_unit <= most_rejections(n_draws)
    assert by_row > 50


def test_units_on_both_sides_are_swapped():
    """The same patients before and after: a small change is seen, no change is not."""
    rng = np.random.default_rng(10)
    patients = np.arange(60)
    base = 5 * normal(rng, 60, 1)
    q, p = base + 0.1 * normal(rng, 60, 1), base + 0.1 * normal(rng, 60, 1)
    options = {"units_q": patients, "units_p": patients, "random_state": 0}
    result = mmd_test(q, p + 1.0, **options)
    assert result.pvalue == 0.005
    assert result.details["unit"] == "unit"
    assert mmd_test(q, p + 1.0, random_state=0).pvalue > 0.05
    n_draws = 100
    rejected = 0
    for seed in range(n_draws):
        base = 5 * normal(rng, 30, 1)
        q, p = base + 0.1 * normal(rng, 30, 1), base + 0.1 * normal(rng, 30, 1)
        options = {"units_q": patients[:30], "units_p": patients[:30], "random_state": seed}
        rejected += mmd_test(q, p, n_permutations=19, **options).pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_against_itself_has_p_one(method):
    rng = np.random.default_rng(11)
    for q in (normal(rng, 150, 3), rng.integers(0, 3, (90, 2)), normal(rng, 900, 2)):
        result = mmd_test(q, q[rng.permutation(len(q))], method=method, random_state=0)
        assert result.pvalue == 1.0
        assert result.statistic < 0


def test_constant_data_give_p_one():
    for method in METHODS:
        result = mmd_test(np.ones((9, 2)), np.ones((7, 2)), method=method, random_state=0)
        assert (result.statistic, result.pvalue) == (0.0, 1.0)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_extreme_scales_are_no_trouble(scale):
    rng = np.random.default_rng(12)
    q, p = normal(rng, 60, 2), normal(rng, 60, 2) + 1.5
    plain = mmd_test(q, p, random_state=0)
    moved = mmd_test(q * scale, p * scale, random_state=0)
    assert moved.pvalue == plain.pvalue == 0.005
    assert moved.statistic == pytest.approx(plain.statistic)
    assert np.allclose(moved.details["bandwidths"], np.multiply(plain.details["bandwidths"], scale))


def test_aggregated_sees_what_the_median_bandwidth_does_not():
    rng = np.random.default_rng(13)
    found = {"single": 0, "aggregated": 0}
    for seed in range(25):
        q, p = rng.random((300, 2)), perturbed_uniform(rng, 300, 2, 1.0, 1)
        for method in found:
            result = mmd_test(q, p, method=method, n_permutations=99, random_state=seed)
            found[method] += result.pvalue <= 0.05
    # bench/levels.py: power 0.97 against 0.09; 30 draws leave these with probability below 1e-6
    assert found["aggregated"] >= 20
    assert found["single"] <= 17


def test_aggregation_costs_little_power_on_a_shift():
    rng = np.random.default_rng(14)
    found = {"single": 0, "aggregated": 0}
    for seed in range(60):
        q, p = normal(rng, 100, 10), normal(rng, 100, 10) + 0.2
        for method in found:
            result = mmd_test(q, p, method=method, n_permutations=99, random_state=seed)
            found[method] += result.pvalue <= 0.05
    assert found["single"] >= 30
    assert found["aggregated"] >= found["single"] - 12


@pytest.mark.slow
def test_random_features_see_what_exact_kernels_see():
    rng = np.random.default_rng(15)
    found = {"random_features": 0, "aggregated": 0}
    for seed in range(20):
        q, p = normal(rng, 300, 8), normal(rng, 300, 8) * 1.11
        for method in found:
            result = mmd_test(q, p, method=method, n_permutations=99, random_state=seed)
            found[method] += result.pvalue <= 0.05
    assert found["aggregated"] >= 6
    assert abs(found["aggregated"] - found["random_features"]) <= 9


def test_statistic_is_invariant():
    rng = np.random.default_rng(16)
    q, p = normal(rng, 50, 3), normal(rng, 70, 3) + 0.3
    rotation = np.linalg.qr(normal(rng, 3, 3))[0]
    plain = mmd_test(q, p, method="single", bandwidths=1.0, random_state=0)
    # no bandwidth here is relative, so turning and moving leave every distance as it is
    turned = mmd_test(
        q @ rotation + 5, p @ rotation + 5, method="single", bandwidths=1.0, random_state=0
    )
    assert turned.statistic == pytest.approx(plain.statistic, rel=1e-9)
    assert turned.pvalue == plain.pvalue
    shuffled = mmd_test(
        q[::-1], p[rng.permutation(70)], method="single", bandwidths=1.0, random_state=0
    )
    assert shuffled.statistic == pytest.approx(plain.statistic, rel=1e-9)
    swapped = mmd_test(p, q, method="single", bandwidths=1.0, random_state=0)
    assert swapped.statistic == pytest.approx(plain.statistic, rel=1e-9)
    assert plain.statistic == pytest.approx(mmd(q, p, bandwidth=1.0).estimate, rel=1e-9)
    assert plain.effect.standard_error == pytest.approx(
        mmd(q, p, bandwidth=1.0).standard_error, rel=0.1
    )


def test_result_says_how_it_was_made():
    rng = np.random.default_rng(17)
    q, p = normal(rng, 60, 2), normal(rng, 40, 2)
    result = mmd_test(q, p, n_permutations=49, random_state=3)
    assert result == mmd_test(q=q, p=p, n_permutations=49, random_state=3)
    assert result.method == "aggregated MMD, permutation of rows"
    assert (result.n_q, result.n_p) == (60, 40)
    assert len(result.details["bandwidths"]) == 10
    assert result.details["smallest_pvalue"] == 1 / 50
    assert result.effect.low < result.effect.estimate < result.effect.high
    assert result.detectable > 0
    assert result.to_dict()["details"]["unit"] == "row"
    few = mmd_test(q[:2], p[:2], random_state=0)
    assert few.status.startswith("no p-value below 0.17 is possible")
    assert few.pvalue >= 1 / 6


def test_auto_takes_random_features_for_many_rows(monkeypatch):
    monkeypatch.setattr("dpdq.distance.kernel_tests.EXACT_ROWS", 100)
    monkeypatch.setattr("dpdq.distance.kernel_tests.PART_ROWS", 1200)
    rng = np.random.default_rng(18)
    result = mmd_test(normal(rng, 1500, 2), normal(rng, 1500, 2), random_state=0)
    assert result.details["method"] == "random_features"
    assert 600 <= result.details["rows_exact"] <= 1200
    assert len(result.details["deviations"]) == 20


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_scaling_the_data_leaves_the_pvalue(method, scale):
    """No bandwidth is fixed: what one unit finds another finds too."""
    rng = np.random.default_rng(22)
    for shift in (0.0, 0.3, 2.0):
        q, p = normal(rng, 40, 2), normal(rng, 30, 2) + shift
        options = {"method": method, "n_permutations": 39, "random_state": 0}
        plain = mmd_test(q, p, **options)
        moved = mmd_test(scale * q, scale * p, **options)
        assert moved.pvalue == plain.pvalue
        assert plain.pvalue >= 1 / 40
        assert np.allclose(
            moved.details["bandwidths"], scale * np.array(plain.details["bandwidths"])
        )
        assert plain.details["bandwidths"][0] != 1.0


@pytest.mark.parametrize("change", ["mean", "spread"])
def test_detectable_is_detected(change):
    """At the squared MMD that is said to be detectable the power is 80 % or a little more.

    100 draws: a power of 0.8 leaves less than 58 with probability below 1e-6.
    """
    rng = np.random.default_rng(23)
    size = {"mean": 0.54, "spread": 1.45}[change]
    estimates, detectables, found = [], [], 0
    for seed in range(100):
        q, p = normal(rng, 80, 2), normal(rng, 80, 2)
        p = p + size * np.array([1.0, 0.0]) if change == "mean" else size * p
        options = {"method": "single", "bandwidths": 1.5, "n_permutations": 39}
        result = mmd_test(q, p, random_state=seed, **options)
        estimates.append(result.effect.estimate)
        detectables.append(result.detectable)
        found += result.pvalue <= 0.05
    assert np.mean(estimates) == pytest.approx(np.mean(detectables), rel=0.12)
    assert found >= 58


def test_wrong_input_is_refused():
    q = np.zeros((5, 2))
    with pytest.raises(DataError, match="q has 2 features and p has 3"):
        mmd_test(q, np.zeros((5, 3)))
    with pytest.raises(DataError, match="p has 1 row; expected at least 2"):
        mmd_test(q, np.zeros((1, 2)))
    with pytest.raises(OptionError, match="Unknown method 'fast'. Choose one of 'auto'"):
        mmd_test(q, q, method="fast")
    with pytest.raises(OptionError, match="expected positive numbers"):
        mmd_test(q, q, bandwidths=[1.0, 0.0])


def test_digits(shared_data):
    """MNIST: random halves are alike, and one digit in five replaced by sevens is not."""
    with np.load(shared_data / "mnist_t10k.npz") as file:
        name = next(key for key in file if key != "y")
        images = file[name].reshape(10_000, -1)[:, ::7] / 255.0
        digit = file["y"]
    rng = np.random.default_rng(20)
    n_draws, rejected = 40, 0
    for seed in range(n_draws):
        rows = rng.permutation(10_000)[:400]
        q, p = images[rows[:200]], images[rows[200:]]
        rejected += mmd_test(q, p, n_permutations=19, random_state=seed).pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)
    rows = rng.permutation(10_000)
    q, p = images[rows[:1500]], images[rows[1500:3000]].copy()
    sevens = rng.permutation(np.flatnonzero(digit == 7))[:300]
    p[:300] = images[sevens]
    assert mmd_test(q, p, random_state=0).pvalue == 0.005


def test_adult(shared_data):
    """Adult's numeric columns: random halves at the 5 % level, men against women far apart."""
    import pandas as pd

    table = pd.read_parquet(shared_data / "adult.parquet")
    numeric = table.select_dtypes("number").to_numpy(float)
    numeric = (numeric - numeric.mean(axis=0)) / numeric.std(axis=0)
    rng = np.random.default_rng(21)
    n_draws, rejected = 60, 0
    for seed in range(n_draws):
        rows = rng.permutation(len(numeric))[:300]
        result = mmd_test(
            numeric[rows[:150]], numeric[rows[150:]], n_permutations=19, random_state=seed
        )
        rejected += result.pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)
    sex = next(name for name in table.columns if name.lower() in ("sex", "gender"))
    is_one = (table[sex] == table[sex].iloc[0]).to_numpy()
    q, p = numeric[is_one][:2000], numeric[~is_one][:1000]
    assert mmd_test(q, p, random_state=0).pvalue == 0.005
