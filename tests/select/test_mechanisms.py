import itertools

import numpy as np
import pyarrow as pa
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.select import gumbel_top_k, quota, threshold, top_k
from dpdq.select.mechanisms import gumbel_keys

U = np.random.default_rng(0).normal(size=2000)


def test_top_k_is_the_sorted_head():
    chosen = top_k(U, n=300)
    assert chosen.rows.tolist() == sorted(np.argsort(-U)[:300].tolist())
    assert chosen.threshold == np.sort(U)[-300]
    assert chosen.mask.sum() == len(chosen) == 300
    assert top_k(U, fraction=0.15).rows.tolist() == chosen.rows.tolist()


def test_top_of_merged_parts_is_top_of_the_whole():
    keys = gumbel_keys(U, 0, seed=4)
    parts = [gumbel_keys(U[a : a + 700], a, seed=4) for a in range(0, 2000, 700)]
    np.testing.assert_array_equal(np.concatenate(parts), keys)
    whole = set(top_k(keys, n=50).rows.tolist())
    merged = []
    for number, part in enumerate(parts):
        best = top_k(part, n=50).rows
        merged += [(part[row], 700 * number + row) for row in best]
    assert {row for _, row in sorted(merged, reverse=True)[:50]} == whole


def test_ties_are_broken_by_key_and_not_by_order():
    ties = top_k(np.zeros(10_000), n=1000).rows
    assert 4000 < ties.mean() < 6000  # first come would give 500; sd of the mean is 91
    assert top_k(np.zeros(10_000), n=1000).rows.tolist() == ties.tolist()
    assert top_k(np.zeros(10_000), n=1000, seed=1).rows.tolist() != ties.tolist()


def test_a_budget_is_never_exceeded_and_is_told():
    cost = np.random.default_rng(1).integers(1, 50, 2000)
    chosen = top_k(U, budget=1000, cost=cost, unit="tokens")
    assert chosen.cost == cost[chosen.rows].sum() <= 1000
    order = np.argsort(-U)
    assert set(chosen.rows) == set(order[: len(chosen)])
    assert cost[order[: len(chosen) + 1]].sum() > 1000
    assert "1,000 tokens" in chosen.status
    assert top_k(U, budget=0, cost=cost).status.endswith("nothing fits the budget")


def test_gumbel_draws_follow_the_weights():
    """First draw: P(i) = w_i / sum w. 4,000 draws of one row out of four, chi-square of 3
    degrees of freedom stays under 33 with probability of more than 1 - 1e-6."""
    log_w = np.log([1.0, 2.0, 3.0, 4.0])
    drawn = [gumbel_top_k(log_w, n=1, random_state=s).rows[0] for s in range(4000)]
    seen = np.bincount(drawn, minlength=4)
    expected = 400 * np.array([1, 2, 3, 4])
    assert np.sum((seen - expected) ** 2 / expected) < 33


def test_gumbel_second_draws_follow_successive_sampling():
    w = np.array([1.0, 2.0, 5.0])
    sets = [tuple(gumbel_top_k(np.log(w), n=2, random_state=s).rows) for s in range(4000)]
    share = w / w.sum()
    expected = {}
    for pair in itertools.combinations(range(3), 2):
        i, j = pair
        both = share[i] * share[j]
        expected[pair] = 4000 * (both / (1 - share[i]) + both / (1 - share[j]))
    assert sum((sets.count(k) - e) ** 2 / e for k, e in expected.items()) < 28


def test_temperature_goes_from_top_k_to_uniform():
    cold = gumbel_top_k(U, n=100, temperature=1e-6, random_state=0)
    assert cold.rows.tolist() == top_k(U, n=100).rows.tolist()
    hot = gumbel_top_k(U, n=1000, temperature=1e6, random_state=0)
    assert abs(U[hot.rows].mean() - U.mean()) < 0.12  # sd 0.022


