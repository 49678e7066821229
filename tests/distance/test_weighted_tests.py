import numpy as np
import pytest
from scipy import stats

from dpdq.distance import mmd, mmd_test
from dpdq.distance import weighted_tests as wt
from dpdq.errors import DataError, OptionError
from dpdq.kernels import GaussianKernel, kernel_matrix


def tilted(rng, n, m, shift, d=2):
    """q normal, p shifted, and the weights dP/dQ of the rows of q."""
    q, p = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    p[:, 0] += shift
    return q, p, np.exp(shift * q[:, 0])


def discrete(rng, n, m):
    share = np.array([1.0, 2.0, 5.0])
    q, p = rng.integers(0, 3, (n, 2)), rng.integers(0, 3, (m, 2))
    p[:, 0] = rng.choice(3, m, p=share / share.sum())
    return q, p, share[q[:, 0]]


def unrelated(rng, n, m):
    """Cauchy rows, and weights that know nothing of them."""
    return rng.standard_t(1, (n, 2)), rng.standard_t(1, (m, 2)), rng.gamma(2.0, size=n)


NULLS = {
    "tilted normal": lambda rng: tilted(rng, 120, 80, 0.5),
    "tied": lambda rng: discrete(rng, 60, 40),
    "heavy tails": lambda rng: unrelated(rng, 70, 90),
    "equal weights, 30 rows": lambda rng: (*rng.normal(size=(2, 30, 3)), np.ones(30)),
    "30 against 150": lambda rng: (
        rng.normal(size=(30, 2)),
        rng.normal(size=(150, 2)),
        np.ones(30),
    ),
    "50 columns": lambda rng: tilted(rng, 60, 60, 0.3, 50),
}


@pytest.mark.parametrize("law", NULLS)
@pytest.mark.parametrize("method", ["single", "aggregated"])
def test_level(law, method):
    """Asymptotic, and nearly exact at these sizes: a 7 % test rejects more than this in 70 draws
    with probability below 1e-7."""
    n_draws, rejected = 70, 0
    rng = np.random.default_rng(1)
    for seed in range(n_draws):
        q, p, weights = NULLS[law](rng)
        try:
            result = mmd_test(
                q, p, weights_q=weights, method=method, n_permutations=99, random_state=seed
            )
        except DataError:
            continue
        rejected += result.pvalue <= 0.05
    assert rejected <= stats.binom.isf(1e-7, n_draws, 0.07)


def test_permuting_pairs_would_reject_a_perfect_reweighting():
    """The weighted null holds while the plain one does not."""
    rng = np.random.default_rng(2)
    weighted = plain = answered = 0
    for seed in range(20):
        q, p, weights = tilted(rng, 200, 200, 0.6)
        plain += mmd_test(q, p, n_permutations=39, random_state=seed).pvalue <= 0.05
        try:
            result = mmd_test(q, p, weights_q=weights, n_permutations=39, random_state=seed)
        except DataError:
            continue
        answered += 1
        weighted += result.pvalue <= 0.05
    assert plain >= 18
    assert answered >= 5
    assert weighted <= stats.binom.isf(1e-7, 20, 0.07)


def test_wrong_weights_are_found():
    rng = np.random.default_rng(3)
    q, p, weights = tilted(rng, 400, 400, 0.4)
    result = mmd_test(q, p, weights_q=1 / weights, random_state=0)
    assert result.pvalue == 0.005
    assert result.effect.low > 0
    assert result.detectable > 0
    assert result.status.startswith("the null is that q and p are equal after these weights")
    assert result.details["effective_q"] < 400
    assert result.details["unit"] == "row"


def test_statistic_equals_the_dense_one():
    rng = np.random.default_rng(4)
    q, p = rng.normal(size=(40, 2)), rng.normal(size=(50, 2)) + 0.2
    u, v = rng.gamma(3.0, size=40), rng.gamma(3.0, size=50)
    result = mmd_test(
        q, p, weights_q=u, weights_p=v, method="single", bandwidths=1.0, random_state=0
    )
    u, v = u / u.sum(), v / v.sum()
    points, signed = np.vstack([q, p]), np.concatenate([u, -v])
    full = kernel_matrix(points, points, GaussianKernel(1.0))
    mass, on_q = np.abs(signed), np.arange(90) < 40
    # psi_a = w_a (k_a - mu_side)
    mean = np.where(on_q[:, None], np.concatenate([u, 0 * v]), np.concatenate([0 * u, v]))
    maps = signed[:, None] * (np.eye(90) - mean)
    centred = maps @ full @ maps.T
    expected = signed @ full @ signed - (np.diag(centred) / (1 - mass)).sum()
    assert result.statistic == pytest.approx(expected, rel=1e-9)
    biased = mmd(q, p, weights_q=u, weights_p=v, bandwidth=1.0, unbiased=False).estimate
    assert signed @ full @ signed == pytest.approx(biased, rel=1e-9)
    near = mmd(q, p, weights_q=u, weights_p=v, bandwidth=1.0)
    assert result.effect.estimate == pytest.approx(near.estimate, abs=0.2 * near.standard_error)
    assert result.effect.standard_error == pytest.approx(near.standard_error, rel=0.2)


