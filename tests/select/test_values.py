import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from dpdq.errors import DataError, OptionError
from dpdq.select import KNNShapley, Values, removal_control, removal_curve, top_k


@pytest.fixture(scope="module")
def digits():
    """Real digits: 400 training rows, of which 80 with wrong labels; 300 to value on, the rest."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(X))
    X, y = X[order] / 16, y[order]
    labels = y[:400].copy()
    labels[:80] = (labels[:80] + rng.integers(1, 10, 80)) % 10
    found = KNNShapley().fit(X[:400], labels).values(X[400:700], y[400:700])
    return found, X[:400], labels, X[700:], y[700:]


def test_removing_planted_noise_beats_random(digits):
    found, *data = digits
    control = found.against_random(KNeighborsClassifier(1), *data, n=80, random_state=0)
    assert control.gain.low > 0.05
    assert control.without_lowest > control.all_rows
    assert control.without_random.low < control.without_random.estimate
    assert control.gain.estimate == pytest.approx(
        control.without_lowest - control.without_random.estimate
    )
    assert control.fits == 22
    assert control.seconds > 0
    assert "helps" in control.status
    same = removal_control(found.values, KNeighborsClassifier(1), *data, fraction=0.2,
                           random_state=0, n_jobs=2)  # fmt: skip
    assert same.gain.estimate == control.gain.estimate


def test_random_values_show_no_gain(digits):
    """10 values at random, 95 % intervals: 7 or more misses have a probability of 9e-8 at coverage
    0.95."""
    _, X, y, T, z = digits
    data = X, y, T[:300], z[:300]
    misses = 0
    for seed in range(10):
        values = np.random.default_rng(seed).normal(size=400)
        gain = removal_control(values, KNeighborsClassifier(1), *data, n=80, n_draws=5,
                               random_state=seed).gain  # fmt: skip
        misses += not gain.low <= 0 <= gain.high
    assert misses < 7


def test_removal_curves_part_on_real_data(digits):
    found, *data = digits
    curve = removal_curve(found.values, KNeighborsClassifier(3), *data, fractions=(0.1, 0.2, 0.3),
                          n_draws=4, random_state=0)  # fmt: skip
    assert (curve.lowest > curve.random_high).all()
    assert (curve.highest < curve.random_low).all()
    assert curve.fits == 1 + 3 * 6
    assert "at 3 of 3 fractions removing the lowest rows is better" in curve.status


def test_values_are_a_utility(digits):
    found, *_ = digits
    chosen = top_k(found.values, fraction=0.8)
    assert np.mean(chosen.rows < 80) < 0.08  # wrong labels are 20 % of the pool
    assert len(found) == 400
    assert set(found.to_dict()) > {"values", "seconds", "fits", "status"}


def test_numbers_are_scored_by_squared_error():
    rng = np.random.default_rng(1)
    X, T = rng.normal(size=(100, 2)), rng.normal(size=(200, 2))
    y = X[:, 0] + 0.1 * rng.normal(size=100)
    y[:10] += 20
    values = np.r_[np.zeros(10), np.ones(90)]
    control = removal_control(values, LinearRegression(), X, y, T, T[:, 0], n=10, random_state=0)
    assert control.score == "minus squared error"
    assert control.without_lowest > -0.1
    assert control.gain.low > 0.5


def test_merge_bounds_the_error_of_shared_permutations():
    def part(value, error, rows):
        return Values(np.array([value]), "m", np.array([error]), interval="permutations",
                      n_test=rows, test_weight=float(rows))  # fmt: skip

    joined = Values.merge([part(1.0, 0.1, 10), part(2.0, 0.3, 30)])
    assert joined.values[0] == pytest.approx(1.75)
    assert joined.standard_error[0] == pytest.approx(0.25)
    assert joined.n_test == 40


def test_failure_texts(digits):
    found, X, y, T, z = digits
    model = LogisticRegression()
    with pytest.raises(OptionError, match="give one of n and fraction"):
        found.against_random(model, X, y, T, z)
    with pytest.raises(OptionError, match="400 of 400 rows would be removed"):
        found.against_random(model, X, y, T, z, n=400)
    with pytest.raises(OptionError, match="n_draws is 1; an interval needs at least 2"):
        found.against_random(model, X, y, T, z, n=4, n_draws=1)
    with pytest.raises(DataError, match=r"y has shape \(399,\); expected \(400,\), one a row of t"):
        found.against_random(model, X, y[1:], T, z, n=4)
    with pytest.raises(OptionError, match="expected shares between 0 and 1"):
        removal_curve(found.values, model, X, y, T, z, fractions=(1.0,))
