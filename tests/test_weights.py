"""Weights: known answers, invariances, calibration and the texts of refusals."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dpdq.errors import DataError, InputTypeError, OptionError
from dpdq.weights import Weights, effective_sample_size, logmeanexp, pareto_khat

NONE = -math.inf
some_log_weights = hnp.arrays(
    float,
    st.integers(1, 200),
    elements=st.one_of(st.floats(-800, 800), st.just(NONE)),
).filter(lambda array: bool((array > NONE).any()))


def pareto(shape: float, n: int, seed: int) -> np.ndarray:
    """Log weights with tail P(w > x) = x^(-1/shape)."""
    return -shape * np.log(np.random.default_rng(seed).uniform(size=n))


def gaussian_shift(delta: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of q = N(0, 1) and their log ratio to p = N(delta, 1)."""
    x = np.random.default_rng(seed).normal(size=n)
    return x, delta * x - delta**2 / 2


# Scale, mean, dropped rows.


@settings(deadline=None)
@given(some_log_weights, st.floats(-1e3, 1e3))
def test_scale_and_mean(log_weights, shift):
    w = Weights(log_weights)
    kept = log_weights > NONE
    assert w.values[kept].mean() == pytest.approx(1, rel=1e-12)
    assert (w.values[~kept] == 0).all()
    assert w.normalised.sum() == pytest.approx(1, rel=1e-12)
    assert logmeanexp(w.log[kept]) == pytest.approx(0, abs=1e-12)
    moved = Weights(log_weights + shift)
    np.testing.assert_allclose(moved.log, w.log, rtol=1e-9, atol=1e-9)
    assert moved.effective_sample_size == pytest.approx(w.effective_sample_size, rel=1e-9)
    assert 1 - 1e-12 <= w.effective_sample_size <= w.n_kept * (1 + 1e-12)
    assert w.n_kept == kept.sum()
    assert w.effective_sample_size == pytest.approx(effective_sample_size(log_weights), rel=1e-12)
    assert len(w) == log_weights.size
    assert w.largest == pytest.approx(w.values.max(), rel=1e-9)


@settings(deadline=None)
@given(some_log_weights, st.data())
def test_a_dropped_row_is_no_row(log_weights, data):
    y = data.draw(hnp.arrays(float, log_weights.size, elements=st.floats(-1e6, 1e6)))
    kept = log_weights > NONE
    all_rows, kept_rows = Weights(log_weights), Weights(log_weights[kept])
    np.testing.assert_array_equal(all_rows.log[kept], kept_rows.log)
    assert all_rows.khat == kept_rows.khat
    assert all_rows.status == kept_rows.status
    assert all_rows.share_of_top(0.1) == pytest.approx(kept_rows.share_of_top(0.1), rel=1e-12)
    assert all_rows.mean(np.where(kept, y, np.nan)) == kept_rows.mean(y[kept])
    masked = Weights(np.where(kept, log_weights, 7.0), mask=kept)
    np.testing.assert_array_equal(masked.log, all_rows.log)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.data())
def test_integer_weights_are_repeated_rows(counts, data):
    if not any(counts):
        counts[0] = 1
    y = data.draw(hnp.arrays(float, len(counts), elements=st.floats(-100, 100)))
    repeated = np.repeat(y, counts)
    w = Weights.from_values(counts)
    assert w.mean(y).estimate == pytest.approx(repeated.mean(), rel=1e-12, abs=1e-9)
    np.testing.assert_allclose(w.normalised * sum(counts), counts, rtol=1e-12)


def test_permutation_changes_nothing():
    log_weights = pareto(0.6, 3000, 1)
    y = np.random.default_rng(2).normal(size=3000)
    order = np.random.default_rng(3).permutation(3000)
    one, other = Weights(log_weights), Weights(log_weights[order])
    assert one.khat == pytest.approx(other.khat, rel=1e-12)
    assert one.effective_sample_size == pytest.approx(other.effective_sample_size, rel=1e-12)
    assert one.mean(y).low == pytest.approx(other.mean(y[order]).low, rel=1e-9)
    np.testing.assert_allclose(one.smooth().log[order], other.smooth().log, rtol=1e-9)


