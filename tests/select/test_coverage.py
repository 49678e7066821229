import numpy as np
import pytest

from dpdq.errors import DataError, OptionError
from dpdq.select import FacilityLocation, KCenter, top_k

X = np.random.default_rng(0).normal(size=(150, 4))


def similarity(x, kind, bandwidth=1.5):
    if kind == "cosine":
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return (1 + unit @ unit.T) / 2
    return np.exp(-((x[:, None] - x) ** 2).sum(axis=2) / (2 * bandwidth**2))


def plain_greedy(matrix, k, weights):
    """Every gain of every candidate at every step; column j stands for row j."""
    best, order, gains = np.zeros(len(matrix)), [], []
    for _ in range(k):
        gain = weights @ np.maximum(matrix - best[:, None], 0.0)
        gain[order] = -np.inf
        if not order:
            scale = gain.max()
        order.append(int((gain >= gain.max() - 1e-12 * scale).argmax()))  # ties: smallest number
        gains.append(gain.max())
        best = np.maximum(best, matrix[:, order[-1]])
    return order, gains


def value(matrix, rows):
    return matrix[:, list(rows)].max(axis=1).mean()


@pytest.mark.parametrize("kind", ["cosine", "rbf", "precomputed"])
@pytest.mark.parametrize("memory", [256, 0.05, 0])
def test_lazy_greedy_equals_greedy(kind, memory):
    rng = np.random.default_rng(1)
    for weights in (None, rng.gamma(1.0, size=150)):
        matrix = rng.uniform(size=(150, 150)) if kind == "precomputed" else similarity(X, kind)
        share = np.full(150, 1 / 150) if weights is None else weights / weights.sum()
        order, gains = plain_greedy(matrix, 60, share)
        search = FacilityLocation(kind, bandwidth=1.5, memory=memory)
        chosen = search.select(matrix if kind == "precomputed" else X, 60, weights=weights)
        assert search.order_.tolist() == order
        np.testing.assert_allclose(search.gains_, gains, rtol=1e-9, atol=1e-14)
        np.testing.assert_allclose(search.objective_, share @ matrix[:, order].max(axis=1))
        assert chosen.rows.tolist() == sorted(order)
        # nested: the first rows of a long run are a short run
        assert top_k(chosen.utility, n=20).rows.tolist() == sorted(order[:20])


def test_the_guarantee_holds_against_all_subsets():
    import itertools

    rng = np.random.default_rng(2)
    for _ in range(5):
        matrix = rng.uniform(size=(12, 12))
        best = max(value(matrix, rows) for rows in itertools.combinations(range(12), 3))
        search = FacilityLocation("precomputed")
        search.select(matrix, 3)
        assert (1 - 1 / np.e) * best <= search.objective_ <= best + 1e-12


def test_integer_weights_are_repeated_rows_and_zero_drops():
    counts = np.random.default_rng(3).integers(0, 4, 150)
    repeated = np.repeat(np.arange(150), counts)
    weighted, plain = FacilityLocation("rbf"), FacilityLocation("rbf")
    weighted.set_params(bandwidth=1.0)
    plain.set_params(bandwidth=1.0)
    weighted.select(X, 25, weights=7.0 * counts)
    plain.select(X[repeated], 25)
    assert weighted.order_.tolist() == repeated[plain.order_].tolist()
    np.testing.assert_allclose(weighted.objective_, plain.objective_, rtol=1e-12)
    assert (counts[weighted.order_] > 0).all()


def test_coverage_does_not_change_when_the_space_turns():
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(4, 4)))[0]
    for make in (FacilityLocation, lambda: FacilityLocation("rbf"), KCenter):
        one, two = make(), make()
        one.select(X, 20)
        two.select(X @ turn, 20)
        assert one.order_.tolist() == two.order_.tolist()
    one, two = KCenter(), KCenter()
    one.select(X, 20)
    two.select(5.0 + 3.0 * X, 20)
    assert one.order_.tolist() == two.order_.tolist()
    np.testing.assert_allclose(two.radii_, 3.0 * one.radii_)


