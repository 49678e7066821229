"""Performance: known answers, weights, coverage under known selection, failure texts."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as peer

from dpdq.errors import DataError, OptionError
from dpdq.shift import performance, shifted_performance


def sample(seed=0, n=400):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    y = rng.random(n) < 1 / (1 + np.exp(-score))
    return y, 1 / (1 + np.exp(-score + 0.3)), rng.exponential(size=n)


def test_equals_scikit_learn_with_weights():
    y, probability, w = sample()
    probability = np.round(probability, 2)  # ties
    found = performance(y, probability, log_weights=np.log(w))
    assert list(found) == ["roc_auc", "log_loss", "brier", "accuracy"]
    assert found["roc_auc"].estimate == pytest.approx(
        peer.roc_auc_score(y, probability, sample_weight=w)
    )
    assert found["log_loss"].estimate == pytest.approx(
        peer.log_loss(y, probability, sample_weight=w)
    )
    assert found["brier"].estimate == pytest.approx(
        peer.brier_score_loss(y, probability, sample_weight=w)
    )
    classes = np.array(["x", "y", "z"])[np.random.default_rng(1).integers(0, 3, (2, 400))]
    found = performance(classes[0], classes[1], log_weights=np.log(w))
    assert found["accuracy"].estimate == pytest.approx(
        peer.accuracy_score(classes[0], classes[1], sample_weight=w)
    )
    assert found["balanced_accuracy"].estimate == pytest.approx(
        peer.balanced_accuracy_score(classes[0], classes[1], sample_weight=w)
    )
    number = probability * 3 + w
    found = performance(number, probability * 2, log_weights=np.log(w))
    assert found["mae"].estimate == pytest.approx(
        peer.mean_absolute_error(number, probability * 2, sample_weight=w)
    )
    assert found["rmse"].estimate == pytest.approx(
        peer.root_mean_squared_error(number, probability * 2, sample_weight=w)
    )
    assert found["r2"].estimate == pytest.approx(
        peer.r2_score(number, probability * 2, sample_weight=w)
    )


@pytest.mark.parametrize("kind", ["probability", "classification", "regression"])
def test_weights_are_repeats_scale_free_and_zero_drops(kind):
    y, probability, _ = sample(n=60)
    target = y if kind != "regression" else probability + y
    guess = probability > 0.5 if kind == "classification" else probability
    counts = np.random.default_rng(2).integers(0, 4, 60)
    with np.errstate(divide="ignore"):
        weights = np.log(counts) + 7.0
    found = performance(target, guess, kind=kind, log_weights=weights)
    repeated = performance(np.repeat(target, counts), np.repeat(guess, counts), kind=kind)
    for name in found:
        assert found[name].estimate == pytest.approx(repeated[name].estimate, rel=1e-12)
        # a repeated row is not a second observation
        if name != "r2":
            assert found[name].standard_error > repeated[name].standard_error


@pytest.mark.parametrize("kind", ["probability", "classification", "regression"])
def test_standard_errors_against_the_bootstrap(kind):
    y, probability, w = sample(seed=3, n=500)
    target = y if kind != "regression" else probability + y
    guess = probability > 0.5 if kind == "classification" else probability
    rng = np.random.default_rng(4)
    draws = []
    for _ in range(300):
        rows = rng.integers(0, 500, 500)
        again = performance(target[rows], guess[rows], kind=kind, log_weights=np.log(w[rows]))
        draws.append([e.estimate for e in again.values()])
    spread = np.std(draws, axis=0)
    # the spread of 300 draws is within 20 % of its mean but for a probability below 1e-6
    for found, expected in zip(
        performance(target, guess, kind=kind, log_weights=np.log(w)).values(), spread, strict=True
    ):
        assert found.standard_error == pytest.approx(expected, rel=0.25)


def test_units_widen_the_interval():
    y, probability, _ = sample(n=200)
    unit = np.repeat(np.arange(200), 4)
    rows = performance(np.repeat(y, 4), np.repeat(probability, 4))
    units = performance(np.repeat(y, 4), np.repeat(probability, 4), units=unit)
    single = performance(y, probability)
    for name in rows:
        assert units[name].standard_error == pytest.approx(single[name].standard_error)
        assert rows[name].standard_error < 0.6 * single[name].standard_error


def test_kinds_are_guessed():
    def kinds(y, prediction):
        return list(performance(y, prediction))[0]

    assert kinds([0, 1, 1, 0], [0.2, 0.9, 0.6, 0.4]) == "roc_auc"
    assert kinds(["a", "b"], [0.2, 0.9]) == "roc_auc"
    assert kinds([0, 1, 1, 0], [0.0, 1.0, 1.0, 1.0]) == "accuracy"
    assert kinds([True, False], [1, 0]) == "accuracy"
    assert kinds([1, 2, 3], [1, 2, 2]) == "accuracy"
    assert kinds([1.5, 2, 3], [1, 2, 2]) == "mae"
    assert kinds(range(30), range(30)) == "mae"
    assert kinds([1, 2, 3, 2], [1.3, 2.2, 2.9, 2.0]) == "mae"


def test_the_positive_class_is_the_larger():
    y = np.array(["<=50K", ">50K", ">50K", "<=50K"])
    assert performance(y, [0.1, 0.9, 0.8, 0.3])["roc_auc"].estimate == 1.0
    assert performance(y == ">50K", [0.1, 0.9, 0.8, 0.3])["brier"].estimate == pytest.approx(0.0375)


def test_perfect_predictions_still_have_an_interval_where_one_exists():
    y = np.arange(100) % 2 == 0
    found = performance(y, y)["accuracy"]
    assert found.estimate == found.high == 1.0
    assert 0.95 < found.low < 0.97  # Wilson: n / (n + z^2)
    exact = performance(np.arange(30.0), np.arange(30.0))
    assert exact["mae"].low is None
    assert exact["mae"].reason == "all rows agree, so that no standard error exists"
    one = performance([0, 1], [0.3, 0.6], log_weights=np.array([0.0, -np.inf]))
    assert one["brier"].reason.startswith("fewer than two effective units")


def test_shifted_performance_document():
    y, probability, w = sample()
    found = shifted_performance(y, probability, np.log(w), y[:100], probability[:100])
    document = found["roc_auc"].to_dict()
    assert list(document) == ["q", "p", "p_observed"]
    assert list(document["p"]) == ["estimate", "low", "high"]
    assert found["brier"].q == performance(y, probability)["brier"]
    without = shifted_performance(y, probability, np.log(w))["roc_auc"]
    assert without.p_observed is None
    assert without.to_dict()["p_observed"] is None
    assert "valid only if P(Y|X) is unchanged" in without.p.method
    one_class = shifted_performance(y, probability, np.log(w), y[y], probability[y])["roc_auc"]
    assert one_class.p_observed.estimate is None
    assert one_class.to_dict()["p_observed"]["reason"] == "labels of one class only"
    balanced = shifted_performance(y, y, np.log(w), y[y], y[y])["balanced_accuracy"]
    assert balanced.p_observed.reason == "no row of class False"


def test_one_ratio_is_no_shift():
    y, probability, _ = sample()
    found = shifted_performance(y, probability, np.zeros(len(y)))
    for metric in found.values():
        assert metric.p.estimate == metric.q.estimate
        assert metric.p.low == metric.q.low


def test_known_answer_on_gaussians():
    # q = N(0, 1), p = N(1, 1), error x + N(0, 1): E_p = E_p[x^2] + 1 = 3
    rng = np.random.default_rng(5)
    x = rng.normal(size=20_000)
    y = rng.normal(size=20_000)
    x_p = rng.normal(1, 1, 40_000)
    truth = np.sqrt(3)
    weighted = shifted_performance(y, x, x - 0.5)["rmse"].p
    adjusted = shifted_performance(
        y, x, x - 0.5, features_q=x[:, None], features_p=x_p[:, None], max_rows=4000
    )["rmse"].p
    # five standard errors: false alarm below 1e-6
    for found in (weighted, adjusted):
        assert abs(found.estimate - truth) < 5 * found.standard_error
    assert "regression-adjusted" in adjusted.method
    assert adjusted.standard_error < 0.9 * weighted.standard_error


def adult(shared_data):
    table = pq.read_table(shared_data / "adult.parquet").to_pandas()
    y = (table["class"] == ">50K").to_numpy()
    x = table[["age", "education-num", "hours-per-week"]].to_numpy(float)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    probability = 1 / (1 + np.exp(-(-1.5 + 0.6 * z[:, 0] + 0.9 * z[:, 1] + 0.4 * z[:, 2])))
    log_ratio = np.clip(z[:, 0], -2, 2) + 0.5 * (table["sex"] == "Male").to_numpy()
    return y, x, probability, log_ratio - np.log(np.mean(np.exp(log_ratio)))


def coverage(shared_data, draws, rows, *, adjusted):
    """Share of draws in which the interval holds the metric of Adult selected by a known ratio."""
    y, x, probability, log_ratio = adult(shared_data)
    hours, guess = x[:, 2], 25 + 1.5 * x[:, 1]
    tasks = [
        (y, probability, "probability"),
        (y, probability > 0.5, "classification"),
        (hours, guess, "regression"),
    ]
    ratio = np.exp(log_ratio)
    hits: dict[str, int] = {}
    for label, prediction, kind in tasks:
        truth = performance(label, prediction, kind=kind, log_weights=log_ratio)
        for i in range(draws):
            rng = np.random.default_rng(i)
            a = rng.integers(0, len(y), rows)
            b = rng.choice(len(y), rows, p=ratio / ratio.sum())
            features = {"features_q": x[a], "features_p": x[b]} if adjusted else {}
            found = shifted_performance(
                label[a], prediction[a], log_ratio[a], kind=kind, random_state=i, **features
            )
            for name in truth:
                hit = found[name].p.low <= truth[name].estimate <= found[name].p.high
                hits[f"{kind}.{name}"] = hits.get(f"{kind}.{name}", 0) + hit
    return {name: count / draws for name, count in hits.items()}


def test_intervals_cover_under_known_selection(shared_data):
    # nominal 95 %; below 86 % of 200 has probability below 1e-6 at 95 %
    for name, share in coverage(shared_data, 200, 1000, adjusted=False).items():
        assert 0.86 <= share <= 1.0, name


@pytest.mark.slow
def test_adjusted_intervals_cover_under_known_selection(shared_data):
    for name, share in coverage(shared_data, 200, 1000, adjusted=True).items():
        assert 0.86 <= share <= 1.0, name


def test_weighting_repairs_covariate_shift_on_adult(shared_data):
    y, x, probability, log_ratio = adult(shared_data)
    rng = np.random.default_rng(0)
    ratio = np.exp(log_ratio)
    p = rng.choice(len(y), 20_000, p=ratio / ratio.sum())
    found = shifted_performance(y, probability, log_ratio, y[p], probability[p])["log_loss"]
    assert found.q.high < found.p_observed.low  # the shift hurts
    gap = abs(found.p.estimate - found.p_observed.estimate)
    error = np.hypot(found.p.standard_error, found.p_observed.standard_error)
    assert gap < 5 * error


def test_failure_texts():
    with pytest.raises(DataError, match=r"y has 3 values and prediction has 2; give one of each"):
        performance([0, 1, 1], [0, 1])
    with pytest.raises(DataError, match=r"y: 1 of 3 values are missing \(first at row 1\); drop"):
        performance([0.0, np.nan, 1.0], [0, 1, 1])
    with pytest.raises(DataError, match=r"y: 1 of 2 values are missing \(first at row 0\)"):
        performance(np.array([None, "a"], dtype=object), ["a", "a"])
    with pytest.raises(DataError, match=r"prediction: 1 of 2 values are infinite"):
        performance([0.5, 1.5], [np.inf, 1.0])
    with pytest.raises(DataError, match=r"y has one class \(a\); a metric of classes needs"):
        performance(["a", "a"], ["a", "a"])
    with pytest.raises(DataError, match=r"label has one class \(a\) in q and p together"):
        shifted_performance(["a", "a"], ["a", "a"], np.zeros(2))
    with pytest.raises(DataError, match=r"holds values from 0.2 to 1.9; probabilities of the pos"):
        performance([0, 1], [0.2, 1.9], kind="probability")
    with pytest.raises(DataError, match=r"holds text such as 'a'; probabilities"):
        performance([0, 1], ["a", "b"], kind="probability")
    with pytest.raises(DataError, match=r"y has 3 classes; probabilities of one class need two"):
        performance([0, 1, 2], [0.2, 0.9, 0.3], kind="probability")
    with pytest.raises(DataError, match=r"holds '0', and none of its values is a class of y"):
        performance(["no", "yes"], [0, 1])
    with pytest.raises(DataError, match=r"y holds text such as 'a'; regression needs numbers"):
        performance(["a", "b"], [0.5, 1], kind="regression")
    with pytest.raises(DataError, match=r"log_weights: 1 of 2 values are NaN or infinite"):
        performance([0, 1], [0, 1], log_weights=np.array([0.0, np.nan]))
    with pytest.raises(DataError, match=r"log_weights: all 2 values are -inf"):
        performance([0, 1], [0, 1], log_weights=np.full(2, -np.inf))
    with pytest.raises(DataError, match=r"log_weights: \(3,\) values for 2 labels; give one a row"):
        performance([0, 1], [0, 1], log_weights=np.zeros(3))
    with pytest.raises(OptionError, match=r"Unknown kind 'auc'. Choose one of 'auto', 'class"):
        performance([0, 1], [0, 1], kind="auc")
    with pytest.raises(DataError, match=r"y has 1 row; at least two are needed"):
        performance([0], [0])
    with pytest.raises(DataError, match=r"y: type complex128; give numbers, booleans or strings"):
        performance(np.array([1j]), [0])
    with pytest.raises(DataError, match=r"y: shape \(2, 1\); give one value a row"):
        performance(np.zeros((2, 1)), [0, 1])
    with pytest.raises(DataError, match=r"features_q .* give two matrices with the same columns"):
        shifted_performance(
            [0, 1], [0, 1], np.zeros(2), features_q=np.zeros((2, 1)), features_p=np.zeros((2, 2))
        )
