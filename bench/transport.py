"""Sliced transport: seconds, memory and accuracy beside POT; power of learnt directions; the bound.

    python bench/transport.py [--repeat 5] [--rounds 200]

Every timing is a process of its own; import time is excluded and memory is the growth of the peak
above the data and the imports. Wall time suffers from whatever else the machine does, so processor
time stands beside it (of two cores, both count).
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time

import numpy as np

N, D, L = 5_000, 32, 500
CASES = {
    "POT, float64": "pot",
    "dpdq, value and interval, float32": "float32",
    "dpdq, value and interval, float64": "float64",
    "dpdq, value alone, float32": "value32",
    "dpdq, value alone, float64": "value64",
    "dpdq, max": "max",
    "dpdq, vmf": "vmf",
    "dpdq, 5,000 against 4,000 rows": "unequal",
    "dpdq, weighted": "weighted",
    "dpdq, test, 100 directions, 199 permutations": "test",
    "dpdq, Sinkhorn, 1,000 rows a side": "sinkhorn",
}


def data(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(n, D)), rng.normal(size=(n, D))
    p[:, 0] += 0.5
    return q, p


def measure(what: str) -> dict[str, float]:
    from dpdq.distance import sinkhorn_divergence, sliced_wasserstein, sliced_wasserstein_test
    from dpdq.distance._slices import Slices
    from dpdq.distance._sphere import uniform_directions

    q, p = data()
    theta = uniform_directions(L, D, np.random.default_rng(1))
    weights = np.random.default_rng(2).random(N)

    def pot(q: np.ndarray, p: np.ndarray) -> float:
        import ot

        return float(ot.sliced_wasserstein_distance(q, p, projections=theta.T, p=2))

    def value(dtype: type) -> object:
        def run(q: np.ndarray, p: np.ndarray) -> float:
            return math.sqrt(Slices(q, p, 2.0, dtype=dtype).costs(theta).mean())

        return run

    def sliced(**options: object) -> object:
        return lambda q, p: sliced_wasserstein(q, p, random_state=0, **options).estimate

    work = {
        "pot": pot,
        "float32": sliced(projections=theta),
        "float64": sliced(projections=theta, precision="float64"),
        "value32": value(np.float32),
        "value64": value(np.float64),
        "max": sliced(projections="max"),
        "vmf": sliced(projections="vmf"),
        "unequal": lambda q, p: sliced(projections=theta)(q, p[:4000]),
        "weighted": lambda q, p: sliced(projections=theta, weights_q=weights[: len(q)])(q, p),
        "test": lambda q, p: sliced_wasserstein_test(q, p, random_state=0).statistic,
        "sinkhorn": lambda q, p: sinkhorn_divergence(q[:1000], p[:1000]).estimate,
    }[what]
    work(q[:60], p[:60])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    walls, cpus, answer = [], [], 0.0
    for _ in range(3):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = work(q, p)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {
        "wall": min(walls),
        "cpu": min(cpus),
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
        "value": answer,
    }


def show_speed(repeat: int) -> None:
    print(f"2 x {N:,} x {D}, {L} directions, order 2 (target: under 0.05 s wall, 100 MiB)\n")
    print(f"{'work':46s} {'wall s':>8s} {'cpu s':>8s} {'MiB':>6s}  value")
    for name, what in CASES.items():
        found = []
        for _ in range(repeat):
            command = [sys.executable, __file__, "--case", what]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(text))
        wall, cpu = (min(one[key] for one in found) for key in ("wall", "cpu"))
        peak = max(one["mib"] for one in found)
        print(f"{name:46s} {wall:8.3f} {cpu:8.3f} {peak:6.0f}  {found[0]['value']:.9g}", flush=True)


def show_power(rounds: int) -> None:
    """Digits with one block of 2 x 2 pixels moved, permutation-calibrated at 5 %."""
    from sklearn.datasets import load_digits

    from dpdq.distance import sliced_wasserstein_test

    images = load_digits().data
    methods = {
        "uniform, all rows": ("uniform", 1.0, {}),
        "uniform, half": ("uniform", 0.5, {}),
        "max": ("max", 1.0, {}),
        "vmf, kappa 64": ("vmf", 1.0, {}),
        "vmf, kappa 128": ("vmf", 1.0, {"kappa": 128.0}),
        "adaptive": ("adaptive", 1.0, {}),
    }
    print(f"\npower at 5 %, {rounds} draws of digits, four pixels moved by so much")
    print("(learnt directions: half of the rows to learn, the other half to test)\n")
    cells = [(100, 0.0), (100, 3.0), (100, 4.0), (400, 1.0), (400, 1.5)]
    print(f"{'':20s}" + "".join(f"  n={n} +{a:g}".rjust(13) for n, a in cells))
    for name, (kind, part, options) in methods.items():
        row = []
        for n, amount in cells:
            hits = 0
            for k in range(rounds if n == 100 else rounds // 2):
                rows = np.random.default_rng(k).permutation(len(images))[: 2 * n]
                q, p = images[rows[:n]], images[rows[n:]].copy()
                p[:, [27, 28, 35, 36]] += amount
                use = int(part * n)
                found = sliced_wasserstein_test(
                    q[:use], p[:use], projections=kind, n_projections=50, n_permutations=99,
                    random_state=k, **options,
                )  # fmt: skip
                hits += found.pvalue <= 0.05
            row.append(hits / (rounds if n == 100 else rounds // 2))
        print(f"{name:20s}" + "".join(f"{value:13.2f}" for value in row), flush=True)


def show_bound() -> None:
    """The PAC-Bayes lower bound beside the true value: uniform noise, one column moved by 0.8."""
    from dpdq.distance import AdaptiveSlicedWasserstein
    from dpdq.distance._directions import SliceLaw

    print("\nlower bound at 95 % on SW_r^r over the learnt law; d = 3, shift 0.8, D = 1.04\n")
    print(f"{'order':>5s} {'n':>7s} {'truth':>8s} {'plug-in':>8s} {'bound':>8s} {'failures':>9s}")
    for order in (1, 2):
        for n in (200, 1_000, 5_000, 20_000):
            rng = np.random.default_rng(0)
            terms, truths, failures, n_rounds = [], [], 0, 10
            for k in range(n_rounds):
                q, p = 0.2 * rng.random((n, 3)), 0.2 * rng.random((n, 3))
                p[:, 1] += 0.8
                model = AdaptiveSlicedWasserstein(
                    order=order, diameter=math.sqrt(0.08 + 1.0), random_state=k
                ).fit(q, p)
                draws = SliceLaw(model.direction_, model.kappa_).draw(20_000, rng)
                truths.append((np.abs(0.8 * draws[:, 1]) ** order).mean())
                terms.append((model.bound_.cost, model.bound_.lower))
                failures += model.bound_.lower > truths[-1]
            cost, lower = np.mean(terms, axis=0)
            share = f"{failures}/{n_rounds}"
            print(f"{order:5d} {n:7,d} {np.mean(truths):8.3f} {cost:8.3f} {lower:8.3f} {share:>9s}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case)))
        return
    show_speed(options.repeat)
    show_power(options.rounds)
    show_bound()


if __name__ == "__main__":
    main()