def test_huge_ranges_stay_finite():
    w = Weights([-5000.0, 0.0, 5000.0])
    assert w.log.tolist() == pytest.approx([-10000 + math.log(3), -5000 + math.log(3), math.log(3)])
    assert w.effective_sample_size == 1
    assert logmeanexp([1000.0, 1000.0 + math.log(3)]) == pytest.approx(1000 + math.log(2))


def test_uniform():
    w = Weights.uniform(100)
    assert (w.values == 1).all()
    assert w.effective_sample_size == 100
    assert w.khat is None
    assert w.khat_reason == "all 100 weights are equal"
    assert w.ok
    assert w.status == "All 100 rows weigh the same, so nothing is reweighted."
    assert w.share_of_top(0.25) == pytest.approx(0.25)
    y = np.random.default_rng(0).normal(size=100)
    estimate = w.mean(y)
    assert estimate.estimate == pytest.approx(y.mean(), rel=1e-12)
    assert estimate.standard_error == pytest.approx(y.std(ddof=1) / 10, rel=1e-12)
    # Equal up to the rounding of a softmax is equal.
    assert Weights(1e-15 * y).khat_reason == "all 100 weights are equal"


# Effective size.


@pytest.mark.parametrize("delta", [0.25, 0.5, 0.8])
def test_effective_size_is_n_over_one_plus_chi2(delta):
    """1 + chi^2 of N(delta, 1) to N(0, 1) is exp(delta^2).

    With 1,000,000 rows the error of ESS/n is normal with the standard deviation below (delta
    method on the first two moments of r); 5.5 of them are a false alarm in 3e-8 of all seeds.
    """
    n = 1_000_000
    _, log_ratio = gaussian_shift(delta, n, 11)
    share = Weights(log_ratio).effective_sample_size / n
    moments = [math.exp(k * (k - 1) * delta**2 / 2) for k in range(5)]  # E_q[r^k]
    truth = 1 / moments[2]
    # ESS/n = a^2 / b with a = mean r, b = mean r^2; gradient (2/b, -1/b^2) at a = 1
    variance = (
        4 * truth**2 * (moments[2] - 1)
        - 4 * truth**3 * (moments[3] - moments[2])
        + truth**4 * (moments[4] - moments[2] ** 2)
    )
    assert abs(share - truth) < 5.5 * math.sqrt(variance / n)


def test_effective_size_of_few():
    assert effective_sample_size([0.0, math.log(2), NONE]) == pytest.approx(9 / 5)
    assert effective_sample_size([3.0]) == 1


# The tail.


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.7, 1.0, 2.0])
def test_khat_of_exact_pareto_draws(shape):
    """Its standard deviation is (1 + k) / sqrt(949), the prior moves it by (1/2 - k) 10 / 959.

    20 seeds averaged: 6 standard deviations of the mean, a false alarm in 2e-9 of all seeds.
    """
    values = [pareto_khat(pareto(shape, 100_000, seed)) for seed in range(20)]
    deviation = (1 + shape) / math.sqrt(949 * 20)
    assert np.mean(values) == pytest.approx(shape, abs=6 * deviation + 0.02)


def test_khat_against_maximum_likelihood():
    from scipy import stats

    weights = np.sort(np.exp(pareto(0.6, 40_000, 5)))
    size = math.ceil(3 * math.sqrt(40_000))
    fitted = stats.genpareto.fit(weights[-size:] - weights[-size - 1], floc=0)[0]
    with_prior = (size * fitted + 5) / (size + 10)
    assert pareto_khat(np.log(weights)) == pytest.approx(with_prior, abs=0.01)


