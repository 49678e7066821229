"""Values of training rows: seconds and memory of exact k-NN Shapley, and who finds wrong labels.

python bench/values.py            each job in its own process, into bench/output/values.txt
python bench/values.py JOB        knn50k, knn1m, digits, cancer
PEER/bin/python bench/values.py peer      pyDVL (an environment from bench/peers/pydvl.txt)

Import time is excluded. "cpu" is the process's own time over all threads, which says more than the
wall clock on a busy machine; "peak" is the process's largest memory, data included. The detection
jobs flip a tenth of the labels of real training rows and report the area under the curve of
ranking those lowest, mean over splits with 95 % Student intervals.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def rows(n, d=32):
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(n, d)),
        rng.integers(0, 10, n),
        rng.normal(size=(200, d)),
        rng.integers(0, 10, 200),
    )


def report(label, call):
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{label:58} wall {wall:6.2f} s  cpu {cpu:6.2f} s  peak {peak:5.0f} MiB", flush=True)


def knn(n):
    from dpdq.select import KNNShapley

    X, y, T, z = rows(n)
    KNNShapley().fit(X[:500], y[:500]).values(T, z)
    for _ in range(3):
        report(
            f"k-NN Shapley, {n:,} train x 200 test, 32 columns",
            lambda: KNNShapley().fit(X, y).values(T, z),
        )


def peer():
    import warnings

    warnings.filterwarnings("ignore")
    from joblib import parallel_config
    from pydvl.valuation import Dataset, KNNShapleyValuation
    from sklearn.neighbors import KNeighborsClassifier

    X, y, T, z = rows(50_000)
    model = KNNShapleyValuation(KNeighborsClassifier(5), Dataset(T, z), progress=False)

    def fit():
        with parallel_config(n_jobs=1):
            model.fit(Dataset(X, y))

    report("pyDVL KNNShapleyValuation, 50,000 train x 200 test", fit)


def wrong_labels(X, y, n, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    train, test = order[:n], order[n:]
    levels = y.max() + 1
    labels = y[train].copy()
    wrong = np.zeros(n, dtype=bool)
    wrong[rng.choice(n, n // 10, replace=False)] = True
    labels[wrong] = (labels[wrong] + rng.integers(1, levels, wrong.sum())) % levels
    return X[train], labels, X[test], y[test], wrong


def detection(title, valuers, X, y, n, splits):
    from scipy.stats import t
    from sklearn.metrics import roc_auc_score

    print(f"{title}: {n} rows, a tenth of the labels wrong, {splits} splits")
    areas = {name: [] for name in valuers}
    cost = dict.fromkeys(valuers, 0.0)
    fits = dict.fromkeys(valuers, 0)
    for seed in range(splits):
        data = wrong_labels(X, y, n, seed)
        for name, valuer in valuers.items():
            start = time.process_time()
            found = valuer(*data[:4])
            cost[name] += (time.process_time() - start) / splits
            fits[name] = getattr(found, "fits", 0)
            values = getattr(found, "values", found)
            areas[name].append(roc_auc_score(data[4], -values))
    for name, sample in areas.items():
        half = t.ppf(0.975, splits - 1) * np.std(sample, ddof=1) / np.sqrt(splits)
        print(
            f"  {name:34} area {np.mean(sample):.3f} +- {half:.3f}  "
            f"cpu {cost[name]:7.3f} s  {fits[name]:6,} fits",
            flush=True,
        )


def at_random(X, y, T, z):
    return np.random.default_rng(len(T)).permutation(len(X)).astype(float)


def digits():
    from sklearn.datasets import load_digits
    from sklearn.neighbors import KNeighborsClassifier

    from dpdq.select import DataOOB, KNNShapley, LeaveOneOut

    X, y = load_digits(return_X_y=True)
    neighbours = KNeighborsClassifier(5)
    valuers = {
        "k-NN Shapley": lambda X, y, T, z: KNNShapley().fit(X, y).values(T, z),
        "out of bag, 200 trees": lambda X, y, T, z: (
            DataOOB(n_estimators=200, random_state=0).fit(X, y).values()
        ),
        "leave one out, 5 neighbours": lambda X, y, T, z: (
            LeaveOneOut(neighbours).fit(X, y).values(T, z)
        ),
        "random": at_random,
    }
    detection("digits", valuers, X, y, 400, 6)


def cancer():
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    from dpdq.select import DataOOB, DataShapley, KNNShapley, LeaveOneOut

    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    tree = DecisionTreeClassifier(max_depth=2, random_state=0)
    scans = DataShapley(tree, max_permutations=40, truncation=0.02, random_state=0)
    valuers = {
        "k-NN Shapley": lambda X, y, T, z: KNNShapley().fit(X, y).values(T, z),
        "Data Shapley, 40 scans of trees": lambda X, y, T, z: scans.fit(X, y).values(T, z),
        "out of bag, 200 trees": lambda X, y, T, z: (
            DataOOB(tree, n_estimators=200, random_state=0).fit(X, y).values()
        ),
        "leave one out, trees": lambda X, y, T, z: LeaveOneOut(tree).fit(X, y).values(T, z),
        "random": at_random,
    }
    detection("breast cancer", valuers, X, y, 60, 8)


JOBS = {
    "knn50k": lambda: knn(50_000),
    "knn1m": lambda: knn(1_000_000),
    "digits": digits,
    "cancer": cancer,
    "peer": peer,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        JOBS[sys.argv[1]]()
    else:
        with (HERE / "output" / "values.txt").open("w") as out:
            for job in JOBS:
                if job == "peer":
                    continue
                subprocess.run([sys.executable, __file__, job], stdout=out, check=True)
