"""Losses robust over labels: known limits, torch's own losses, rare and wrong digits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.reweight import (
    adaptive_label_temperatures,
    adjust_logits,
    dro_loss,
    label_dro_loss,
    logit_adjusted_loss,
)

N, K = 12, 5


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, K)) * 3


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(N) % K


def gaps(z: np.ndarray, y: np.ndarray, margin: float = 0.0) -> np.ndarray:
    rows = np.arange(len(z))
    out = z - z[rows, y][:, None] + margin
    out[rows, y] = 0.0
    return out


def log_softmax(z: np.ndarray) -> np.ndarray:
    return z - np.logaddexp.reduce(z, axis=1, keepdims=True)


# Label DRO.


def test_limits_of_label_dro(logits, labels):
    rows = label_dro_loss(logits, labels, reduction="none")
    entropy = -log_softmax(logits)[np.arange(N), labels]
    np.testing.assert_allclose(rows, entropy - math.log(K), rtol=1e-12, atol=1e-12)
    g = gaps(logits, labels, margin=1.0)
    hinge = label_dro_loss(logits, labels, temperature=0, margin=1.0, reduction="none")
    np.testing.assert_allclose(hinge, np.maximum(g, 0).max(1))
    near = label_dro_loss(logits, labels, temperature=1e-9, margin=1.0, reduction="none")
    np.testing.assert_allclose(near, hinge, atol=1e-8)
    flat = label_dro_loss(logits, labels, temperature=math.inf, margin=1.0, reduction="none")
    np.testing.assert_allclose(flat, g.mean(1), atol=1e-12)
    near = label_dro_loss(logits, labels, temperature=1e9, margin=1.0, reduction="none")
    np.testing.assert_allclose(near, flat, atol=1e-6)
    # At infinity the loss is symmetric: its sum over all labels is a constant.
    total = sum(label_dro_loss(logits, np.full(N, c), temperature=math.inf) for c in range(K))
    assert total == pytest.approx(0, abs=1e-12)


def test_label_dro_is_dro_over_the_labels(logits, labels):
    """Each row is the worst mean gap over labels at a price in KL."""
    for temperature, margin in ((0.3, 0.0), (2.0, 1.5)):
        rows = label_dro_loss(
            logits, labels, temperature=temperature, margin=margin, reduction="none"
        )
        worst = [dro_loss(g, penalty=temperature) for g in gaps(logits, labels, margin)]
        np.testing.assert_allclose(rows, worst, rtol=1e-11, atol=1e-12)


def test_one_temperature_a_row(logits, labels):
    temperatures = np.linspace(0.1, 4, N)
    rows = label_dro_loss(logits, labels, temperature=temperatures, reduction="none")
    for i, t in enumerate(temperatures):
        one = label_dro_loss(logits[i : i + 1], labels[i : i + 1], temperature=float(t))
        assert rows[i] == pytest.approx(one, rel=1e-13)
    assert label_dro_loss(logits, labels, temperature=temperatures) == pytest.approx(rows.mean())


def test_weights_are_repeated_rows(logits, labels):
    counts = np.array([0, 1, 2] * 4)
    holed = np.where(counts[:, None] == 0, np.nan, logits)
    z, y = np.repeat(logits, counts, axis=0), np.repeat(labels, counts)
    for loss in (
        lambda z, y, **o: label_dro_loss(z, y, temperature=2.0, margin=1.0, **o),
        lambda z, y, **o: label_dro_loss(z, y, temperature=0, **o),
        lambda z, y, **o: logit_adjusted_loss(z, y, class_counts=[5, 4, 3, 2, 1], **o),
    ):
        assert loss(holed, y=labels, weights=7 * counts) == pytest.approx(loss(z, y), rel=1e-12)


def test_a_shift_of_a_row_changes_nothing(logits, labels):
    shift = np.linspace(-50, 50, N)[:, None]
    for temperature in (0, 0.5, math.inf):
        moved = label_dro_loss(logits + shift, labels, temperature=temperature)
        assert moved == pytest.approx(label_dro_loss(logits, labels, temperature=temperature))
    moved = logit_adjusted_loss(logits + shift, labels, log_prior=np.arange(K))
    assert moved == pytest.approx(logit_adjusted_loss(logits, labels, log_prior=np.arange(K)))


def test_adaptive_temperatures_climb_their_objective(logits, labels):
    """Maximising in turns never lowers the objective, and stops where both slopes vanish."""
    start, margin = 1.3, 0.5
    price = 2 * math.log(K) / start
    g = gaps(logits, labels, margin)

    def law(t):
        p = np.exp(log_softmax(g / t[:, None]))
        return p, (p * np.log(np.maximum(K * p, 1e-300))).sum(1)

    def objective(p, kl, t):
        return (p * g).sum(1) - t * kl - price / 2 * (t - start) ** 2

    t = np.full(N, start)
    last = np.full(N, -np.inf)
    for _ in range(60):
        p, kl = law(t)
        assert (objective(p, kl, t) >= last - 1e-12).all()
        new = adaptive_label_temperatures(logits, labels, t, start=start, margin=margin)
        np.testing.assert_allclose(new, start - kl / price, rtol=1e-11)
        last = objective(p, kl, new)
        assert (last >= objective(p, kl, t) - 1e-12).all()
        t = new
    assert (t >= start / 2).all()
    assert (t <= start).all()
    p, kl = law(t)
    np.testing.assert_allclose(-kl - price * (t - start), 0, atol=1e-8)
    # Undecided rows keep the start, decided ones come down to half of it.
    ends = adaptive_label_temperatures([[0.0] * K, [99.0] + [0.0] * (K - 1)], [1, 0], [1.0, 1.0])
    np.testing.assert_allclose(ends, [1.0, 0.5], rtol=1e-12)


# Logit adjustment.


def test_adjustment_is_cross_entropy_on_shifted_logits(logits, labels):
    counts = np.array([500, 100, 20, 4, 1])
    prior = np.log(counts / counts.sum())
    for tau in (0.0, 1.0, 2.5):
        expected = -log_softmax(logits + tau * prior)[np.arange(N), labels]
        rows = logit_adjusted_loss(logits, labels, class_counts=counts, tau=tau, reduction="none")
        np.testing.assert_allclose(rows, expected, rtol=1e-12)
        # The prior's scale means nothing, and both ways to give it agree.
        other = logit_adjusted_loss(logits, labels, log_prior=prior + 4, tau=tau)
        assert other == pytest.approx(expected.mean(), rel=1e-12)
    # What the loss adds, adjust_logits takes away.
    back = adjust_logits(logits + prior, class_counts=counts)
    np.testing.assert_allclose(back, logits, atol=1e-13)


def test_adjustment_undoes_a_prior_exactly():
    """Two Gaussians, prior 99:1, Bayes logits: adjusted, the boundary is halfway again."""
    x = np.linspace(-3, 5, 1001)
    log_density = np.stack([-(x**2) / 2, -((x - 2) ** 2) / 2], axis=1)
    bayes = log_density + np.log([0.99, 0.01])
    plain = x[np.argmax(bayes.argmax(1) == 1)]
    adjusted = x[np.argmax(adjust_logits(bayes, class_counts=[99, 1]).argmax(1) == 1)]
    assert plain > 3
    assert adjusted == pytest.approx(1, abs=0.01)


# Torch.


def test_torch_agrees(logits, labels):
    torch = pytest.importorskip("torch")
    x, y = torch.tensor(logits, requires_grad=True), torch.tensor(labels)
    per_row = np.linspace(0.2, 2, N)
    calls = [
        lambda z, y, t=t, m=m: label_dro_loss(z, y, temperature=t, margin=m)
        for t in (0, 0.4, 1.0, math.inf)
        for m in (0.0, 1.0)
    ]
    calls += [
        lambda z, y: label_dro_loss(z, y, temperature=per_row, weights=np.arange(N) % 3),
        lambda z, y: logit_adjusted_loss(z, y, class_counts=[5, 4, 3, 2, 1], tau=1.5),
        lambda z, y: adjust_logits(z, class_counts=[5, 4, 3, 2, 1]).sum(),
        lambda z, y: logit_adjusted_loss(
            z, y, log_prior=torch.arange(K), weights=torch.arange(N) % 2, reduction="mean"
        ),
    ]
    for call in calls:
        assert call(x, y).item() == pytest.approx(call(logits, labels), rel=1e-12)
        assert torch.autograd.gradcheck(lambda z, call=call: call(z, y), (x,))
    entropy = torch.nn.functional.cross_entropy(x, y)
    assert (label_dro_loss(x, y) + math.log(K)).item() == pytest.approx(entropy.item(), rel=1e-12)
    hinge = torch.nn.functional.multi_margin_loss(x, y)  # a sum over labels, not their maximum
    assert label_dro_loss(x, y, temperature=0, margin=1.0) <= K * hinge
    t = adaptive_label_temperatures(x, y, torch.ones(N))
    assert not t.requires_grad
    expected = adaptive_label_temperatures(logits, labels, np.ones(N))
    np.testing.assert_allclose(t, expected, rtol=1e-12)


def test_dropped_rows_reach_no_gradient(logits, labels):
    torch = pytest.importorskip("torch")
    weights = np.arange(N) % 2
    holed = torch.tensor(np.where(weights[:, None] == 0, np.nan, logits), requires_grad=True)
    for temperature in (0, 1.0, math.inf):
        (slope,) = torch.autograd.grad(
            label_dro_loss(holed, labels, temperature=temperature, weights=weights), holed
        )
        assert (slope[weights == 0] == 0).all()
        assert torch.isfinite(slope).all()


def test_float32_is_stable(labels):
    torch = pytest.importorskip("torch")
    z = torch.randn(N, K, generator=torch.Generator().manual_seed(0)) * 1e4
    z.requires_grad_()
    for temperature in (1e-3, 1.0, 1e6):
        loss = label_dro_loss(z, labels, temperature=temperature)
        assert loss.dtype == torch.float32
        wide = label_dro_loss(z.double(), labels, temperature=temperature)
        assert loss.item() == pytest.approx(wide.item(), rel=1e-5)
        (slope,) = torch.autograd.grad(loss, z)
        assert torch.isfinite(slope).all()
    assert adjust_logits(z, class_counts=[1, 2, 3, 4, 5]).dtype == torch.float32


# Real data.


def test_adjustment_raises_balanced_accuracy():
    """Long-tailed digits (100 % down to 3 % of a class), linear softmax, 6 splits.

    Mean recall over classes rises by about 0.08, in each split, by either way to adjust.
    """
    torch = pytest.importorskip("torch")
    data = load_digits()
    x, y = torch.tensor(data.data / 16.0), torch.tensor(data.target)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.target))
        train, test = order[:1200], order[1200:]
        rarity = (0.03 ** (rng.permutation(10) / 9))[data.target[train]]
        train = train[rng.uniform(size=1200) < rarity]
        counts = np.bincount(data.target[train], minlength=10)
        scores = {}
        for name in ("plain", "adjusted"):
            model = torch.nn.Linear(64, 10, dtype=torch.float64)
            torch.nn.init.zeros_(model.weight)
            torch.nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
            for _ in range(60):
                tau = 1.0 if name == "adjusted" else 0.0
                loss = logit_adjusted_loss(model(x[train]), y[train], class_counts=counts, tau=tau)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            z = model(x[test]).detach()
            outputs = {name: z}
            if name == "plain":
                outputs["afterwards"] = adjust_logits(z, class_counts=counts)
            for key, value in outputs.items():
                hit = (value.argmax(1) == y[test]).numpy()
                scores[key] = np.mean([hit[data.target[test] == c].mean() for c in range(10)])
        assert scores["adjusted"] > scores["plain"] + 0.02
        assert scores["afterwards"] > scores["plain"] + 0.02


def test_high_temperatures_withstand_wrong_labels():
    """Digits with 40 % random labels, a small network, 3 splits: accuracy on right labels.

    Temperature 10 beats cross-entropy by 0.05 and more in each split, adaptive temperatures that
    start there as well; adaptive ones that start at 1 do not, and no test says so.
    """
    torch = pytest.importorskip("torch")
    data = load_digits()
    x, y = torch.tensor(data.data / 16.0), torch.tensor(data.target)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(data.target))
        train, test = order[:800], order[800:]
        wrong = rng.uniform(size=800) < 0.4
        noisy = torch.tensor(np.where(wrong, rng.integers(0, 10, 800), data.target[train]))
        scores = {}
        for name in ("entropy", "high", "adaptive"):
            torch.manual_seed(seed)
            model = torch.nn.Sequential(
                torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 10)
            ).double()
            optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
            t = np.full(800, 1.0 if name == "entropy" else 10.0)
            for _ in range(120):
                z = model(x[train])
                if name == "adaptive":
                    t = adaptive_label_temperatures(z, noisy, t, start=10.0)
                optimizer.zero_grad()
                label_dro_loss(z, noisy, temperature=t).backward()
                optimizer.step()
            scores[name] = (model(x[test]).argmax(1) == y[test]).double().mean().item()
        assert scores["high"] > scores["entropy"] + 0.03
        assert scores["adaptive"] > scores["entropy"] + 0.03


# Refusals.


def test_refusals(logits, labels):
    with pytest.raises(DataError, match=r"labels: 4 of 12 values are outside 0 to 3 \(first at ro"):
        label_dro_loss(logits[:, :4], np.where(labels == 3, 4, labels))
    with pytest.raises(InputTypeError, match="labels has dtype float64; give integers from 0 to 4"):
        label_dro_loss(logits, labels * 1.0)
    with pytest.raises(DataError, match=r"labels has shape \(11,\); give one label a row"):
        label_dro_loss(logits, labels[1:])
    with pytest.raises(OptionError, match="Unknown reduction 'sum'. Choose one of 'mean', 'none'"):
        label_dro_loss(logits, labels, reduction="sum")
    with pytest.raises(OptionError, match="weights are for the mean; drop them"):
        label_dro_loss(logits, labels, reduction="none", weights=np.ones(N))
    with pytest.raises(OptionError, match="temperature is -1.0; give a number 0 or more"):
        label_dro_loss(logits, labels, temperature=-1)
    with pytest.raises(OptionError, match="temperature holds values that are not above 0"):
        label_dro_loss(logits, labels, temperature=np.zeros(N))
    with pytest.raises(DataError, match="temperature has 3 rows, where the logits have 12"):
        label_dro_loss(logits, labels, temperature=np.ones(3))
    with pytest.raises(OptionError, match="margin is -1; give a number 0 or more"):
        label_dro_loss(logits, labels, margin=-1)
    with pytest.raises(OptionError, match=r"price is 0.1; give a finite number above log\(k\)"):
        adaptive_label_temperatures(logits, labels, np.ones(N), price=0.1)
    with pytest.raises(OptionError, match="give exactly one of class_counts and log_prior"):
        logit_adjusted_loss(logits, labels)
    with pytest.raises(DataError, match="class 2 has 0 rows; a class that training never sees"):
        logit_adjusted_loss(logits, labels, class_counts=[1, 1, 0, 1, 1])
    with pytest.raises(DataError, match="log_prior has 2 values, where the logits have 5 columns"):
        adjust_logits(logits, log_prior=[0.0, 0.0])
    with pytest.raises(OptionError, match="tau is nan; give a finite number"):
        adjust_logits(logits, class_counts=np.ones(K), tau=math.nan)


def test_torch_refuses_alike(logits, labels):
    torch = pytest.importorskip("torch")
    x = torch.tensor(logits)
    with pytest.raises(InputTypeError, match=r"labels has dtype torch.float32; give integers"):
        label_dro_loss(x, torch.zeros(N))
    with pytest.raises(DataError, match=r"labels: 1 of 12 values are outside 0 to 4 \(first at ro"):
        label_dro_loss(x, torch.tensor(labels).index_fill(0, torch.tensor([3]), -1))