def test_khat_of_bounded_and_of_wild_weights():
    rng = np.random.default_rng(0)
    assert pareto_khat(np.log(rng.uniform(size=100_000))) < -0.7  # uniform weights: k = -1
    assert abs(pareto_khat(np.log(rng.exponential(size=100_000)))) < 0.2  # exponential: k = 0
    wild = pareto_khat(3000 * rng.normal(size=10_000))  # sums over many tokens
    assert wild is not None
    assert 100 < wild < 3000


def test_khat_does_not_depend_on_scale():
    log_weights = pareto(0.8, 5000, 4)
    for shift in (-900, 3, 1e4):
        assert pareto_khat(log_weights + shift) == pytest.approx(pareto_khat(log_weights), rel=1e-8)


@pytest.mark.parametrize(
    ("n", "limit"), [(5, 0.0), (10, 0.0), (100, 0.5), (1000, 1 - 1 / 3), (2155, 0.7), (10**6, 0.7)]
)
def test_khat_limit(n, limit):
    assert Weights.uniform(n).khat_limit == pytest.approx(limit, abs=1e-4)


def test_khat_where_there_is_no_tail():
    assert pareto_khat(np.arange(20.0)) is None
    few = Weights(np.arange(20.0))
    assert few.khat_reason == "20 rows are too few to see a tail; 21 is the least"
    assert pareto_khat(np.arange(21.0)) is not None
    levels = Weights(np.log(np.random.default_rng(0).choice([1.0, 2.0, 3.0], size=400)))
    assert levels.khat is None
    assert levels.khat_reason == "the largest weights take one value, so they have no tail"
    one_peak = np.zeros(400)
    one_peak[7] = 1.0
    assert Weights(one_peak).khat_reason == (
        "the largest weights take only 2 distinct values, so they have no tail"
    )


# Trust.


def test_status_sentences():
    good = Weights(gaussian_shift(0.5, 20_000, 0)[1])
    assert good.ok
    assert good.status == (
        f"Trustworthy: k-hat {good.khat:.2f} is within its limit 0.70; "
        f"20,000 rows count as {good.effective_sample_size:,.0f} (78 %)."
    )
    assert repr(good) == (
        f"weights for 20,000 rows of q towards p: effective sample size "
        f"{good.effective_sample_size:,.0f} (78 %), k-hat {good.khat:.2f}"
    )
    bad = Weights(pareto(1.2, 20_000, 0))
    assert not bad.ok
    assert bad.status == (
        f"Not trustworthy: k-hat {bad.khat:.2f} exceeds its limit 0.70, so a few rows decide the "
        "answer and its error is unknown; smooth, clip or temper them and say so, or find rows of "
        "q like those of p that carry the weight."
    )
    assert bad.mean(np.zeros(20_000)).reason == bad.status
    peak = np.zeros(400)
    peak[0] = 12.0
    assert not Weights(peak).ok
    assert Weights(peak).status.startswith(
        "Not trustworthy: 400 rows count as 1 (0.25 %), too few to average over; "
    )
    few = Weights(np.linspace(0, 0.1, 15))
    assert not few.ok
    assert few.status == (
        "Not judged: 15 rows are too few to see a tail; 21 is the least; 15 rows count as 15 "
        "(100 %)."
    )
    levels = Weights(np.log(np.tile([1.0, 2.0], 200)))
    assert levels.ok
    assert levels.status == (
        "Trustworthy: the largest weights take one value, so they have no tail; "
        "400 rows count as 360 (90 %)."
    )
    alone = Weights([0.0, NONE])
    assert not alone.ok
    assert alone.status == "Not trustworthy: one row is kept; keep more."
    assert repr(alone) == (
        "weights for 2 rows of q (1 dropped) towards p: effective sample size 1 (100 %), k-hat none"
    )


