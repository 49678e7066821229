import numpy as np
import pytest
from scipy import stats

from dpdq.distance import SequentialTest, mmd_test, sequential_test
from dpdq.distance._bettors import Bettors
from dpdq.distance.sequential import FIRST_PAIRS
from dpdq.errors import DataError, OptionError


def most_rejections(n_draws, level=0.05):
    """A valid test rejects more often than this in n_draws with probability below 1e-7."""
    return stats.binom.isf(1e-7, n_draws, level)


LAWS = {
    "normal": lambda rng, n: rng.normal(size=(n, 3)),
    "two values": lambda rng, n: rng.integers(0, 2, (n, 2)),
    "heavy tails": lambda rng, n: rng.standard_t(1, (n, 2)) ** 5,
    "constant": lambda rng, n: np.ones((n, 1)),
    "200 columns": lambda rng, n: rng.normal(size=(n, 200)),
}


@pytest.mark.parametrize("law", LAWS)
def test_level_while_looking_at_every_pair(law):
    """Every pair is a look: the wealth may not cross 20 in more than 5 % of draws, ever."""
    n_draws = 40
    rng = np.random.default_rng(1)
    found = [
        sequential_test(LAWS[law](rng, 120), LAWS[law](rng, 120), random_state=seed)
        for seed in range(n_draws)
    ]
    assert sum(one.pvalue <= 0.05 for one in found) <= most_rejections(n_draws)
    assert all(0 < one.pvalue <= 1 for one in found)
    assert all(one.effect.low <= 0.5 <= one.effect.high for one in found)


@pytest.mark.slow
def test_level_over_long_runs():
    n_draws = 60
    rng = np.random.default_rng(2)
    rejected = 0
    for seed in range(n_draws):
        q, p = rng.normal(size=(2500, 2)), rng.normal(size=(2500, 2))
        rejected += sequential_test(q, p, random_state=seed).pvalue <= 0.05
    assert rejected <= most_rejections(n_draws)


@pytest.mark.slow
def test_repeated_fixed_tests_are_not_valid_and_this_one_is():
    """Twenty looks with a fixed test reject far too often; the bettor does not."""
    n_draws, peeking, betting = 60, 0, 0
    rng = np.random.default_rng(3)
    for seed in range(n_draws):
        q, p = rng.normal(size=200), rng.normal(size=200)
        looks = [
            mmd_test(q[:n], p[:n], method="single", n_permutations=19, random_state=seed).pvalue
            for n in range(10, 201, 10)
        ]
        peeking += min(looks) <= 0.05
        betting += sequential_test(q, p, random_state=seed).pvalue <= 0.05
    assert peeking > most_rejections(n_draws)
    assert betting <= most_rejections(n_draws)


@pytest.mark.parametrize("change", ["mean", "spread", "correlation"])
def test_changes_are_found(change):
    rng = np.random.default_rng(4)
    q, p = rng.normal(size=(1500, 2)), rng.normal(size=(1500, 2))
    if change == "mean":
        p = p + 0.4
    elif change == "spread":
        p = 1.5 * p
    else:
        p[:, 1] = 0.7 * p[:, 0] + np.sqrt(1 - 0.49) * p[:, 1]
    result = sequential_test(q=q, p=p, random_state=0)
    assert result.details["rejected"]
    assert result.details["rejected_at"] < 900
    assert result.effect.low > 0.5
    assert 0.5 < result.detectable < 0.6


def test_power_against_peeking_with_bonferroni():
    """Five looks of the fixed test at level 1 % each, and the bettor, who may look at all."""
    rng = np.random.default_rng(5)
    betting = peeking = 0
    for seed in range(20):
        q, p = rng.normal(size=300), rng.normal(0.45, 1.0, size=300)
        betting += sequential_test(q, p, random_state=seed).pvalue <= 0.05
        looks = range(60, 301, 60)
        peeking += any(
            mmd_test(q[:n], p[:n], method="single", n_permutations=199, random_state=seed).pvalue
            <= 0.01
            for n in looks
        )
    # power 0.97 and 0.97 in 200 draws; 13 of 20 is left with probability below 1e-6
    assert betting >= 13
    assert betting >= peeking - 7


def test_batches_of_any_sizes_pair_rows_in_order():
    rng = np.random.default_rng(6)
    q, p = rng.normal(size=(300, 2)), rng.normal(size=(260, 2)) + 0.3
    whole = SequentialTest(random_state=0)
    expected = whole.update(q, p)
    assert (expected.n_pairs, expected.waiting_q, expected.waiting_p) == (260, 40, 0)
    for cuts_q, cuts_p in (((100, 101, 250), (7, 200, 210)), ((300, 300, 300), (0, 1, 2))):
        test = SequentialTest(random_state=0)
        states = [
            test.update(a, b) for a, b in zip(np.split(q, cuts_q), np.split(p, cuts_p), strict=True)
        ]
        # the same bets whenever the scale and the pairs so far are the same
        assert states[-1].n_pairs == 260
        assert states[-1].waiting_q == 40
        assert [state.pvalue for state in states] == sorted(
            [state.pvalue for state in states], reverse=True
        )
    one_by_one = SequentialTest(random_state=0)
    for row_q, row_p in zip(q, p, strict=False):
        state = one_by_one.update(row_q[None], row_p[None])
    assert state.n_pairs == 260
    assert one_by_one.update(q=q[260:]).waiting_q == 40
    assert one_by_one.update().n_pairs == 260


