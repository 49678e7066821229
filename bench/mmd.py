"""Seconds and peak memory of the kernel tests, each in a process of its own.

    python bench/mmd.py [--repeat 3]

Import time is excluded; memory is the growth of the peak above the data and the imports. Wall time
suffers from whatever else the machine does, so processor time stands beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

CASES = {
    # name: (rows a side, columns, method, permutations, target seconds, target MiB)
    "one bandwidth, 2 x 5,000 x 32": (5_000, 32, "single", 100, 0.5, 150),
    "default (ten bandwidths), 2 x 5,000 x 32": (5_000, 32, "auto", 199, 4.0, 250),
    "default, 999 permutations, 2 x 5,000 x 32": (5_000, 32, "auto", 999, None, None),
    "default, 2 x 10,000 x 32": (10_000, 32, "auto", 199, None, None),
    "default, 2 x 10,000 x 200": (10_000, 200, "auto", 199, None, None),
    "default (random features), 2 x 100,000 x 32": (100_000, 32, "auto", 199, 5.0, 400),
    "compressed, 2 x 100,000 x 32": (100_000, 32, "compressed", 199, None, None),
    "energy, 2 x 5,000 x 32": (5_000, 32, "energy", 199, None, None),
    "weighted, 2 x 5,000 x 32": (5_000, 32, "weighted", 199, None, None),
    "sequential, 5,000 pairs x 32": (5_000, 32, "sequential", 0, None, None),
}


def measure(name: str) -> dict[str, float]:
    from dpdq.distance import energy_test, mmd_test, sequential_test

    n, d, method, n_permutations, _, _ = CASES[name]
    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    mmd_test(q[:50], p[:50], n_permutations=9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    if method == "energy":
        energy_test(q, p, n_permutations=n_permutations, random_state=0)
    elif method == "weighted":
        weights = rng.gamma(3.0, size=n)
        mmd_test(q, p, weights_q=weights, n_permutations=n_permutations, random_state=0)
    elif method == "sequential":
        sequential_test(q, p, random_state=0)
    else:
        mmd_test(q, p, method=method, n_permutations=n_permutations, random_state=0)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--case")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case)))
        return
    print(f"{'work':45s} {'wall s':>8s} {'cpu s':>8s} {'MiB':>6s}   target")
    for name, (*_, seconds, mib) in CASES.items():
        found = []
        for _ in range(options.repeat):
            command = [sys.executable, __file__, "--case", name]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(answer))
        best = {key: min(one[key] for one in found) for key in ("wall", "cpu")}
        target = "" if seconds is None else f"under {seconds} s, {mib} MiB"
        peak = max(one["mib"] for one in found)
        print(
            f"{name:45s} {best['wall']:8.2f} {best['cpu']:8.2f} {peak:6.0f}   {target}", flush=True
        )


if __name__ == "__main__":
    main()
