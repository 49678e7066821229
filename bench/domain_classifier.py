"""Domain classifier on 100,000 x 20: seconds, and whether its AUC interval holds the best AUC.

    python bench/domain_classifier.py

The laws are Gaussian, so the best score is known: log dP/dQ. No classifier can exceed its AUC.
"""

import time

import numpy as np

from dpdq.distance import auc, classifier_test


def sides(seed, rows=100_000):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(rows, 20)), rng.normal(size=(rows, 20))
    p[:, :3] += 0.1
    p[:, 3] *= 1.1
    return q, p


def log_ratio(x):
    return (0.1 * x[:, :3] - 0.005).sum(axis=1) - np.log(1.1) + x[:, 3] ** 2 / 2 * (1 - 1 / 1.21)


def main():
    print("100,000 rows a side, 20 columns; three shifted by 0.1, one of scale 1.1")
    print(f"{'seed':>4} {'wall s':>7} {'CPU s':>7} {'AUC':>7} {'low':>7} {'high':>7} {'best':>7}")
    for seed in range(3):
        q, p = sides(seed)
        wall, cpu = time.perf_counter(), time.process_time()
        found = classifier_test(q, p, random_state=seed)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        best = auc(log_ratio(q), log_ratio(p))
        told = found.effect
        print(
            f"{seed:4} {wall:7.2f} {cpu:7.2f} {told.estimate:7.4f} {told.low:7.4f} "
            f"{told.high:7.4f} {best:7.4f}"
        )


if __name__ == "__main__":
    main()
