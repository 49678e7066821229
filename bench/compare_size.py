"""Seconds and peak memory of `dpdq compare` at 1e5, 1e6 and 1e7 rows a side, 20 mixed columns.

    python bench/compare_size.py [rows ...]

Limits: 15 s at 1e5 on two cores; under 2 GiB at 1e7, and time linear in rows.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import write

sizes = [int(float(text)) for text in sys.argv[1:]] or [100_000, 1_000_000, 10_000_000]
script = str(Path(sys.executable).with_name("dpdq"))
print(f"{'rows a side':>12} {'seconds':>8} {'peak MiB':>9}   AUC, p")
for n in sizes:
    with tempfile.TemporaryDirectory() as folder:
        have = write(Path(folder, "have.parquet"), n, seed=1)
        want = write(Path(folder, "want.parquet"), n, seed=2, shift=0.1)
        start = time.perf_counter()
        job = subprocess.Popen(
            [script, "compare", have, want, "--out", str(Path(folder, "out"))],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(job.pid, 0)
        elapsed = time.perf_counter() - start
        assert status == 0, status
        found = json.loads(Path(folder, "out", "comparison.json").read_text())
        run = json.loads(Path(folder, "out", "run.json").read_text())
        verdict = found["verdict"]
        print(
            f"{n:>12,} {elapsed:>8.1f} {usage.ru_maxrss / 1024:>9.0f}   "
            f"{verdict['effect']['auc']:.4f} (at least {verdict['effect']['low']:.4f}), "
            f"p {verdict['pvalue']:.4f}; rows used {found['rows']['used']['ratio_fit']}",
            flush=True,
        )
        parts = sorted(run["seconds"].items(), key=lambda item: -item[1])
        print("             " + ", ".join(f"{name} {took:.1f}" for name, took in parts), flush=True)
