import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from tests.select.games import shapley_of
from tests.select.nearest import Nearest, accuracy

import dpdq.select.monte_carlo_shapley as room
from dpdq.errors import DataError, InputTypeError, NotFittedError, OptionError
from dpdq.select import DataShapley, KNNShapley, LeaveOneOut, Values

RNG = np.random.default_rng(5)
X12, Y12 = RNG.normal(size=(12, 2)), np.array([0, 1] * 6)
T, YT = RNG.normal(size=(25, 2)), RNG.integers(0, 2, 25)


def worth(rows):
    """Right predictions of one nearest neighbour; of the most frequent label without any."""
    rows = list(rows)
    if not rows:
        return float((YT == 0).mean())
    nearest = ((T[:, None] - X12[rows]) ** 2).sum(axis=2).argmin(axis=1)
    return float((Y12[rows][nearest] == YT).mean())


def test_exact_values_equal_brute_force():
    found = DataShapley(Nearest(), accuracy).fit(X12, Y12).values(T, YT)
    np.testing.assert_allclose(found.values, shapley_of(worth, 12), atol=1e-14)
    assert found.values.sum() == pytest.approx(found.all_rows - found.no_rows, abs=1e-14)
    assert found.fits == 2**12 - 1
    assert found.low is None


@pytest.mark.parametrize("truncation", [0.0, 0.05])
def test_scans_agree_with_brute_force(monkeypatch, truncation):
    """12 rows, 95 % intervals: that 5 or more of 12 miss has a probability below 1e-3 for
    independent rows at coverage 0.95; the largest error stays within 6 standard errors."""
    monkeypatch.setattr(room, "_EXACT", 0)
    truth = shapley_of(worth, 12)
    found = (
        DataShapley(
            Nearest(),
            accuracy,
            max_permutations=300,
            tolerance=0.0,
            truncation=truncation,
            random_state=1,
        )
        .fit(X12, Y12)
        .values(T, YT)
    )
    assert found.values.sum() == pytest.approx(worth(range(12)) - worth(()), abs=1e-12)
    if truncation == 0:
        assert (np.abs(found.values - truth) < 6 * found.standard_error).all()
        assert ((found.low <= truth) & (truth <= found.high)).sum() >= 8
        assert found.fits == 300 * 11 + 1
    else:
        assert np.abs(found.values - truth).max() < 0.05
        assert found.fits < 300 * 11 + 1


def test_symmetric_null_and_additive():
    X = X12[:9].copy()
    X[3] = X[7]
    y = Y12[:9].copy()
    y[3] = y[7]
    X[8], y[8] = [500.0, 500.0], 2  # near to no test row; alone it makes all predictions wrong
    model = DataShapley(Nearest(), accuracy).fit(X, y)
    whole, a, b = model.values(T, YT), model.values(T[:10], YT[:10]), model.values(T[10:], YT[10:])
    assert whole.values[3] == pytest.approx(whole.values[7], abs=1e-15)
    np.testing.assert_allclose(25 * whole.values, 10 * a.values + 15 * b.values, atol=1e-12)
    np.testing.assert_allclose(Values.merge([a, b]).values, whole.values, atol=1e-14)

    class Ignores(Nearest):
        def fit(self, X, y):
            seen = X[:, 0] < 100
            if not seen.any():  # as good as nothing
                X, y, seen = np.zeros((1, 2)), np.array([0]), np.array([True])
            return super().fit(X[seen], y[seen])

    y[8] = 0  # and what Ignores says without any row is 0 as well: a null player
    null = DataShapley(Ignores(), accuracy).fit(X, y).values(T, YT)
    assert null.no_rows == float((YT == 0).mean())
    assert null.values[8] == pytest.approx(0.0, abs=1e-15)


def test_resumed_run_equals_uninterrupted_to_the_bit(tmp_path):
    X, y = RNG.normal(size=(30, 2)), RNG.integers(0, 2, 30)

    def run(permutations, save=None, seed=3):
        model = DataShapley(
            Nearest(), accuracy, max_permutations=permutations, tolerance=0.0, random_state=seed
        )
        return model.fit(X, y).values(T, YT, save=save)

    path = tmp_path / "values.zip"
    whole = run(46)
    run(14, path)  # seven pairs: not a whole number of looks
    resumed = run(46, path)
    for name in ("values", "standard_error", "low", "high"):
        assert getattr(resumed, name).tobytes() == getattr(whole, name).tobytes()
    assert resumed.fits == whole.fits
    assert run(46, path, seed=None).values.tobytes() == whole.values.tobytes()
    with pytest.raises(DataError, match="begun with another random_state"):
        run(46, path, seed=4)
    with pytest.raises(DataError, match="holds values of other data, another model or other opt"):
        DataShapley(Nearest(), accuracy).fit(X + 1, y).values(T, YT, save=path)


