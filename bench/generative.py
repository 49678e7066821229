"""Seconds and memory of the metrics of generated samples, beside what people use today.

    python bench/generative.py [--repeat 3]

Each case runs in a process of its own. Processor time, since the wall clock suffers from whatever
else the machine does; import time is excluded, and "peak" is that of the whole process, imports
included. Peers: the package prdc, and the matrix square root of clean-fid (scipy.linalg.sqrtm of
the product of the covariances). "apart" is the quality: how far our numbers are from theirs.
The second part is a small study on digits (20 principal components, 500 rows a side): how the
metrics answer to dropped classes, noise and a Gaussian mixture, over fresh samples.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import time

import numpy as np


def frechet_moments(peer):
    from scipy.linalg import sqrtm

    from dpdq.distance import frechet_distance_from_moments

    rng = np.random.default_rng(0)
    d = 2048
    q = rng.normal(size=(4096, d)) * np.linspace(0.1, 2.0, d)
    p = rng.normal(size=(4096, d))
    a, b = np.cov(q, rowvar=False), np.cov(p, rowvar=False)
    zero = np.zeros(d)
    frechet_distance_from_moments(zero[:9], a[:9, :9], zero[:9], b[:9, :9])

    def theirs():
        return float(np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b)).real)

    return theirs if peer else lambda: frechet_distance_from_moments(zero, a, zero, b)


def fidelity(peer):
    import prdc as package

    from dpdq.distance import prdc

    rng = np.random.default_rng(0)
    q, p = rng.normal(size=(10_000, 64)), rng.normal(size=(10_000, 64))
    names = ("precision", "recall", "density", "coverage")
    prdc(q[:300], p[:300])

    def theirs():
        with contextlib.redirect_stdout(io.StringIO()):
            found = package.compute_prdc(p, q, 5)
        return [float(found[name]) for name in names]

    def ours():
        found = prdc(q, p, random_state=0)
        return [getattr(found, name).estimate for name in names]

    return theirs if peer else ours


def samples(n, d):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, d)), rng.normal(0.1, 1.0, size=(n, d))


def kernel_inception(peer):
    from dpdq.distance import kernel_inception_distance

    q, p = samples(10_000, 64)
    kernel_inception_distance(q[:300], p[:300])
    return lambda: kernel_inception_distance(q, p).estimate


def frechet_extrapolated(peer):
    from dpdq.distance import frechet_distance

    q, p = samples(10_000, 64)
    frechet_distance(q[:300], p[:300])
    return lambda: frechet_distance(q, p, extrapolate="both", random_state=0).estimate


def frontier(peer):
    from dpdq.distance import mauve

    q, p = samples(5_000, 64)
    mauve(q[:300], p[:300], random_state=0)
    return lambda: mauve(q, p, random_state=0).mauve.estimate


def vendi(peer):
    from dpdq.distance import vendi_score

    q, _ = samples(10_000, 512)
    vendi_score(q[:30])
    return lambda: vendi_score(q, random_state=0).estimate


def copies(peer):
    from dpdq.distance import memorisation_test

    q, p = samples(5_000, 64)
    train = np.random.default_rng(1).normal(size=(20_000, 64))
    memorisation_test(q[:300], p[:300], train=train[:300])
    return lambda: memorisation_test(q, p, train=train, random_state=0).pvalue


CASES = {
    # what: (maker, has a peer, target)
    "Fréchet distance of moments, 2,048 features": (frechet_moments, True, "0.8 s"),
    "Fréchet, both sides extrapolated, 10,000 x 64": (frechet_extrapolated, False, ""),
    "prdc with intervals, 2 x 10,000 x 64": (fidelity, True, "1.6 s, 500 MiB"),
    "kernel Inception distance, 2 x 10,000 x 64": (kernel_inception, False, ""),
    "MAUVE, 5 seeds x 500 cells, 2 x 5,000 x 64": (frontier, False, ""),
    "Vendi score with interval, 10,000 x 512": (vendi, False, ""),
    "memorisation, 2 x 5,000 against 20,000 x 64": (copies, False, ""),
}


def measure(name: str, peer: bool) -> dict[str, object]:
    call = CASES[name][0](peer)
    wall, cpu = time.perf_counter(), time.process_time()
    answer = call()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "answer": answer,
    }


def fresh(name: str, peer: bool, repeat: int) -> dict[str, object]:
    command = [sys.executable, __file__, "--case", name] + ["--peer"] * peer
    found = []
    for _ in range(repeat):
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(text.splitlines()[-1]))
    return min(found, key=lambda one: one["cpu"])


def digits_study() -> None:
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from sklearn.mixture import GaussianMixture

    from dpdq.distance import frechet_distance, kernel_inception_distance, mauve, prdc

    images, labels = load_digits(return_X_y=True)
    features = PCA(20, random_state=0).fit_transform(images)
    rng = np.random.default_rng(0)
    kinds = ("real", "8 classes", "6 classes", "noise sd 3", "noise sd 6", "mixture")
    metrics = ("mauve", "Fréchet", "Fréchet both", "KID", "precision", "recall", "density",
               "coverage")  # fmt: skip
    table = {kind: [] for kind in kinds}
    for draw in range(20):
        order = rng.permutation(len(features))
        p, rest = features[order[:500]], order[500:]
        mixture = GaussianMixture(10, covariance_type="diag", random_state=draw).fit(p)
        generated = {
            "real": features[rest[:500]],
            "8 classes": features[rest[labels[rest] < 8][:500]],
            "6 classes": features[rest[labels[rest] < 6][:500]],
            "noise sd 3": features[rest[:500]] + rng.normal(0, 3, (500, 20)),
            "noise sd 6": features[rest[:500]] + rng.normal(0, 6, (500, 20)),
            "mixture": mixture.sample(500)[0],
        }
        for kind, q in generated.items():
            four = prdc(q, p, n_groups=0)
            table[kind].append([
                mauve(q, p, n_seeds=3, random_state=draw).mauve.estimate,
                frechet_distance(q, p, n_groups=0).estimate,
                frechet_distance(q, p, extrapolate="both", n_groups=0, random_state=0).estimate,
                kernel_inception_distance(q / 16, p / 16).estimate,
                *(getattr(four, name).estimate for name in metrics[4:]),
            ])  # fmt: skip
    print("\nDigits, 20 fresh splits: mean (standard deviation)")
    print(f"{'q':12s}" + "".join(f"{name:>18s}" for name in metrics))
    for kind in kinds:
        values = np.array(table[kind])
        cells = zip(values.mean(axis=0), values.std(axis=0, ddof=1), strict=True)
        print(f"{kind:12s}" + "".join(f"{mean:.3f} ({sd:.3f})".rjust(18) for mean, sd in cells))
    print("\nSignal over noise: |mean - mean of real| / larger standard deviation of the two")
    real = np.array(table["real"])
    for kind in kinds[1:]:
        values = np.array(table[kind])
        spread = np.maximum(values.std(axis=0, ddof=1), real.std(axis=0, ddof=1))
        ratio = np.abs(values.mean(axis=0) - real.mean(axis=0)) / spread
        print(f"{kind:12s}" + "".join(f"{one:18.1f}" for one in ratio))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--case")
    parser.add_argument("--peer", action="store_true")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.peer)))
        return
    print(
        f"{'work':47s} {'cpu s':>7s} {'wall s':>7s} {'peak':>6s}  peer: {'cpu s':>7s} {'peak':>6s}"
    )
    for name, (_, has_peer, target) in CASES.items():
        ours = fresh(name, False, options.repeat)
        line = f"{name:47s} {ours['cpu']:7.2f} {ours['wall']:7.2f} {ours['mib']:6.0f}"
        if has_peer:
            theirs = fresh(name, True, 1)
            apart = np.max(np.abs(np.divide(ours["answer"], theirs["answer"]) - 1))
            line += f"        {theirs['cpu']:7.2f} {theirs['mib']:6.0f}  apart by {apart:.1e}"
        print(line + (f"  target {target}" if target else ""), flush=True)
    digits_study()


if __name__ == "__main__":
    main()
