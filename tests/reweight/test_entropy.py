"""Entropy balancing: a second route, exactness, tolerance, cap, refusals, real data."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize

from dpdq.errors import ConvergenceError, OptionError, OverlapError
from dpdq.reweight import EntropyBalancing


def shifted(n=100, m=80, d=3, shift=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def divergence(w, base):
    w, base = w / w.sum(), base / base.sum()
    return float(np.sum(w[w > 0] * np.log(w[w > 0] / base[w > 0])))


def primal(q, target, base, *, tolerance=0.0, cap=None):
    """The weights by a general minimiser over all of them."""
    n = len(q)
    sides = [{"type": "eq", "fun": lambda w: w.sum() - n, "jac": lambda w: np.ones(n)}]
    if tolerance == 0:
        sides.append(
            {"type": "eq", "fun": lambda w: (w @ q - n * target) / n, "jac": lambda w: q.T / n}
        )
    else:
        for sign in (1, -1):
            sides.append(
                {
                    "type": "ineq",
                    "fun": lambda w, s=sign: tolerance + s * (w @ q - n * target) / n,
                    "jac": lambda w, s=sign: s * q.T / n,
                }
            )
    base = base / base.mean()
    found = minimize(
        lambda w: (np.sum(w * np.log(w / base)) / n, (np.log(w / base) + 1) / n),
        np.ones(n),
        jac=True,
        bounds=[(1e-9, cap)] * n,
        constraints=sides,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    return found.x


def test_equals_a_general_minimiser():
    q, p = shifted()
    base = np.random.default_rng(1).uniform(0.5, 2, 100)
    model = EntropyBalancing().fit(q, p, weights_q=base)
    assert model.weights_ == pytest.approx(primal(q, p.mean(axis=0), base), abs=2e-4)
    assert model.weights_ @ q / 100 == pytest.approx(p.mean(axis=0), abs=1e-12)


def test_tolerance_equals_a_general_minimiser():
    q, p = shifted(shift=[0.5, 0.02, 0.3])
    model = EntropyBalancing(tolerance=0.1).fit(q, p)
    sd = np.sqrt((q.var(axis=0) + p.var(axis=0)) / 2)
    expected = primal(q / sd, p.mean(axis=0) / sd, np.ones(100), tolerance=0.1)
    assert model.weights_ == pytest.approx(expected, abs=2e-4)
    report = model.diagnostics()
    assert report.largest_after == pytest.approx(0.1)
    assert (model.coef_ == 0).sum() >= 1
    assert report.effective_sample_size > (
        EntropyBalancing().fit(q, p).diagnostics().effective_sample_size
    )


def test_cap_equals_a_general_minimiser():
    q, p = shifted()
    free = EntropyBalancing().fit(q, p)
    cap = 0.6 * free.weights_.max()
    model = EntropyBalancing(cap=cap).fit(q, p)
    assert model.weights_.max() == pytest.approx(cap)
    assert (model.weights_ > cap - 1e-9).sum() > 1
    assert model.weights_ @ q / 100 == pytest.approx(p.mean(axis=0), abs=1e-10)
    assert model.weights_ == pytest.approx(
        primal(q, p.mean(axis=0), np.ones(100), cap=cap), abs=2e-4
    )
    both = EntropyBalancing(cap=cap, tolerance=0.02).fit(q, p)
    assert both.diagnostics().largest_after <= 0.02 + 1e-9
    assert both.weights_.max() <= cap + 1e-9


def test_no_other_balancing_weights_are_nearer():
    q, p = shifted()
    w = EntropyBalancing().fit(q, p).weights_
    design = np.column_stack([np.ones(100), q])
    rng = np.random.default_rng(2)
    for _ in range(20):
        move = rng.normal(size=100)
        move -= design @ np.linalg.lstsq(design, move, rcond=None)[0]
        other = w + move * 0.3 * (w / np.abs(move)).min()
        assert divergence(other, np.ones(100)) > divergence(w, np.ones(100))


def test_gaussian_log_ratio():
    rng = np.random.default_rng(3)
    q, p = rng.normal(0, 1, (100_000, 1)), rng.normal(0.5, 0.8, (100_000, 1))
    model = EntropyBalancing().fit(q, p, moments=2)
    x = np.linspace(-1.5, 2, 15)
    truth = x**2 / 2 - (x - 0.5) ** 2 / (2 * 0.64) - np.log(0.8)
    assert model.log_ratio(x[:, None]) == pytest.approx(truth, abs=0.05)


def test_only_the_first_rows_start_a_large_fit():
    q, p = shifted(220_000, 5_000, 2)
    q = q[np.argsort(q[:, 0])]  # the worst order for a start from a part
    model = EntropyBalancing().fit(q, p, moments=2)
    report = model.diagnostics()
    assert report.largest_after < 1e-10
    assert model.n_iter_ < 15


def test_dependent_margins_are_no_trouble():
    q, p = shifted()
    first = EntropyBalancing().fit(q, p)
    double = EntropyBalancing().fit(
        np.column_stack([q, q.sum(axis=1), np.ones(100)]),
        np.column_stack([p, p.sum(axis=1), np.ones(80)]),
    )
    assert double.weights_ == pytest.approx(first.weights_)
    with pytest.raises(OverlapError, match="fixed by other margins on q but not in p"):
        EntropyBalancing().fit(
            np.column_stack([q, q.sum(axis=1)]), np.column_stack([p, p.sum(axis=1) + 0.1])
        )


def test_a_level_that_p_lacks_weighs_nothing_and_is_said():
    q = {"town": ["a"] * 20 + ["b"] * 20 + ["c"] * 10, "x": np.arange(50.0) % 7}
    p = {"town": ["a", "b", "b"] * 10, "x": np.arange(30.0) % 6}
    model = EntropyBalancing().fit(q, p)
    assert (model.weights_[40:] == 0).all()
    assert model.weights_[:40].mean() == pytest.approx(1)
    report = model.diagnostics()
    assert report.n_zero == 10
    assert "10 rows of q weigh nothing, because the target of town=c" in report.status
    assert model.log_ratio({"town": ["c", "a"], "x": [1.0, 1.0]})[0] == -np.inf


def test_refusals_name_the_margin():
    q, p = shifted()
    with pytest.raises(OverlapError, match="margin x1: p's mean 9.* lies outside the range of q"):
        EntropyBalancing().fit(q, p + np.array([0, 9, 0]))
    with pytest.raises(OverlapError, match="no row of q has town=c, which is 33.3 % of p"):
        EntropyBalancing().fit({"town": ["a", "b"] * 9}, {"town": ["a", "b", "c"] * 9})
    # Each margin is within reach and both together are not.
    line = np.linspace(-1, 1, 60)
    flat = np.column_stack([line, line + 0.01 * np.sin(9 * line), line**2])
    with pytest.raises(OverlapError, match=r"x[01] .*without column 'x[01]' weights exist"):
        EntropyBalancing().fit(flat, flat + np.array([0.3, -0.3, 0.1]))
    with pytest.raises(OverlapError, match="at most cap=1.05 times .* although weights without"):
        EntropyBalancing(cap=1.05).fit(q, p)
    with pytest.raises(OverlapError, match="the targets contradict each other"):
        EntropyBalancing().fit(
            {"a": ["0", "1"] * 5, "b": ["0", "1"] * 5},
            targets={"a": {"0": 0.5, "1": 0.5}, "b": {"0": 0.4, "1": 0.6}},
        )


def test_options_are_checked():
    q, p = shifted()
    for options, text in (
        ({"tolerance": -1}, "tolerance is -1"),
        ({"cap": 1.0}, "cap is 1.0; give a finite number, above 1"),
        ({"precision": 0}, "precision is 0"),
        ({"max_iter": np.nan}, "max_iter is nan"),
    ):
        with pytest.raises(OptionError, match=re.escape(text)):
            EntropyBalancing(**options).fit(q, p)


def test_an_unfinished_fit_is_not_returned_as_success():
    q, p = shifted()
    with pytest.raises(ConvergenceError, match="stopped after 1 steps with a largest difference"):
        EntropyBalancing(max_iter=1).fit(q, p)
    model = EntropyBalancing(max_iter=1, not_converged="keep").fit(q, p)
    assert not model.converged_
    assert model.diagnostics().status.startswith("Not converged: stopped after 1 steps")


def adult(shared_data):
    return pq.read_table(shared_data / "adult.parquet").drop_columns(["class", "fnlwgt"])


def split(table, column, mask, *without):
    import pyarrow as pa

    mask = mask(table[column].to_numpy())
    rest = table.drop_columns([column, *without])
    return rest.filter(pa.array(mask)), rest.filter(pa.array(~mask))


def test_balances_adult_by_age(shared_data):
    q, p = split(adult(shared_data), "age", lambda age: age < 40)
    report = EntropyBalancing().fit(q, p).diagnostics()
    assert report.largest_before > 0.9
    assert report.largest_after < 1e-9
    assert 5_000 < report.effective_sample_size < 8_000


def test_balances_adult_by_sex_and_refuses_relationship(shared_data):
    table = adult(shared_data)
    q, p = split(table, "sex", lambda sex: sex == "Male", "relationship")
    report = EntropyBalancing().fit(q, p).diagnostics()
    assert report.largest_after < 1e-9
    assert "occupation=Armed-Forces" in report.status
    q, p = split(table, "sex", lambda sex: sex == "Male")
    with pytest.raises(
        OverlapError,
        match=r"relationship=Wife \(0.00919 % of q has to stand for 14.4 % of p\) fails; without "
        "column 'relationship' weights exist",
    ):
        EntropyBalancing().fit(q, p)


BIKE = ["hr", "holiday", "weekday", "workingday", "weathersit", "temp", "atemp", "hum", "windspeed"]


def test_balances_bike_seasons_and_refuses_winter_to_summer(shared_data):
    table = pq.read_table(shared_data / "bike_hourly.parquet").to_pandas()
    one, two, three = (table[table.season == season][BIKE] for season in (1, 2, 3))
    report = EntropyBalancing().fit(two, three).diagnostics()
    assert report.largest_before > 0.9
    assert report.largest_after < 1e-10
    with pytest.raises(OverlapError, match="margin atemp: p's mean 0.656 lies outside the range"):
        EntropyBalancing().fit(one, three)
    with pytest.raises(OverlapError, match=r"margins at once: temp .*without column 'temp'"):
        EntropyBalancing().fit(one.drop(columns="atemp"), three.drop(columns="atemp"))
