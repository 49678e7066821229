"""Group DRO and its report: one step by hand, the minimax it reaches, intervals, real digits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_digits

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.reweight import GroupDRO, group_dro_loss, worst_group

LOSSES = np.array([1.0, 3.0, 0.5, 0.1, 0.3])
GROUPS = np.array([0, 0, 1, 2, 2])


def test_one_step_by_hand():
    means = np.array([2.0, 0.5, 0.2])
    start = np.array([0.2, 0.3, 0.5])
    loss, shares = group_dro_loss(LOSSES, GROUPS, group_weights=start, step_size=0.7)
    expected = start * np.exp(0.7 * means)
    expected /= expected.sum()
    np.testing.assert_allclose(shares, expected, rtol=1e-13)
    assert loss == pytest.approx(expected @ means, rel=1e-13)
    # The scale of the start means nothing; a step of 0 keeps it.
    _, again = group_dro_loss(LOSSES, GROUPS, group_weights=10 * start, step_size=0.7)
    np.testing.assert_allclose(again, shares, rtol=1e-13)
    loss, same = group_dro_loss(LOSSES, GROUPS, group_weights=start, step_size=0)
    np.testing.assert_allclose(same, start, rtol=1e-13)
    assert loss == pytest.approx(start @ means)
    # The adjustment moves the shares and is no part of the loss.
    sizes = [4, 25, 100]
    loss, shares = group_dro_loss(
        LOSSES, GROUPS, group_weights=start, step_size=0.7, adjustment=2.0, group_sizes=sizes
    )
    expected = start * np.exp(0.7 * (means + 2 / np.sqrt(sizes)))
    expected /= expected.sum()
    np.testing.assert_allclose(shares, expected, rtol=1e-13)
    assert loss == pytest.approx(expected @ means, rel=1e-13)


def test_absent_groups_keep_their_shares():
    start = np.array([0.25, 0.25, 0.25, 0.25])
    loss, shares = group_dro_loss(LOSSES, GROUPS, group_weights=start, step_size=1.0)
    factors = np.exp([2.0, 0.5, 0.2, 0.0])
    np.testing.assert_allclose(shares, factors / factors.sum(), rtol=1e-13)
    assert loss == pytest.approx(shares[:3] @ [2.0, 0.5, 0.2], rel=1e-13)
    # Losses of any size stay in the range.
    _, shares = group_dro_loss(1e6 * LOSSES, GROUPS, group_weights=start, step_size=1.0)
    np.testing.assert_allclose(shares, [1, 0, 0, 0], atol=1e-300)


def test_weights_are_repeated_rows():
    counts = np.array([2, 1, 3, 0, 1])
    holed = np.where(counts == 0, np.nan, LOSSES)
    start = np.ones(3)
    loss, shares = group_dro_loss(holed, GROUPS, group_weights=start, weights=5 * counts)
    other, expected = group_dro_loss(
        np.repeat(LOSSES, counts), np.repeat(GROUPS, counts), group_weights=start
    )
    assert loss == pytest.approx(other, rel=1e-13)
    np.testing.assert_allclose(shares, expected, rtol=1e-13)
    order = np.array([3, 1, 4, 0, 2])
    again, _ = group_dro_loss(LOSSES[order], GROUPS[order], group_weights=start)
    assert again == pytest.approx(group_dro_loss(LOSSES, GROUPS, group_weights=start)[0])


def test_shares_reach_the_minimax_of_two_quadratics():
    """min over t of max((t - 0)^2, 4 (t - 3)^2): t = 2, both losses 4, shares 2 : 1."""
    t, dro = 0.0, GroupDRO(2, step_size=0.02)
    path, shares = [], []
    for step in range(6000):
        dro(np.array([t**2, 4 * (t - 3) ** 2]), [0, 1])
        v = dro.group_weights
        t -= 0.05 * (v[0] * 2 * t + v[1] * 8 * (t - 3))
        if step >= 2000:
            path.append(t)
            shares.append(v[0])
    assert np.mean(path) == pytest.approx(2, abs=0.01)
    assert np.mean(shares) == pytest.approx(2 / 3, abs=0.01)


def test_state_and_repr():
    dro = GroupDRO(3, step_size=0.5)
    dro(LOSSES, GROUPS)
    again = GroupDRO(3, step_size=0.5)
    again.load_state_dict(json.loads(json.dumps(dro.state_dict())))
    assert again(LOSSES, GROUPS) == dro(LOSSES, GROUPS)
    with pytest.raises(DataError, match="the checkpoint has 3 groups, where this has 2"):
        GroupDRO(2).load_state_dict(dro.state_dict())
    assert repr(dro) == "GroupDRO(n_groups=3, step_size=0.5)"


def test_torch_agrees_and_its_gradient_is_that_of_the_shares():
    torch = pytest.importorskip("torch")
    x = torch.tensor(LOSSES, requires_grad=True)
    groups = torch.tensor(GROUPS)
    one, other = GroupDRO(4, step_size=0.5), GroupDRO(4, step_size=0.5)
    for _ in range(3):
        loss, expected = one(x, groups), other(LOSSES, GROUPS)
        assert loss.item() == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(one.group_weights, other.group_weights, rtol=1e-13)
    assert not one.group_weights.requires_grad
    loss.backward()
    v = other.group_weights
    np.testing.assert_allclose(x.grad, [v[0] / 2, v[0] / 2, v[1], v[2] / 2, v[2] / 2], rtol=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: group_dro_loss(x, groups, group_weights=[1, 2, 3], step_size=0)[0], (x,)
    )
    narrow, shares = group_dro_loss(x.float(), groups, group_weights=[1, 1, 1], step_size=0.1)
    assert narrow.dtype == shares.dtype == torch.float32


# The report.


def test_report_of_zeros_and_ones():
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c"], [400, 300, 50])
    hits = rng.uniform(size=750) < np.repeat([0.9, 0.6, 0.55], [400, 300, 50])
    report = worst_group(hits, groups, level=0.9)
    rates = {name: hits[groups == name].mean() for name in "abc"}
    assert report.group == min(rates, key=rates.get)
    assert report.value.estimate == pytest.approx(min(rates.values()))
    assert report.average == pytest.approx(hits.mean())
    each = {
        name: binomtest(int(hits[groups == name].sum()), int((groups == name).sum())).proportion_ci(
            1 - 0.1 / 3
        )
        for name in "abc"
    }
    for item in report.groups:
        assert item.mean.low == pytest.approx(each[item.group].low, abs=1e-10)
        assert item.mean.high == pytest.approx(each[item.group].high, abs=1e-10)
    assert report.value.low == min(item.mean.low for item in report.groups)
    assert report.value.high == min(item.mean.high for item in report.groups)
    assert len(report.rivals) == 1
    assert "not settled" in report.status
    assert json.loads(json.dumps(report.to_dict()))["group"] == str(report.group)


def test_report_of_losses_and_of_lonely_groups():
    losses = np.array([1.0, 1.1, 0.9, 1.05, 5.0, 5.2, 4.9, 5.1, 0.3])
    groups = [0, 0, 0, 0, 1, 1, 1, 1, 2]
    report = worst_group(losses, groups, higher_is_better=False)
    assert report.group == 1
    assert report.value.low is not None
    assert report.value.high is None
    assert report.value.reason == "group 2: one row has no spread to measure"
    assert report.rivals == (2,)
    clear = worst_group(losses[:8], groups[:8], higher_is_better=False)
    assert clear.rivals == ()
    assert "clearly so" in clear.status
    # Weights: integer ones are repeated rows for the point estimate, zero drops a row.
    counts = np.array([2, 1, 1, 0, 1, 1, 3, 1, 0])
    weighted = worst_group(losses, groups, higher_is_better=False, weights=counts)
    expected = np.average(losses[4:8], weights=counts[4:8])
    assert weighted.value.estimate == pytest.approx(expected, rel=1e-12)
    assert len(weighted.groups) == 2
    only = worst_group([1.0, 0.0], ["x", "x"])
    assert only.status.startswith("One group only")


def test_interval_covers_the_worst_of_equal_groups():
    """Eight groups of the same rate: the smallest rate is picked, and the interval knows.

    Nominal 95 %; fewer than 93 % in 2,000 draws has a chance below 1e-4 at exactly 95 %, and the
    coverage of these intervals is above 98 %, where the chance is below one in a million.
    """
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(8), 60)
    hits = naive = 0
    for _ in range(2000):
        y = rng.uniform(size=480) < 0.7
        report = worst_group(y, groups)
        hits += report.value.low <= 0.7 <= report.value.high
        worst = y[groups == report.group]
        reach = 1.96 * math.sqrt(worst.mean() * (1 - worst.mean()) / 60)
        naive += abs(worst.mean() - 0.7) <= reach
    assert hits / 2000 >= 0.93
    assert naive / 2000 < 0.9


# Real data.


def test_group_dro_raises_the_worst_group():
    """Odd or even digits, with a column that agrees with the label on 95 % of training rows.

    Four groups (label by column). On rows where the column means nothing, plain training has 0.5
    in its worst group, group DRO 0.8 and more, in each of four splits; the average rises too.
    """
    torch = pytest.importorskip("torch")
    data = load_digits()

    def rows(rng, places, agreement):
        y = data.target[places] % 2
        column = np.where(rng.uniform(size=y.size) < agreement, y, 1 - y)
        x = np.column_stack([data.data[places] / 16.0, 3.0 * (2 * column - 1)])
        return torch.tensor(x), torch.tensor(y), torch.tensor(2 * y + column)

    for seed in range(4):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.target))
        x, y, g = rows(rng, order[:1000], 0.95)
        x_new, y_new, g_new = rows(rng, order[1000:], 0.5)
        reports = {}
        for name in ("plain", "robust"):
            model = torch.nn.Linear(65, 2, dtype=torch.float64)
            torch.nn.init.zeros_(model.weight)
            torch.nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
            group_dro = GroupDRO(4, step_size=0.1)
            for _ in range(100):
                losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
                loss = losses.mean() if name == "plain" else group_dro(losses, g)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            reports[name] = worst_group(model(x_new).argmax(1) == y_new, g_new)
        assert reports["robust"].value.low > reports["plain"].value.high
        assert reports["robust"].average > reports["plain"].average


# Refusals.


def test_refusals():
    with pytest.raises(DataError, match=r"groups: 2 of 5 values are outside 0 to 1 \(first at row"):
        group_dro_loss(LOSSES, GROUPS, group_weights=[1, 1])
    with pytest.raises(InputTypeError, match="groups has dtype float64; give integers"):
        group_dro_loss(LOSSES, GROUPS * 1.0, group_weights=[1, 1, 1])
    with pytest.raises(DataError, match="group_weights must be 0 or more, finite, and not all 0"):
        group_dro_loss(LOSSES, GROUPS, group_weights=[0, 0, 0])
    with pytest.raises(OptionError, match="adjustment needs group_sizes"):
        group_dro_loss(LOSSES, GROUPS, group_weights=[1, 1, 1], adjustment=1.0)
    with pytest.raises(DataError, match="group_sizes must be 3 numbers above 0, one a group"):
        group_dro_loss(LOSSES, GROUPS, group_weights=[1] * 3, adjustment=1, group_sizes=[1, 2])
    with pytest.raises(OptionError, match="step_size is -1; give a number 0 or more"):
        group_dro_loss(LOSSES, GROUPS, group_weights=[1, 1, 1], step_size=-1)
    with pytest.raises(OptionError, match="n_groups is 0; give an integer, 1 or more"):
        GroupDRO(0)
    with pytest.raises(OptionError, match="level is 95; give a number between 0 and 1"):
        worst_group([1.0], ["a"], level=95)
    with pytest.raises(DataError, match=r"groups has shape \(1,\); give one label a row"):
        worst_group([1.0, 0.0], ["a"])
    with pytest.raises(DataError, match="values: row 1 is NaN or infinite"):
        worst_group([1.0, np.nan], ["a", "b"])
