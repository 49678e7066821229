import itertools

import numpy as np
import pytest
from tests.select.games import shapley_of

from dpdq.errors import DataError, NotFittedError, OptionError
from dpdq.select import KNNShapley, Values, top_k

RNG = np.random.default_rng(3)


def recursion(distances, t, k):
    """The published recursion for one test row without ties."""
    order = np.argsort(distances)
    t = t.astype(float)
    n = len(t)
    s = np.empty(n)
    s[order[-1]] = t[order[-1]] / max(n, k)
    for i in range(n - 1, 0, -1):
        here, after = order[i - 1], order[i]
        s[here] = s[after] + (t[here] - t[after]) / k * min(k, i) / i
    return s


def share_of_votes(distances, t, k):
    """The game: right votes among the K nearest over K, ties on the edge shared."""

    def worth(rows):
        rows = np.array(rows, dtype=int)
        total, left = 0.0, k
        for level in np.unique(distances[rows]):
            group = rows[distances[rows] == level]
            taken = min(left, len(group))
            total += t[group].mean() * taken
            left -= taken
        return total / k

    return worth


@pytest.mark.parametrize("k", [1, 3, 5, 12, 20])
@pytest.mark.parametrize("n", [12, 1, 2])
def test_values_equal_brute_force(n, k):
    X, T = RNG.normal(size=(n, 2)), RNG.normal(size=(3, 2))
    y, yt = RNG.integers(0, 2, n), RNG.integers(0, 2, 3)
    found = KNNShapley(n_neighbors=k).fit(X, y).values(T, yt)
    expected = np.mean(
        [
            shapley_of(share_of_votes(np.linalg.norm(X - T[j], axis=1), y == yt[j], k), n)
            for j in range(3)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-14)
    assert found.no_rows == 0.0


@pytest.mark.parametrize("k", [1, 2, 4])
def test_equal_distances_share_as_in_the_mean_game(k):
    X = np.array([0, 0, 1, 1, 1, -1, 2, 3, 3, 3, -2, 5.0])
    y = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0])
    for label in (0, 1):
        expected = shapley_of(share_of_votes(np.abs(X), y == label, k), 12)
        found = KNNShapley(n_neighbors=k).fit(X, y).values([0.0], [label])
        np.testing.assert_allclose(found.values, expected, atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_regression_equals_brute_force_and_shares_ties(k):
    """With ties: the mean over all orders within the ties."""
    distances = np.array([0.0, 1, 1, 1, 2, 3, 3, 4])
    X, n = distances[:, None], 8
    y = RNG.normal(size=n)
    target, m = 0.7, y.mean()

    def game(order):
        place = {row: rank for rank, row in enumerate(order)}

        def worth(rows):
            nearest = sorted(rows, key=place.__getitem__)[:k]
            return -((m + sum(y[i] - m for i in nearest) / k - target) ** 2)

        return worth

    orders = [
        (0, *a, 4, *b, 7)
        for a in itertools.permutations((1, 2, 3))
        for b in itertools.permutations((5, 6))
    ]
    expected = np.mean([shapley_of(game(order), n) for order in orders], axis=0)
    model = KNNShapley(n_neighbors=k, task="regression").fit(X, y)
    found = model.values([[0.0]], [target])
    np.testing.assert_allclose(found.values, expected, atol=1e-13)
    assert found.no_rows == pytest.approx(-((target - m) ** 2))
    assert found.all_rows == pytest.approx(np.mean([game(o)(range(n)) for o in orders]))
    untied = RNG.permutation(n) + 0.5
    expected = shapley_of(game(np.argsort(untied)), n)
    found = KNNShapley(n_neighbors=k, task="regression").fit(untied, y).values([0.0], [target])
    np.testing.assert_allclose(found.values, expected, atol=1e-13)


def test_equals_the_recursion_at_size():
    X, T = RNG.normal(size=(5000, 16)), RNG.normal(size=(40, 16))
    y, yt = RNG.integers(0, 4, 5000), RNG.integers(0, 5, 40)
    found = KNNShapley().fit(X, y).values(T, yt)
    rows = [recursion(np.linalg.norm(X - t, axis=1), y == c, 5) for t, c in zip(T, yt, strict=True)]
    assert np.abs(found.values - np.mean(rows, axis=0)).max() < 1e-12
    nearest = np.argsort(np.linalg.norm(X[None] - T[:, None], axis=2), axis=1)[:, :5]
    assert found.values.sum() == pytest.approx((y[nearest] == yt[:, None]).mean())
    assert found.all_rows == pytest.approx(found.values.sum())


def test_order_is_exact_where_the_matrix_product_is_not():
    """Points at 1e6 whose distances differ by 1e-9 of the square: the product errs by more."""
    n = 400
    offsets = np.arange(1, n + 1) * 1e-6
    shuffled = RNG.permutation(n)
    X = np.column_stack([offsets[shuffled], np.where(np.arange(n) % 2, 3e4, -3e4)])
    X[::2] *= -1  # half on either side
    y = RNG.integers(0, 2, n)
    T = np.array([[0.0, 3e4]])
    found = KNNShapley(n_neighbors=3).fit(X, y).values(T, [1])
    exact = np.sqrt(((X - T[0]) ** 2).sum(axis=1))
    assert len(np.unique(exact)) == n
    np.testing.assert_allclose(found.values, recursion(exact, y == 1, 3), atol=1e-13)


def test_symmetric_null_and_additive():
    X = RNG.normal(size=(60, 3))
    X[10] = X[20]
    y = RNG.integers(0, 2, 60)
    y[10] = y[20] = 1
    y[5] = 7  # a label that no test row has; its votes are wrong, so it is no help anywhere
    T, yt = RNG.normal(size=(9, 3)), RNG.integers(0, 2, 9)
    model = KNNShapley(n_neighbors=3).fit(X, y)
    whole = model.values(T, yt)
    assert whole.values[10] == whole.values[20]
    assert whole.values[5] < 0
    a, b = model.values(T[:4], yt[:4]), model.values(T[4:], yt[4:])
    np.testing.assert_allclose(9 * whole.values, 4 * a.values + 5 * b.values, atol=1e-13)
    far = KNNShapley(n_neighbors=60).fit(X, y).values(T, yt)  # every row votes: no one crowds out
    assert far.values[5] == 0.0


def test_row_order_changes_nothing_and_weights_repeat():
    X = RNG.integers(0, 4, size=(200, 2))
    y, T, yt = RNG.integers(0, 3, 200), RNG.integers(0, 4, size=(30, 2)), RNG.integers(0, 3, 30)
    found = KNNShapley().fit(X, y).values(T, yt).values
    order = RNG.permutation(200)
    again = KNNShapley().fit(X[order], y[order]).values(T, yt).values
    np.testing.assert_allclose(again, found[order], atol=1e-15)
    times = RNG.integers(0, 3, 30)
    weighted = KNNShapley().fit(X, y).values(T, yt, weights=0.5 * times)
    repeated = KNNShapley().fit(X, y).values(np.repeat(T, times, axis=0), np.repeat(yt, times))
    np.testing.assert_allclose(weighted.values, repeated.values, atol=1e-15)


def test_merged_shards_equal_the_whole():
    X, T = RNG.normal(size=(300, 4)), RNG.normal(size=(50, 4))
    y, yt = RNG.integers(0, 3, 300), RNG.integers(0, 3, 50)
    model = KNNShapley().fit(X, y)
    whole = model.values(T, yt, intervals=True)
    parts = [model.values(T[a:b], yt[a:b], intervals=True) for a, b in [(0, 7), (7, 30), (30, 50)]]
    joined = Values.merge(parts)
    np.testing.assert_allclose(joined.values, whole.values, atol=1e-15)
    np.testing.assert_allclose(joined.standard_error, whole.standard_error, rtol=1e-9)
    np.testing.assert_allclose(joined.low, whole.low, rtol=1e-6, atol=1e-12)
    assert joined.n_test == 50
    assert joined.all_rows == pytest.approx(whole.all_rows)
    assert top_k(joined.values, n=20).rows.tolist() == top_k(whole.values, n=20).rows.tolist()
    w = RNG.uniform(0.1, 2, 50)
    halves = [model.values(T[s], yt[s], weights=w[s]) for s in (slice(20), slice(20, None))]
    np.testing.assert_allclose(
        Values.merge(halves).values, model.values(T, yt, weights=w).values, atol=1e-15
    )


def test_intervals_over_test_rows_cover():
    """One row's value over all of p is known from 40,000 test rows; 95 % intervals from 200 cover
    it in 150 repeats; fewer than 120 have a probability below 1e-6 for a coverage from 0.92 on.
    The sd over repeats is known to 6 % and must agree with the standard error within 35 %."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 1)), rng.integers(0, 2, 20)

    def draw(n):
        T = rng.normal(size=(n, 1))
        return T, (rng.random(n) < 1 / (1 + np.exp(-2 * T[:, 0]))).astype(int)

    model = KNNShapley(n_neighbors=3).fit(X, y)
    truth = model.values(*draw(20_000)).values[0]
    repeats = [model.values(*draw(200), intervals=True) for _ in range(150)]
    assert sum(found.low[0] <= truth <= found.high[0] for found in repeats) >= 120
    sd = np.std([found.values[0] for found in repeats])
    assert 0.65 < np.mean([found.standard_error[0] for found in repeats]) / sd < 1.35


def test_threads_change_nothing(monkeypatch):
    import dpdq.select.knn_shapley as room

    X, T = RNG.normal(size=(2000, 8)), RNG.normal(size=(200, 8))
    y, yt = RNG.integers(0, 3, 2000), RNG.integers(0, 3, 200)
    found = KNNShapley().fit(X, y).values(T, yt).values
    monkeypatch.setattr(room, "parallel_map", lambda call, items: [call(item) for item in items])
    np.testing.assert_array_equal(KNNShapley().fit(X, y).values(T, yt).values, found)


def test_price_is_quoted_and_text_labels_work():
    X, T = RNG.normal(size=(500, 4)), RNG.normal(size=(40, 4))
    model = KNNShapley().fit(X, np.repeat(["cat", "dog"], 250))
    price = model.price(T, ["dog"] * 40)
    assert price.fits == 0
    assert price.comparisons == 20_000
    assert price.seconds < 5
    found = model.values(T, ["dog"] * 40)
    assert found.values[250:].mean() > found.values[:250].mean()
    assert found.seconds > 0
    assert found.fits == 0
    assert "40 test rows" in found.status
    assert found.to_dict()["method"] == "k-NN Shapley, 5 neighbours, classification"


def test_failure_texts():
    with pytest.raises(NotFittedError, match=r"call fit\(X, y\) first"):
        KNNShapley().values([[0.0]], [0])
    with pytest.raises(OptionError, match="Unknown task 'x'. Choose one of 'classification', 'reg"):
        KNNShapley(task="x").fit([[0.0]], [0])
    with pytest.raises(OptionError, match="n_neighbors is 0; expected a whole number from 1"):
        KNNShapley(0).fit([[0.0]], [0])
    with pytest.raises(DataError, match=r"y has shape \(2,\); expected \(1,\), one a row of X"):
        KNNShapley().fit([[0.0]], [0, 1])
    with pytest.raises(DataError, match=r"y is missing or infinite in 1 rows \(first at row 1\)"):
        KNNShapley().fit([[0.0], [1.0]], [0, np.nan])
    model = KNNShapley().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(DataError, match="X_test has 2 features and X has 1"):
        model.values([[0.0, 1.0]], [0])
    with pytest.raises(DataError, match="weights must be finite, not negative and not all zero"):
        model.values([[0.0]], [0], weights=[0])
    with pytest.raises(DataError, match="intervals over test rows need at least 2"):
        model.values([[0.0]], [0], intervals=True)
    with pytest.raises(DataError, match="merge got no parts"):
        Values.merge([])
    one, other = model.values([[0.0]], [0]), KNNShapley(1).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(DataError, match="merge shards of the test rows of one valuation"):
        Values.merge([one, other.values([[0.0]], [0])])


@pytest.mark.parametrize("seed", range(3))
def test_finds_flipped_labels_in_real_digits(seed):
    """10 % wrong labels: the area under the curve of ranking them lowest. Random ranking has 0.5
    with sd 0.026 at 130 wrong of 1,297; 0.9 is 15 of those away."""
    from sklearn.datasets import load_digits
    from sklearn.metrics import roc_auc_score

    X, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    train, test = order[:1297], order[1297:]
    labels = y[train].copy()
    wrong = rng.choice(1297, 130, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 130)) % 10
    found = KNNShapley().fit(X[train], labels).values(X[test], y[test])
    assert roc_auc_score(np.isin(np.arange(1297), wrong), -found.values) > 0.9


def test_finds_gross_errors_in_a_real_regression():
    """Diabetes (real, 442 rows): ten planted gross errors are nearly the ten lowest values."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    y = y.copy()
    wrong = np.random.default_rng(0).choice(300, 10, replace=False)
    y[wrong] += 1500.0
    found = KNNShapley(task="regression").fit(X[:300], y[:300]).values(X[300:], y[300:])
    assert len(set(np.argsort(found.values)[:12]) & set(wrong)) >= 9
