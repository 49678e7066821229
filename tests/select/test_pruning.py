import numpy as np
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.select import CalibratedPruner, pruning_bias, top_k

U = np.random.default_rng(0).normal(size=1000)
LOSS = np.exp(U) + 0.1 * np.random.default_rng(1).normal(size=1000)


def test_weighted_sums_are_unbiased():
    """Mean over 4,000 draws of the weighted mean, against the full mean: |z| < 5.2 has a false
    alarm rate of 2e-7 a case."""
    for exploit, offset in ((0.5, 0.0), (0.0, 0.0), (0.8, 0.0), (0.5, 0.1)):
        pruner = CalibratedPruner(exploit, offset=offset)
        rng = np.random.default_rng(3)
        found = np.empty(4000)
        for i in range(4000):
            kept = pruner.select(U[:200], fraction=0.2, random_state=rng)
            found[i] = np.average(LOSS[:200][kept.rows], weights=kept.weights)
        z = (found.mean() - LOSS[:200].mean()) / (found.std() / np.sqrt(4000))
        assert abs(z) < 5.2
    plain = CalibratedPruner(1.0).select(U, fraction=0.2)
    assert plain.rows.tolist() == top_k(U, fraction=0.2).rows.tolist()
    assert LOSS[plain.rows].mean() > 2 * LOSS.mean()  # what the weights repair


def test_weights_are_those_of_the_design():
    kept = CalibratedPruner(0.5).select(U, n=300, random_state=1)
    best = np.argsort(-U)[:150]
    assert kept.mask[best].all()
    expansion = kept.weights * 1000 / 300
    np.testing.assert_allclose(expansion[np.isin(kept.rows, best)], 1.0)
    np.testing.assert_allclose(expansion[~np.isin(kept.rows, best)], 850 / 150)
    np.testing.assert_allclose(expansion.sum(), 1000)
    np.testing.assert_allclose(kept.weights.mean(), 1.0)
    # (1 - a r) / ((1 - a) r) with a = 1/2, r = 0.3
    np.testing.assert_allclose(850 / 150, (1 - 0.15) / (0.5 * 0.3))
    assert "150 by score, 150 drawn to stand for the other 850" in kept.status
    again = CalibratedPruner(0.5).select(U, n=300, random_state=1)
    assert again.rows.tolist() == kept.rows.tolist()
    other = CalibratedPruner(0.5).select(U, n=300, random_state=2)
    assert other.rows.tolist() != kept.rows.tolist()
    everything = CalibratedPruner(0.5).select(U, n=1000)
    assert (everything.weights == 1).all()


def test_the_top_band_can_be_left_out():
    kept = CalibratedPruner(1.0, offset=0.1).select(U, n=200)
    assert kept.rows.tolist() == sorted(np.argsort(-U)[100:300])
    assert "nothing stands for the others" in kept.status
    dropped = np.where(np.arange(1000) < 400, -np.inf, U)
    kept = CalibratedPruner(0.5).select(dropped, fraction=0.5, random_state=0)
    assert len(kept) == 300
    assert kept.rows.min() >= 400
    trail = kept.trail().to_pandas()
    assert set(trail["reason"][:400]) == {"utility is minus infinity"}
    assert trail["reason"].value_counts()["drawn to stand for the rest"] == 150


def test_bias_of_all_rows_is_zero():
    whole = pruning_bias(LOSS, CalibratedPruner().select(U, fraction=1.0))
    assert whole.estimate == pytest.approx(0.0, abs=1e-12)
    assert whole.standard_error == pytest.approx(0.0, abs=1e-12)
    biased = pruning_bias(LOSS, top_k(U, fraction=0.2))
    assert biased.low > 0
    assert biased.estimate == pytest.approx(LOSS[np.argsort(-U)[:200]].mean() - LOSS.mean())
    scaled = pruning_bias(3 * LOSS + 1, top_k(U, fraction=0.2))
    assert scaled.estimate == pytest.approx(3 * biased.estimate)
    with pytest.raises(DataError, match=r"losses have shape \(3,\); expected \(1000,\)"):
        pruning_bias([1, 2, 3], top_k(U, n=5))


def test_the_interval_of_the_bias_covers():
    """Rows above a fixed cut: the bias in the law is E[l | u > c] - E[l] = exp(1/2)(...)."""
    from scipy.special import ndtr

    cut = 0.5
    truth = np.exp(0.5) * (ndtr(1 - cut) / ndtr(-cut) - 1)
    covered = 0
    for seed in range(1000):
        u = np.random.default_rng(seed).normal(size=400)
        kept = top_k(u, n=int((u > cut).sum()))
        found = pruning_bias(np.exp(u), kept)
        covered += found.low <= truth <= found.high
    # nominal 950, skewed losses cost some; Binomial(1000, 0.93) is below 875 with 1e-9
    assert 875 < covered < 985


def test_wrong_options_are_told():
    with pytest.raises(OptionError, match="exploit is 1.5; expected a share from 0 to 1"):
        CalibratedPruner(1.5).select(U, n=3)
    with pytest.raises(OptionError, match="give one of n and fraction"):
        CalibratedPruner().select(U)
    with pytest.raises(OptionError, match="n is 1001; expected a whole number of rows from 0"):
        CalibratedPruner().select(U, n=1001)


def test_real_digits_calibration_repairs_hard_pruning():
    """Digits at 10 % kept: mean test accuracy over 5 seeds of a linear model, random and
    calibrated rows beat the hardest rows."""
    from sklearn.datasets import load_digits

    from dpdq.select import EL2N

    x, y = load_digits(return_X_y=True)
    x = np.hstack([x / 16.0, np.ones((len(x), 1))])
    onehot = np.eye(10)[y]

    def softmax(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def train(rows, weights, steps):
        theta = np.zeros((65, 10))
        for _ in range(steps):
            error = (softmax(x[rows] @ theta) - onehot[rows]) * weights[:, None]
            theta -= 0.5 * (x[rows].T @ error / len(rows) + 1e-4 * theta)
        return theta

    found = {"hard": [], "calibrated": [], "random": []}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(y))
        pool, test = order[:1200], order[1200:]
        half = train(pool, np.ones(1200), 20)
        score = EL2N().fit(x[pool] @ half, y[pool]).utility()
        chosen = {
            "hard": top_k(score, fraction=0.1),
            "calibrated": CalibratedPruner(0.25).select(score, fraction=0.1, random_state=seed),
            "random": CalibratedPruner(0.0).select(score, fraction=0.1, random_state=seed),
        }
        for name, kept in chosen.items():
            theta = train(pool[kept.rows], kept.weights, 300)
            found[name].append(((x[test] @ theta).argmax(1) == y[test]).mean())
    means = {name: np.mean(each) for name, each in found.items()}
    assert means["random"] > means["hard"] + 0.05
    assert means["calibrated"] > means["hard"] + 0.05