def test_to_dict_is_json():
    summary = Weights(pareto(0.4, 1000, 0)).to_dict()
    assert json.loads(json.dumps(summary)) == summary
    assert set(summary) >= {
        "effective_sample_size", "share_effective", "khat", "khat_limit", "top_one_percent_share",
        "largest", "ok", "sentence",
    }  # fmt: skip
    assert Weights.uniform(3).to_dict()["khat"] is None


def test_share_of_top():
    w = Weights.from_values([1, 1, 1, 1, 1, 1, 1, 1, 1, 11, 0])
    assert w.share_of_top(0.1) == pytest.approx(11 / 20)
    assert w.share_of_top(0.11) == pytest.approx(12 / 20)
    assert w.share_of_top(1) == pytest.approx(1)


# Taming.


@settings(deadline=None)
@given(some_log_weights, st.floats(0, 3), st.floats(0.01, 1), st.floats(0.1, 10))
def test_tamed_weights_are_weights(log_weights, power, quantile, maximum):
    w = Weights(log_weights)
    for tamed in (
        w.temper(power), w.clip(quantile=quantile), w.clip(maximum=maximum), w.smooth()
    ):  # fmt: skip
        np.testing.assert_array_equal(tamed.kept, w.kept)
        assert tamed.values[w.kept].mean() == pytest.approx(1, rel=1e-9)
        # Ranks stay, up to ties.
        order = np.argsort(w.log, kind="stable")
        steps = np.diff(tamed.log[order][w.log[order] > NONE])
        assert (steps >= -1e-9).all()
    assert w.clip(quantile=quantile).effective_sample_size >= w.effective_sample_size - 1e-6
    assert w.temper(0.5).effective_sample_size >= w.effective_sample_size - 1e-6
    np.testing.assert_allclose(w.temper(1).log, w.log, atol=1e-9)
    np.testing.assert_allclose(w.clip(quantile=1).log, w.log, atol=1e-9)
    assert w.temper(0).is_constant


def test_clip_at_a_ceiling():
    w = Weights.from_values([1, 1, 2, 4])  # mean one: 0.5, 0.5, 1, 2
    np.testing.assert_allclose(w.clip(maximum=1).normalised, np.array([1, 1, 2, 2]) / 6)
    np.testing.assert_allclose(w.clip(quantile=0.7).normalised, np.array([1, 1, 2, 2]) / 6)


def test_smoothing_keeps_ranks_and_cuts_noise():
    """E_q[r] with k = 0.7 (infinite variance): smoothing lowers the error over 200 samples."""
    raw, smooth = [], []
    for seed in range(200):
        log_weights = pareto(0.7, 1000, seed)
        w = Weights(log_weights)
        scale = logmeanexp(log_weights)
        tamed = w.smooth()
        assert tamed.log[w.log.argmax()] == tamed.log.max()
        raw.append(math.exp(scale))
        # The smoothed weights on the scale of the raw ones: rows outside the tail do not change.
        low = w.log.argmin()
        smooth.append(math.exp(log_weights[low] - tamed.log[low]))
    truth = 1 / (1 - 0.7)
    error = np.abs(np.array([raw, smooth]) - truth)
    assert np.sqrt(np.square(error[1]).mean()) < 0.8 * np.sqrt(np.square(error[0]).mean())
    assert error[1].max() < error[0].max()
    untailed = Weights.uniform(50)
    assert untailed.smooth() is untailed


# Resampling.


@pytest.mark.parametrize("method", ["systematic", "multinomial", "residual"])
def test_resampling_is_unbiased(method):
    """Counts over 4,000 draws against n w_i: 6 standard deviations, at most multinomial ones."""
    weights = np.array([0.5, 3.0, 0.0, 1.2, 0.02, 2.28])
    w = Weights.from_values(weights)
    n, repeats = 9, 4000
    rng = np.random.default_rng(0)
    counts = np.zeros(6)
    for _ in range(repeats):
        rows = w.resample(n, random_state=rng, method=method)
        assert rows.shape == (n,)
        assert (np.diff(rows) >= 0).all()
        count = np.bincount(rows, minlength=6)
        if method == "systematic":
            assert (np.abs(count - n * w.normalised) < 1).all()
        if method == "residual":
            assert (count >= np.floor(n * w.normalised)).all()
        counts += count
    expected = n * w.normalised
    assert counts[2] == 0
    slack = 6 * np.sqrt(expected * (1 - w.normalised) / repeats) + 1e-12
    assert (np.abs(counts / repeats - expected) <= slack).all()


