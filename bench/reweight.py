"""Balancing weights: seconds, memory and balance, beside the survey package `balance`.

python bench/reweight.py            each job in its own process, into bench/output/reweight.txt
python bench/reweight.py JOB        entropy, capped, exact, over, propensity, raking, infeasible
PEER/bin/python bench/reweight.py peer JOB     exact, over or propensity, by `balance`
                                               (an environment from bench/peers/balance.txt)

Import time is excluded. "cpu" is the process's own time over all threads, which says more than
the wall clock on a busy machine; "peak" is the process's largest memory and "over the data" what
the fit added to it.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
ROWS = 100_000


def survey(n, seed=0):
    """Five survey covariates a side: three of levels, two numbers."""
    rng = np.random.default_rng(seed)

    def side(shift):
        towns = np.arange(1, 11) ** (0.5 * shift)
        return {
            "gender": rng.choice(["f", "m", "x"], n, p=[0.5 - shift / 10, 0.48 + shift / 10, 0.02]),
            "education": rng.choice(
                list("12345"), n, p=np.array([1, 2 - shift, 3, 2, 1 + shift]) / 9
            ),
            "region": rng.choice([f"r{i}" for i in range(10)], n, p=towns / towns.sum()),
            "age": np.clip(rng.normal(45 + 5 * shift, 15, n), 18, 90).round(),
            "income": np.exp(rng.normal(10 + 0.2 * shift, 0.6, n)),
        }

    return side(0.0), side(0.6)


def normal(n, d=5, seed=0):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    p += 0.3
    return q, p


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(label, call):
    before = peak()
    wall, cpu = time.perf_counter(), time.process_time()
    model = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = peak()
    report = model.diagnostics()
    print(
        f"{label:54} wall {wall:6.2f} s  cpu {cpu:6.2f} s  peak {after:5.0f} MiB "
        f"({after - before:4.0f} over the data)  largest difference {report.largest_after:.1e}  "
        f"effective rows {report.effective_sample_size:,.0f}",
        flush=True,
    )
    return model


def job(name):
    from dpdq.errors import OverlapError
    from dpdq.reweight import (
        CovariateBalancingPropensity,
        EntropyBalancing,
        InversePropensityWeighting,
        Raking,
    )

    small = normal(200)
    EntropyBalancing().fit(*small)  # imports
    if name in ("entropy", "capped", "infeasible"):
        rng = np.random.default_rng(0)
        q = rng.normal(size=(1_000_000, 20))
        p = rng.normal(size=(500_000, 20))
        p *= np.linspace(0.9, 1.1, 20)
        p += 0.15 * np.sin(np.arange(20))
    if name == "entropy":
        timed(
            "entropy balancing, 1,000,000 x 20, 40 moments",
            lambda: EntropyBalancing().fit(q, p, moments=2),
        )
    elif name == "capped":
        timed(
            "  the same, cap 5, tolerance 0.001",
            lambda: EntropyBalancing(cap=5.0, tolerance=0.001).fit(q, p, moments=2),
        )
    elif name == "infeasible":
        p[:, 3] = 0.98 * q[:, 3].max() + 0.001 * p[:, 3]
        p[:, 4] = 0.98 * q[:, 4].max() + 0.001 * p[:, 4]
        cpu = time.process_time()
        try:
            EntropyBalancing().fit(q, p)
        except OverlapError as error:
            print(f"  refused after cpu {time.process_time() - cpu:.2f} s: {error}")
    elif name == "exact":
        q, p = normal(ROWS)
        timed(
            "covariate-balancing propensity, exact, 100,000 a side x 5",
            lambda: CovariateBalancingPropensity().fit(q, p),
        )
    elif name == "over":
        q, p = normal(ROWS)
        timed(
            "covariate-balancing propensity, over, 100,000 a side x 5",
            lambda: CovariateBalancingPropensity(method="over").fit(q, p),
        )
    elif name == "propensity":
        q, p = survey(ROWS)
        make = InversePropensityWeighting(bins=10, n_penalties=250, n_folds=10, choice="one_se")
        model = timed("inverse propensity, 250 penalties x 10 folds", lambda: make.fit(q, p))
        print(f"  penalty {model.penalty_:.3g} (one standard error)")
    elif name == "raking":
        q, p = survey(ROWS)
        timed("raking, 5 margins (two numbers in 10 bins)", lambda: Raking(bins=10).fit(q, p))


def peer(name):
    import logging
    import warnings

    import pandas as pd

    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from balance.weighting_methods.cbps import cbps
    from balance.weighting_methods.ipw import ipw

    if name == "propensity":
        q, p = (pd.DataFrame(side) for side in survey(ROWS))
    else:
        q, p = (pd.DataFrame(x, columns=[f"x{j}" for j in range(5)]) for x in normal(ROWS))
    p.index = range(ROWS, 2 * ROWS)
    ones = [pd.Series(1.0, index=side.index) for side in (q, p)]
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "propensity":
        found = ipw(q, ones[0], p, ones[1], max_de=None)
    else:
        found = cbps(q, ones[0], p, ones[1], cbps_method=name, transformations=None, max_de=None)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    weights = found["weight"].to_numpy()
    numbers = [column for column in q.columns if q[column].dtype.kind == "f"]
    off = max(
        abs(np.average(q[column], weights=weights) - p[column].mean())
        / np.sqrt((q[column].var() + p[column].var()) / 2)
        for column in numbers
    )
    print(
        f"balance {name:12} wall {wall:6.2f} s  cpu {cpu:6.2f} s  peak {peak():5.0f} MiB  largest "
        f"difference {off:.1e}  effective rows {weights.sum() ** 2 / (weights**2).sum():,.0f}"
    )


JOBS = ("entropy", "capped", "infeasible", "exact", "over", "propensity", "raking")


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "peer":
        peer(sys.argv[2])
    elif len(sys.argv) > 1:
        job(sys.argv[1])
    else:
        lines = []
        for name in JOBS:
            done = subprocess.run(
                [sys.executable, __file__, name],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
            print(done.stdout, end="", flush=True)
            lines.append(done.stdout)
        (HERE / "output" / "reweight.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
