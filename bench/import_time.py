"""What `import dpdq` adds to NumPy's own import, and how long `dpdq --help` takes.

    python bench/import_time.py

Limits: 0.3 s and 0.8 s. Medians of 7 fresh interpreters.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7


def seconds(command):
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


python = sys.executable
numpy = seconds([python, "-c", "import numpy"])
dpdq = seconds([python, "-c", "import numpy, dpdq"])
script = Path(python).with_name("dpdq")
help_ = seconds([str(script), "--help"])
print(f"import numpy        {numpy:6.3f} s")
print(f"import numpy, dpdq  {dpdq:6.3f} s   adds {dpdq - numpy:+.3f} s (limit 0.3)")
print(f"dpdq --help         {help_:6.3f} s   (limit 0.8)")
