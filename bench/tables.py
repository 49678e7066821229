"""Mixed tables for the benches: 12 numeric, 5 categorical, 1 boolean, 1 integer, 1 datetime."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 500_000


def block(n, rng, shift):
    columns = {}
    base = rng.standard_normal((n, 12))
    base[:, 1] += 0.5 * base[:, 0]
    for j in range(12):
        values = base[:, j] + (shift if j < 3 else 0.0)
        if j == 11:
            values[rng.random(n) < 0.05] = np.nan
        columns[f"x{j}"] = pa.array(values, from_pandas=True)
    for j, levels in enumerate((3, 8, 20, 50, 200)):
        weights = 1.0 / np.arange(1, levels + 1) ** (1.0 + (shift if j == 0 else 0.0))
        codes = rng.choice(levels, size=n, p=weights / weights.sum())
        names = pa.array([f"level {i:03d}" for i in range(levels)])
        columns[f"c{j}"] = pa.DictionaryArray.from_arrays(
            pa.array(codes.astype(np.int32)), names
        ).cast(pa.string())
    columns["flag"] = pa.array(rng.random(n) < 0.3)
    columns["count"] = pa.array(rng.poisson(3.0, n))
    start = np.datetime64("2024-01-01T00:00:00", "us")
    columns["when"] = pa.array(start + rng.integers(0, 90 * 86_400 * 10**6, n).astype("m8[us]"))
    return pa.table(columns)


def write(path, n, *, seed, shift=0.0):
    rng = np.random.default_rng(seed)
    writer = None
    for begin in range(0, n, BLOCK):
        table = block(min(BLOCK, n - begin), rng, shift)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=100_000)
    writer.close()
    return path
