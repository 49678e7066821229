"""Ratio estimators and divergence bounds: seconds, accuracy, coverage.

python bench/ratio.py speed      cross-fits of 16,000 + 16,000 x 20, uLSIF's 13 x 13 grid, scoring
python bench/ratio.py coverage   500 draws a cell; output in bench/output/divergence_coverage.txt

Import time is excluded. "cpu" is the process's own time over all threads, which says more than
the wall clock on a busy machine. How near the estimators come to a known ratio stands in
bench/ratio_accuracy.py.
"""

import sys
import time
import tracemalloc

import numpy as np

from dpdq.distance.divergence_estimates import estimate_divergences, logistic_model_intervals
from dpdq.divergences import divergence
from dpdq.ratio import ULSIF, CrossFittedRatio, GradientBoostingRatio, LogisticRatio
from dpdq.ratio._common import content_folds

NAMES = (
    "kl",
    "reverse_kl",
    "jensen_shannon",
    "pearson_chi2",
    "total_variation",
    "squared_hellinger",
)


def mixed_table(n, shift, rng):
    numbers = rng.normal(size=(n, 10))
    numbers[:, :3] += shift
    numbers[:, 3] *= 1 + shift
    codes = [
        np.minimum(rng.geometric(0.1 + 0.1 * shift * (j % 2), n) - 1, (5, 10, 20, 50, 200)[j % 5])
        for j in range(10)
    ]
    return np.column_stack([numbers, *codes]).astype(float)


def timed(call):
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    return value, time.perf_counter() - wall, time.process_time() - cpu


def speed():
    rng = np.random.default_rng(0)
    q, p = mixed_table(16_000, 0.0, rng), mixed_table(16_000, 0.3, rng)
    folds_q, folds_p = content_folds(q, p, 5)
    categorical = np.repeat([False, True], 10)
    print("5-fold cross-fit, 16,000 + 16,000 x 20 (10 numeric, 10 codes)")
    for name, estimator in (
        ("logistic", LogisticRatio()),
        ("gradient_boosting", GradientBoostingRatio(categorical, random_state=0)),
        ("ulsif", ULSIF(random_state=0)),
    ):

        def work(name=name, estimator=estimator):
            fitted = CrossFittedRatio({name: (estimator, "x")})
            return fitted.fit({"x": q}, {"x": p}, folds_q, folds_p)

        work()
        fitted, wall, cpu = timed(work)
        many = np.vstack([q] * 20)
        _, score_wall, score_cpu = timed(lambda: fitted.score(many, np.tile(folds_q, 20)))  # noqa: B023
        print(
            f"  {name:18s} {wall:6.2f} s (cpu {cpu:5.2f})  held-out loss "
            f"{fitted.losses_[name]['loss']:.4f}  shift {fitted.shift_:+.3f}  scoring "
            f"{len(many) / score_wall:,.0f} rows/s (cpu {len(many) / score_cpu:,.0f})"
        )
    q, p = rng.normal(size=(5000, 2)), rng.normal(size=(5000, 2)) + 0.5
    model = ULSIF(
        200,
        bandwidths=np.geomspace(0.1, 10, 13),
        ridges=np.geomspace(1e-3, 1e3, 13),
        tuning_rows=None,
        random_state=0,
    )
    model.fit(q, p)
    _, wall, cpu = timed(lambda: model.fit(q, p))
    tracemalloc.start()
    model.fit(q, p)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(
        f"uLSIF, 13 x 13 grid, 200 centres, 2 x 5,000 x 2: {wall:.2f} s (cpu {cpu:.2f}), "
        f"peak {peak:.0f} MiB"
    )


def truth(distance):
    z = np.linspace(-14, 14 + 2 * distance, 400_001)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    log_r = distance * z - distance**2 / 2
    return np.array(
        [
            np.trapezoid(density * divergence(name).f(log_r), z) * divergence(name).scale_to_report
            for name in NAMES
        ]
    )


def one_draw(dimensions, distance, n, m, seed):
    rng = np.random.default_rng([seed, dimensions, n])
    p = rng.normal(size=(m, dimensions)) + distance / np.sqrt(dimensions)
    return rng.normal(size=(n, dimensions)), p


def coverage(draws=500):
    print(f"Coverage over {draws} draws; q = N(0, I), p = N(mean, I), |mean| = distance.")
    print("A valid 95 % statement falls below 0.898 once in two million cells of 500 draws.")
    print("\nHeld-out lower bounds, critic by 5-fold cross-fitted LogisticRatio, nominal 0.95")
    head = "".join(f"{name:>19s}" for name in NAMES)
    print(f"   n_q   n_p  dims  distance{head}")
    sizes = ((500, 500), (2000, 300))
    for n, m in sizes:
        for dimensions in (1, 5, 20):
            for distance in (0.0, 0.25, 0.5, 1.0, 2.0, 3.0):
                exact, held = truth(distance), np.zeros(len(NAMES))
                for seed in range(draws):
                    q, p = one_draw(dimensions, distance, n, m, seed)
                    fitted = CrossFittedRatio({"l": (LogisticRatio(), "x")}).fit(
                        {"x": q}, {"x": p}, np.arange(n) % 5, np.arange(m) % 5
                    )
                    found = estimate_divergences(fitted.log_ratio_q_, fitted.log_ratio_p_)
                    held += [found[name].low for name in NAMES] <= exact + 1e-12
                print_row(n, m, dimensions, distance, held / draws)
    print("\nTwo-sided intervals of the logistic model, nominal 0.95 (mean width below)")
    print(f"   n_q   n_p  dims  distance{head}")
    for n, m in sizes:
        for dimensions in (1, 5, 20):
            for distance in (0.0, 0.25, 0.5, 1.0, 2.0):
                exact = truth(distance)
                held, width, given = np.zeros(len(NAMES)), np.zeros(len(NAMES)), 0
                for seed in range(draws):
                    found = logistic_model_intervals(*one_draw(dimensions, distance, n, m, seed))
                    if found["kl"].high is None:
                        continue
                    low = np.array([found[name].low for name in NAMES])
                    high = np.array([found[name].high for name in NAMES])
                    held += (low <= exact + 1e-12) & (exact <= high)
                    width += high - low
                    given += 1
                if not given:
                    print(f"{n:6d}{m:6d}{dimensions:6d}{distance:10.2f}  refused: too few overlap")
                    continue
                print_row(n, m, dimensions, distance, held / given)
                print_row(n, m, dimensions, distance, width / given)


def print_row(n, m, dimensions, distance, values):
    row = "".join(f"{value:19.3f}" for value in values)
    print(f"{n:6d}{m:6d}{dimensions:6d}{distance:10.2f}{row}", flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ["speed"]:
        {"speed": speed, "coverage": coverage}[name]()
