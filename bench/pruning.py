"""Pruning at equal compute: what a score, a calibrated score and no score at all are worth.

python bench/pruning.py             all jobs, each in its own process, into bench/output/pruning.txt
python bench/pruning.py JOB         digits, mnist, flips, coverage
PEER/bin/python bench/pruning.py peer      facility location by apricot (apricot-select 0.6.1 and
                                           scikit-learn in an environment of its own)

digits, mnist: a network of one hidden layer is trained on r n rows for E epochs, so that every
method makes r n E sample updates, in the same number of steps with the same schedule. The scoring
runs of EL2N come on top (told in the output) for the first two. Repeated random subsets draw r n
fresh rows each epoch. Test accuracy, mean over seeds with a 95 % interval, and the difference to a
fixed random subset, paired by seed.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("DPDQ_DATA", HERE.parents[1] / "shared" / "data"))


def load(name):
    if name == "digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return x.astype(np.float32) / 16, y, 1297
    with np.load(DATA / "mnist_t10k.npz") as file:
        x, y = file["x"] if "x" in file else file[file.files[0]], file["y"]
    x = x.reshape(len(x), 28, 28).astype(np.float32)
    x = x.reshape(len(x), 14, 2, 14, 2).mean(axis=(2, 4)).reshape(len(x), -1) / 255
    return x, y.astype(np.int64), 8000


def train(x, y, orders, weights, seeds, hidden, rate, watch=None):
    """Many networks side by side: orders (models, steps, batch), weights (models, rows).

    The learning rate falls to zero along a cosine. Returns their logits at all rows.
    """
    import torch

    models, steps, _ = orders.shape
    parts = []
    for seed in seeds:
        g = torch.Generator().manual_seed(int(seed))
        parts.append([
            torch.randn(x.shape[1], hidden, generator=g) * (2 / x.shape[1]) ** 0.5,
            torch.zeros(1, hidden),
            torch.randn(hidden, 10, generator=g) * (1 / hidden) ** 0.5,
            torch.zeros(1, 10),
        ])  # fmt: skip
    theta = [torch.stack([part[i] for part in parts]).requires_grad_(True) for i in range(4)]
    speed = [torch.zeros_like(p) for p in theta]

    def logits(rows):
        h = torch.relu(torch.baddbmm(theta[1], rows, theta[0]))
        return torch.baddbmm(theta[3], h, theta[2])

    index = torch.arange(models)[:, None]
    for step in range(steps):
        batch = orders[:, step]
        out = logits(x[batch])
        losses = torch.nn.functional.cross_entropy(
            out.flatten(0, 1), y[batch].flatten(), reduction="none"
        ).view(batch.shape)
        loss = (losses * weights[index, batch]).mean(dim=1).sum()
        slopes = torch.autograd.grad(loss, theta)
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        with torch.no_grad():
            for p, v, slope in zip(theta, speed, slopes, strict=True):
                v.mul_(0.9).add_(slope)
                p.sub_(v, alpha=now)
        if watch is not None:
            watch(step, logits)
    with torch.no_grad():
        return torch.cat([logits(x[i].expand(models, -1, -1))
                          for i in torch.arange(len(x)).split(2000)], dim=1)  # fmt: skip


def epochs_of(rows, epochs, steps, batch, rng):
    """Shuffled epochs of the same rows, cut to the steps."""
    order = np.concatenate([rng.permutation(rows) for _ in range(epochs + 1)])
    return order[: steps * batch].reshape(steps, batch)


def pruning(name, seeds=8, batch=32):
    import torch

    from dpdq.data.pruning_samplers import RepeatedRandomSubset
    from dpdq.select import EL2N, CalibratedPruner, top_k

    torch.set_num_threads(1)
    x, y, n = load(name)
    epochs, hidden, rate = (24, 64, 0.05) if name == "digits" else (8, 48, 0.05)
    if name == "mnist":
        seeds = 5
    scoring_runs, scoring_epochs = 5, 3
    cpu = time.process_time()
    fractions = (0.1, 0.3, 0.5, 0.7)
    found = {}
    for fraction in (*fractions, 1.0):
        size = round(fraction * n)
        steps = epochs * size // batch
        jobs = []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            split = rng.permutation(len(y))
            pool = split[:n]
            xs = torch.from_numpy(x[split])
            ys = torch.from_numpy(y[split])
            if fraction == 1.0:
                chosen = {"all rows": (np.arange(n), np.ones(n))}
            else:
                if (seed, "score") not in found:
                    orders = np.stack([
                        epochs_of(np.arange(n), scoring_epochs, scoring_epochs * n // batch, batch,
                                  np.random.default_rng([seed, run]))
                        for run in range(scoring_runs)
                    ])  # fmt: skip
                    early = train(xs, ys, torch.from_numpy(orders), torch.ones(scoring_runs, n),
                                  1000 * (seed + 1) + np.arange(scoring_runs), hidden,
                                  rate)[:, :n]  # fmt: skip
                    found[seed, "score"] = EL2N().fit(early, y[pool]).utility()
                score = found[seed, "score"]
                chosen = {}
                for label, kept in (
                    ("random", CalibratedPruner(0.0).select(score, n=size, random_state=seed)),
                    ("EL2N", top_k(score, n=size)),
                    ("calibrated EL2N", CalibratedPruner(0.5).select(
                        score, n=size, random_state=seed)),
                ):  # fmt: skip
                    full = np.zeros(n)
                    full[kept.rows] = kept.weights
                    chosen[label] = (kept.rows, full)
                sampler = RepeatedRandomSubset(n, fraction, seed=seed)
                walk = np.concatenate([np.array(list(sampler)) for _ in range(epochs)])
                chosen["repeated random"] = (walk, np.ones(n))
            orders, weights = [], []
            for label, (rows, weight) in chosen.items():
                if label == "repeated random":
                    orders.append(rows[: steps * batch].reshape(steps, batch))
                else:
                    orders.append(epochs_of(rows, epochs, steps, batch, rng))
                weights.append(weight)
            out = train(xs, ys, torch.from_numpy(np.stack(orders)),
                        torch.from_numpy(np.stack(weights)).float(), [seed] * len(orders), hidden,
                        rate)  # fmt: skip
            right = (out.argmax(2) == ys).numpy()[:, n:].mean(axis=1)
            jobs.append(dict(zip(chosen, right.tolist(), strict=True)))
        found[fraction] = jobs
    from scipy.stats import t

    reach = t.ppf(0.975, seeds - 1) / np.sqrt(seeds)
    print(f"{name}: {n} training rows, {epochs} epochs, {seeds} seeds, test accuracy in per cent")
    full = 100 * np.array([job["all rows"] for job in found[1.0]])
    print(f"  all rows          {full.mean():6.2f} +- {reach * full.std(ddof=1):.2f}")
    for fraction in fractions:
        random = 100 * np.array([job["random"] for job in found[fraction]])
        print(f"  {fraction:.0%} kept, {epochs * round(fraction * n):,} sample updates each")
        for label in found[fraction][0]:
            value = 100 * np.array([job[label] for job in found[fraction]])
            gap = value - random
            verdict = ""
            if label != "random":
                half = reach * gap.std(ddof=1)
                verdict = f"  against random {gap.mean():+6.2f} +- {half:.2f}"
                verdict += "  better" if gap.mean() > half else ""
                verdict += "  WORSE" if gap.mean() < -half else ""
            print(f"    {label:16} {value.mean():6.2f} +- {reach * value.std(ddof=1):.2f}{verdict}")
    extra = scoring_runs * scoring_epochs * n
    print(f"  EL2N's scoring runs: {extra:,} sample updates more, not counted above")
    print(f"  cpu {time.process_time() - cpu:.0f} s", flush=True)


def flips(seeds=5, batch=32, hidden=64, rate=0.05):
    """AUROC with which each score finds the flipped tenth of the labels of the digits."""
    import torch
    from scipy.stats import t
    from sklearn.metrics import roc_auc_score

    from dpdq.gradients import per_sample_gradient_norms, true_logit_input_gradients
    from dpdq.select import EL2N, ForgettingCounts, GraNd, SelfInfluence, VarianceOfGradients

    torch.set_num_threads(1)
    x, y, _ = load("digits")
    n, runs, epochs = len(y), 5, 24
    loss = torch.nn.CrossEntropyLoss(reduction="none")
    cpu = time.process_time()
    found = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        flipped = rng.random(n) < 0.1
        labels = np.where(flipped, (y + rng.integers(1, 10, n)) % 10, y)
        xs, ys = torch.from_numpy(x), torch.from_numpy(labels)
        early, grand, trace = EL2N(), GraNd(), SelfInfluence()
        moved, forgotten, single = VarianceOfGradients(), ForgettingCounts(), EL2N()
        for run in range(runs):
            torch.manual_seed(100 * seed + run)
            model = torch.nn.Sequential(
                torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 10)
            )
            optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
            for epoch in range(epochs if run == 0 else 3):
                for rows in torch.randperm(n).split(batch):
                    optimizer.zero_grad()
                    loss(model(xs[rows]), ys[rows]).mean().backward()
                    optimizer.step()
                if run == 0:
                    with torch.no_grad():
                        forgotten.update(model(xs).argmax(1) == ys)
                    if epoch % 4 == 3:
                        norms = per_sample_gradient_norms(model, loss, xs, ys)
                        trace.update(norms, rate)
                    if epoch < 6:
                        moved.update(true_logit_input_gradients(model, xs, ys), ys)
                if epoch == 2:
                    early.update(model(xs), ys)
                    grand.update(per_sample_gradient_norms(model, loss, xs, ys))
                    if run == 0:
                        single.update(model(xs), ys)
        for label, score in (
            ("EL2N, 5 runs of 3 epochs", early),
            ("EL2N, 1 run of 3 epochs", single),
            ("GraNd, 5 runs of 3 epochs", grand),
            ("TracIn self-influence, 6 checkpoints", trace),
            ("forgetting, 24 epochs", forgotten),
            ("variance of gradients, epochs 1-6", moved),
        ):
            found.setdefault(label, []).append(roc_auc_score(flipped, score.utility()))
    print(f"digits, one label in ten flipped, {seeds} seeds: AUROC of each score for the flips")
    reach = t.ppf(0.975, seeds - 1) / np.sqrt(seeds)
    for label, values in found.items():
        print(f"  {label:38} {np.mean(values):.3f} +- {reach * np.std(values, ddof=1):.3f}")
    print(f"  cpu {time.process_time() - cpu:.0f} s", flush=True)


def points(d):
    return np.abs(np.random.default_rng(0).normal(size=(5000, d)))


def coverage():
    from dpdq.select import FacilityLocation, KCenter

    for d in (10, 64):
        x = points(d)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        for label, search in (
            ("facility location, cosine", FacilityLocation()),
            ("facility location, rbf", FacilityLocation("rbf")),
            ("k-centre", KCenter()),
        ):
            times = []
            for _ in range(5):
                start = time.process_time()
                chosen = search.select(x, 200)
                times.append(time.process_time() - start)
            quality = (unit @ unit[chosen.rows].T).max(axis=1).mean()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{label:26} 5,000 x {d}, k = 200: cpu {min(times):.2f} s (best of 5; first "
                f"{times[0]:.2f}), mean cosine to the nearest kept {quality:.4f}, peak {peak:.0f} "
                "MiB",
                flush=True,
            )


def peer():
    from apricot import FacilityLocationSelection

    for d in (10, 64):
        x = points(d)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        times = []
        for _ in range(5):
            start = time.process_time()
            search = FacilityLocationSelection(200, metric="cosine", optimizer="lazy").fit(x)
            times.append(time.process_time() - start)
        quality = (unit @ unit[search.ranking].T).max(axis=1).mean()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"apricot 0.6.1, cosine      5,000 x {d}, k = 200: cpu {min(times[1:]):.2f} s (best of "
            f"4, compiled), mean cosine to the nearest kept {quality:.4f}, peak {peak:.0f} MiB",
            flush=True,
        )


JOBS = {"digits": lambda: pruning("digits"), "mnist": lambda: pruning("mnist"), "flips": flips,
        "coverage": coverage, "peer": peer}  # fmt: skip


def main():
    if len(sys.argv) > 1:
        JOBS[sys.argv[1]]()
        return
    lines = []
    for name in ("digits", "mnist", "flips", "coverage"):
        done = subprocess.run(
            [sys.executable, __file__, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        print(done.stdout, end="", flush=True)
        lines.append(done.stdout)
    (HERE / "output" / "pruning.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
