"""Start, job time and memory of the four engines on one reduction over 8 million rows.

python bench/engines.py [--rows N]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpdq.passes import Pass


class Moments(Pass):
    """Count, mean and sum of squares of ten columns."""

    def init(self):
        return np.zeros((3, 10))

    def map(self, state, batch, first_row):
        x = np.column_stack([column.to_numpy() for column in batch.columns])
        return state + np.stack([np.full(10, len(x)), x.sum(axis=0), (x**2).sum(axis=0)])

    def merge(self, left, right):
        return left + right

    def finish(self, state):
        return state


class Nothing(Moments):
    """Reads one column and does nothing: the price of starting."""

    columns = ["x0"]

    def map(self, state, batch, first_row):
        return state


def memory():
    """Peak memory of this process and of its largest child, MiB."""
    import resource

    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def one(engine, path):
    """Run in a process of its own and print JSON."""
    from bench.engines import Moments, Nothing

    from dpdq.data import open_source
    from dpdq.engine import run

    options = {"n_jobs": 2} if engine in ("pool", "ray") else {}
    with tempfile.TemporaryDirectory() as folder, open_source(path, side="q") as source:
        if engine == "shards":
            options = {"folder": folder, "rank": 0, "world_size": 1}
        small = open_source({"x0": [0.0]}, side="q")
        start = time.perf_counter()
        run(Nothing(), small, engine=engine, **options)
        begun = time.perf_counter()
        answer = run(Moments(), source, engine=engine, **options)
        done = time.perf_counter()
    own, child = memory()
    print(json.dumps({"start": begun - start, "job": done - begun, "own": own, "child": child,
                      "answer": answer.tolist()}))  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--one", nargs=2)
    given = parser.parse_args()
    if given.one:
        one(*given.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        rng = np.random.default_rng(0)
        schema = pa.schema([(f"x{i}", pa.float64()) for i in range(10)])
        with pq.ParquetWriter(path, schema) as writer:
            for _ in range(given.rows // 500_000):
                block = {name: rng.normal(size=500_000) for name in schema.names}
                writer.write_table(pa.table(block))
        print(f"{given.rows:,} rows of 10 columns, {path.stat().st_size / 2**20:.0f} MiB")
        print(
            f"{'engine':8} {'start s':>8} {'job s':>8} {'own MiB':>8} {'worker MiB':>11}  same bits"
        )
        first = None
        root = Path(__file__).resolve().parents[1]
        env = {**os.environ, "PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
        for engine in ("local", "pool", "shards", "ray"):
            command = [sys.executable, __file__, "--one", engine, str(path)]
            out = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
            if out.returncode:
                print(f"{engine:8} {out.stderr.strip().splitlines()[-1]}")
                continue
            told = json.loads(out.stdout.strip().splitlines()[-1])
            first = first or told["answer"]
            print(f"{engine:8} {told['start']:8.2f} {told['job']:8.2f} {told['own']:8.0f} "
                  f"{told['child']:11.0f}  {told['answer'] == first}")  # fmt: skip


if __name__ == "__main__":
    main()
