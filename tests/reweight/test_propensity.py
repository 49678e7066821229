"""Inverse propensity weighting: against scikit-learn, the path, cells, folds, caps, real data."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from dpdq.errors import ConvergenceError, OptionError
from dpdq.reweight import InversePropensityWeighting
from dpdq.reweight._logistic_path import LogisticPath


def shifted(n=800, m=500, d=3, shift=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + shift


@pytest.mark.parametrize("penalty", [1e-9, 1e-3, 0.3])
def test_equals_scikit_learn(penalty):
    from sklearn.linear_model import LogisticRegression

    q, p = shifted()
    rng = np.random.default_rng(1)
    w_q, w_p = rng.uniform(0.5, 2, 800), rng.uniform(0.5, 2, 500)
    model = InversePropensityWeighting(penalty=penalty).fit(q, p, weights_q=w_q, weights_p=w_p)
    share = np.concatenate([w_q / w_q.sum(), w_p / w_p.sum()]) / 2
    x = np.concatenate([q, p])
    mean = share @ x
    x = (x - mean) / np.sqrt(share @ (x - mean) ** 2)
    peer = LogisticRegression(
        C=1 / penalty, tol=1e-12, max_iter=10_000, solver="newton-cholesky"
    ).fit(x, np.repeat([0, 1], [800, 500]), sample_weight=share)
    expected = w_q * np.exp(peer.decision_function(x[:800]))
    assert model.weights_ == pytest.approx(expected / expected.mean(), rel=1e-5)


def test_gaussian_log_ratio():
    q, p = shifted(20_000, 20_000, 2)
    model = InversePropensityWeighting(n_penalties=20, n_folds=5).fit(q, p)
    assert model.coef_ * 1 / [m.scale for m in model._problem.margins] == pytest.approx(
        [0.4, 0.4], abs=0.06
    )
    assert model.losses_.shape == model.penalties_.shape == (20,)


def test_path_equals_single_fits_of_each_fold():
    rng = np.random.default_rng(2)
    cells, folds = 60, 4
    design = np.concatenate([np.ones((1, cells)), rng.normal(size=(3, cells))])
    held_q = rng.exponential(size=(cells, folds))
    held_p = rng.exponential(size=(cells, folds)) * np.exp(design[1])[:, None]
    held_q, held_p = held_q / held_q.sum(axis=0), held_p / held_p.sum(axis=0)

    def training(held):
        rest = held.sum(axis=1, keepdims=True) - held
        return np.column_stack([rest / rest.sum(axis=0), held.sum(axis=1) / held.sum()])

    penalties = np.geomspace(10, 1e-5, 40)
    path = LogisticPath(design, training(held_q), training(held_p))
    losses, thetas = path.held_out(penalties, held_q, held_p)
    for place in (0, 13, 39):
        for fold in range(folds):
            one = LogisticPath(design, training(held_q)[:, [fold]], training(held_p)[:, [fold]])
            theta, eta, _, fine = one.solve(penalties[place], np.zeros((1, 4)), None, 1e-24)
            assert fine
            loss = (
                held_q[:, fold] @ np.logaddexp(0, eta[:, 0])
                + held_p[:, fold] @ np.logaddexp(0, -eta[:, 0])
            ) / 2
            assert losses[place, fold] == pytest.approx(loss, abs=1e-6)
        everything = LogisticPath(design, training(held_q)[:, [-1]], training(held_p)[:, [-1]])
        theta = everything.solve(penalties[place], np.zeros((1, 4)), None, 1e-24)[0]
        assert thetas[place] == pytest.approx(theta[0], abs=1e-3)


def test_cells_are_rows():
    """Twenty copies of each row are one cell each, and the fit is that of the rows once."""
    q, p = shifted(60, 50, 2)
    once = InversePropensityWeighting(penalty=0.01).fit(q, p)
    often = InversePropensityWeighting(penalty=0.01).fit(np.tile(q, (20, 1)), np.tile(p, (20, 1)))
    assert often.weights_[:60] == pytest.approx(once.weights_)


def test_choice_of_the_penalty():
    q, p = shifted(300, 300, 8, shift=0.1)
    least = InversePropensityWeighting(n_folds=5).fit(q, p)
    simple = InversePropensityWeighting(n_folds=5, choice="one_se").fit(q, p)
    place = int(np.argmin(least.losses_))
    assert least.penalty_ == least.penalties_[place]
    assert simple.penalty_ > least.penalty_
    chosen = int(np.flatnonzero(simple.penalties_ == simple.penalty_)[0])
    limit = least.losses_[place] + least.loss_errors_[place]
    assert least.losses_[chosen] <= limit < least.losses_[chosen - 1]
    assert simple.diagnostics().effective_sample_size > least.diagnostics().effective_sample_size


def test_cap():
    q, p = shifted(shift=0.8)
    free = InversePropensityWeighting(penalty=0.0).fit(q, p)
    model = InversePropensityWeighting(penalty=0.0, cap=4.0).fit(q, p)
    assert free.weights_.max() > 6
    assert model.weights_.max() == pytest.approx(4.0)
    below = model.weights_ < 4.0 - 1e-9
    ratio = model.weights_[below] / free.weights_[below]
    assert ratio == pytest.approx(ratio[0])
    assert "The cap lowers" in model.diagnostics().status
    far = np.full((1, 3), 50.0)
    assert model.log_ratio(far) == pytest.approx(np.log(4.0))


def test_refusals():
    q, p = shifted()
    with pytest.raises(OptionError, match="Unknown penalty 'none'. Choose 'cv' or a number"):
        InversePropensityWeighting(penalty="none").fit(q, p)
    with pytest.raises(OptionError, match="Unknown choice 'best'"):
        InversePropensityWeighting(choice="best").fit(q, p)
    with pytest.raises(OptionError, match="penalty is -1"):
        InversePropensityWeighting(penalty=-1).fit(q, p)
    with pytest.raises(OptionError, match="bins is 1; give a whole number, 2 or more"):
        InversePropensityWeighting(bins=1).fit(q, p)
    with pytest.raises(OptionError, match="needs rows of p, not totals"):
        InversePropensityWeighting().fit(q, targets={"x0": 0.1})
    with pytest.raises(OptionError, match="leaves a fold without rows of q"):
        InversePropensityWeighting(n_folds=9).fit(q[:5], p)
    apart = np.arange(20.0)[:, None]
    with pytest.raises(ConvergenceError, match="tell q from p without error"):
        InversePropensityWeighting(penalty=0.0).fit(apart, apart + 100)


def test_adult_by_age(shared_data):
    table = pq.read_table(shared_data / "adult.parquet")
    young = pa.array(table["age"].to_numpy() < 40)
    rest = table.drop_columns(["age", "class", "fnlwgt"])
    q, p = rest.filter(young), rest.filter(pa.compute.invert(young))
    model = InversePropensityWeighting(n_penalties=12, n_folds=4, bins=5).fit(q, p)
    report = model.diagnostics()
    assert report.largest_before > 0.6
    assert report.largest_after < 0.5 * report.largest_before
    assert model.losses_.min() < 0.6 < np.log(2)


def test_runaway_coefficients_without_a_penalty_are_told(shared_data):
    """Quasi-separation on Adult: some coefficients have no limit while the others have."""
    table = pq.read_table(shared_data / "adult.parquet")
    young = pc.less(table["age"], 40)
    q = table.filter(young).drop_columns(["age", "fnlwgt", "education"])
    p = table.filter(pc.invert(young)).drop_columns(["age", "fnlwgt", "education"])
    with pytest.raises(ConvergenceError, match="the odds have no limit; give a larger penalty"):
        InversePropensityWeighting(penalty=0).fit(q, p)