def test_killed_between_looks_resumes(tmp_path, monkeypatch):
    X, y = RNG.normal(size=(20, 2)), RNG.integers(0, 2, 20)
    path = tmp_path / "values.zip"
    model = DataShapley(Nearest(), accuracy, max_permutations=40, tolerance=0, random_state=0)
    whole = model.fit(X, y).values(T, YT)
    pair, calls = room._pair_of_scans, []

    def dies(*args):
        calls.append(1)
        if len(calls) == 13:
            raise KeyboardInterrupt
        return pair(*args)

    monkeypatch.setattr(room, "_pair_of_scans", dies)
    with pytest.raises(KeyboardInterrupt):
        model.values(T, YT, save=path)
    monkeypatch.setattr(room, "_pair_of_scans", pair)
    assert model.values(T, YT, save=path).values.tobytes() == whole.values.tobytes()


def test_processes_change_nothing():
    X, y = RNG.normal(size=(14, 2)), np.array([0, 1] * 7)
    options = {"max_permutations": 4, "tolerance": 0.0, "random_state": 0}
    one = DataShapley(LogisticRegression(), **options).fit(X, y).values(T, YT)
    two = DataShapley(LogisticRegression(), n_jobs=2, **options).fit(X, y).values(T, YT)
    assert one.values.tobytes() == two.values.tobytes()


def test_stops_at_the_relative_error_and_says_when_it_does_not():
    X, y = RNG.normal(size=(15, 2)), RNG.integers(0, 2, 15)
    options = {"truncation": 0.0, "random_state": 0}
    early = DataShapley(Nearest(), accuracy, max_permutations=2000, tolerance=0.3, **options)
    found = early.fit(X, y).values(T, YT)
    assert found.fits < 2000 * 14
    assert found.standard_error.sum() <= 0.3 * np.abs(found.values).sum()
    late = DataShapley(Nearest(), accuracy, max_permutations=10, tolerance=0.001, **options)
    assert "raise max_permutations before ranking" in late.fit(X, y).values(T, YT).status


def test_bernstein_intervals_are_wider_and_cover(monkeypatch):
    monkeypatch.setattr(room, "_EXACT", 0)
    options = {"max_permutations": 200, "tolerance": 0.0, "truncation": 0.0, "random_state": 0}
    normal = DataShapley(Nearest(), accuracy, **options).fit(X12, Y12).values(T, YT)
    bound = DataShapley(Nearest(), accuracy, interval="bernstein", metric_range=1, **options)
    found = bound.fit(X12, Y12).values(T, YT)
    np.testing.assert_array_equal(found.values, normal.values)
    assert (found.high - found.low > normal.high - normal.low).all()
    truth = shapley_of(worth, 12)
    assert ((found.low <= truth) & (truth <= found.high)).all()


def test_price_and_refusal_tell_fits_and_seconds():
    X, y = RNG.normal(size=(50, 2)), RNG.integers(0, 2, 50)
    model = DataShapley(Nearest(), accuracy, max_permutations=100).fit(X, y)
    price = model.price(T, YT)
    assert price.fits == 100 * 49 + 1
    assert 0 < price.seconds < 60
    assert price.status.startswith("at most 4,901 fits, about ")
    model.set_params(max_fits=1000)
    with pytest.raises(OptionError, match="this might take at most 4,901 fits, about .* max_fits"):
        model.values(T, YT)
    groups = np.arange(50) % 4
    assert model.price(T, YT, groups=groups).fits == 15
    assert model.values(T, YT, groups=groups).fits == 15


def test_groups_are_players():
    """A group of wrong labels is worth less than nothing; twins of one source split its worth."""
    rng = np.random.default_rng(0)
    X, Z = rng.normal(size=(240, 3)), rng.normal(size=(500, 3))
    y, z = (X[:, 0] > 0).astype(int), (Z[:, 0] > 0).astype(int)
    source = np.repeat(["a", "b", "c", "wrong"], 60)
    y[180:] = 1 - y[180:]
    X[60:120], y[60:120] = X[:60], y[:60]
    found = DataShapley(LogisticRegression()).fit(X, y).values(Z, z, groups=source)
    assert found.names == ("a", "b", "c", "wrong")
    assert found.values[0] == pytest.approx(found.values[1], abs=1e-12)
    assert found.values[3] < 0 < found.values[:3].min()
    assert found.values.sum() == pytest.approx(found.all_rows - found.no_rows)
    many = np.arange(240) // 15  # 16 groups: by scans
    scans = DataShapley(LogisticRegression(), max_permutations=4, random_state=0).fit(X, y)
    by_scan = scans.values(Z, z, groups=many)
    assert len(by_scan) == 16
    assert by_scan.values[12:].mean() < 0 < by_scan.values[:12].mean()
    with pytest.raises(DataError, match="values of groups"):
        found.against_random(LogisticRegression(), X, y, Z, z, n=2)