def test_farthest_points_equal_the_definition():
    distances = np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))
    start = int(((X - X.mean(axis=0)) ** 2).sum(axis=1).argmin())
    order = [start]
    radii = []
    for _ in range(30):
        reach = distances[:, order].min(axis=1)
        radii.append(reach.max())
        order.append(int(reach.argmax()))
    search = KCenter()
    chosen = search.select(X, 30)
    assert search.order_.tolist() == order[:30]
    np.testing.assert_allclose(search.radii_, radii, rtol=1e-12)
    near = distances[np.arange(150), search.nearest_]
    np.testing.assert_allclose(near, distances[:, search.order_].min(axis=1), atol=1e-7)
    assert chosen.rows.tolist() == sorted(order[:30])
    assert top_k(chosen.utility, n=10).rows.tolist() == sorted(order[:10])
    assert search.select(X, 150).n_pool == 150
    assert search.radius_ == 0.0
    assert KCenter(start=7).select(X, 1).rows.tolist() == [7]


def test_the_radius_is_within_twice_the_best():
    import itertools

    points = np.random.default_rng(5).normal(size=(14, 2))
    distances = np.sqrt(((points[:, None] - points) ** 2).sum(axis=2))
    best = min(
        distances[:, list(rows)].min(axis=1).max() for rows in itertools.combinations(range(14), 3)
    )
    for start in range(14):
        search = KCenter(start=start)
        search.select(points, 3)
        assert best <= search.radius_ <= 2 * best
        assert search.radius_ / 2 <= best


def test_duplicates_come_last():
    points = np.repeat(X[:10], 5, axis=0)
    for search in (KCenter(), FacilityLocation("rbf")):
        rows = search.select(points, 10).rows
        assert len(set((rows // 5).tolist())) == 10
        assert len(set(search.select(points, 50).rows.tolist())) == 50


def test_outliers_draw_k_centre_and_not_facility_location():
    points = np.vstack([X, [[60.0] * 4]])
    assert 150 in KCenter().select(points, 2).rows
    assert 150 not in FacilityLocation("rbf").select(points, 5).rows


def test_real_digits_are_covered_by_few():
    """30 of 1,797 digits by coverage stand nearer to all digits than random ones do."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    matrix = similarity(x, "cosine")
    drawn = [
        value(matrix, np.random.default_rng(s).choice(len(x), 30, replace=False)) for s in range(40)
    ]
    chosen = FacilityLocation().select(x, 30)
    assert value(matrix, chosen.rows) > max(drawn)
    assert len(set(y[chosen.rows].tolist())) == 10
    search = KCenter()
    search.select(x, 30)
    radii = [
        np.sqrt(((x[:, None] - x[np.random.default_rng(s).choice(len(x), 30)]) ** 2).sum(axis=2))
        .min(axis=1)
        .max()
        for s in range(5)
    ]
    assert search.radius_ < min(radii)


def test_prices_and_wrong_calls_are_told():
    price = FacilityLocation().price(np.random.default_rng(0).normal(size=(400, 3)))
    assert price.comparisons == 160_000
    assert price.seconds is not None
    assert KCenter().price(X, 20).comparisons == 3000
    with pytest.raises(OptionError, match="Unknown similarity 'l2'. Choose one of 'cosine', 'rbf'"):
        FacilityLocation("l2").select(X, 3)
    with pytest.raises(OptionError, match="n is 151; expected a whole number of rows from 1 to"):
        KCenter().select(X, 151)
    with pytest.raises(OptionError, match="n is 2; expected a whole number of rows from 1 to 1"):
        FacilityLocation().select(X[:2], 2, weights=[0, 1])
    with pytest.raises(DataError, match=r"expected \(n, n\), not negative"):
        FacilityLocation("precomputed").select(-np.eye(3), 1)
    with pytest.raises(DataError, match=r"weights have shape \(2,\); expected \(150,\)"):
        FacilityLocation().select(X, 3, weights=[1, 2])
    with pytest.raises(DataError, match="points: 1 of 2 rows hold missing"):
        KCenter().select([[np.nan], [1.0]], 1)
