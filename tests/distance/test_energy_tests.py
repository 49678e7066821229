import numpy as np
import pytest
from scipy import stats

from dpdq.distance import energy_distance, energy_test
from dpdq.distance.kernel_blocks import block_sums, squared_mmd
from dpdq.distance.permutation import permutation_design
from dpdq.errors import DataError, OptionError
from dpdq.kernels import EnergyKernel


def most_rejections(n_draws, level=0.05):
    """A valid test rejects more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


LAWS = {
    "8 against 300": lambda rng: (rng.normal(size=(8, 3)), rng.normal(size=(300, 3))),
    "ties": lambda rng: (rng.integers(0, 2, (20, 2)), rng.integers(0, 2, (30, 2))),
    "heavy tails": lambda rng: (rng.standard_t(1, (25, 2)) ** 5, rng.standard_t(1, (25, 2)) ** 5),
    "200 dimensions": lambda rng: (rng.normal(size=(20, 200)), rng.normal(size=(30, 200))),
}


@pytest.mark.parametrize("law", LAWS)
def test_level(law):
    n_draws, rejected = 100, 0
    rng = np.random.default_rng(7)
    for seed in range(n_draws):
        q, p = LAWS[law](rng)
        rejected += energy_test(q, p, n_permutations=19, random_state=seed).pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)
    if law != "ties":
        # an exact test rejects at least once in 100 draws with probability 0.994, and here it does
        assert rejected > 0


def test_statistic_is_the_energy_distance():
    """The engine under the distance kernel, the double loop, and the estimate are one number."""
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=(60, 2)), rng.normal(size=(45, 2)) + 0.4

    def mean(x, y, same):
        distances = np.sqrt(((x[:, None] - y[None]) ** 2).sum(axis=2))
        return distances.sum() / (len(x) * (len(y) - same))

    naive = 2 * mean(q, p, 0) - mean(q, q, 1) - mean(p, p, 1)
    result = energy_test(q, p, random_state=0)
    assert result.statistic == pytest.approx(naive, rel=1e-10)
    assert result.effect.estimate == pytest.approx(naive, rel=1e-10)
    assert energy_distance(q, p).estimate == pytest.approx(naive, rel=1e-10)
    assert result.effect.low < naive < result.effect.high
    assert result.detectable > 0
    design = permutation_design(60, 45, n_permutations=9, rng=np.random.default_rng(0))
    sums = block_sums(np.vstack([q, p]), design, EnergyKernel(), dtype=np.float64)
    assert squared_mmd(sums, design.labels)[0, 0] == pytest.approx(naive, rel=1e-10)


def test_unit_of_the_data():
    rng = np.random.default_rng(2)
    q, p = rng.normal(size=(40, 2)), rng.normal(size=(50, 2)) + 0.5
    plain = energy_test(q, p, random_state=0)
    moved = energy_test(1e6 * q + 3, 1e6 * p + 3, random_state=0)
    assert moved.pvalue == plain.pvalue
    assert moved.statistic == pytest.approx(1e6 * plain.statistic, rel=1e-6)
    assert moved.detectable == pytest.approx(1e6 * plain.detectable, rel=1e-6)
    swapped = energy_test(p, q, random_state=0)
    assert swapped.statistic == pytest.approx(plain.statistic, rel=1e-10)
    assert energy_test(np.ones(9), np.ones(7), random_state=0).pvalue == 1.0


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="p has 1 row; expected at least 2"):
        energy_test(np.zeros((5, 2)), np.zeros((1, 2)))
    with pytest.raises(OptionError, match="n_permutations is 0"):
        energy_test(np.zeros((5, 2)), np.zeros((5, 2)), n_permutations=0)


def test_adult(shared_data):
    """Hours worked: men against women found, random halves not at a level of one in 200."""
    import pandas as pd

    table = pd.read_parquet(shared_data / "adult.parquet")
    hours = next(name for name in table.columns if name.lower().startswith("hours"))
    sex = next(name for name in table.columns if name.lower() in ("sex", "gender"))
    is_one = (table[sex] == table[sex].iloc[0]).to_numpy()
    values = table[hours].to_numpy(float)
    assert energy_test(values[is_one][:800], values[~is_one][:800], random_state=0).pvalue == 0.005
    assert energy_test(values[:1500:2], values[1:1500:2], random_state=0).pvalue > 0.005