def test_resampling_is_reproducible():
    w = Weights(pareto(0.5, 500, 0))
    for method in ("systematic", "multinomial", "residual"):
        first = w.resample(random_state=3, method=method)
        assert first.shape == (500,)
        assert first.dtype == np.int64
        np.testing.assert_array_equal(first, w.resample(random_state=3, method=method))
    np.testing.assert_array_equal(Weights.uniform(50).resample(random_state=0), np.arange(50))
    np.testing.assert_array_equal(
        Weights.uniform(50).resample(100, random_state=0, method="residual"),
        np.repeat(np.arange(50), 2),
    )


@settings(deadline=None)
@given(some_log_weights, st.integers(1, 300), st.integers(0, 2**31))
def test_dropped_rows_are_never_drawn(log_weights, n, seed):
    w = Weights(log_weights)
    for method in ("systematic", "multinomial", "residual"):
        rows = w.resample(n, random_state=seed, method=method)
        assert rows.size == n
        assert w.kept[rows].all()


# Means.


def test_coverage_of_the_mean():
    """E_p[x + noise] = 1/2 with the exact ratio, 400 rows: at least 91 % of 1,000 intervals.

    A law that covers 94.5 % falls below in less than 1e-6 of all seeds.
    """
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        x = rng.normal(size=400)
        estimate = Weights(0.5 * x).mean(x + rng.normal(size=400))
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.91 <= hits / 1000 <= 0.985


