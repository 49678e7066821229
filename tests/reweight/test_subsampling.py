"""Equal groups, extremes and tails: counting, simulation, digits at 110 to 12."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.reweight.extreme_tails import extreme_displacement, hill_tail_index
from dpdq.reweight.subsampling import (
    GroupBalancedSubsampler,
    _expected_maximum,
    tail_diagnostic,
)


# ------------------------------------------------------------- equal groups
def test_groups_become_equal():
    groups = np.array(["a"] * 50 + ["b"] * 7 + ["c"] * 20)
    model = GroupBalancedSubsampler(random_state=0).fit(groups)
    assert np.unique(groups[model.rows_], return_counts=True)[1].tolist() == [7, 7, 7]
    assert (np.diff(model.rows_) > 0).all()  # ascending, none twice
    assert model.counts_ == {"a": 50, "b": 7, "c": 20}
    fewer = GroupBalancedSubsampler(size=3, random_state=0).fit(groups)
    assert len(fewer.rows_) == 9
    again = GroupBalancedSubsampler(random_state=0).fit(groups)
    assert np.array_equal(again.rows_, model.rows_)
    # Over the epochs of its sampler every row of the large groups is seen.
    sampler = model.sampler(rank=0, world_size=1)
    assert np.array_equal(np.sort(list(sampler)), model.rows_)
    seen = np.concatenate([sampler.epoch_rows(epoch) for epoch in range(8)])
    assert set(seen.tolist()) == set(range(77))


def test_fit_resample_keeps_kinds_and_drops_into_pipelines():
    pipeline = pytest.importorskip("imblearn.pipeline")
    x, y = load_digits(return_X_y=True)
    frame = pd.DataFrame(x)
    rows, classes = GroupBalancedSubsampler(random_state=0).fit_resample(frame, pd.Series(y))
    assert isinstance(rows, pd.DataFrame)
    assert np.bincount(classes).tolist() == [174] * 10
    assert rows.equals(frame.loc[classes.index])
    by_other = GroupBalancedSubsampler(random_state=0).fit_resample(x, y, groups=y > 7)
    assert len(by_other[0]) == 2 * (y > 7).sum()
    steps = pipeline.make_pipeline(
        GroupBalancedSubsampler(random_state=0), LogisticRegression(max_iter=3000)
    )
    assert steps.fit(x[:300] / 16, y[:300]).score(x[:300] / 16, y[:300]) > 0.9


# ------------------------------------------------------------- tails and extremes
def test_hill_finds_pareto_tails():
    """The estimate on exact Pareto tails has standard error a / sqrt(k): six of them hold."""
    rng = np.random.default_rng(0)
    for a in (0.5, 1.0, 2.0, 5.0):
        x = rng.uniform(size=20_000) ** (-1 / a)
        found = hill_tail_index(x)
        assert abs(found.estimate - a) < 6 * found.standard_error
        assert found.standard_error == pytest.approx(found.estimate / np.sqrt(424))
        assert hill_tail_index(7 * x).estimate == pytest.approx(found.estimate)  # scale-free
        by_hand = np.sort(x)[::-1][:11]
        assert hill_tail_index(x, n_tail=10).estimate == pytest.approx(
            1 / np.log(by_hand[:10] / by_hand[10]).mean()
        )
    gaussian = hill_tail_index(rng.normal(size=20_000))
    assert gaussian.estimate > 5
    flat = hill_tail_index(np.ones(50))
    assert flat.estimate is None
    assert "equal" in flat.reason


def test_expected_maximum_by_all_subsets():
    values = np.array([3.0, -1.0, 0.5, 7.0, 2.0, 2.0])
    for size in range(1, 7):
        by_hand = np.mean([max(each) for each in combinations(values, size)])
        assert _expected_maximum(values, size) == pytest.approx(by_hand)


def test_displacements_by_simulation():
    """Boundaries of the largest margin at 5000 : 50, mean of 200 draws, against all three routes.

    Student's t with 2 degrees has extremes without a variance, and only its order of size is held.
    """
    rng = np.random.default_rng(0)
    laws = {
        "uniform": (lambda n: rng.uniform(-1, 1, n), 4.0, 1.0),
        "gaussian": (lambda n: rng.normal(size=n), 12.0, 1.0),
        2.0: (lambda n: rng.standard_t(2, n), 4000.0, np.sqrt(0.5)),
    }
    means = {}
    for tail, (draw, gap, scale) in laws.items():
        theory = scale * extreme_displacement(5000, 50, tail=tail)
        found, seen, indices = [], [], []
        for _ in range(200):
            many, few = draw(5000), gap - draw(50)
            report = tail_diagnostic(
                np.concatenate([many, few]), np.repeat(["many", "few"], [5000, 50])
            )
            found.append(report.displacement)
            seen.append((many.max() + few.min()) / 2 - gap / 2)
            indices.append(report.tail_larger.estimate)
        means[tail] = np.mean(found)
        if tail == 2.0:
            assert 20 < np.mean(found) < 100
            assert 20 < theory < 100
            assert 1.5 < np.mean(indices) < 2.5
        else:
            # standard errors over 200 draws are below 3 % of the theory
            assert np.mean(found) == pytest.approx(theory, rel=0.2)
            assert np.mean(seen) == pytest.approx(theory, rel=0.5 if tail == "uniform" else 0.2)
            assert np.mean(indices) > 5
    assert means["uniform"] < 0.03 < means["gaussian"] < 1 < means[2.0]
    assert extreme_displacement(5000, 50, tail="uniform") == pytest.approx(0.0194, abs=1e-4)
    assert extreme_displacement(5000, 50) == pytest.approx(0.714, abs=0.01)
    assert extreme_displacement(100, 10, tail=0.9) == np.inf


def test_side_scale_and_sizes_do_not_matter():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(size=900), 9 + rng.normal(size=40)])
    groups = np.repeat([0, 1], [900, 40])
    first = tail_diagnostic(scores, groups)
    turned = tail_diagnostic(-2 * scores + 5, 1 - groups)
    assert turned.displacement == pytest.approx(2 * first.displacement)
    assert turned.relative == pytest.approx(first.relative)
    assert (turned.larger, turned.smaller) == (1, 0)
    assert turned.newly_right == first.newly_right
    # Held-out rows speak of a training set of other sizes.
    even = tail_diagnostic(scores, groups, sizes={0: 90, 1: 90})
    assert even.displacement == pytest.approx(0)
    assert even.status.startswith("Keep all rows")
    other = tail_diagnostic(scores, groups, sizes={0: 30, 1: 300})
    assert other.larger == 1
    assert first.status.startswith(("Subsample", "Try both"))
    mixed = tail_diagnostic(rng.normal(size=200), np.repeat([0, 1], [150, 50]))
    assert mixed.overlap
    assert mixed.status.startswith("The groups overlap")


# ------------------------------------------------------------- real data
def test_worst_group_accuracy_on_digits():
    """Pairs of digits at 110 : 12, 6 fixed splits: without regularisation subsampling wins over
    weights and both over neither; with regularisation weights win."""
    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    worst = {}
    for a, b in ((1, 8), (3, 9), (3, 8)):
        for seed in range(6):
            rng = np.random.default_rng(seed)
            many, few = (rng.permutation(np.flatnonzero(y == k)) for k in (a, b))
            train = np.concatenate([many[:110], few[:12]])
            test = np.concatenate([many[110:], few[12:]])
            is_few, truth = y[train] == b, y[test] == b
            rows, labels = GroupBalancedSubsampler(random_state=seed).fit_resample(x[train], is_few)
            for strength in (1e4, 0.1):
                model = LogisticRegression(C=strength, max_iter=5000)
                weighted = LogisticRegression(C=strength, max_iter=5000, class_weight="balanced")
                for name, fitted in (
                    ("plain", model.fit(x[train], is_few).predict(x[test])),
                    ("weights", weighted.fit(x[train], is_few).predict(x[test])),
                    ("equal", model.fit(rows, labels).predict(x[test])),
                ):
                    right = fitted == truth
                    accuracy = min(right[truth].mean(), right[~truth].mean())
                    worst.setdefault((name, strength), []).append(accuracy)
    mean = {key: np.mean(values) for key, values in worst.items()}
    assert mean["plain", 1e4] < mean["weights", 1e4] < mean["equal", 1e4]
    assert mean["plain", 0.1] < 0.2
    assert mean["plain", 0.1] < mean["equal", 0.1] < mean["weights", 0.1]


def test_diagnostic_on_held_out_digits():
    x, y = load_digits(return_X_y=True)
    many, few = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    train = np.concatenate([many[:100], few[:10]])
    test = np.concatenate([many[100:], few[10:]])
    model = LogisticRegression(C=1e4, max_iter=5000).fit(x[train] / 16, y[train])
    scores = model.decision_function(x[test] / 16)
    report = tail_diagnostic(scores, y[test], sizes={0: 100, 1: 10})
    assert (report.larger, report.n_larger, report.n_smaller) == (0, 100, 10)
    assert 0 < report.displacement < report.distance
    assert report.status


# ------------------------------------------------------------- failures
def test_failures_name_what_is_wrong():
    two = np.repeat([0, 1], 20)
    x = np.linspace(0, 1, 40)
    for call, error, text in (
        (lambda: GroupBalancedSubsampler(size=5).fit(["a", "b"]), OptionError, "'a' has 1 rows"),
        (lambda: GroupBalancedSubsampler().fit([]), DataError, r"groups have shape \(0,\)"),
        (lambda: GroupBalancedSubsampler().sampler(), NotFittedError, r"call fit\(groups\) first"),
        (
            lambda: GroupBalancedSubsampler().fit_resample(x[:5, None], two),
            DataError,
            "X has 5 rows and groups 40",
        ),
        (lambda: hill_tail_index([1.0, 2.0]), DataError, "2 values are positive"),
        (lambda: hill_tail_index([np.inf] * 9), DataError, "not finite"),
        (lambda: hill_tail_index(x + 1, n_tail=40), OptionError, "n_tail is 40"),
        (lambda: hill_tail_index(x + 1, level=2), OptionError, "level is 2"),
        (lambda: extreme_displacement(9, 3, tail="heavy"), OptionError, "Unknown tail 'heavy'"),
        (lambda: extreme_displacement(9, 3, tail=-1.0), OptionError, "tail is -1.0"),
        (lambda: extreme_displacement(0, 3), OptionError, "0 and 3 rows"),
        (lambda: tail_diagnostic(x, np.arange(40) % 3), DataError, "3 groups of"),
        (lambda: tail_diagnostic(x[:30], two), DataError, "a label for each"),
        (lambda: tail_diagnostic(np.ones(40), two), DataError, "do not spread"),
        (lambda: tail_diagnostic(x, two, sizes={0: 3}), OptionError, "give rows of the groups"),
    ):
        with pytest.raises(error, match=text):
            call()
