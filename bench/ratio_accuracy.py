"""How near every ratio estimator comes to a known log dP/dQ, and whether it refuses where it must.

python bench/ratio_accuracy.py                 the table, also in bench/output/ratio_accuracy.txt
python bench/ratio_accuracy.py --write-docs    and the page docs/estimators.md

2,000 rows a side for the fit and as many held out, two draws a case. A new estimator is one line of
`members`; a new law is one line of `CASES`. Seconds are the process's own, import excluded.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ratio_page import SHORT, mean, write_page
from scipy.special import logsumexp

import dpdq.ratio as room
from dpdq.ratio import select_ratio
from dpdq.ratio.diagnostics import diagnose_log_ratios

ROOT = Path(__file__).resolve().parents[1]
ROWS, DRAWS = 2_000, 2
FAR = 50.0  # stands for an infinite log ratio


def members():
    """Name -> estimator; what is not there yet is left out."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    squares = make_pipeline(
        StandardScaler(), PolynomialFeatures(2), LogisticRegression(C=0.1, max_iter=500)
    )
    wanted = {
        "LogisticRatio": {},
        "ClassifierRatio": {"estimator": squares},
        "GradientBoostingRatio": {},
        "TelescopingRatio": {},
        "VariationalRatio": {},
        "ULSIF": {},
        "RULSIF": {},
        "KLIEP": {},
        "KernelMeanMatching": {},
        "NearestNeighborRatio": {},
    }
    found = {}
    for name, params in wanted.items():
        if name in room.__all__:
            kind = getattr(room, name)
            seed = {"random_state": 0} if "random_state" in kind().get_params() else {}
            found[name] = kind(**params, **seed)
    return found


@dataclass
class Case:
    """Two laws with a known ratio."""

    name: str
    draw: Callable  # (rng, n) -> q, p
    log_ratio: Callable


def gaussian_shift(d, kl):
    step = np.sqrt(2 * kl / d)

    def draw(rng, n):
        return rng.normal(size=(n, d)), rng.normal(size=(n, d)) + step

    return Case(
        f"Gaussians, {d} dims, KL {kl:g}", draw, lambda x: (step * x - step**2 / 2).sum(axis=1)
    )


def gaussian_scale(d, scale):
    def draw(rng, n):
        return rng.normal(size=(n, d)), scale * rng.normal(size=(n, d))

    def log_ratio(x):
        return (x**2).sum(axis=1) * (1 - scale**-2) / 2 - d * np.log(scale)

    kl = d * (scale**2 - 1 - 2 * np.log(scale)) / 2
    return Case(f"Scales 1 and {scale:g}, {d} dims, KL {kl:.2g}", draw, log_ratio)


def mixture():
    centres = np.array([[-2.0, -2], [-2, 2], [2, -2], [2, 2]])
    shares = np.array([0.55, 0.25, 0.15, 0.05])

    def draw(rng, n):
        sides = []
        for law in (np.full(4, 0.25), shares):
            sides.append(centres[rng.choice(4, n, p=law)] + 0.7 * rng.normal(size=(n, 2)))
        return sides[0], sides[1]

    def log_ratio(x):
        parts = -((x[:, None] - centres) ** 2).sum(axis=-1) / (2 * 0.7**2)
        return logsumexp(parts + np.log(shares), axis=1) - logsumexp(parts + np.log(0.25), axis=1)

    return Case("Mixture of 4 in 2 dims, other shares", draw, log_ratio)


def board():
    """A 4 x 4 board: three quarters of p lie on its dark squares, which are half of q."""

    def dark(x):
        return np.floor(4 * x).sum(axis=1) % 2 == 1

    def draw(rng, n):
        many = rng.uniform(size=(6 * n, 2))
        kept = many[rng.uniform(size=6 * n) < np.where(dark(many), 0.75, 0.25)]
        return rng.uniform(size=(n, 2)), kept[:n]

    return Case("Checkerboard in 2 dims", draw, lambda x: np.log(np.where(dark(x), 1.5, 0.5)))


def half(which):
    """One side is the other cut at a coordinate; the ratio jumps from a constant to nothing."""
    from scipy.special import ndtr

    def cut(rng, n, at):
        many = rng.normal(size=(int(3 * n / ndtr(-at)) + 50, 2))
        return many[many[:, 0] > at][:n]

    if which == "p":
        return Case(
            "p = the half x > 0 of q",
            lambda rng, n: (rng.normal(size=(n, 2)), cut(rng, n, 0.0)),
            lambda x: np.where(x[:, 0] > 0, np.log(2), -FAR),
        )
    return Case(
        "q = the half x > 0 of p",
        lambda rng, n: (cut(rng, n, 0.0), rng.normal(size=(n, 2))),
        lambda x: np.where(x[:, 0] > 0, -np.log(2), FAR),
    )


def disjoint():
    return Case(
        "Disjoint squares",
        lambda rng, n: (rng.uniform(size=(n, 2)), 2 + rng.uniform(size=(n, 2))),
        lambda x: np.where(x[:, 0] > 1.5, FAR, -FAR),
    )


CASES = [
    *(gaussian_shift(d, kl) for d in (2, 8, 64) for kl in (0.1, 1, 5, 30)),
    gaussian_scale(2, 0.6),
    gaussian_scale(8, 0.6),
    gaussian_scale(2, 1.5),
    mixture(),
    board(),
    half("p"),
    half("q"),
    disjoint(),
]


@dataclass
class Row:
    """What one estimator did in one draw."""

    rmse_q: float
    rmse_p: float
    mean_error: float
    seconds: float
    loss: float
    refuses: bool
    failed: str = ""