def test_regression_and_named_metric():
    X = RNG.normal(size=(10, 2))
    y = X[:, 0] + 0.1 * RNG.normal(size=10)
    Z = RNG.normal(size=(50, 2))
    found = DataShapley(Ridge(1.0), "r2").fit(X, y).values(Z, Z[:, 0])
    assert found.all_rows - found.no_rows == pytest.approx(found.values.sum())
    assert found.all_rows > 0.5
    small = DataShapley(Ridge(1.0), min_rows=11).fit(X, y).values(Z, Z[:, 0])
    np.testing.assert_array_equal(small.values, 0.0)


def test_failure_texts():
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        DataShapley(Nearest()).values(T, YT)
    with pytest.raises(InputTypeError, match="neither a classifier nor a regressor"):
        DataShapley(StandardScaler()).fit(X12, Y12)
    with pytest.raises(OptionError, match="Unknown interval 'x'. Choose one of 'normal', 'bern"):
        DataShapley(Nearest(), interval="x").fit(X12, Y12)
    with pytest.raises(OptionError, match="'bernstein' needs metric_range"):
        DataShapley(Nearest(), interval="bernstein").fit(X12, Y12)
    with pytest.raises(OptionError, match="max_permutations is 2; expected at least 4"):
        DataShapley(Nearest(), max_permutations=2).fit(X12, Y12)
    with pytest.raises(OptionError, match="n_jobs is 0"):
        DataShapley(Nearest(), n_jobs=0).fit(X12, Y12)
    with pytest.raises(DataError, match=r"groups has shape \(3,\); expected \(12,\)"):
        DataShapley(Nearest()).fit(X12, Y12).values(T, YT, groups=[1, 2, 3])


def flipped_cancer(seed, n):
    """n real training rows with a tenth of the labels wrong, and the other rows."""
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    train, test = order[:n], order[n:]
    labels = y[train].copy()
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.choice(n, n // 10, replace=False)] = True
    labels[wrong] = 1 - labels[wrong]
    return X[train], labels, X[test], y[test], wrong


@pytest.mark.slow
def test_finds_flipped_labels_better_than_leave_one_out_and_random():
    """Areas under the curve on eight splits of real data; the mean difference to leave one out
    and to 0.5 is more than 3.5 of its standard errors (below 1 % by Student's law with 7 degrees
    of freedom; splits and seeds are fixed, so that chance enters once)."""
    gains, areas = [], []
    for seed in range(8):
        X, y, Z, z, wrong = flipped_cancer(seed, 60)
        model = DecisionTreeClassifier(max_depth=2, random_state=0)
        scans = DataShapley(model, max_permutations=20, truncation=0.02, random_state=0)
        shapley = scans.fit(X, y).values(Z, z)
        left = LeaveOneOut(model).fit(X, y).values(Z, z)
        areas.append(roc_auc_score(wrong, -shapley.values))
        gains.append(areas[-1] - roc_auc_score(wrong, -left.values))
    for sample in (np.array(areas) - 0.5, np.array(gains)):
        assert sample.mean() > 3.5 * sample.std(ddof=1) / np.sqrt(8)


def test_pipelines_and_tables_pass_through():
    pd = pytest.importorskip("pandas")
    X, y, Z, z, _ = flipped_cancer(0, 5)
    frame, test = pd.DataFrame(X[:, :4]), pd.DataFrame(Z[:40, :4])
    y[:2], y[2:] = 0, 1
    model = make_pipeline(StandardScaler(), LogisticRegression())
    found = DataShapley(model).fit(frame, y).values(test, z[:40])
    arrays = DataShapley(model).fit(X[:, :4], y).values(Z[:40, :4], z[:40])
    np.testing.assert_allclose(found.values, arrays.values, atol=1e-12)
    assert KNNShapley().fit(X, y).values(Z, z).values.shape == (5,)
