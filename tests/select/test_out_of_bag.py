import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier
from tests.select.nearest import Nearest

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.select import DataOOB, Values
from dpdq.select.out_of_bag import _bootstrap

RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(60, 2)), RNG.integers(0, 3, 60)


def seeds_of(model):
    """The seeds that the valuer draws, in its order: one for the model, then the samples'."""
    rng = np.random.default_rng(model.random_state)
    draw = [int(rng.integers(0, 2**31 - 1)) for _ in range(model.n_estimators + 1)]
    return draw[1:]


def test_values_equal_their_definition():
    model = DataOOB(Nearest(), n_estimators=40, random_state=1).fit(X, Y)
    found = model.values()
    right = [[] for _ in range(60)]
    for seed in seeds_of(model):
        sample = _bootstrap(60, seed)
        fitted = Nearest().fit(X[sample], Y[sample])
        for row in set(range(60)) - set(sample):
            right[row].append(fitted.predict(X[row : row + 1])[0] == Y[row])
    np.testing.assert_allclose(found.values, [np.mean(each) for each in right], atol=1e-15)
    assert found.fits == 40
    assert found.interval == "bootstrap samples"
    assert ((found.low <= found.values) & (found.values <= found.high)).all()


def test_intervals_cover_the_value_of_many_models():
    """60 values; the 95 % intervals of 60 models cover those of 1,500 in at least 45 (expected
    57; values of near rows are alike, so that the count varies more than a binomial one)."""
    few = DataOOB(Nearest(), n_estimators=60, random_state=0).fit(X, Y).values()
    many = DataOOB(Nearest(), n_estimators=1500, random_state=1).fit(X, Y).values()
    assert ((few.low <= many.values) & (many.values <= few.high)).sum() >= 45
    assert (many.high - many.low).mean() < 0.3 * (few.high - few.low).mean()


def test_regression_is_minus_squared_error_and_finds_gross_errors():
    data, y = load_diabetes(return_X_y=True)
    wrong = np.random.default_rng(0).choice(442, 10, replace=False)
    y = y.copy()
    y[wrong] += 1500
    model = DataOOB(KNeighborsRegressor(15), n_estimators=50, random_state=0).fit(data, y)
    found = model.values()
    assert (found.values < 0).all()
    assert set(np.argsort(found.values)[:10]) == set(wrong)
    tree = DataOOB(n_estimators=50, random_state=0).fit(data, y).values()
    assert set(np.argsort(tree.values)[:15]) >= set(wrong)


def test_finds_flipped_labels_in_real_digits():
    """10 % wrong of 600: the area under the curve has sd 0.039 for random values; 0.85 is 9."""
    data, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(data))[:600]
    labels = y[rows].copy()
    wrong = rng.choice(600, 60, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 60)) % 10
    found = DataOOB(n_estimators=60, random_state=0).fit(data[rows], labels).values()
    assert roc_auc_score(np.isin(np.arange(600), wrong), -found.values) > 0.85
    assert "most models contradict" in found.status


def test_seed_repeats_and_processes_change_nothing():
    options = {"n_estimators": 30, "random_state": 4}
    one = DataOOB(**options).fit(X, Y).values()
    again = DataOOB(DecisionTreeClassifier(), **options).fit(X, Y).values()
    two = DataOOB(n_jobs=2, **options).fit(X, Y).values()
    np.testing.assert_array_equal(one.values, again.values)
    np.testing.assert_array_equal(one.values, two.values)


def test_price_and_failure_texts():
    model = DataOOB(n_estimators=200).fit(X, Y)
    price = model.price()
    assert price.fits == 200
    assert 0 < price.seconds < 30
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        DataOOB().values()
    with pytest.raises(DataError, match="out of bag in 0 of 2 samples; raise n_estimators"):
        DataOOB(n_estimators=2).fit(X, Y).values()
    with pytest.raises(OptionError, match="n_estimators is 1; expected at least 2"):
        DataOOB(n_estimators=1).fit(X, Y)
    found = DataOOB(n_estimators=40, random_state=0).fit(X, Y).values()
    with pytest.raises(DataError, match="have no test rows to merge over"):
        Values.merge([found, found])
