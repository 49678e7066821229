import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import mean_squared_error
from tests.select.nearest import Nearest, accuracy

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.select import LeaveOneOut, Values

RNG = np.random.default_rng(8)
X, T = RNG.normal(size=(40, 3)) + 5, RNG.normal(size=(30, 3)) + 5
Y, YT = X[:, 0] + RNG.normal(size=40), T[:, 0] + RNG.normal(size=30)


@pytest.mark.parametrize(
    "model",
    [LinearRegression(), LinearRegression(fit_intercept=False), Ridge(3.0),
     Ridge(0.5, fit_intercept=False)],
)  # fmt: skip
def test_closed_form_equals_refits(model):
    quick = LeaveOneOut(model).fit(X, Y).values(T, YT)
    slow = LeaveOneOut(model, solver="refit").fit(X, Y).values(T, YT)
    np.testing.assert_allclose(quick.values, slow.values, atol=1e-11)
    assert quick.all_rows == pytest.approx(slow.all_rows)
    assert (quick.fits, slow.fits) == (0, 41)


def test_values_equal_their_definition():
    y, z = (Y > 5).astype(int), (YT > 5).astype(int)
    found = LeaveOneOut(Nearest(), accuracy).fit(X, y).values(T, z)
    whole = accuracy(Nearest().fit(X, y), T, z)
    for row in range(0, 40, 7):
        keep = np.arange(40) != row
        without = accuracy(Nearest().fit(X[keep], y[keep]), T, z)
        assert found.values[row] == pytest.approx(whole - without)
    assert found.all_rows == whole
    model = LeaveOneOut(Nearest(), accuracy).fit(X, y)
    parts = [model.values(T[:9], z[:9]), model.values(T[9:], z[9:])]
    np.testing.assert_allclose(Values.merge(parts).values, found.values, atol=1e-14)


def test_twins_are_worth_nothing_each():
    y = (Y > 5).astype(int)
    found = LeaveOneOut(Nearest(), accuracy).fit(np.vstack([X, X]), np.append(y, y))
    np.testing.assert_array_equal(found.values(T, (YT > 5).astype(int)).values, 0.0)


def test_collinear_columns_fall_back_to_refits_or_are_refused():
    doubled = np.column_stack([X, X[:, 0]])
    test = np.column_stack([T, T[:, 0]])
    found = LeaveOneOut(LinearRegression()).fit(doubled, Y).values(test, YT)
    plain = LeaveOneOut(LinearRegression()).fit(X, Y).values(T, YT)
    assert found.fits == 41
    np.testing.assert_allclose(found.values, plain.values, atol=1e-9)
    with pytest.raises(DataError, match="fit without some row is not unique"):
        LeaveOneOut(LinearRegression(), solver="closed form").fit(doubled, Y).values(test, YT)
    alone = X.copy()
    alone[:, 2] = np.arange(40) == 4  # one row alone settles a coefficient
    with pytest.raises(DataError, match="a row stands alone"):
        LeaveOneOut(LinearRegression(), solver="closed form").fit(alone, Y).values(T, YT)


def test_real_diabetes_without_its_worst_row():
    data, y = load_diabetes(return_X_y=True)
    model = LeaveOneOut(Ridge(0.1)).fit(data[:300], y[:300])
    found = model.values(data[300:], y[300:])
    worst = int(found.values.argmin())
    keep = np.arange(300) != worst
    refitted = Ridge(0.1).fit(data[:300][keep], y[:300][keep]).predict(data[300:])
    assert mean_squared_error(y[300:], refitted) == pytest.approx(
        -found.all_rows + found.values[worst], rel=1e-10
    )
    assert model.price(data[300:], y[300:]).fits == 0


def test_price_refusal_and_failure_texts():
    y, z = (Y > 5).astype(int), (YT > 5).astype(int)
    model = LeaveOneOut(Nearest(), accuracy, max_fits=10).fit(X, y)
    assert model.price(T, z).fits == 41
    with pytest.raises(OptionError, match="this takes 41 fits, about .* and max_fits is 10"):
        model.values(T, z)
    with pytest.raises(OptionError, match="Unknown solver 'x'. Choose one of 'auto', 'refit', 'c"):
        LeaveOneOut(Nearest(), solver="x").fit(X, y)
    with pytest.raises(OptionError, match="the closed form is for LinearRegression or Ridge"):
        LeaveOneOut(Nearest(), solver="closed form").fit(X, y).values(T, z)
    with pytest.raises(DataError, match="leaving one out needs at least 2"):
        LeaveOneOut(Nearest()).fit(X[:1], y[:1])
    with pytest.raises(DataError, match="y must hold numbers for a regression"):
        LeaveOneOut(Ridge()).fit(X, ["a"] * 40)
    with pytest.raises(InputTypeError, match="give a scikit-learn classifier or regressor"):
        LeaveOneOut(3).fit(X, y)