def test_streams_are_left_once_it_rejects():
    rng = np.random.default_rng(7)
    drawn = []

    def stream(shift):
        for number in range(1000):
            drawn.append(number)
            yield rng.normal(shift, 1.0, size=(20, 1))

    result = sequential_test(stream(0.0), stream(1.0), random_state=0)
    assert result.details["rejected"]
    assert max(drawn) < 30
    quiet = sequential_test(iter([rng.normal(size=50)]), rng.normal(size=80), random_state=0)
    assert quiet.details["waiting_p"] == 30


def test_a_bet_changes_sign_with_the_pair():
    """Odds are even: the chances of (x, y) and of (y, x) sum to one for every single bettor."""
    rng = np.random.default_rng(8)
    first = rng.normal(size=(32, 2))
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 1
    bettors = [Bettors(first, np.random.default_rng(0)) for _ in range(2)]
    for one in bettors:
        one.bet(x[:20], y[:20])
    there, back = bettors[0].bet(x[20:21], y[20:21]), bettors[1].bet(y[20:21], x[20:21])
    assert np.exp(there) + np.exp(back) == pytest.approx(1.0, abs=1e-12)
    fresh = Bettors(first, np.random.default_rng(0))
    assert np.exp(fresh.bet(x[:5], y[:5])) == pytest.approx(0.5)


def test_wealth_is_the_product_of_bets():
    rng = np.random.default_rng(9)
    q, p = rng.normal(size=(80, 1)), rng.normal(size=(80, 1)) + 1
    bettors = Bettors(np.vstack([q[:FIRST_PAIRS], p[:FIRST_PAIRS]]), np.random.default_rng(0))
    log_wealth, largest, first, n = 0.0, 0.0, FIRST_PAIRS, FIRST_PAIRS
    while first < 80:
        last = min(80, first + max(1, first // 10))
        for chance in bettors.bet(q[first:last], p[first:last]):
            log_wealth += np.log(2.0) + chance
            largest = max(largest, log_wealth)
        first = n = last
    result = sequential_test(q, p, random_state=0)
    assert n == result.details["n_pairs"]
    assert np.log(result.details["evalue"]) == pytest.approx(log_wealth)
    assert result.pvalue == pytest.approx(np.exp(-largest))
    assert result.statistic == pytest.approx(np.exp(largest))


def test_scale_and_place_change_nothing():
    rng = np.random.default_rng(10)
    q, p = rng.normal(size=(200, 2)), rng.normal(size=(200, 2)) + 0.5
    plain = sequential_test(q, p, random_state=0)
    moved = sequential_test(q * [1e6, 1e-6] + 4, p * [1e6, 1e-6] + 4, random_state=0)
    assert moved.details["evalue"] == pytest.approx(plain.details["evalue"], rel=1e-3)
    same = sequential_test(q, q, random_state=0)
    assert (same.pvalue, same.details["evalue"]) == (1.0, 1.0)


def test_wrong_input_is_refused():
    test = SequentialTest(random_state=0)
    test.update(np.zeros((3, 2)), np.zeros((3, 2)))
    with pytest.raises(DataError, match="p has 3 features; the rows before had 2"):
        test.update(p=np.zeros((2, 3)))
    with pytest.raises(DataError, match="q: 1 of 2 rows hold missing or infinite values"):
        test.update(q=[[0.0, np.nan], [0.0, 0.0]])
    with pytest.raises(OptionError, match=r"alpha is 1\.5"):
        sequential_test([0.0], [0.0], alpha=1.5)
    assert repr(SequentialTest(0.01)) == "SequentialTest(alpha=0.01)"
    assert repr(test) == "SequentialTest(alpha=0.05, 0 pairs, e-value 1)"
    few = sequential_test([0.0, 1.0], [1.0, 2.0])
    assert (few.pvalue, few.detectable) == (1.0, None)
    assert few.status == "the first 16 pairs set the scale; go on"


def test_a_planted_change_in_adult(shared_data):
    """Adult's rows in random order are one law; after a planted change it is found."""
    import pandas as pd

    table = pd.read_parquet(shared_data / "adult.parquet").select_dtypes("number")
    rows = np.random.default_rng(11).permutation(len(table))
    numbers = table.to_numpy(float)[rows]
    q, p = numbers[:3000], numbers[3000:6000].copy()
    assert not sequential_test(q, p, random_state=0).details["rejected"]
    age = list(table.columns).index(next(c for c in table.columns if c.lower() == "age"))
    p[500:, age] += 6
    test = SequentialTest(random_state=0)
    states = [
        test.update(a, b) for a, b in zip(np.array_split(q, 30), np.array_split(p, 30), strict=True)
    ]
    assert not states[4].rejected
    assert states[-1].rejected
    assert 500 < states[-1].rejected_at < 2500


def test_the_inverse_is_kept_exactly():
    rng = np.random.default_rng(12)
    bettors = Bettors(rng.normal(size=(32, 2)), np.random.default_rng(0))
    precision = np.linalg.inv(bettors.inverse)
    for _ in range(5):
        root = rng.normal(size=(len(precision), 20, precision.shape[1]))
        bettors._sharpen(root)
        precision += np.swapaxes(root, 1, 2) @ root
    assert np.allclose(bettors.inverse @ precision, np.eye(precision.shape[1]), atol=1e-8)
