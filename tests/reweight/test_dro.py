"""Worst mean losses: brute-force primals, closed forms, limits, gradients, both backends."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import linprog, minimize
from sklearn.datasets import load_digits

import dpdq.divergences as tables
from dpdq.divergences import DIVERGENCES, AlphaDivergence, Divergence, TotalVariation, divergence
from dpdq.errors import ConvergenceError, DataError, InputTypeError, OptionError
from dpdq.reweight._worst_case import _root
from dpdq.reweight.dro import cvar_loss, dro_loss, dro_weights

ALL = [divergence(name) for name in DIVERGENCES if name != "alpha"]
ALL += [AlphaDivergence(alpha) for alpha in (-2.0, 0.5, 1.5, 3.0)]
ALL += [getattr(tables, name)() for name in tables.__all__ if name.startswith("Standard")]
SMOOTH = [f for f in ALL if not isinstance(f, TotalVariation)]
BOUNDED = {"radius": (0.02, 0.3, 2.0)}
PRICED = {"penalty": (0.1, 1.0, 10.0)}


def name_of(f: Divergence) -> str:
    return repr(f)


def divergence_of(f: Divergence, w: np.ndarray, shares: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(shares @ np.asarray(f.f(np.log(w))))


def primal(f, losses, shares, radius=None, penalty=None) -> float:
    """The supremum over w by a general-purpose solver."""
    n = losses.size
    if isinstance(f, TotalVariation):
        # w = 1 + up - down, D = E_q[up + down] / 2: a linear program.
        cost = np.concatenate([-shares * losses, shares * losses])
        half = 0.5 * np.concatenate([shares, shares])
        mass = np.concatenate([shares, -shares])[None]
        bounds = [(0, None)] * n + [(0, 1)] * n
        extra = {"A_ub": half[None], "b_ub": [radius]} if penalty is None else {}
        cost = cost + (0 if penalty is None else penalty * half)
        found = linprog(cost, A_eq=mass, b_eq=[0.0], bounds=bounds, **extra)
        return float(shares @ losses - found.fun)

    # Twice: in w, and in v with w = v^2, which is smooth where weights vanish.
    price = penalty or 0.0
    best = -math.inf
    for power in (1, 2):

        def weigh(v, power=power):
            return np.maximum(v, 1e-12) ** power

        def chain(gradient, v, power=power):
            return gradient * (1.0 if power == 1 else 2.0 * v)

        def distance(v, weigh=weigh):
            return divergence_of(f, weigh(v), shares)

        def slope(v, weigh=weigh, chain=chain):
            return chain(shares * np.asarray(f.f_prime(np.log(weigh(v)))), v)

        rules = [
            {
                "type": "eq",
                "fun": lambda v, weigh=weigh: shares @ weigh(v) - 1,
                "jac": lambda v, chain=chain: chain(shares, v),
            }
        ]
        if penalty is None:
            rules.append(
                {
                    "type": "ineq",
                    "fun": lambda v, distance=distance: radius - distance(v),
                    "jac": lambda v, slope=slope: -slope(v),
                }
            )
        found = minimize(
            lambda v, weigh=weigh, distance=distance: (
                price * distance(v) - shares @ (weigh(v) * losses)
            ),
            np.ones(n),
            jac=lambda v, chain=chain, slope=slope: price * slope(v) - chain(shares * losses, v),
            bounds=[(1e-6, (1 / share) ** (1 / power)) for share in shares],
            constraints=rules,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 1000},
        )
        feasible = price or distance(found.x) < radius + 1e-9
        if feasible and abs(shares @ weigh(found.x) - 1) < 1e-9:
            best = max(best, -found.fun)
    return best


@pytest.mark.parametrize("f", ALL, ids=name_of)
@pytest.mark.parametrize("options", [BOUNDED, PRICED], ids=["radius", "penalty"])
def test_dual_equals_primal(f, options):
    rng = np.random.default_rng(3)
    ((kind, sizes),) = options.items()
    for n, size in zip((3, 6, 10), sizes, strict=True):
        losses = rng.exponential(size=n)
        weights = None if n == 6 else rng.uniform(0.5, 2.0, n)
        shares = np.full(n, 1 / n) if weights is None else weights / weights.sum()
        value = dro_loss(losses, divergence=f, weights=weights, **{kind: size})
        assert value == pytest.approx(primal(f, losses, shares, **{kind: size}), abs=1e-6)
        # The weights are feasible and attain the value, so that it is no upper bound only.
        w = dro_weights(losses, divergence=f, weights=weights, **{kind: size}) / (n * shares)
        assert (w >= 0).all()
        assert shares @ w == pytest.approx(1, rel=1e-14)
        distance = divergence_of(f, w, shares)
        attained = shares @ (w * losses)
        if kind == "radius":
            assert distance <= size * (1 + 1e-9)
        else:
            attained -= size * distance
        assert value == pytest.approx(attained, rel=1e-12)


@pytest.mark.parametrize("f", SMOOTH, ids=name_of)
def test_value_equals_the_dual_function_at_its_minimum(f):
    """No eta and no penalty give less than the value: a bound from above, to the last digits."""
    losses = np.random.default_rng(5).normal(size=300)
    standard, radius = f.standard(), 0.4
    value = dro_loss(losses, divergence=f, radius=radius)

    def dual(at):
        scale = math.exp(at[0])
        inside = np.asarray(standard.conjugate((losses - at[1]) / scale))
        return scale * (radius + inside.mean()) + at[1]

    w = dro_weights(losses, divergence=f, radius=radius)
    slope = np.asarray(standard.f_prime(np.log(np.clip(w, 1e-300, None))))
    low, high = np.argsort(losses)[[-40, -1]]
    scale = (losses[high] - losses[low]) / (slope[high] - slope[low])
    eta = losses[high] - scale * slope[high]
    assert dual([math.log(scale), eta]) == pytest.approx(value, abs=1e-9)


def test_chi2_weights_in_closed_form():
    rng = np.random.default_rng(0)
    losses = rng.normal(size=50)
    # While no weight hits 0: mean + sqrt(radius variance), and w linear in the loss.
    radius = 0.05
    expected = losses.mean() + math.sqrt(radius * losses.var())
    assert dro_loss(losses, divergence="pearson_chi2", radius=radius) == pytest.approx(expected)
    w = 1 + math.sqrt(radius / losses.var()) * (losses - losses.mean())
    assert (w > 0).all()
    found = dro_weights(losses, divergence="pearson_chi2", radius=radius)
    np.testing.assert_allclose(found, w, rtol=1e-12)
    # Beyond: w = (l - eta)_+ / (2 penalty), eta over the k largest rows, for the k that fits.
    for penalty in (0.01, 0.1, 1.0):
        top = np.sort(losses)[::-1]
        k = np.arange(1, 51)
        eta = (np.cumsum(top) - 2 * penalty * 50) / k
        fits = (top > eta) & (np.append(top[1:], -np.inf) <= eta)
        w = np.maximum(losses - eta[np.argmax(fits)], 0) / (2 * penalty)
        found = dro_weights(losses, divergence="pearson_chi2", penalty=penalty)
        np.testing.assert_allclose(found, w, atol=1e-12)


def test_kl_penalty_is_a_softmax():
    losses = np.random.default_rng(1).normal(size=40) * 5
    for penalty in (0.1, 1.0, 30.0):
        value = penalty * (np.logaddexp.reduce(losses / penalty) - math.log(40))
        assert dro_loss(losses, penalty=penalty) == pytest.approx(value, rel=1e-13)
        tilt = np.exp((losses - losses.max()) / penalty)
        found = dro_weights(losses, penalty=penalty)
        np.testing.assert_allclose(found, tilt / tilt.mean(), rtol=1e-12)


@pytest.mark.parametrize("f", ALL, ids=name_of)
def test_degenerate_cases(f):
    same = np.full(5, 3.25)
    assert dro_loss(same, divergence=f, radius=0.5) == 3.25
    assert dro_loss(same, divergence=f, penalty=0.5) == 3.25
    losses = np.array([0.0, 1.0, 4.0, 4.0, -2.0])
    assert dro_loss(losses, divergence=f, radius=0) == pytest.approx(1.4)
    assert dro_loss([7.0], divergence=f, radius=1.0) == 7.0
    assert dro_loss(losses, divergence=f, penalty=1e9) == pytest.approx(1.4, abs=1e-7)
    assert dro_loss(losses, divergence=f, penalty=1e-12) == pytest.approx(4.0, abs=1e-3)
    # A radius beyond every law: the largest loss, shared by the rows that have it; a divergence
    # that is infinite where a row loses its mass only comes close.
    far = dro_loss(losses, divergence=f, radius=1e4)
    if math.isinf(float(f.f(-math.inf))):
        assert 3 < dro_loss(losses, divergence=f, radius=8.0) < far <= 4
    else:
        assert far == 4
        w = dro_weights(losses, divergence=f, radius=math.inf)
        np.testing.assert_array_equal(w, [0, 0, 2.5, 2.5, 0])


@pytest.mark.parametrize("name", ["total_variation", "jensen_shannon", "squared_hellinger"])
def test_bounded_divergences_reach_the_largest_loss_at_a_finite_radius(name):
    losses = np.arange(4.0)
    f = divergence(name)
    limit = 0.25 * f.f(math.log(4)) + 0.75 * f.f(-math.inf)
    assert dro_loss(losses, divergence=name, radius=limit) == pytest.approx(3, abs=1e-12)
    assert dro_loss(losses, divergence=name, radius=0.99 * limit) < 3 - 1e-6
    if name == "total_variation":
        # Mass 0.4 moves from the smallest losses to the largest: 0.25 from 0 and 0.15 from 1.
        assert dro_loss(losses, divergence=name, radius=0.4) == pytest.approx(1.5 + 0.75 + 0.3)


@pytest.mark.parametrize("f", ALL, ids=name_of)
def test_invariances_and_weights(f):
    rng = np.random.default_rng(8)
    losses = rng.gamma(2.0, size=30)
    for options in ({"radius": 0.3}, {"penalty": 0.7}):
        value = dro_loss(losses, divergence=f, **options)
        order = rng.permutation(30)
        assert dro_loss(losses[order], divergence=f, **options) == pytest.approx(value, rel=1e-12)
        moved = dro_loss(losses + 100, divergence=f, **options)
        assert moved == pytest.approx(value + 100, rel=1e-12)
        scaled = {key: 4 * size if key == "penalty" else size for key, size in options.items()}
        assert dro_loss(4 * losses, divergence=f, **scaled) == pytest.approx(4 * value, rel=1e-12)
        assert losses.mean() < value < losses.max()
        # Integer weights are repeated rows, their scale means nothing, and zero drops a row.
        counts = rng.integers(0, 4, 30)
        repeated = dro_loss(np.repeat(losses, counts), divergence=f, **options)
        holed = np.where(counts == 0, np.nan, losses)
        weighted = dro_loss(holed, divergence=f, weights=0.3 * counts, **options)
        assert weighted == pytest.approx(repeated, rel=1e-12)
        w = dro_weights(holed, divergence=f, weights=counts, **options)
        assert w[counts > 0].mean() == pytest.approx(1, rel=1e-12)
        assert (w[counts == 0] == 0).all()
        per_copy = dro_weights(np.repeat(losses, counts), divergence=f, **options)
        total = np.add.reduceat(per_copy, np.cumsum(counts)[counts > 0] - counts[counts > 0])
        shares = total / counts.sum()
        np.testing.assert_allclose(shares, w[counts > 0] / (counts > 0).sum(), atol=1e-12)


def test_value_grows_with_the_radius_and_falls_with_the_penalty():
    losses = np.random.default_rng(2).normal(size=100)
    for f in ALL:
        radii = [dro_loss(losses, divergence=f, radius=r) for r in np.geomspace(1e-6, 20, 9)]
        assert (np.diff(radii) >= -1e-12).all()
        prices = [dro_loss(losses, divergence=f, penalty=r) for r in np.geomspace(1e-6, 1e6, 9)]
        assert (np.diff(prices) <= 1e-12).all()
        # A radius and its multiplier meet: E_q[w l] at the penalty whose D_f is the radius.
        w = dro_weights(losses, divergence=f, penalty=0.9)
        radius = divergence_of(f, w, np.full(100, 0.01))
        meets = dro_loss(losses, divergence=f, radius=radius)
        assert meets == pytest.approx((w * losses).mean(), rel=1e-6)


def test_cvar_is_the_mean_of_the_worst_share():
    losses = np.random.default_rng(4).normal(size=10)
    top = np.sort(losses)[::-1]
    assert cvar_loss(losses, 0) == pytest.approx(losses.mean(), rel=1e-14)
    assert cvar_loss(losses, 0.7) == pytest.approx(top[:3].mean(), rel=1e-12)
    assert cvar_loss(losses, 0.75) == pytest.approx((top[0] + top[1] + top[2] / 2) / 2.5)
    assert cvar_loss(losses, 0.99) == top[0]
    assert cvar_loss(losses, 1) == top[0]
    # The dual of Rockafellar and Uryasev.
    for level in (0.3, 0.5, 0.83):
        dual = min(t + np.maximum(losses - t, 0).mean() / (1 - level) for t in losses)
        assert cvar_loss(losses, level) == pytest.approx(dual, rel=1e-12)
    counts = np.array([1, 2, 0, 3, 1, 1, 2, 0, 1, 4])
    repeated = cvar_loss(np.repeat(losses, counts), 0.77)
    assert cvar_loss(losses, 0.77, weights=counts) == pytest.approx(repeated, rel=1e-12)


def test_cvar_is_the_limit_of_alpha_divergences():
    """E_q[w^alpha]^(1/alpha) <= c becomes w <= c."""
    losses = np.random.default_rng(6).normal(size=12)
    gaps = []
    for alpha in (20.0, 60.0, 180.0):
        radius = (2.0**alpha - 1) / (alpha * (alpha - 1))
        value = dro_loss(losses, divergence=AlphaDivergence(alpha), radius=radius)
        gaps.append(value - cvar_loss(losses, 0.5))
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[2] < 0.02


# Torch.


@pytest.mark.parametrize("f", ALL, ids=name_of)
def test_torch_agrees_and_its_gradient_is_the_weights(f):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(9)
    losses, weights = rng.normal(size=14), rng.integers(0, 3, 14)
    for options in ({"radius": 0.4}, {"penalty": 0.5}):
        tensor = torch.tensor(losses, requires_grad=True)
        value = dro_loss(tensor, divergence=f, **options)
        assert value.item() == pytest.approx(dro_loss(losses, divergence=f, **options), rel=1e-12)
        (3 * value).backward()
        w = dro_weights(tensor, divergence=f, **options)
        assert torch.equal(tensor.grad, 3 * (w / 14)) or torch.allclose(
            tensor.grad, 3 * w / 14, rtol=1e-15, atol=0
        )
        np.testing.assert_allclose(w, dro_weights(losses, divergence=f, **options), rtol=1e-12)
        if not isinstance(f, TotalVariation):
            inside = torch.tensor(losses, requires_grad=True)
            assert torch.autograd.gradcheck(
                lambda x, f=f, options=options: dro_loss(
                    x, divergence=f, weights=torch.tensor(weights), **options
                ),
                (inside,),
            )


def test_float32_keeps_its_digits_and_its_type():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(10)
    losses = torch.tensor(rng.normal(size=200), dtype=torch.float32) + 1000
    for f in ALL:
        narrow = dro_loss(losses, divergence=f, radius=0.3)
        assert narrow.dtype == torch.float32
        wide = dro_loss(losses.double(), divergence=f, radius=0.3)
        assert narrow.item() == pytest.approx(wide.item(), rel=2e-7)
        w = dro_weights(losses, divergence=f, radius=0.3)
        assert w.dtype == torch.float32
        assert not w.requires_grad
    assert dro_loss(torch.tensor([1, 2]), radius=0.1).dtype == torch.float32
    assert cvar_loss(losses.half(), 0.5).dtype == torch.float16


def test_a_second_derivative_is_refused():
    torch = pytest.importorskip("torch")
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (slope,) = torch.autograd.grad(dro_loss(x**2, radius=0.1), x, create_graph=True)
    with pytest.raises(OptionError, match="this loss has a first derivative only"):
        slope.sum().backward()


def test_cvar_in_torch():
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.0, 3.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    cvar_loss(x, 0.6).backward()
    np.testing.assert_allclose(x.grad, [0, 0.625, 0, 0.375], rtol=1e-14)
    assert torch.autograd.gradcheck(lambda x: cvar_loss(x, 0.6), (x,))


# Real data.


def test_chi2_dro_lowers_the_worst_class_loss_of_digits():
    """On the rows it trains on: the robust mean falls, and with it the largest class's loss."""
    torch = pytest.importorskip("torch")
    data = load_digits()
    x = torch.tensor(data.data / 16.0)
    y = torch.tensor(data.target)
    worst = {}
    for name in ("mean", "dro"):
        model = torch.nn.Linear(64, 10, dtype=torch.float64)
        torch.nn.init.zeros_(model.weight)
        torch.nn.init.zeros_(model.bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        for _ in range(25):
            losses = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
            robust = dro_loss(losses, divergence="pearson_chi2", radius=2.0)
            loss = losses.mean() if name == "mean" else robust
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        classes = [losses[y == c].mean().item() for c in range(10)]
        worst[name] = (robust.item(), max(classes))
    assert worst["dro"][0] < worst["mean"][0]
    assert worst["dro"][1] < worst["mean"][1]


# Refusals.


def test_refusals():
    with pytest.raises(OptionError, match="either radius or penalty; give exactly one"):
        dro_loss([1.0, 2.0])
    with pytest.raises(OptionError, match="either radius or penalty"):
        dro_loss([1.0, 2.0], radius=1, penalty=1)
    with pytest.raises(OptionError, match="Unknown divergence 'renyi'. Choose one of 'kl'"):
        dro_loss([1.0, 2.0], divergence="renyi", radius=1)
    with pytest.raises(OptionError, match="needs its order: give AlphaDivergence"):
        dro_loss([1.0, 2.0], divergence="alpha", radius=1)
    with pytest.raises(InputTypeError, match="divergence has type int; give a name"):
        dro_loss([1.0, 2.0], divergence=3, radius=1)
    with pytest.raises(OptionError, match="radius is -1; give a number 0 or more, infinity"):
        dro_loss([1.0, 2.0], radius=-1)
    with pytest.raises(OptionError, match="penalty is 0; give a number above 0 and finite"):
        dro_loss([1.0, 2.0], penalty=0)
    with pytest.raises(DataError, match=r"1 of 3 values are NaN or infinite \(first at row 2\)"):
        dro_loss([1.0, 2.0, np.inf], penalty=1)
    with pytest.raises(DataError, match=r"losses has shape \(1, 2\); give one number a row"):
        dro_loss([[1.0, 2.0]], penalty=1)
    with pytest.raises(DataError, match="weights has 3 rows, where the losses have 2"):
        dro_loss([1.0, 2.0], penalty=1, weights=[1, 1, 1])
    with pytest.raises(DataError, match="weights: 1 of 2 values are negative"):
        dro_loss([1.0, 2.0], penalty=1, weights=[1, -1])
    with pytest.raises(InputTypeError, match="losses has type list; give real numbers"):
        dro_loss(["a"], penalty=1)
    with pytest.raises(OptionError, match="level is 95; give the share to leave out"):
        cvar_loss([1.0], 95)
    with pytest.raises(ConvergenceError, match="was not found in 200 steps"):
        _root(lambda x: (-1.0, 1.0), 0.0, 0.0, math.inf)


def test_torch_refuses_alike():
    torch = pytest.importorskip("torch")
    bad = torch.tensor([1.0, float("nan")])
    with pytest.raises(DataError, match=r"1 of 2 values are NaN or infinite \(first at row 1\)"):
        dro_loss(bad, penalty=1)
    with pytest.raises(InputTypeError, match="losses has dtype torch.complex64; give real"):
        dro_loss(torch.tensor([1j]), penalty=1)