def test_coverage_with_groups():
    """Rows in groups of 4 with a common part: by row the interval is too short, by group right."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(100), 4)
    hits = {"row": 0, "group": 0}
    for _ in range(600):
        x = np.repeat(rng.normal(size=100), 4)
        y = x + np.repeat(rng.normal(size=100), 4) + 0.3 * rng.normal(size=400)
        w = Weights(0.4 * x)
        for name, estimate in (("row", w.mean(y)), ("group", w.mean(y, groups=groups))):
            hits[name] += estimate.low <= 0.4 <= estimate.high
    assert hits["row"] / 600 < 0.8
    assert 0.885 <= hits["group"] / 600 <= 0.99


def test_mean_in_parts():
    w = Weights.from_values([1.0, 2.0, 1.0, 0.0])
    y = np.array([1.0, 2.0, 5.0, np.nan])
    estimate = w.mean(y)
    assert estimate.estimate == 2.5
    # scores w (y - mean): -1.5, -1, 2.5; sum of weights 4; effective rows 16 / 6
    by_hand = math.sqrt((1.5**2 + 1 + 2.5**2) * (16 / 6) / (16 / 6 - 1)) / 4
    assert estimate.standard_error == pytest.approx(by_hand, rel=1e-12)
    assert estimate.method == "ratio estimator, linearised"
    wide = w.mean(y, level=0.99)
    assert wide.level == 0.99
    assert wide.low < estimate.low
    each = w.mean(y, groups=["a", "b", "c", "c"])
    assert each.standard_error == pytest.approx(estimate.standard_error, rel=1e-12)
    pair = w.mean(y, groups=np.array([0, 0, 1, 1]))
    assert pair.standard_error == pytest.approx(
        math.sqrt(2 * 2.5**2 * (16 / 10) / (16 / 10 - 1)) / 4, rel=1e-12
    )


def test_mean_without_an_interval():
    one = Weights([0.0, NONE]).mean([3.0, 4.0])
    assert (one.estimate, one.low, one.high) == (3.0, None, None)
    assert one.reason == "one row has no spread to measure"
    same = Weights.uniform(5).mean(np.arange(5.0), groups=[1] * 5)
    assert same.estimate == 2
    assert same.reason == "one group has no spread to measure"
    lonely = Weights([0.0, 800.0, 0.0]).mean([1.0, 2.0, 3.0])
    assert lonely.estimate == 2
    assert lonely.low is None
    assert lonely.reason == ("one row carries nearly all the weight, so nothing measures the error")


def test_mean_far_from_zero():
    y = 1e9 + np.random.default_rng(0).normal(size=1000)
    estimate = Weights(pareto(0.2, 1000, 0)).mean(y)
    assert abs(estimate.estimate - 1e9) < 0.5
    assert 0.02 < estimate.standard_error < 0.06


# Kinds of input and refusals.


def test_torch_equals_numpy():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    log_weights = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    w = Weights(log_weights)
    np.testing.assert_array_equal(w.log, Weights([0.0, 1.0, -1.0]).log)
    assert Weights(log_weights.to(torch.bfloat16)).log.dtype == np.float64
    masked = Weights(log_weights, mask=torch.tensor([True, False, True]))
    assert masked.n_kept == 2
    y = torch.tensor([1.0, 2.0, 3.0])
    assert w.mean(y, groups=torch.tensor([0, 1, 1])) == w.mean([1, 2, 3], groups=[0, 1, 1])
    with pytest.raises(InputTypeError, match="log_weights has dtype torch.complex64"):
        Weights(torch.tensor([1j]))
    with pytest.raises(DataError, match=r"1 of 2 values are NaN \(first at row 1\)"):
        Weights(torch.tensor([0.0, math.nan]))


def test_weights_do_not_change():
    given_weights = np.zeros(4)
    w = Weights(given_weights)
    given_weights[0] = 5.0
    assert w.log.tolist() == [0, 0, 0, 0]
    with pytest.raises(AttributeError, match="make new ones instead of setting 'log'"):
        w.log = np.ones(4)
    with pytest.raises(AttributeError, match="'log' stays"):
        del w.log
    for array in (w.log, w.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    again = pickle.loads(pickle.dumps(w))
    np.testing.assert_array_equal(again.log, w.log)
    assert again.effective_sample_size == 4
    with pytest.raises(ValueError, match="read-only"):
        again.log[0] = 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: Weights([]), DataError, "log_weights is empty; give one log weight a row"),
        (
            lambda: Weights([0.0, 1.0, math.nan, math.nan]),
            DataError,
            "log_weights: 2 of 4 values are NaN (first at row 2); give finite log weights, or -inf "
            "to drop a row",
        ),
        (
            lambda: effective_sample_size([0.0, math.inf]),
            DataError,
            "log_weights: 1 of 2 values are infinite (first at row 1); give finite log weights, or "
            "-inf to drop a row",
        ),
        (
            lambda: logmeanexp([NONE, NONE]),
            DataError,
            "log_weights: all 2 values are -inf, so that every row is dropped; keep at least one",
        ),
        (
            lambda: Weights(np.zeros((3, 2))),
            DataError,
            "log_weights has shape (3, 2); give one number a row, shape (n,)",
        ),
        (
            lambda: Weights(["a"]),
            InputTypeError,
            "log_weights has type list; give real numbers",
        ),
        (
            lambda: Weights([0.0, 0.0], mask=[1, 0]),
            InputTypeError,
            "mask has dtype int64; give booleans, true for kept rows",
        ),
        (
            lambda: Weights([0.0, 0.0], mask=[True]),
            DataError,
            "mask has shape (1,); give one boolean a row, shape (2,)",
        ),
        (
            lambda: Weights([0.0, NONE], mask=[False, True]),
            DataError,
            "mask keeps no row with a positive weight; keep at least one",
        ),
        (lambda: Weights.uniform(0), OptionError, "n is 0; give the number of rows, at least 1"),
        (
            lambda: Weights.from_values([1.0, -1.0]),
            DataError,
            "weights: 1 of 2 values are negative, NaN or infinite (first at row 1); give finite "
            "weights, 0 or more",
        ),
        (
            lambda: Weights.from_values([0.0, 0.0]),
            DataError,
            "weights: none of 2 values is positive; give at least one",
        ),
        (
            lambda: Weights.uniform(3).clip(),
            OptionError,
            "clip takes either quantile or maximum; give exactly one",
        ),
        (
            lambda: Weights.uniform(3).clip(quantile=0.5, maximum=2),
            OptionError,
            "clip takes either quantile or maximum; give exactly one",
        ),
        (
            lambda: Weights.uniform(3).clip(quantile=0),
            OptionError,
            "quantile is 0; give a number above 0 and at most 1",
        ),
        (
            lambda: Weights.uniform(3).clip(maximum=math.inf),
            OptionError,
            "maximum is inf; give a finite number above 0",
        ),
        (
            lambda: Weights.uniform(3).temper(-1),
            OptionError,
            "power is -1; give a finite number, 0 or more",
        ),
        (
            lambda: Weights.uniform(3).share_of_top(0),
            OptionError,
            "fraction is 0; give a number above 0 and at most 1",
        ),
        (
            lambda: Weights.uniform(3).resample(method="stratified"),
            OptionError,
            "Unknown method 'stratified'. Choose one of 'systematic', 'multinomial', 'residual'.",
        ),
        (
            lambda: Weights.uniform(3).resample(0),
            OptionError,
            "n is 0; give the number of draws, at least 1",
        ),
        (
            lambda: Weights.uniform(3).mean([1.0, 2.0]),
            DataError,
            "y has 2 rows, the weights have 3; align them",
        ),
        (
            lambda: Weights.uniform(3).mean([1.0, math.inf, math.nan]),
            DataError,
            "y: 2 of 3 kept rows are not finite (first at row 1); drop them from the weights "
            "(mask) or fill them",
        ),
        (
            lambda: Weights.uniform(3).mean([1.0, 2.0, 3.0], groups=[1]),
            DataError,
            "groups has shape (1,); give one label a row, shape (3,)",
        ),
        (
            lambda: Weights.uniform(3).mean([1.0, 2.0, 3.0], level=1),
            OptionError,
            "level is 1; give a number between 0 and 1",
        ),
    ],
)
def test_refusals(call, error, text):
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert str(raised.value) == text


def test_scipy_is_not_imported():
    import subprocess
    import sys

    code = (
        "import sys, dpdq.weights as w; w.Weights(range(99)).status; "
        "assert not {'scipy', 'torch', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_real_ratio_between_sexes(shared_data):
    """Adult: the exact ratio of education between the sexes moves the mean to the other side."""
    import pyarrow.parquet as pq

    table = pq.read_table(shared_data / "adult.parquet").to_pydict()
    names = {name.lower().replace("_", "-"): name for name in table}
    sex = np.array(table[names["sex"]])
    years = np.array(table[names["education-num"]], dtype=float)
    levels = np.unique(sex[[value is not None for value in sex]])
    q, p = years[sex == levels[0]], years[sex == levels[1]]
    values, counts = np.unique(q, return_counts=True)
    shares = np.array([np.mean(p == value) for value in values])
    with np.errstate(divide="ignore"):
        log_ratio = np.log(shares) - np.log(counts / q.size)
    w = Weights(log_ratio[np.searchsorted(values, q)])
    assert w.mean(q).estimate == pytest.approx(p[np.isin(p, values)].mean(), rel=1e-9)
    assert w.effective_sample_size == pytest.approx(
        q.size / np.sum(shares**2 / (counts / q.size)) * shares.sum() ** 2, rel=1e-9
    )
    assert w.ok
