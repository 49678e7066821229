"""Near-duplicates of 100,000 documents: seconds, memory and what is found, beside datasketch.

python bench/dedupe.py            each job in its own process, into bench/output/dedupe.txt
python bench/dedupe.py JOB        near, passages, overlap
PEER/bin/python bench/dedupe.py peer       the same near-duplicates by datasketch, on words split by
                                           white space (an environment from
                                           bench/peers/datasketch.txt); with DPDQ_PEER naming
                                           that Python, the first form runs it too

The pool is real text in chunks of 430 characters: the sources of the packages that are installed
here. Into it go 2,000 copies of rows with one word changed. "cpu" is the process's own time over
all threads; import time is excluded.
"""

import os
import random
import resource
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS, PLANTED, SIZE = 100_000, 2_000, 430


def pool():
    """Texts, and for each planted copy the row that it repeats; the same in every environment."""
    root = Path(os.environ.get("DPDQ_BENCH_SOURCES") or sysconfig.get_paths()["purelib"])
    texts = []
    for file in sorted(root.rglob("*.py")):
        source = file.read_text(errors="ignore")
        texts += [source[i : i + SIZE] for i in range(0, len(source) - SIZE, SIZE)]
        if len(texts) > 4 * ROWS:
            break
    draw = random.Random(0)
    texts = draw.sample(texts, ROWS - PLANTED)
    long = [i for i, text in enumerate(texts) if len(text.split()) > 40]
    rows = draw.sample(long, PLANTED)
    for row in rows:
        words = texts[row].split(" ")
        words[draw.randrange(len(words))] = "planted"
        texts.append(" ".join(words))
    return texts, rows


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(label, call):
    before = peak()
    cpu = time.process_time()
    out = call()
    cpu = time.process_time() - cpu
    print(
        f"{label:48} cpu {cpu:7.2f} s  memory over the data {peak() - before:5.0f} MiB", flush=True
    )
    return out


def shingles(text, n=5):
    words = text.lower().split()
    return {" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


def recall(texts, rows, together):
    """Share of planted pairs found among those whose words are alike to 0.8 or more."""
    alike = [
        len(a & b) / len(a | b)
        for a, b in (
            (shingles(texts[row]), shingles(texts[ROWS - PLANTED + k]))
            for k, row in enumerate(rows)
        )
    ]
    found = [together(row, ROWS - PLANTED + k) for k, row in enumerate(rows)]
    over = [hit for hit, each in zip(found, alike, strict=True) if each >= 0.8]
    print(f"  planted pairs at 0.8 or more: {sum(over):,} of {len(over):,} found", flush=True)


def job(name):
    from dpdq.select import benchmark_overlap, near_duplicates, shared_passages

    texts, rows = pool()
    near_duplicates(texts[:50])
    benchmark_overlap(texts[:50], texts[:5])
    shared_passages(texts[:50], bits=16)
    total = sum(len(text.encode()) for text in texts) / 1e6
    if name == "near":
        found = timed(
            f"near-duplicates, 100,000 documents, {total:.0f} MB", lambda: near_duplicates(texts)
        )
        print(f"  {found.status}; {found.n_candidates:,} candidates")
        recall(texts, rows, lambda i, j: found.cluster[i] == found.cluster[j])
    elif name == "passages":
        found = timed("passages of 200 bytes, the same pool", lambda: shared_passages(texts))
        print(f"  {found.status}")
    else:
        train, items = texts[500:], texts[:1000]
        found = timed(
            "overlap with 1,000 items, of which it holds 500",
            lambda: benchmark_overlap(train, items),
        )
        print(f"  found: {found.contaminated[500:].sum()} of the 500 that it holds, and ", end="")
        print(f"{found.contaminated[:500].sum()} others (the pool repeats itself)")


def peer():
    from datasketch import MinHash, MinHashLSH

    texts, rows = pool()

    def run():
        index = MinHashLSH(threshold=0.8, num_perm=128)
        sketches = MinHash.bulk(
            [[s.encode() for s in shingles(text)] for text in texts], num_perm=128
        )
        for row, sketch in enumerate(sketches):
            index.insert(row, sketch)
        return [set(index.query(sketches[row])) for row in rows]

    found = timed("datasketch: bulk, insert, 2,000 queries", run)
    at = {row: k for k, row in enumerate(rows)}
    recall(texts, rows, lambda i, j: j in found[at[i]])


def main():
    if len(sys.argv) > 1:
        peer() if sys.argv[1] == "peer" else job(sys.argv[1])
        return
    lines = []
    runs = [(sys.executable, name) for name in ("near", "passages", "overlap")]
    if os.environ.get("DPDQ_PEER"):
        runs.append((os.environ["DPDQ_PEER"], "peer"))
    sources = os.environ.get("DPDQ_BENCH_SOURCES") or sysconfig.get_paths()["purelib"]
    for python, name in runs:
        done = subprocess.run(
            [python, __file__, name],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "DPDQ_BENCH_SOURCES": sources,
                "OMP_NUM_THREADS": "1",
                "OPENBLAS_NUM_THREADS": "1",
            },
        )
        print(done.stdout, end="", flush=True)
        lines.append(done.stdout)
    (HERE / "output" / "dedupe.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
