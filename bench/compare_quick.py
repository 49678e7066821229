"""Seconds of `dpdq compare --quick` at 100,000 rows a side, 20 mixed columns, start to finish.

    python bench/compare_quick.py

Limit: 2 s. Median of 5 runs, interpreter start included.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import write

script = str(Path(sys.executable).with_name("dpdq"))
with tempfile.TemporaryDirectory() as folder:
    have = write(Path(folder, "have.parquet"), 100_000, seed=1)
    want = write(Path(folder, "want.parquet"), 100_000, seed=2, shift=0.1)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        job = subprocess.Popen(
            [script, "compare", have, want, "--quick", "--out", str(Path(folder, "out"))],
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(job.pid, 0)
        assert status == 0, status
        times.append(time.perf_counter() - start)
    print(
        f"dpdq compare --quick, 100,000 x 20 a side: {statistics.median(times):.2f} s "
        f"({min(times):.2f} to {max(times):.2f}), peak {usage.ru_maxrss / 1024:.0f} MiB (limit 2 s)"
    )
