"""Kernel ratio estimators: seconds, memory, and the quality beside them.

python bench/kernel_ratios.py            all of it; output in bench/output/kernel_ratios.txt
python bench/kernel_ratios.py speed      5,000 + 5,000 x 20, one fresh process a line
python bench/kernel_ratios.py kliep      held-out likelihood against the paper's gradient projection
python bench/kernel_ratios.py matching   objective and weighted means at rising tolerances
python bench/kernel_ratios.py accuracy   log-ratio error on Gaussian shifts, equal laws, real data

Import time is excluded. "cpu" is the process's own time over all threads. The reference of
`kliep` is a plain NumPy transcription of the published algorithm, tuned on the same folds.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from dpdq.ratio import KLIEP, RULSIF, ULSIF, KernelMeanMatching
from dpdq.ratio._bumps import squared_distances
from dpdq.ratio._common import content_folds, logistic_losses
from dpdq.ratio.kliep import mixture_weights

MEMBERS = {
    "ulsif": ULSIF(random_state=0),
    "rulsif": RULSIF(random_state=0),
    "kliep": KLIEP(random_state=0),
    "mean_matching": KernelMeanMatching(random_state=0),
}


def wide(n=5000, m=5000, d=20, seed=0):
    rng = np.random.default_rng(seed)
    q, p = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    p[:, :3] += 0.5
    return q, p


def one_speed(name):
    """One fit in a fresh process, so that its peak memory is its own."""
    if name == "grid":
        rng = np.random.default_rng(0)
        q, p = rng.normal(size=(5000, 2)), rng.normal(size=(5000, 2)) + 0.5
        model = ULSIF(
            200,
            bandwidths=np.geomspace(0.1, 10, 13),
            ridges=np.geomspace(1e-3, 1e3, 13),
            tuning_rows=None,
            random_state=0,
        )
    elif name == "blocks":
        q, p = wide(50_000, 50_000)
        model = MEMBERS["mean_matching"]
    else:
        q, p = wide()
        model = MEMBERS[name]
    type(model)(random_state=0).fit(q[:100], p[:100])  # imports, warm libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(q, p)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    note = ""
    if name in ("mean_matching", "blocks"):
        note = (
            f"  objective {model.objective_:.6f}, gap {model.gap_:.1e}, "
            f"{model.n_iterations_} steps, {model.n_blocks_} blocks"
        )
    print(
        f"{name:14s} cpu {cpu:5.2f} s  wall {wall:5.2f} s  peak {peak / 1024:4.0f} MiB "
        f"(+{(peak - before) / 1024:.0f}){note}"
    )


def speed():
    print("one fit with tuning, 5,000 + 5,000 x 20; grid: 13 x 13, 200 centres, 2 x 5,000 x 2;")
    print("blocks: mean matching of 50,000 + 50,000 x 20 in ten blocks")
    for name in [*MEMBERS, "grid", "blocks"]:
        command = [sys.executable, __file__, f"one:{name}"]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def gradient_projection(k_p, mean_q, n_steps=1000):
    """The published algorithm: ascent in E_p[log r], back to E_q[r] = 1 and to r >= 0."""

    def back(theta):
        theta = theta + (1 - mean_q @ theta) * mean_q / (mean_q @ mean_q)
        theta = np.maximum(theta, 0)
        return theta / (mean_q @ theta)

    theta = back(np.ones(len(mean_q)))
    value = np.log(k_p @ theta).mean()
    for rate in 10.0 ** np.arange(3, -4, -1):
        for _ in range(n_steps):
            new = back(theta + rate * k_p.T @ (1 / (k_p @ theta)) / len(k_p))
            found = np.log(np.maximum(k_p @ new, 1e-300)).mean()
            if found <= value:
                break
            theta, value = new, found
    return theta, value


def kliep():
    print("\nKLIEP: E_p[log r] on the fitted and on held-out rows, five folds, same bumps")
    print("                                        ours                      paper")
    print(
        "data                   sigma       fitted  held out  cpu s         fitted  held out  cpu s"
    )
    rng = np.random.default_rng(0)
    cases = {
        "2,000 x 2, shift 1/2": (rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)) + 0.5),
        "2,000 x 5, spread 0.7": (rng.normal(size=(2000, 5)), 0.7 * rng.normal(size=(2000, 5))),
        "5,000 x 20": wide(),
    }
    for name, (q, p) in cases.items():
        folds_q, folds_p = content_folds(q, p, 5)
        centers = p[:100]
        typical = np.sqrt(np.median(squared_distances(centers, centers)[np.triu_indices(100, 1)]))
        for multiple in (0.4, 0.7, 1.0):
            sigma = multiple * typical
            k_q = np.exp(-squared_distances(q, centers) / (2 * sigma**2))
            k_p = np.exp(-squared_distances(p, centers) / (2 * sigma**2))
            totals = np.zeros(6)
            for k in range(5):
                inside, outside = k_p[folds_p != k], k_p[folds_p == k]
                mean_q = k_q[folds_q != k].mean(axis=0)
                cpu = time.process_time()
                ones = np.ones((len(inside), 1))
                mixture, value = mixture_weights(
                    np.hstack([ones, inside / mean_q]),
                    np.full(len(inside), 1 / len(inside)),
                    floor=0.01,
                )
                cpu = time.process_time() - cpu
                held = np.log(mixture[0] + outside @ (mixture[1:] / mean_q)).mean()
                slow = time.process_time()
                theta, other = gradient_projection(inside, mean_q)
                slow = time.process_time() - slow
                held_other = np.log(np.maximum(outside @ theta, 1e-300)).mean()
                totals += [value / 5, held / 5, cpu, other / 5, held_other / 5, slow]
            print(
                f"{name:22s} {sigma:6.2f}  {totals[0]:11.4f}  {totals[1]:8.4f}  {totals[2]:5.2f}"
                f"   {totals[3]:12.4f}  {totals[4]:8.4f}  {totals[5]:5.2f}",
                flush=True,
            )


def matching():
    print("\nMean matching, 5,000 + 5,000 x 20: objective above the best found, as a part of its")
    print("size and of the gain over uniform weights; error of the weights and of exp(log_ratio)")
    print("tolerance  steps  cpu s   of size   of gain  zeros  error of weights  of the function")
    q, p = wide()
    truth = np.exp((0.5 * q[:, :3] - 0.125).sum(axis=1))
    rows = []
    for tolerance in (1e-4, 1e-3, 1e-2, 1e-1):
        cpu = time.process_time()
        model = KernelMeanMatching(tolerance=tolerance, max_iterations=5000, random_state=0)
        model.fit(q, p)
        cpu = time.process_time() - cpu
        errors = [
            np.sqrt(np.mean((r - truth) ** 2)) for r in (model.weights_, np.exp(model.log_ratio(q)))
        ]
        zeros = (model.weights_ == 0).mean()
        rows.append((tolerance, model.n_iterations_, cpu, model.objective_, zeros, *errors))
    best = rows[0][3]
    start = KernelMeanMatching(bound=1 + 1e-9, random_state=0).fit(q, p).objective_
    for tolerance, steps, cpu, objective, zeros, raw, smooth in rows:
        print(
            f"{tolerance:9.0e}  {steps:5d}  {cpu:5.2f}  {(objective - best) / abs(best):8.1e}  "
            f"{(objective - best) / (start - best):8.1e}  {zeros:5.2f}  {raw:16.3f}  {smooth:15.3f}"
        )


def accuracy():
    print("\nroot mean square error of log r on new rows of the middle, N(0, I) against N(d e, I)")
    print("rows  dims  distance" + "".join(f"{name:>15s}" for name in MEMBERS))
    for n in (1_000, 5_000):
        for dimensions in (1, 5, 20):
            for distance in (0.0, 0.5, 1.0, 2.0):
                rng = np.random.default_rng([n, dimensions])
                step = distance / np.sqrt(dimensions)
                q = rng.normal(size=(n, dimensions))
                p = rng.normal(size=(n, dimensions)) + step
                x = rng.normal(size=(5000, dimensions)) + step / 2
                exact = (step * x - step**2 / 2).sum(axis=1)
                errors = [
                    np.sqrt(np.mean((model.fit(q, p).log_ratio(x) - exact) ** 2))
                    for model in MEMBERS.values()
                ]
                print(
                    f"{n:6d}{dimensions:6d}{distance:10.2f}"
                    + "".join(f"{e:15.3f}" for e in errors),
                    flush=True,
                )
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "adult.parquet"
    if not path.exists():
        return
    import pandas as pd

    table = pd.read_parquet(path).select_dtypes("number")
    young = (table["age"] < 40).to_numpy()
    rows = table.drop(columns=["age"]).to_numpy(dtype=float)
    rng = np.random.default_rng(0)
    q, p = rng.permutation(rows[young])[:10_000], rng.permutation(rows[~young])[:10_000]
    print(
        "\nAdult, numeric columns but age, below 40 against above: held-out balanced logistic loss"
    )
    print(f"constant       {np.log(2):.4f}")
    for name, model in MEMBERS.items():
        model.fit(q[:5000], p[:5000])
        losses = logistic_losses(model.log_ratio(q[5000:]), model.log_ratio(p[5000:]))
        print(f"{name:14s} {np.mean([loss.mean() for loss in losses]):.4f}")


if __name__ == "__main__":
    tasks = {"speed": speed, "kliep": kliep, "matching": matching, "accuracy": accuracy}
    for task in sys.argv[1:] or tasks:
        if task.startswith("one:"):
            one_speed(task[4:])
        else:
            tasks[task]()