def test_minus_infinity_is_never_kept():
    u = np.array([0.0, -np.inf, 1.0, -np.inf])
    assert top_k(u, n=4).rows.tolist() == [0, 2]
    assert threshold(u, -np.inf).rows.tolist() == [0, 2]
    assert gumbel_top_k(u, n=4, random_state=0).rows.tolist() == [0, 2]
    assert top_k(u, n=1).trail()["reason"].to_pylist() == [
        "utility below the cut",
        "utility is minus infinity",
        "among the largest utilities",
        "utility is minus infinity",
    ]


def test_quota_keeps_the_best_of_each_group():
    groups = np.array(["a", "b"])[(np.arange(2000) % 3 == 0).astype(int)]
    chosen = quota(U, groups, {"a": 30, "b": 0.1})
    for name, count in (("a", 30), ("b", 67)):
        rows = np.flatnonzero(groups == name)
        best = rows[np.argsort(-U[rows])[:count]]
        assert set(best) == set(chosen.rows[groups[chosen.rows] == name])
    assert "'b' has 667 of 5,000" in quota(U, groups, {"b": 5000}).status


def test_trail_and_keep_rates():
    source = np.where(U > 0, "good", "bad")
    chosen = top_k(U, n=200)
    trail = chosen.trail({"source": source})
    assert trail.num_rows == 2000
    assert sum(trail["kept"].to_pylist()) == 200
    rates = chosen.keep_rates(source).to_pydict()
    assert dict(zip(rates["level"], rates["kept"], strict=True)) == {"good": 200, "bad": 0}
    assert all(a <= s <= b for a, s, b in zip(rates["low"], rates["share"], rates["high"],
                                              strict=True))  # fmt: skip
    assert len(chosen.keep_rates(np.abs(U))) == 10


def test_controls_have_the_size_and_the_lengths():
    length = np.random.default_rng(2).lognormal(size=2000)
    chosen = top_k(length + 0.1 * U, n=300)
    plain = chosen.random_control(0)
    matched = chosen.random_control(0, match=length)
    assert len(plain) == len(matched) == 300
    assert length[plain.rows].mean() < 0.6 * length[chosen.rows].mean()
    assert chosen.keep_rates(length)["kept"].equals(matched.keep_rates(length)["kept"])
    assert plain.rows.tolist() == chosen.random_control(0).rows.tolist()


def test_a_selection_is_json_and_has_a_repr():
    chosen = top_k(U[:5], n=2)
    assert chosen.to_dict()["mechanism"] == "top k"
    assert "2 of 5 rows kept by top k" in repr(chosen)
    assert isinstance(chosen.trail(), pa.Table)


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: top_k(U), OptionError, "give one of n, fraction and budget; got none"),
        (lambda: top_k(U, n=3, fraction=0.1), OptionError, "got n and fraction"),
        (lambda: top_k(U, n=-1), OptionError, "n is -1; expected a whole number"),
        (lambda: top_k(U, fraction=1.2), OptionError, "fraction is 1.2; expected"),
        (lambda: top_k(U, budget=3), OptionError, "cost and budget belong together"),
        (lambda: top_k(U, budget=3, cost=[1]), DataError, r"cost has shape \(1,\)"),
        (lambda: top_k([0.0, np.nan], n=1), DataError, "1 of 2 values are NaN or plus inf"),
        (lambda: top_k(np.zeros((2, 2)), n=1), DataError, r"utility has shape \(2, 2\)"),
        (lambda: gumbel_top_k(U, n=1, temperature=0), OptionError, "temperature is 0"),
        (lambda: quota(U, U > 0, {"x": 3}), OptionError, "names group 'x', which no row"),
        (lambda: quota(U, U > 0, {True: -3}), OptionError, "quota of group True is -3"),
        (lambda: top_k(U, n=2).keep_rates([1]), DataError, r"labels have shape \(1,\)"),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
