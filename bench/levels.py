"""Level and power of the kernel and classifier tests, by simulation.

    python bench/levels.py [--draws 200] [--only SECTION] > bench/output/levels_kernel.txt

Level: the share of draws under q = p with p-value at most 0.05. With 200 draws a valid test stays
at or below 0.12 with probability 1 - 1e-4. Power: the same share under an alternative.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from dpdq._threads import one_thread_each
from dpdq.distance import auc_interval, energy_test, mmd_test

METHODS = ("single", "aggregated", "random_features", "energy")


def normal(rng, n, d):
    return rng.normal(size=(n, d))


def mixture(rng, n, spread, share=0.25):
    """Four modes at (+-20, +-20); the first has another standard deviation or share."""
    mode = rng.choice(4, n, p=[share, *[(1 - share) / 3] * 3])
    centre = np.array([[20, 20], [20, -20], [-20, 20], [-20, -20]])[mode]
    return centre + rng.normal(size=(n, 2)) * np.where(mode == 0, spread, 1.0)[:, None]


def perturbed(rng, n, d, amplitude, periods):
    """Density 1 + amplitude prod_j sin(2 pi periods x_j) on the unit cube."""
    x = rng.random((6 * n, d))
    density = 1 + amplitude * np.prod(np.sin(2 * np.pi * periods * x), axis=1)
    return x[rng.random(6 * n) * (1 + amplitude) < density][:n]


def correlated(rng, n, d, rho):
    x = normal(rng, n, d)
    x[:, 1] = rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]
    return x


def heavy(rng, n, d):
    return rng.standard_t(1, (n, d)) ** 3


LEVEL = {
    "normal, 50 + 50 x 1": lambda r: (normal(r, 50, 1), normal(r, 50, 1)),
    "normal, 8 + 1,000 x 3": lambda r: (normal(r, 8, 3), normal(r, 1000, 3)),
    "normal, 30 + 30 x 200": lambda r: (normal(r, 30, 200), normal(r, 30, 200)),
    "two values, 20 + 30 x 2": lambda r: (r.integers(0, 2, (20, 2)), r.integers(0, 2, (30, 2))),
    "counts, 8 + 200 x 1": lambda r: (r.poisson(1.0, (8, 1)), r.poisson(1.0, (200, 1))),
    "cubed Cauchy, 40 + 60 x 2": lambda r: (heavy(r, 40, 2), heavy(r, 60, 2)),
    "normal, 907 + 350 x 2 (blocks)": lambda r: (normal(r, 907, 2), normal(r, 350, 2)),
}

POWER = {
    "mean, 200 + 200 x 10": lambda r: (normal(r, 200, 10), normal(r, 200, 10) + 0.1),
    "one column, 200 + 200 x 50": lambda r: (
        normal(r, 200, 50),
        normal(r, 200, 50) + 0.5 * np.eye(50)[0],
    ),
    "variance, 200 + 200 x 5": lambda r: (normal(r, 200, 5), 1.16 * normal(r, 200, 5)),
    "correlation, 300 + 300 x 5": lambda r: (normal(r, 300, 5), correlated(r, 300, 5, 0.6)),
    "location of Cauchy, 200 + 200 x 3": lambda r: (
        r.standard_cauchy((200, 3)),
        r.standard_cauchy((200, 3)) + 0.25,
    ),
    "dropped mode, 300 + 300 x 2": lambda r: (mixture(r, 300, 1.0), mixture(r, 300, 1.0, 0.17)),
    "8 against 1,000 x 3, mean": lambda r: (normal(r, 8, 3), normal(r, 1000, 3) + 0.7),
    "2-D mixture, 2,500 + 2,500": lambda r: (mixture(r, 2500, 1.0), mixture(r, 2500, 1.3)),
    "perturbed uniform 1-D, 2,500 + 2,500": lambda r: (
        r.random((2500, 1)),
        perturbed(r, 2500, 1, 0.25, 4),
    ),
    "perturbed uniform 2-D, 2,500 + 2,500": lambda r: (
        r.random((2500, 2)),
        perturbed(r, 2500, 2, 0.45, 2),
    ),
}


def test(method, q, p, seed):
    if method == "energy":
        return energy_test(q, p, n_permutations=99, random_state=seed)
    return mmd_test(q, p, method=method, n_permutations=99, random_state=seed)


def shares(cases, draws):
    print(f"{'case':40s}" + "".join(f"{m:>17s}" for m in METHODS) + "   seconds")
    for number, (name, draw) in enumerate(cases.items()):
        start = time.process_time()
        rng = np.random.default_rng([number, 1])
        rejected = dict.fromkeys(METHODS, 0)
        for seed in range(draws):
            q, p = draw(rng)
            for method in METHODS:
                rejected[method] += test(method, q, p, seed).pvalue <= 0.05
        line = "".join(f"{rejected[m] / draws:17.3f}" for m in METHODS)
        print(f"{name:40s}{line}   {time.process_time() - start:.0f}", flush=True)


def large(draws):
    """Exact kernels on 2 x 5,000 rows, random features alone on them, the default on 2 x 20,000."""
    print(
        f"{'case, 32 columns':40s}{'exact 5,000':>17s}{'features 5,000':>17s}"
        f"{'default 20,000':>17s}"
    )
    cases = {
        "mean": lambda r, n: (normal(r, n, 32), normal(r, n, 32) + 0.0115),
        "variance": lambda r, n: (normal(r, n, 32), 1.0105 * normal(r, n, 32)),
        "correlation": lambda r, n: (normal(r, n, 32), correlated(r, n, 32, 0.5)),
    }
    from dpdq.distance import kernel_tests

    for number, (name, draw) in enumerate(cases.items()):
        rng = np.random.default_rng([number, 2])
        found = np.zeros(3)
        for seed in range(draws):
            q, p = draw(rng, 5000)
            found[0] += test("aggregated", q, p, seed).pvalue <= 0.05
            kernel_tests.PART_ROWS = 500  # so that the features, not the exact part, decide
            found[1] += test("random_features", q, p, seed).pvalue <= 0.05
            kernel_tests.PART_ROWS = 20_000
            q, p = draw(rng, 20_000)
            found[2] += test("auto", q, p, seed).pvalue <= 0.05
        print(f"{name:40s}" + "".join(f"{share:17.2f}" for share in found / draws), flush=True)


def linear(train, is_p, score):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(train, is_p).decision_function(score)


def boosted(train, is_p, score):
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=15, max_leaf_nodes=8)
    with one_thread_each():
        return model.fit(train, is_p).decision_function(score)


def neighbours(train, is_p, score):
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(15).fit(train, is_p).predict_proba(score)[:, 1]


def auc_coverage(draws):
    """Cross-fitted AUC: spread over naive error, and how often the lower end is above the truth."""
    print(
        f"{'model, 150 + 150 x 3, 5 folds':40s}{'mean AUC':>10s}{'spread/naive':>14s}"
        f"{'naive low>truth':>17s}{'low>truth':>11s}{'covers':>8s}"
    )
    for model in (linear, neighbours, boosted):
        for shift in (0.0, 0.8):
            rng = np.random.default_rng(3)
            found = []
            for _ in range(draws):
                points = normal(rng, 300, 3)
                points[150:, 0] += shift
                is_p = np.repeat([0, 1], 150)
                folds = np.concatenate([rng.permutation(np.arange(150) % 5) for _ in range(2)])
                scores = np.empty(300)
                for fold in range(5):
                    out = folds == fold
                    scores[out] = model(points[~out], is_p[~out], points[out])
                found.append(
                    auc_interval(
                        scores[:150], scores[150:], folds_q=folds[:150], folds_p=folds[150:]
                    )
                )
            estimate = np.array([f.estimate for f in found])
            naive = np.array([f.standard_error for f in found]) / math.sqrt(2)
            truth = 0.5 if shift == 0 else estimate.mean()
            print(
                f"{model.__name__ + (', q = p' if shift == 0 else ', shifted'):40s}"
                f"{estimate.mean():10.3f}"
                f"{estimate.std() / math.sqrt((naive**2).mean()):14.2f}"
                f"{np.mean(estimate - 1.96 * naive > truth):17.3f}"
                f"{np.mean([f.low > truth for f in found]):11.3f}"
                f"{np.mean([f.low <= truth <= f.high for f in found]):8.3f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--only", choices=["level", "power", "large", "auc"])
    options = parser.parse_args()
    sections = {
        "level": ("Level at 0.05", lambda: shares(LEVEL, options.draws)),
        "power": ("Power at 0.05", lambda: shares(POWER, max(options.draws // 2, 1))),
        "large": ("Power of random features", lambda: large(max(options.draws // 5, 1))),
        "auc": ("Cross-fitted AUC", lambda: auc_coverage(options.draws)),
    }
    for name, (title, run) in sections.items():
        if options.only in (None, name):
            print(f"\n{title}")
            run()


if __name__ == "__main__":
    main()
