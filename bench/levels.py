"""Level and power of all tests of `dpdq.distance`, by simulation.

    python bench/levels.py [--draws 50] [--only SECTION]

Under ten minutes of one core; `bench/output/levels.txt` was made with ``--draws 100``, which takes
twice that.

Level: the share of draws under q = p with p-value at most 0.05. With 100 draws a valid test stays
at or below 0.14 with probability 1 - 1e-3. Power: the same share under an alternative, in half as
many draws. "univariate" rejects where Benjamini and Hochberg's rule finds a column; "sequential"
looks at every pair, and cannot reject where a side has 8 rows.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from dpdq._threads import one_thread_each
from dpdq.distance import (
    auc_interval,
    classifier_test,
    energy_test,
    false_discovery_rate,
    mmd_test,
    sequential_test,
)
from dpdq.distance.univariate import compare_column
from dpdq.errors import DataError

METHODS = (
    "single", "aggregated", "features", "energy", "classifier", "univariate", "sequential"
)  # fmt: skip


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


def univariate(q, p, seed):
    pvalues = [
        compare_column(q[:, j], p[:, j], "numeric", n_permutations=99, seed=seed).pvalue
        for j in range(q.shape[1])
    ]
    return min(value for value in false_discovery_rate(pvalues) if value is not None)


def pvalue(method, q, p, seed):
    if method == "energy":
        return energy_test(q, p, n_permutations=99, random_state=seed).pvalue
    if method == "classifier":
        return classifier_test(q, p, random_state=seed).pvalue
    if method == "univariate":
        return univariate(q, p, seed)
    if method == "sequential":
        return sequential_test(q, p, random_state=seed).pvalue
    method = "random_features" if method == "features" else method
    return mmd_test(q, p, method=method, n_permutations=99, random_state=seed).pvalue


def shares(cases, draws):
    print(f"{'case':36s}" + "".join(f"{m:>12s}" for m in METHODS) + "   cpu s")
    for number, (name, draw) in enumerate(cases.items()):
        start = time.process_time()
        rng = np.random.default_rng([number, 1])
        rejected = dict.fromkeys(METHODS, 0)
        for seed in range(draws):
            q, p = draw(rng)
            for method in METHODS:
                rejected[method] += pvalue(method, q, p, seed) <= 0.05
        line = "".join(f"{rejected[m] / draws:12.3f}" for m in METHODS)
        print(f"{name:36s}{line}   {time.process_time() - start:.0f}", flush=True)


def large(draws):
    """2 x 40,000 rows: what is lost by taking a part, by thinning, by random features."""
    from dpdq.distance import kernel_tests

    ways = {
        "16,384 rows": lambda q, p: ("aggregated", q[:8192], p[:8192]),
        "compressed": lambda q, p: ("compressed", q, p),
        "features": lambda q, p: ("random_features", q, p),
        "default": lambda q, p: ("auto", q, p),
    }
    cases = {
        "mean, 32 columns": lambda r, n: (normal(r, n, 32), normal(r, n, 32) + 0.004),
        "variance, 32 columns": lambda r, n: (normal(r, n, 32), 1.004 * normal(r, n, 32)),
        "correlation, 32 columns": lambda r, n: (normal(r, n, 32), correlated(r, n, 32, 0.14)),
        "width of a mode, 2 columns": lambda r, n: (mixture(r, n, 1.0), mixture(r, n, 1.05)),
        "perturbed uniform, 1 column": lambda r, n: (r.random((n, 1)), perturbed(r, n, 1, 0.05, 4)),
    }
    print(f"{'case':36s}" + "".join(f"{way:>20s}" for way in ways) + "   power (cpu s a test)")
    for number, (name, draw) in enumerate(cases.items()):
        rng = np.random.default_rng([number, 2])
        found, spent = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0.0)
        for seed in range(draws):
            q, p = draw(rng, 40_000)
            for way, choose in ways.items():
                method, some_q, some_p = choose(q, p)
                # so that the features alone, not the exact part beside them, decide
                kernel_tests.PART_ROWS = 500 if way == "features" else 20_000
                start = time.process_time()
                result = mmd_test(
                    some_q, some_p, method=method, n_permutations=99, random_state=seed
                )
                spent[way] += time.process_time() - start
                found[way] += result.pvalue <= 0.05
        line = "".join(f"{found[w] / draws:12.2f} ({spent[w] / draws:5.2f})" for w in ways)
        print(f"{name:36s}{line}", flush=True)


def tilted(rng, n, m, shift, d):
    q, p = normal(rng, n, d), normal(rng, m, d)
    p[:, 0] += shift
    return q, p, np.exp(shift * q[:, 0])


def discrete(rng, n, m):
    share = np.array([1.0, 2.0, 5.0])
    q, p = rng.integers(0, 3, (n, 2)), rng.integers(0, 3, (m, 2))
    p[:, 0] = rng.choice(3, m, p=share / share.sum())
    return q, p, share[q[:, 0]]


WEIGHTED = {
    "true weights, shift 0.3, 100 + 100": lambda r: tilted(r, 100, 100, 0.3, 2),
    "true weights, shift 0.7, 100 + 100": lambda r: tilted(r, 100, 100, 0.7, 2),
    "true weights, shift 1.0, 200 + 100": lambda r: tilted(r, 200, 100, 1.0, 2),
    "true weights, shift 1.5, 300 + 100": lambda r: tilted(r, 300, 100, 1.5, 2),
    "true weights, shift 0.5, 80 + 80 x 50": lambda r: tilted(r, 80, 80, 0.5, 50),
    "counts, 60 + 40": lambda r: discrete(r, 60, 40),
    "Cauchy, gamma weights, 70 + 90": lambda r: (
        r.standard_t(1, (70, 2)), r.standard_t(1, (90, 2)), r.gamma(2.0, size=70)
    ),
    "equal weights, 30 + 200": lambda r: (normal(r, 30, 2), normal(r, 200, 2), np.ones(30)),
    "power: weights miss 0.35, 150 + 150": lambda r: (
        normal(r, 150, 2), normal(r, 150, 2) + 0.35, r.gamma(4.0, size=150)
    ),
}  # fmt: skip


def weighted(draws):
    """Rejections of all draws (a refused one is none), and the share of draws that is answered."""
    print(f"{'case':40s}{'single':>12s}{'aggregated':>12s}{'answered':>12s}")
    for number, (name, draw) in enumerate(WEIGHTED.items()):
        rng = np.random.default_rng([number, 4])
        rejected, answered = {"single": 0, "aggregated": 0}, 0
        for seed in range(draws):
            q, p, weights = draw(rng)
            for method in rejected:
                try:
                    found = mmd_test(
                        q, p, weights_q=weights, method=method, n_permutations=99, random_state=seed
                    )
                except DataError:
                    continue
                answered += method == "single"
                rejected[method] += found.pvalue <= 0.05
        line = "".join(f"{count / draws:12.3f}" for count in rejected.values())
        print(f"{name:40s}{line}{answered / draws:12.2f}", flush=True)


PAIRS = {
    "normal x 3": lambda r, n: (normal(r, n, 3), normal(r, n, 3)),
    "two values x 2": lambda r, n: (r.integers(0, 2, (n, 2)), r.integers(0, 2, (n, 2))),
    "cubed Cauchy x 2": lambda r, n: (heavy(r, n, 2), heavy(r, n, 2)),
    "mean + 0.3 x 1": lambda r, n: (normal(r, n, 1), normal(r, n, 1) + 0.3),
    "mean + 0.1 x 10": lambda r, n: (normal(r, n, 10), normal(r, n, 10) + 0.1),
    "variance x 5": lambda r, n: (normal(r, n, 5), 1.16 * normal(r, n, 5)),
    "correlation x 5": lambda r, n: (normal(r, n, 5), correlated(r, n, 5, 0.6)),
    "dropped mode x 2": lambda r, n: (mixture(r, n, 1.0), mixture(r, n, 1.0, 0.17)),
}


def looks(draws):
    """400 pairs: betting at every pair; ten looks of a fixed test, as it is and by Bonferroni."""
    print(
        f"{'case, 400 pairs':36s}{'betting':>12s}{'median pairs':>14s}{'peeking':>12s}"
        f"{'Bonferroni':>12s}{'one look':>12s}"
    )
    for number, (name, draw) in enumerate(PAIRS.items()):
        rng = np.random.default_rng([number, 5])
        found, when = np.zeros(4), []
        for seed in range(draws):
            q, p = draw(rng, 400)
            bets = sequential_test(q, p, random_state=seed)
            when.append(bets.details["rejected_at"] or math.inf)
            fixed = [
                mmd_test(
                    q[:n], p[:n], method="single", n_permutations=199, random_state=seed
                ).pvalue
                for n in range(40, 401, 40)
            ]
            found += [
                bets.pvalue <= 0.05,
                min(fixed) <= 0.05,
                min(fixed) <= 0.005,
                fixed[-1] <= 0.05,
            ]
        share = found / draws
        print(
            f"{name:36s}{share[0]:12.3f}{np.median(when):14.0f}"
            + "".join(f"{one:12.3f}" for one in share[1:]),
            flush=True,
        )


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
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--only", choices=["level", "power", "large", "weighted", "looks", "auc"])
    options = parser.parse_args()
    draws = options.draws
    sections = {
        "level": ("Level at 0.05", lambda: shares(LEVEL, draws)),
        "power": ("Power at 0.05", lambda: shares(POWER, max(draws // 2, 1))),
        "large": ("Power at 2 x 40,000 rows", lambda: large(max(draws // 10, 1))),
        "weighted": ("Level of the weighted test at 0.05", lambda: weighted(2 * draws)),
        "looks": ("Looking while rows arrive, level 0.05", lambda: looks(max(draws // 2, 1))),
        "auc": ("Cross-fitted AUC", lambda: auc_coverage(draws)),
    }
    start = time.process_time()
    for name, (title, run) in sections.items():
        if options.only in (None, name):
            print(f"\n{title}")
            run()
    print(f"\n{time.process_time() - start:.0f} s processor")


if __name__ == "__main__":
    main()
