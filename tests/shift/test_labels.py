"""Label shift: known answers, level, coverage, failure texts, real data."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.shift import label_shift

KEYS = ["test", "statistic", "pvalue", "effect", "histogram", "sentence"]


def test_classes_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    found = label_shift(["a"] * 60 + ["b"] * 40, ["a"] * 30 + ["b"] * 50 + ["c"] * 20)
    expected = stats.chi2_contingency([[60, 40, 0], [30, 50, 20]], correction=False)
    assert found.test == "chi-square"
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.pvalue == pytest.approx(expected.pvalue)
    assert found.effect.estimate == pytest.approx(0.3)
    assert found.effect.low < 0.3 < found.effect.high
    document = found.to_dict()
    assert list(document) == KEYS
    assert document["histogram"] == {
        "kind": "levels", "edges": None, "labels": ["a", "b", "c"],
        "q": [0.6, 0.4, 0.0], "p": [0.3, 0.5, 0.2], "q_weighted": None,
    }  # fmt: skip
    assert document["effect"]["measure"] == "total variation of the shares"


def test_numbers_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=400), rng.normal(0.3, 1, 300)
    found = label_shift(q, p)
    expected = stats.ks_2samp(q, p, method="asymp")
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.pvalue == pytest.approx(
        stats.kstwobign.sf(expected.statistic * (12e4 / 700) ** 0.5)
    )
    assert found.effect.low < 0.3 < found.effect.high
    assert sum(found.histogram.q) == pytest.approx(1)
    assert len(found.histogram.edges) == len(found.histogram.p) + 1
    weighted = label_shift(q, p, weights_q=np.exp(q))
    assert sum(weighted.histogram.q_weighted) == pytest.approx(1)


def test_the_sides_swap():
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=200), rng.normal(0.5, 1, 150)
    there, back = label_shift(q, p), label_shift(p, q)
    assert there.statistic == pytest.approx(back.statistic)
    assert there.effect.estimate == pytest.approx(-back.effect.estimate)
    assert there.effect.low == pytest.approx(-back.effect.high)


def test_one_and_true_are_one_class():
    found = label_shift([True, False] * 20, [1.0, 0.0] * 20)
    assert found.pvalue == 1.0
    assert found.effect.estimate == 0.0
    mixed = label_shift(["0", "1"] * 20, [1, 0] * 20)
    assert mixed.statistic == 0.0


def test_constant_labels():
    assert label_shift(["a"] * 5, ["a"] * 9).pvalue == 1.0
    found = label_shift(["a"] * 500, ["b"] * 500)
    assert found.effect.estimate == 1.0
    assert found.effect.low > 0.98
    numbers = label_shift([2.5] * 5, [2.5] * 5)
    assert numbers.effect.estimate is None
    assert numbers.pvalue == 1.0


def sides(rng, case):
    """Two samples of one law: (q, p, options)."""
    unit = np.repeat(np.arange(30), 8)
    if case == "classes":
        return rng.integers(0, 3, 200), rng.integers(0, 3, 150), {}
    if case == "rare classes":
        return rng.geometric(0.5, 25), rng.geometric(0.5, 20), {}
    if case == "numbers":
        return rng.normal(size=200), rng.normal(size=120), {}
    if case == "few numbers":
        return rng.normal(size=20), rng.normal(size=15), {}
    q, p = rng.normal(size=(2, 30))[:, unit] + 0.1 * rng.normal(size=(2, 240))
    if case == "units":
        return q, p, {"units_q": unit, "units_p": unit + 30}
    if case == "classes in units":
        return q > 0, p > 0, {"units_q": unit, "units_p": unit + 30}
    return q, q + 0.1 * rng.normal(size=240), {"units_q": unit, "units_p": unit}


@pytest.mark.parametrize(
    "case",
    ["classes", "rare classes", "numbers", "few numbers", "units", "classes in units", "shared"],
)
def test_level(case):
    # above 27 of 200, or 14 of 60, has probability below 1e-6 at 5 %
    rng = np.random.default_rng(2)
    draws = 60 if case in ("units", "classes in units", "shared") else 200
    rejected = covered = 0
    for i in range(draws):
        q, p, options = sides(rng, case)
        found = label_shift(q, p, random_state=i, **options)
        rejected += found.pvalue <= 0.05
        covered += found.effect.low <= 0 <= found.effect.high
    assert rejected <= (27 if draws == 200 else 14)
    assert covered >= 0.8 * draws


def test_rows_of_a_unit_taken_as_independent_would_cry_wolf():
    rng = np.random.default_rng(3)
    q, p, _ = sides(rng, "classes in units")
    alarms = 0
    for _ in range(20):
        q, p, _ = sides(rng, "classes in units")
        alarms += label_shift(q, p).pvalue <= 0.05
    assert alarms >= 6


def test_effects_cover():
    # nominal 95 %: fewer than 172 of 200 has probability below 1e-6
    rng = np.random.default_rng(4)
    tv = smd = 0
    for i in range(200):
        q = rng.choice(3, 400, p=[0.5, 0.3, 0.2])
        p = rng.choice(3, 300, p=[0.3, 0.3, 0.4])
        effect = label_shift(q, p, random_state=i).effect
        tv += effect.low <= 0.2 <= effect.high
        effect = label_shift(rng.normal(size=300), rng.normal(1, 2, 400)).effect
        smd += effect.low <= 1 / np.sqrt(2.5) <= effect.high
    assert tv >= 172
    assert smd >= 172


def test_many_levels_end_in_other():
    q = [f"c{i:03d}" for i in range(300)] * 3
    found = label_shift(q, q)
    assert len(found.histogram.labels) == 20
    assert found.histogram.labels[-1] == "other"
    assert sum(found.histogram.p) == pytest.approx(1)
    assert found.effect.high < 1


def test_failure_texts():
    with pytest.raises(OptionError, match="Unknown kind 'text'. Choose one of 'auto', 'classes'"):
        label_shift([1], [2], kind="text")
    with pytest.raises(DataError, match="label of p: no rows"):
        label_shift([1, 2], [])
    with pytest.raises(DataError, match="label holds text such as 'a'; choose kind='classes'"):
        label_shift(["a"], ["b"], kind="numeric")
    with pytest.raises(DataError, match=r"label of q: 1 of 2 values are missing"):
        label_shift([1.0, np.nan], [1.0])
    with pytest.raises(DataError, match=r"units_q: \(1,\) values for 2 rows of q; give one a row"):
        label_shift([1, 2], [1, 2], units_q=[0], units_p=[0, 1])


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet").to_pandas()
    young = (table["age"] < 40).to_numpy()
    label = table["class"].astype(str).to_numpy()
    found = label_shift(label[young], label[~young])
    exact = np.mean(label[~young] == ">50K") - np.mean(label[young] == ">50K")
    assert found.pvalue < 1e-100
    assert found.effect.estimate == pytest.approx(exact)
    assert "of q and" in found.sentence
