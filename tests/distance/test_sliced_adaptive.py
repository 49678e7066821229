import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dpdq.distance import AdaptiveSlicedWasserstein, sliced_wasserstein
from dpdq.distance._directions import SliceLaw
from dpdq.distance._slices import Slices
from dpdq.distance._sphere import angle_law
from dpdq.distance.sliced_adaptive import learning_price
from dpdq.errors import DataError, OptionError


def test_finds_the_column_that_moved():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(500, 20)), rng.normal(size=(500, 20))
    p[:, 4] += 1.5
    model = AdaptiveSlicedWasserstein(random_state=0).fit(q=q, p=p)
    assert np.abs(model.direction_).argmax() == 4
    assert np.linalg.norm(model.direction_) == pytest.approx(1)
    assert model.kl_ == pytest.approx(angle_law(20, model.kappa_).kl)
    uniform = sliced_wasserstein(q, p, random_state=0).estimate
    top = sliced_wasserstein(q, p, projections="max", random_state=0).estimate
    assert uniform < model.distance_ < 1.01 * top
    assert model.lower_bound_ is None
    assert "give diameter=" in model.status_
    assert "distance" in repr(model)


def test_the_price_decides_between_uniform_and_one_direction():
    rng = np.random.default_rng(1)
    q, p = rng.normal(size=(300, 10)), rng.normal(size=(300, 10))
    p[:, 0] += 0.5
    kappas = [
        AdaptiveSlicedWasserstein(regularisation=c, random_state=0).fit(q, p).kappa_
        for c in (0.0, 0.1, 1.0, 100.0)
    ]
    assert kappas == sorted(kappas, reverse=True)
    assert kappas[0] > 200
    assert kappas[-1] < 1


def test_learnt_law_does_not_depend_on_the_unit():
    rng = np.random.default_rng(2)
    q, p = rng.normal(size=(150, 6)), rng.normal(size=(120, 6)) * 1.3
    one = AdaptiveSlicedWasserstein(random_state=0).fit(q, p)
    other = AdaptiveSlicedWasserstein(random_state=0).fit(1000 * q + 5, 1000 * p + 5)
    # the climb ends within a hundredth of the summit
    assert other.kappa_ == pytest.approx(one.kappa_, rel=0.02)
    assert abs(other.direction_ @ one.direction_) == pytest.approx(1, abs=1e-3)
    assert other.distance_ == pytest.approx(1000 * one.distance_, rel=3e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_bound_holds(order):
    """A shift of bounded noise: E_rho W_r^r of the true laws is E |theta.s|^r exactly."""
    rng = np.random.default_rng(3)
    n, d = 1000, 3
    failures, positive = 0, 0
    for k, move in enumerate((0.0, 0.3, 0.8, 0.9)):
        q, p = 0.2 * rng.random((n, d)), 0.2 * rng.random((n, d))
        p[:, 1] += move
        model = AdaptiveSlicedWasserstein(
            order=order, diameter=math.sqrt(2 * 0.2**2 + 1.1**2), delta=0.05, random_state=k
        ).fit(q, p)
        assert model.distance_ >= model.lower_bound_
        terms = model.bound_
        rest = terms.complexity + terms.concentration + terms.bias + terms.draws
        assert terms.lower == pytest.approx(terms.cost - rest)
        law = SliceLaw(model.direction_, model.kappa_)
        truth = (np.abs(move * law.draw(100_000, rng)[:, 1]) ** order).mean()
        failures += terms.lower > truth
        positive += terms.lower > 0
    # delta = 0.05 at most; the bound is loose enough never to fail here
    assert failures == 0
    assert positive >= 2


def test_bound_shrinks_with_rows_and_scales_with_the_unit():
    rng = np.random.default_rng(4)
    gaps = []
    for n in (200, 1800):
        q, p = rng.random((n, 2)), rng.random((n, 2)) + [0.9, 0.0]
        one = AdaptiveSlicedWasserstein(order=1, diameter=2.2, random_state=0).fit(q, p)
        other = AdaptiveSlicedWasserstein(order=1, diameter=22.0, random_state=0)
        other.fit(10 * q, 10 * p)
        assert other.bound_.bias == pytest.approx(10 * one.bound_.bias)
        assert other.bound_.lower == pytest.approx(10 * one.bound_.lower, rel=1e-3)
        gaps.append(one.bound_.cost - one.bound_.lower)
    assert gaps[1] < gaps[0] / 2


def test_digits_with_one_block_moved():
    images = load_digits().data
    rows = np.random.default_rng(5).permutation(len(images))
    q, p = images[rows[:800]], images[rows[800:1600]].copy()
    block = [27, 28, 35, 36]
    p[:, block] += 6.0
    model = AdaptiveSlicedWasserstein(diameter=16 * 8 + 12.0, random_state=0).fit(q, p)
    weight = model.direction_[block] ** 2
    assert weight.sum() > 0.5  # four of 64 pixels carry most of the direction
    assert model.lower_bound_ == 0.0
    assert "says nothing at these sizes" in model.status_


def test_price_falls_with_the_root_of_the_rows():
    rng = np.random.default_rng(6)
    q = rng.normal(size=(400, 3))
    few, many = Slices(q[:100], q[100:200], 2.0), Slices(q[:400], q, 2.0)
    assert learning_price(few) == pytest.approx(2 * learning_price(many), rel=0.3)
    assert learning_price(few, 0.0) == 0


def test_refusals():
    x = np.zeros((5, 2))
    x[0] = 1.0
    for options, text in (
        ({"delta": 0.0}, "delta is 0"),
        ({"diameter": -1.0}, "diameter is -1"),
        ({"regularisation": -1.0}, "regularisation is -1"),
        ({"order": 0.0}, "order is 0"),
        ({"n_projections": 0}, "n_projections is 0"),
    ):
        with pytest.raises(OptionError, match=text):
            AdaptiveSlicedWasserstein(**options).fit(x, x)
    with pytest.raises(DataError, match="diameter is 0.5, but rows lie 1.4"):
        AdaptiveSlicedWasserstein(diameter=0.5, random_state=0).fit(x, x)
    with pytest.raises(DataError, match="q has 1 row; expected at least 2"):
        AdaptiveSlicedWasserstein().fit(x[:1], x)
    line = AdaptiveSlicedWasserstein(order=1, diameter=1.0).fit(np.zeros(99), np.ones(99))
    assert line.distance_ == pytest.approx(1.0)
    assert line.kl_ == 0
    assert 0 < line.lower_bound_ < 1
