"""The univariate battery on 100,000 rows a side, 20 mixed columns, in memory: seconds and memory.

    python bench/univariate.py [ROWS]

Limit: 0.5 s on two cores at 100,000 rows, where evidently's data drift preset takes 4.5 s on the
same columns (its environment pins older NumPy and pandas, so it is measured apart:
`bench/peers/`). Median of 9 runs after a first one; import time excluded. "peak above start" is the
growth of resident memory over the two tables during the run. The last lines time single columns.
"""

import resource
import statistics
import sys
import time

import numpy as np
from tables import block

from dpdq.distance.univariate import compare_column, univariate_tests

n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
q = block(n, np.random.default_rng(1), 0.0)
p = block(n, np.random.default_rng(2), 0.1)
repeats = 9 if n <= 1_000_000 else 1
small_q, small_p = q.slice(0, 1000), p.slice(0, 1000)
univariate_tests(small_q, small_p, random_state=0)  # imports

for jobs in (1, 2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = [], []
    for _ in range(repeats):
        start, start_cpu = time.perf_counter(), time.process_time()
        found = univariate_tests(q, p, n_jobs=jobs, random_state=0)
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{n:,} x 20 a side, {jobs} thread{'s' * (jobs > 1)}: {statistics.median(wall):.3f} s wall "
        f"({min(wall):.3f} to {max(wall):.3f}), {statistics.median(cpu):.3f} s processor, "
        f"peak above start {grown:.0f} MiB"
    )
print("shifted:", ", ".join(found.shifted))
for name, kind in (("x0", "numeric"), ("count", "numeric"), ("c4", "categorical"),
                   ("flag", "boolean"), ("when", "datetime")):  # fmt: skip
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        compare_column(q[name], p[name], kind)
        times.append(time.perf_counter() - start)
    print(f"  {name:<6} {kind:<12} {1e3 * statistics.median(times):.1f} ms")
