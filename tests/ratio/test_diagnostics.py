"""RatioDiagnostics and Overlap: known laws, weights, verdicts and their sentences."""

import numpy as np
import pytest

from dpdq.errors import DataError, NotFittedError
from dpdq.ratio import LogisticRatio, RatioDiagnostics, check_overlap, select_ratio
from dpdq.ratio.diagnostics import diagnose_log_ratios


def gaussians(n, m, shift, seed=0):
    """Rows of N(0, 1) and N(shift, 1) and their true log ratios."""
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=n), rng.normal(size=m) + shift
    return q, p, shift * q - shift**2 / 2, shift * p - shift**2 / 2


def test_loss_and_level_of_the_true_ratio():
    """Against quadrature; the level of the true ratio is zero. 5 standard errors: 1e-6."""
    q, p, log_q, log_p = gaussians(20_000, 20_000, 1.0)
    found = diagnose_log_ratios(log_q, log_p)
    z = np.linspace(-12, 13, 200_001)
    law = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    r = np.exp(z - 0.5)
    exact = np.trapezoid(law * (np.log1p(r) + r * np.log1p(1 / r)) / 2, z)
    assert abs(found.loss.estimate - exact) < 5 * found.loss.standard_error
    assert abs(found.level_shift.estimate) < 5 * found.level_shift.standard_error
    assert found.level_shift.standard_error == pytest.approx(
        np.sqrt((np.e - 1) / 20_000), rel=0.15  # Var_q r = e - 1
    )  # fmt: skip
    assert found.effective_sample_size == pytest.approx(20_000 / np.e, rel=0.1)
    assert found.baseline_loss == pytest.approx(np.log(2))
    assert found.ok
    assert found.status.startswith("Use it: the held-out loss is 0.5")


def test_share_beyond_reach_of_known_laws():
    from scipy.stats import norm

    for shift, fails in ((0.0, False), (1.0, False), (3.0, True)):
        _, _, log_q, log_p = gaussians(50_000, 50_000, shift)
        found = check_overlap(log_q + 0.0 * log_p, log_p)
        exact = norm.sf(norm.ppf(0.999) - shift) if shift else 0.0
        assert found.share == pytest.approx(exact, abs=0.02)
        assert found.low <= found.share <= found.high
        assert found.ok is not fails
        assert found.status.startswith("Overlap fails:") is fails


def test_equal_samples_and_constants_overlap():
    q, _, log_q, _ = gaussians(300, 1, 1.0)
    for log_ratio in (log_q, 0 * q):
        found = check_overlap(log_ratio, log_ratio)
        assert found.ok
        assert found.share <= 0.001 + 1 / 300


def test_few_rows_fail_by_more_than_chance_only():
    """Ten rows of each side of one law: the largest of 20 is often from p."""
    found = check_overlap(np.arange(10.0), np.r_[np.arange(9.0), 20.0])
    assert found.share == 0.1
    assert found.ok
    assert "more rows are needed to judge the overlap" in found.status
    assert not check_overlap(np.arange(10.0), np.arange(10.0) + 9).ok


def test_integer_weights_are_repeated_rows():
    q, p, log_q, log_p = gaussians(700, 400, 1.5)
    rng = np.random.default_rng(1)
    w, v = rng.integers(0, 4, 700), rng.integers(0, 4, 400)
    one = diagnose_log_ratios(log_q, log_p, weights_q=w, weights_p=2.5 * v)
    two = diagnose_log_ratios(np.repeat(log_q, w), np.repeat(log_p, v))
    assert (one.n_q, one.n_p) == ((w > 0).sum(), (v > 0).sum())
    assert one.loss.estimate == pytest.approx(two.loss.estimate, abs=1e-12)
    assert one.level_shift.estimate == pytest.approx(two.level_shift.estimate, abs=1e-12)
    assert one.overlap.share == pytest.approx(two.overlap.share, abs=1e-12)
    assert one.overlap.log_ratio_limit == two.overlap.log_ratio_limit


