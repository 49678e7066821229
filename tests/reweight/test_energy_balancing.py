"""Energy balancing: a quadratic programme, duality, blocks, no interval, real data."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from dpdq.distance import energy_distance
from dpdq.errors import ConvergenceError, OptionError
from dpdq.reweight import EnergyBalancing, EntropyBalancing


def shifted(n=80, m=60, d=2, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def coordinates(q, p, base=None):
    """Numbers in the units of the fit: both sides, half of the weight each."""
    base = np.ones(len(q)) if base is None else base
    center = (np.average(q, axis=0, weights=base) + p.mean(axis=0)) / 2
    square = [
        np.average((q - center) ** 2, axis=0, weights=base),
        ((p - center) ** 2).mean(axis=0),
    ]
    return (q - center) / np.sqrt(np.mean(square, axis=0)), (p - center) / np.sqrt(
        np.mean(square, axis=0)
    )


def objective(q, p, share, base, penalty):
    """The definition, with gradient in the shares u."""
    base = base / base.sum()
    to_p, inside = cdist(q, p).mean(axis=1), cdist(q, q)
    unit = penalty * (base @ to_p)
    value = 2 * share @ to_p - share @ inside @ share - cdist(p, p).mean()
    return value + unit * np.sum(share**2 / base), 2 * to_p - 2 * inside @ share + (
        2 * unit * share / base
    )


def programme(q, p, base, penalty):
    n = len(q)
    found = minimize(
        lambda u: objective(q, p, u, base, penalty),
        base / base.sum(),
        jac=True,
        bounds=[(0, None)] * n,
        constraints=[{"type": "eq", "fun": lambda u: u.sum() - 1, "jac": lambda u: np.ones(n)}],
        method="SLSQP",
        options={"maxiter": 2000, "ftol": 1e-14},
    )
    return found.x


@pytest.mark.parametrize("penalty", [0.0, 0.01])
def test_equals_a_quadratic_programme(penalty):
    q, p = shifted()
    base = np.random.default_rng(1).uniform(0.5, 2, 80)
    model = EnergyBalancing(penalty=penalty, tolerance=1e-7).fit(q, p, weights_q=base)
    zq, zp = coordinates(q, p, base)
    expected = programme(zq, zp, base, penalty)
    share = model.weights_ / model.weights_.sum()
    assert share == pytest.approx(expected, abs=3e-4 if penalty == 0 else 1e-5)
    found, least = (objective(zq, zp, u, base, penalty)[0] for u in (share, expected))
    assert found == pytest.approx(least, abs=1e-8)
    before = objective(zq, zp, base / base.sum(), base, 0.0)[0]
    after = objective(zq, zp, share, base, 0.0)[0]
    assert model.gain_ == pytest.approx(before - after, abs=1e-9)
    assert found - least <= model.gap_ + 1e-9


def test_duality_gap_bounds_the_distance_from_the_optimum():
    q, p = shifted(400, 300)
    zq, zp = coordinates(q, p)
    best = EnergyBalancing(tolerance=1e-6).fit(q, p)
    for tolerance in (0.1, 0.01, 0.001):
        model = EnergyBalancing(tolerance=tolerance).fit(q, p)
        values = [
            objective(zq, zp, each.weights_ / each.weights_.sum(), np.ones(400), 0.0)[0]
            for each in (model, best)
        ]
        assert -1e-9 < values[0] - values[1] <= model.gap_ + 1e-9
        assert model.gap_ <= tolerance * model.gain_ * 1.01


def test_nearer_to_p_than_entropy_balancing():
    rng = np.random.default_rng(2)
    q, p = rng.uniform(-2, 2, (800, 2)), rng.normal(0, 0.6, (700, 2)) + [0.3, 0]
    energy = EnergyBalancing().fit(q, p).weights_
    for moments in (1, 2):
        other = EntropyBalancing().fit(q, p, moments=moments).weights_
        values = [
            energy_distance(q, p, weights_q=w, unbiased=False).estimate for w in (energy, other)
        ]
        assert values[0] < 0.7 * values[1]


def test_penalty_buys_effective_size():
    q, p = shifted(600, 500)
    sizes = [
        EnergyBalancing(penalty=penalty).fit(q, p).diagnostics().effective_sample_size
        for penalty in (0.0, 0.001, 0.1)
    ]
    assert sizes == sorted(sizes)
    assert sizes[2] > 1.2 * sizes[0]


def test_blocks_are_told_and_nearly_as_good():
    q, p = shifted(2_000, 1_500)
    whole, parts = EnergyBalancing().fit(q, p), EnergyBalancing(block_rows=700).fit(q, p)
    assert (whole.n_blocks_, parts.n_blocks_) == (1, 3)
    assert "The 2,000 rows of q were weighted in 3 random parts, each brought to 500 of the" in (
        parts.diagnostics().status
    )
    order = np.random.default_rng(3).permutation(2_000)
    again = EnergyBalancing(block_rows=700).fit(q[order] * 5 + 1, p[::-1] * 5 + 1)
    assert again.weights_ == pytest.approx(parts.weights_[order], abs=1e-6)
    apart = [
        energy_distance(q, p, weights_q=w, unbiased=False).estimate
        for w in (np.ones(2_000), parts.weights_, whole.weights_)
    ]
    assert apart[2] < apart[1] < 0.05 * apart[0]


def test_no_interval_and_why():
    q, p = shifted(300, 200)
    model = EnergyBalancing().fit(q, p)
    found = model.estimate(q[:, 0])
    assert found.estimate == pytest.approx(np.average(q[:, 0], weights=model.weights_))
    assert (found.low, found.high, found.standard_error) == (None, None, None)
    assert found.reason.startswith("No standard error: energy-balancing weights solve no fixed")
    line = model.estimate(q[:, 0], estimand="regression", x=q[:, 1:])
    assert line["x0"].low is None
    assert np.isnan(line.covariance).all()
    assert not hasattr(model, "log_ratio")


def test_refusals():
    q, p = shifted()
    with pytest.raises(ConvergenceError, match="stopped after 3 steps with the energy distance up"):
        EnergyBalancing(max_iter=3).fit(q, p)
    assert not EnergyBalancing(max_iter=3, not_converged="keep").fit(q, p).converged_
    with pytest.raises(OptionError, match="EnergyBalancing needs rows of p, not totals"):
        EnergyBalancing().fit(q, targets={"x0": 0.1})
    with pytest.raises(OptionError, match="penalty is -1; give a finite number, 0 or more"):
        EnergyBalancing(penalty=-1).fit(q, p)


def test_points_that_are_all_one_weigh_alike():
    assert EnergyBalancing().fit(np.ones((5, 1)), np.ones((4, 1))).weights_ == pytest.approx(1)


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet").drop_columns(["class", "fnlwgt"])
    table = table.to_pandas().sample(2_500, random_state=0)
    young = (table["age"] < 40).to_numpy()
    rest = table.drop(columns="age")
    model = EnergyBalancing(penalty=1e-3).fit(rest[young], rest[~young])
    report = model.diagnostics()
    assert report.largest_before > 0.9
    assert report.largest_after < 0.45 * report.largest_before
    before, after = (
        np.mean([abs(getattr(each, name)) for each in report.margins])
        for name in ("smd_before", "smd_after")
    )
    assert after < 0.4 * before
    assert model.gap_ < 0.002 * model.gain_
