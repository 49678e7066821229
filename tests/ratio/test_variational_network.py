"""VariationalNetworkRatio: known answers, early stopping, Lipschitz bound, pickles, no torch."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from dpdq.errors import OptionError
from dpdq.ratio import LogisticRatio, VariationalNetworkRatio, variational_loss
from dpdq.ratio._common import validation_split

torch = pytest.importorskip("torch", reason="torch is not installed")


def pair(n, m, d=2, shift=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


def test_curved_ratio_in_many_columns():
    """p flips the sign of a product of two among ten columns: a line sees nothing."""
    rng = np.random.default_rng(0)

    def tilted(n, sign):
        x = rng.normal(size=(3 * n, 10))
        keep = rng.random(3 * n) < 1 / (1 + np.exp(-2 * sign * x[:, 0] * x[:, 1]))
        return x[keep][:n]

    q, p, x = tilted(5000, -1), tilted(5000, 1), rng.normal(size=(2000, 10))
    truth = 2 * x[:, 0] * x[:, 1]
    found = VariationalNetworkRatio(random_state=0).fit(q, p).log_ratio(x)
    assert np.sqrt(np.mean((found - truth) ** 2)) < 0.75
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    line = LogisticRatio().fit(q, p).log_ratio(x)
    assert abs(np.corrcoef(line, truth)[0, 1]) < 0.2


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "squared_hellinger", "jeffreys"])
def test_other_divergences(name):
    q, p = pair(3000, 2000)
    model = VariationalNetworkRatio(name, random_state=0).fit(q, p)
    truth = (0.5 * q - 0.125).sum(axis=1)
    assert np.sqrt(np.mean((model.log_ratio(q) - truth) ** 2)) < 0.35
    assert model.losses_[0] == 0
    assert min(model.losses_) == model.losses_[model.best_epoch_] < 0


def test_best_epoch_is_restored():
    """The scores reproduce the smallest held-out loss, not the last."""
    q, p = pair(500, 400, 4)
    model = VariationalNetworkRatio(random_state=0, hidden=(64, 64), patience=15).fit(q, p)
    assert model.best_epoch_ == len(model.losses_) - 1 - 15
    seed = int(np.random.default_rng(0).integers(0, 2**31 - 1))
    split = validation_split(q, p, 0.2, seed)
    loss = variational_loss(model.log_ratio(q[split[0]]), model.log_ratio(p[split[1]]))
    assert loss == pytest.approx(min(model.losses_), abs=1e-5)
    assert loss < model.losses_[-1]


def test_no_structure_where_there_is_none():
    q, p = pair(1500, 1500, 10, 0.0)
    model = VariationalNetworkRatio(random_state=0).fit(q, p)
    assert np.abs(model.log_ratio(q)).mean() < 0.15


def test_lipschitz_bound_holds():
    q, p = pair(1000, 1000, 3, 3.0)
    free = VariationalNetworkRatio(random_state=0, max_epochs=30).fit(q, p)
    held = VariationalNetworkRatio(lipschitz=1.0, random_state=0, max_epochs=30).fit(q, p)
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 4000, 3)) * 3
    slopes = []
    for model in (free, held):
        distance = np.linalg.norm((a - b) / model._scale, axis=1)
        slopes.append((np.abs(model.log_ratio(a) - model.log_ratio(b)) / distance).max())
    assert slopes[1] <= 1 + 1e-6
    assert slopes[0] > 2
    norms = [np.linalg.norm(weight, 2) for weight, _ in held.layers_]
    assert np.prod(norms) <= 1 + 1e-6


def test_pickle_holds_arrays_only():
    q, p = pair(200, 150)
    model = VariationalNetworkRatio(random_state=0, max_epochs=3).fit(q, p)
    stored = pickle.dumps(model)
    assert b"torch" not in stored
    np.testing.assert_array_equal(pickle.loads(stored).log_ratio(q), model.log_ratio(q))
    assert all(isinstance(array, np.ndarray) for layer in model.layers_ for array in layer)


def test_weights_and_far_points():
    rng = np.random.default_rng(0)
    q, p = 1.5 * rng.normal(size=(4000, 1)), rng.normal(size=(3000, 1)) + 1
    w = np.exp(-(q[:, 0] ** 2) * (1 - 1 / 1.5**2) / 2)
    model = VariationalNetworkRatio(random_state=0).fit(q, p, weights_q=w)
    x = np.linspace(-1, 2, 13)[:, None]
    assert np.abs(model.log_ratio(x) - (x[:, 0] - 0.5)).max() < 0.6
    assert np.isfinite(model.log_ratio([[1e300], [-1e300]])).all()


def test_seed_does_not_touch_the_global_one():
    q, p = pair(100, 100)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    VariationalNetworkRatio(random_state=0, max_epochs=2).fit(q, p)
    assert bool((torch.get_rng_state() == before).all())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size is 0; expected a positive number"),
        ({"weight_decay": -1}, "weight_decay is -1; expected 0 or more"),
        ({"lipschitz": 0}, "lipschitz is 0; expected a positive number or None"),
        ({"hidden": (8, 0)}, r"hidden is \(8, 0\); expected positive widths"),
        ({"validation_fraction": 0}, "validation_fraction is 0; expected between 0 and 1"),
        ({"divergence": "total_variation"}, "total_variation has no gradient"),
    ],
)
def test_options(options, message):
    with pytest.raises(OptionError, match=message):
        VariationalNetworkRatio(**options).fit(np.zeros((5, 1)), np.ones((5, 1)))


def test_without_torch():
    code = """
import sys
sys.modules["torch"] = None
import numpy as np
from dpdq.errors import MissingDependencyError
from dpdq.ratio import VariationalNetworkRatio
try:
    VariationalNetworkRatio().fit(np.zeros((5, 1)), np.ones((5, 1)))
except MissingDependencyError as error:
    assert 'VariationalNetworkRatio needs torch: pip install "dpdq[torch]"' in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits():
    """Thick against thin strokes: far below the constant's loss on digits it has not seen."""
    from sklearn.datasets import load_digits

    x = load_digits().data
    ink = x.sum(axis=1)
    rng = np.random.default_rng(0)
    thick = rng.random(len(x)) < 1 / (1 + np.exp(-(ink - np.median(ink)) / 15))
    q, p = x[~thick], x[thick]
    model = VariationalNetworkRatio(random_state=0).fit(q[::2], p[::2])
    assert variational_loss(model.log_ratio(q[1::2]), model.log_ratio(p[1::2])) < -0.15