def judge(log_q, log_p, case, q, p, seconds):
    truth_q, truth_p = case.log_ratio(q), case.log_ratio(p)

    def rmse(found, truth):
        known = np.abs(truth) < FAR
        return float(np.sqrt(np.mean((found - truth)[known] ** 2))) if known.any() else np.nan

    weights = np.exp(log_q - log_q.max())
    gaps = []
    for moment_q, moment_p in ((q, p), (q**2, p**2)):
        mine, theirs = moment_q.sum(axis=1), moment_p.sum(axis=1)
        gaps.append(abs(weights @ mine / weights.sum() - theirs.mean()) / theirs.std())
    diagnosis = diagnose_log_ratios(log_q, log_p)
    return Row(
        rmse(log_q, truth_q),
        rmse(log_p, truth_p),
        float(max(gaps)),
        seconds,
        float(diagnosis.loss.estimate or 0.0),
        not diagnosis.ok,
    )


def run_case(case, number):
    """Estimator -> its rows; ``truth`` and ``no weights`` stand beside the estimators."""
    table: dict[str, list[Row]] = {}
    for seed in range(DRAWS):
        rng = np.random.default_rng([number, seed])
        q, p = case.draw(rng, ROWS)
        new_q, new_p = case.draw(rng, ROWS)
        fits = dict(members())
        fits["select_ratio"] = None
        for name, estimator in fits.items():
            start = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a bench, not a test
                try:
                    if estimator is None:
                        fitted = select_ratio(q, p, random_state=0)
                    else:
                        fitted = estimator.fit(q=q, p=p)
                    seconds = time.process_time() - start
                    found = fitted.log_ratio(new_q), fitted.log_ratio(new_p)
                except Exception as error:  # one that breaks down is a line of the table
                    row = Row(*[np.nan] * 3, 0.0, np.nan, True, f"{type(error).__name__}: {error}")
                    table.setdefault(name, []).append(row)
                    continue
            row = judge(*found, case, new_q, new_p, seconds)
            table.setdefault(name, []).append(row)
        true = case.log_ratio(new_q), case.log_ratio(new_p)
        table.setdefault("truth", []).append(judge(*true, case, new_q, new_p, 0.0))
        flat = np.zeros(ROWS), np.zeros(ROWS)
        table.setdefault("no weights", []).append(judge(*flat, case, new_q, new_p, 0.0))
    return table


def shown(rows, name):
    value = mean(rows, name)
    return "-" if np.isnan(value) else f"{value:.2f}"


def print_case(case, table, out):
    print(f"\n{case.name}", file=out)
    print("  estimator        rmse q  rmse p  mean error    loss  cpu s  verdict", file=out)
    for name, rows in table.items():
        failed = next((row.failed for row in rows if row.failed), "")
        if failed:
            print(f"  {SHORT.get(name, name):14s} {failed[:90]}", file=out)
            continue
        refused = sum(row.refuses for row in rows)
        verdict = ("trusted", "refused once", "refused")[min(refused, 2)]
        print(
            f"  {SHORT.get(name, name):14s}"
            + f"{shown(rows, 'rmse_q'):>9s}{shown(rows, 'rmse_p'):>8s}"
            + f"{mean(rows, 'mean_error'):12.3f}{mean(rows, 'loss'):8.3f}"
            + f"{mean(rows, 'seconds'):7.2f}  {verdict}",
            file=out,
            flush=True,
        )


def adult_losses(out):
    """Held-out losses on a table of mixed columns: from the women to the men of Adult."""
    folder = Path(os.environ.get("DPDQ_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "adult.parquet").exists():
        print("\nAdult is absent (set DPDQ_DATA): no table of mixed columns", file=out)
        return {}
    import pyarrow.parquet as pq

    adult = pq.read_table(folder / "adult.parquet")
    men = np.char.strip(np.array(adult["sex"].cast("string").to_pylist())) == "Male"
    table = adult.drop_columns(["sex", "relationship"])
    rng = np.random.default_rng(0)
    q, p = (table.take(rng.permutation(np.flatnonzero(side))[: 2 * ROWS]) for side in (~men, men))
    print("\nAdult, women to men, 13 mixed columns: held-out loss (0.693 for r = 1)", file=out)
    losses = {}
    for name, estimator in members().items():
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = estimator.fit(q=q.slice(0, ROWS), p=p.slice(0, ROWS))
            found = fitted.diagnose(q.slice(ROWS), p.slice(ROWS))
        losses[name] = found.loss.estimate
        print(
            f"  {SHORT[name]:14s}{found.loss.estimate:8.3f} (standard error "
            f"{found.loss.standard_error:.3f}){time.process_time() - start:7.2f} s",
            file=out,
            flush=True,
        )
    return losses


class Tee:
    """Text to the screen and to the file."""

    def __init__(self, path):
        self.file = path.open("w")

    def write(self, text):
        sys.stdout.write(text)
        self.file.write(text)

    def flush(self):
        sys.stdout.flush()
        self.file.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.name]
    path = ROOT / "bench" / "output" / "ratio_accuracy.txt"
    out = sys.stdout if options.only else Tee(path)
    start = time.process_time()
    print(
        f"{ROWS:,} + {ROWS:,} rows, errors on as many fresh rows, mean of {DRAWS} draws", file=out
    )
    print(
        "rmse: log ratio in nats; mean error: of the weighted mean of sum x or sum x^2, the larger "
        "one, in sd of p",
        file=out,
    )
    tables = {}
    for case in cases:
        tables[case.name] = run_case(case, CASES.index(case))
        print_case(case, tables[case.name], out)
    adult = adult_losses(out)
    print(f"\n{time.process_time() - start:.0f} s of processor time in all", file=out)
    if options.write_docs and not options.only:
        write_page(ROOT / "docs" / "estimators.md", tables, adult, rows=ROWS, draws=DRAWS)


if __name__ == "__main__":
    main()