def test_scale_of_weights_and_dropped_rows_change_nothing():
    rng = np.random.default_rng(5)
    q, p = rng.normal(size=(80, 2)), rng.normal(size=(60, 2))
    weights = rng.gamma(3.0, size=80)
    options = {"n_permutations": 49, "random_state": 0}
    one = mmd_test(q, p, weights_q=weights, **options)
    two = mmd_test(q, p, weights_q=1e200 * weights, weights_p=np.full(60, 1e-200), **options)
    assert two.pvalue == one.pvalue
    assert two.statistic == pytest.approx(one.statistic, rel=1e-9)
    moved = mmd_test(1e9 * q, 1e9 * p, weights_q=weights, **options)
    assert moved.pvalue == one.pvalue
    more = np.vstack([q, np.full((5, 2), 99.0)])
    dropped = mmd_test(more, p, weights_q=np.append(weights, np.zeros(5)), **options)
    assert dropped.effect.estimate == pytest.approx(one.effect.estimate, rel=1e-9)
    assert dropped.n_q == 85


def test_blocks_and_random_features_agree_with_rows():
    rng = np.random.default_rng(6)
    q, p, weights = tilted(rng, 1500, 1200, 0.2)
    options = {"weights_q": weights, "bandwidths": [2.0, 1.0], "random_state": 0}
    exact = mmd_test(q, p, method="aggregated", **options)
    rough = mmd_test(q, p, method="random_features", **options)
    assert exact.details["unit"] == "block of rows"
    assert exact.details["n_blocks"] == 512
    assert rough.effect.estimate == pytest.approx(exact.effect.estimate, abs=3e-3)
    assert mmd_test(q, p + 0.5, **options).pvalue == 0.005


def test_units_move_together():
    """Rows of a unit share a centre: by row the test is wrong, by unit it is right."""
    rng = np.random.default_rng(7)
    units_q, units_p = np.repeat(np.arange(40), 5), np.repeat(np.arange(40, 80), 5)
    n_draws, by_unit, by_row = 40, 0, 0
    for seed in range(n_draws):
        q = rng.normal(size=(40, 2))[units_q] + 0.2 * rng.normal(size=(200, 2))
        p = rng.normal(size=(40, 2))[units_p - 40] + 0.2 * rng.normal(size=(200, 2))
        options = {
            "weights_q": np.ones(200),
            "method": "single",
            "n_permutations": 39,
            "random_state": seed,
        }
        by_unit += mmd_test(q, p, units_q=units_q, units_p=units_p, **options).pvalue <= 0.05
        by_row += mmd_test(q, p, **options).pvalue <= 0.05
    assert by_unit <= stats.binom.isf(1e-7, n_draws, 0.07)
    assert by_row > 20


def test_what_is_not_valid_is_refused():
    rng = np.random.default_rng(8)
    q, p = rng.normal(size=(100, 2)), rng.normal(size=(100, 2))
    few = np.r_[np.ones(20), np.zeros(80)]
    with pytest.raises(DataError, match=r"weights_q: the rows of q count for 20\.0 effective ones"):
        mmd_test(q, p, weights_q=few)
    with pytest.raises(DataError, match="weights_p: the tail shape k-hat is .* above 0.4"):
        mmd_test(q, p, weights_p=rng.pareto(1.2, 100))
    with pytest.raises(OptionError, match="method 'compressed' takes no weights"):
        mmd_test(q, p, weights_q=np.ones(100), method="compressed")
    with pytest.raises(DataError, match="a unit stands on both sides"):
        mmd_test(q, p, weights_q=np.ones(100), units_q=np.arange(100), units_p=np.arange(100))
    with pytest.raises(OptionError, match="units_q and units_p go together"):
        mmd_test(q, p, weights_q=np.ones(100), units_q=np.arange(100))
    with pytest.raises(DataError, match=r"weights_q has shape \(3,\)"):
        mmd_test(q, p, weights_q=np.ones(3))
    with pytest.raises(DataError, match="weights_q must be finite, not negative"):
        mmd_test(q, p, weights_q=-np.ones(100))
    with pytest.raises(OptionError, match="n_permutations is 0"):
        mmd_test(q, p, weights_q=np.ones(100), n_permutations=0)
    assert wt.FEWEST_EFFECTIVE == 25


def test_adult_by_known_sampling(shared_data):
    """Adult thinned by a known rule of age: its weights repair it, none do not."""
    import pandas as pd

    table = pd.read_parquet(shared_data / "adult.parquet").select_dtypes("number")
    numbers = table.to_numpy(float)
    numbers = (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)
    age = list(table.columns).index(next(c for c in table.columns if c.lower() == "age"))
    rng = np.random.default_rng(9)
    rows = rng.permutation(len(numbers))
    kept = 1 / (1 + np.exp(1.2 * numbers[:, age]))
    pool = rows[:20_000]
    q_rows = pool[rng.random(20_000) < kept[pool]][:2500]
    q, p = numbers[q_rows], numbers[rows[20_000:21_500]]
    assert mmd_test(q, p, random_state=0).pvalue == 0.005
    assert mmd_test(q, p, weights_q=np.clip(1 / kept[q_rows], 0, 12), random_state=0).pvalue > 0.01
