"""Per-sample gradient norms: CPU seconds and memory beside a loop and beside `torch.func.vmap`.

python bench/gradient_norms.py            each job in its own process, into
                                          bench/output/gradient_norms.txt
python bench/gradient_norms.py JOB        ours, last, loop, vmap

2,000 samples through 784-256-256-10, float32, one thread. Import time is excluded; "peak" is the
process's largest memory, "over" what the job added to that of torch, the model and the data.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
SAMPLES = 2000
JOBS = ("ours", "last", "loop", "vmap")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def job(name):
    from dpdq.gradients import per_sample_gradient_norms

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(784, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 256),
        torch.nn.ReLU(),
        torch.nn.Linear(256, 10),
    )
    x, y = torch.randn(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,))
    losses = torch.nn.CrossEntropyLoss(reduction="none")
    parameters = dict(model.named_parameters())

    def loop():
        norms = []
        for i in range(SAMPLES):
            found = torch.autograd.grad(
                losses(model(x[i : i + 1]), y[i : i + 1]).sum(), list(parameters.values())
            )
            norms.append(torch.sqrt(sum((g**2).sum() for g in found)))
        return torch.stack(norms)

    def mapped():
        def loss(p, one, label):
            out = torch.func.functional_call(model, p, (one[None],))
            return torch.nn.functional.cross_entropy(out, label[None])

        detached = {key: value.detach() for key, value in parameters.items()}
        found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(detached, x, y)
        return torch.sqrt(sum((g.flatten(1) ** 2).sum(1) for g in found.values()))

    calls = {
        "ours": lambda: per_sample_gradient_norms(model, losses, x, y),
        "last": lambda: per_sample_gradient_norms(model, losses, x, y, layers="last"),
        "loop": loop,
        "vmap": mapped,
    }
    model(x[:1])
    before = peak()
    times = []
    for _ in range(7 if name in ("ours", "last") else 2):
        start = time.process_time()
        norms = calls[name]()
        times.append(time.process_time() - start)
    after = peak()
    text = f"{name:5} cpu {min(times):.3f} s  peak {after:5.0f} MiB  over {after - before:5.0f} MiB"
    if name in ("ours", "vmap"):
        error = float((norms / loop() - 1).abs().max())
        text += f"  largest relative difference to the loop {error:.1e}"
    print(text, flush=True)


def main():
    if len(sys.argv) > 1:
        job(sys.argv[1])
        return
    lines = []
    for name in JOBS:
        done = subprocess.run(
            [sys.executable, __file__, name],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        print(done.stdout, end="", flush=True)
        lines.append(done.stdout)
    (HERE / "output" / "gradient_norms.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