def test_loss_does_not_know_which_side_is_which():
    _, _, log_q, log_p = gaussians(500, 300, 1.0)
    forth, back = diagnose_log_ratios(log_q, log_p), diagnose_log_ratios(-log_p, -log_q)
    assert forth.loss.estimate == pytest.approx(back.loss.estimate, abs=1e-14)
    assert forth.loss.standard_error == pytest.approx(back.loss.standard_error, abs=1e-14)


def test_verdicts():
    _, _, log_q, log_p = gaussians(3000, 3000, 0.8)
    wrong = diagnose_log_ratios(-log_q, -log_p)
    assert not wrong.ok
    assert wrong.status.startswith("Worse than no model: the held-out loss ")
    assert diagnose_log_ratios(log_q, log_p).ok
    off = diagnose_log_ratios(log_q + 0.5, log_p + 0.5)
    assert off.level_shift.estimate == pytest.approx(-0.5, abs=0.1)
    assert off.status.startswith("The level is off: the mean of r over q is 1.6")
    flat = diagnose_log_ratios(0 * log_q, 0 * log_p)
    assert flat.ok
    assert flat.loss.estimate == pytest.approx(np.log(2))
    assert flat.status.startswith("No difference is shown")
    tail = np.random.default_rng(0).standard_exponential(3000)  # r has the tail index 1 / 0.9
    heavy = diagnose_log_ratios(0.9 * tail - 2.3, np.full(3000, 1.0))
    assert not heavy.ok
    assert heavy.khat > heavy.khat_limit
    assert "k-hat" in heavy.status


def test_of_an_estimator():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) + 0.5
    model = LogisticRatio()
    with pytest.raises(NotFittedError, match=r"call fit\(q, p\) before diagnose"):
        model.diagnose(q, p)
    model.fit(q[:1000], p[:1000])
    found = model.diagnose(q=q[1000:], p=p[1000:])
    assert isinstance(found, RatioDiagnostics)
    assert found.share_seen == 0
    assert found.ok
    assert found.to_dict()["overlap"]["ok"] is True
    assert found.effective_sample_size == model.weights(q[1000:]).effective_sample_size
    again = model.diagnose(q[:1000], p[1000:])
    assert again.share_seen == 1
    assert again.status.startswith("100 % of the rows of the fit stand among these too")


def test_of_a_selection():
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(800, 2)), rng.normal(size=(600, 2)) + 0.5
    selection = select_ratio(q, p, {"logistic": LogisticRatio()}, random_state=0)
    found = selection.diagnose()
    assert found.loss.estimate == selection.losses_["logistic"]["loss"]
    assert found.loss.standard_error == selection.losses_["logistic"]["standard_error"]
    assert found.level_shift.estimate == pytest.approx(selection.shift_, abs=1e-12)


def test_refusals():
    with pytest.raises(DataError, match=r"log_ratio_q has shape \(0,\); expected one number a row"):
        check_overlap([], [1.0])
    with pytest.raises(DataError, match=r"log_ratio_p holds 1 values that are not finite \(first"):
        check_overlap([0.0], [1.0, np.inf])


def test_first_and_second_year_of_bikes_do_not_overlap_in_time(shared_data):
    """A column that dates the rows leaves no overlap; without it q covers p."""
    import pyarrow.parquet as pq

    bikes = pq.read_table(shared_data / "bike_hourly.parquet").to_pandas()
    weather = bikes[["temp", "hum", "windspeed", "hr"]]
    first = (bikes["yr"] == 0).to_numpy()
    odd = np.arange(len(bikes)) % 2 == 1
    dated = weather.assign(instant=np.arange(len(bikes)))
    for table, ok in ((weather, True), (dated, False)):
        q, p = table[first], table[~first]
        model = LogisticRatio().fit(q=q[odd[first]], p=p[odd[~first]])
        found = model.diagnose(q[~odd[first]], p[~odd[~first]])
        assert found.overlap.ok is ok
        assert found.ok is ok
