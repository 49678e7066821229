import itertools
import json
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from dpdq.data.pruning_samplers import (
    RepeatedRandomSubset,
    SlidingWindowLossSampler,
    loss_groups,
)
from dpdq.errors import DataError, OptionError

LOSSES = np.random.default_rng(0).gamma(2.0, size=400)


def sliding(**options):
    sampler = SlidingWindowLossSampler(400, 9, prune_ratio=0.2, **options)
    sampler.update(np.arange(400), LOSSES)
    return sampler


MAKERS = {
    "repeated": lambda **o: RepeatedRandomSubset(400, 0.3, **o),
    "repeated, with replacement": lambda **o: RepeatedRandomSubset(
        400, 0.3, replacement="with", **o
    ),
    "sliding": sliding,
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


@every
@pytest.mark.parametrize("epoch", [0, 2])
def test_ranks_share_out_the_epoch(make, epoch):
    whole = make().epoch_rows(epoch)
    assert len(set(whole.tolist())) == len(whole)
    samplers = [make(rank=r, world_size=3) for r in range(3)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    parts = [list(sampler) for sampler in samplers]
    dealt = list(itertools.chain.from_iterable(zip(*parts, strict=True)))
    assert dealt == whole[: len(dealt)].tolist()
    assert len(whole) - len(dealt) < 3


@every
@pytest.mark.parametrize("stop", [0, 1, 37])
def test_an_epoch_resumes_exactly(make, stop):
    whole = make(seed=3)
    whole.set_epoch(2)
    rows = list(whole)
    first = make(seed=3)
    first.set_epoch(2)
    seen = list(itertools.islice(first, stop))
    second = make(seed=3)
    second.load_state_dict(first.state_dict())
    assert seen + list(second) == rows
    assert list(second) != rows
    assert second.epoch == 3
    with pytest.raises(OptionError, match="the state has seed 3 and this sampler 4"):
        make(seed=4).load_state_dict(first.state_dict())


def test_subsets_walk_through_all_rows():
    sampler = RepeatedRandomSubset(100, 0.3, seed=1)
    seen = Counter()
    for epoch in range(30):
        rows = list(sampler)
        assert len(set(rows)) == len(rows) == 30
        seen.update(rows)
        if epoch % 3 == 2:  # 90 of 100 rows a round
            assert max(seen.values()) - min(seen.get(i, 0) for i in range(100)) <= 1 + epoch // 3
            assert max(seen.values()) <= 1 + epoch // 3
    # each row is left out of a round with probability 0.1: Binomial(10, 0.9) is above 2 always
    assert min(seen.values()) > 2
    together = [list(RepeatedRandomSubset(100, 0.25, seed=s)) for s in range(4000)]
    counts = np.bincount(np.concatenate(together), minlength=100)
    # Binomial(4000, 1/4), sd 27; the largest of 100 z-values stays below 6 (1e-6)
    assert np.abs(counts - 1000).max() < 6 * 27.4


def test_row_numbers_beyond_float32():
    n = 2**24 + 2**22
    sampler = RepeatedRandomSubset(n, 4e-6, replacement="with", seed=0)
    rows = sampler.epoch_rows(0)
    assert rows.dtype == np.int64
    assert (rows != rows.astype(np.float32)).any()  # some that a float32 index cannot name
    sliding = SlidingWindowLossSampler(n, 8, prune_ratio=0.999999)
    last = np.array([n - 1, n - 2])
    sliding.update(last, [7.25, 0.5])
    assert (sliding.losses == 3.0).all()
    sliding.epoch_rows(0)
    assert sliding.losses[last].tolist() == [7.25, 0.5]
    assert (sliding.losses != 3.0).sum() == 2


def test_windows_slide_from_easy_to_hard():
    sampler = SlidingWindowLossSampler(1000, 12, prune_ratio=0.0, n_groups=10, scale=0.3)
    loss = np.random.default_rng(1).permutation(1000) / 1000.0
    ends = []
    for epoch in range(12):
        rows = np.array(list(sampler))
        sampler.update(rows, loss[rows])
        ends.append((loss[rows].min(), loss[rows].max(), len(rows)))
        assert len(set(rows.tolist())) == len(rows) == sampler.epoch_sizes[epoch]
    lows, highs, sizes = map(np.array, zip(*ends, strict=True))
    assert sizes[0] == 1000  # the first epoch has no window
    assert (sizes[10:] == 1000).all()  # nor have those after 0.875 * 12 = 10.5 epochs
    # k - W + 1 = 8 starts: epochs 1 .. 7 climb, epoch 8 begins anew
    assert (np.diff(lows[1:8]) > 0).all()
    assert (np.diff(highs[1:8]) > 0).all()
    assert lows[8] == 0.0
    assert highs[7] == 0.999
    groups = loss_groups(loss, 10)
    for epoch in range(1, 10):
        start = epoch % 8
        kept = loss[(groups >= start) & (groups < start + 3)]
        assert (lows[epoch], highs[epoch]) == (kept.min(), kept.max())


def test_losses_of_an_epoch_count_from_the_next_on():
    sampler = SlidingWindowLossSampler(50, 8, prune_ratio=0.0)
    list(sampler)
    sampler.update(np.arange(50), np.arange(50.0))
    walk = iter(sampler)
    begun = [next(walk) for _ in range(5)]
    sampler.update(np.arange(50), -np.arange(50.0))  # changes nothing in this epoch
    state = sampler.state_dict()
    rest = list(walk)
    again = SlidingWindowLossSampler(50, 8, prune_ratio=0.0)
    again.load_state_dict(state)
    assert list(again) == rest
    assert list(again) == list(sampler)  # and both know the late losses
    assert max(begun + rest) < 40
    assert again.losses[49] == -49


def test_groups_are_kmeans_on_the_line():
    from sklearn.cluster import KMeans

    values = np.random.default_rng(2).gamma(0.5, size=600)
    groups = loss_groups(values, 6)

    def spread(labels):
        return sum(
            ((values[labels == g] - values[labels == g].mean()) ** 2).sum()
            for g in np.unique(labels)
        )

    peer = KMeans(6, n_init=2, random_state=0).fit(values[:, None])
    assert spread(groups) <= 1.1 * spread(peer.labels_)
    means = [values[groups == g].mean() for g in range(6)]
    assert (np.diff(means) > 0).all()
    # a fixed point: every value is in the group of the nearest mean
    nearest = np.abs(values[:, None] - np.array(means)).argmin(axis=1)
    assert (nearest == groups).all()
    assert np.bincount(loss_groups(np.ones(20), 10)).tolist() == [2] * 10
    assert np.unique(loss_groups(np.repeat([1.0, 5.0, 9.0], 30), 10)).tolist() == [0, 1, 2]
    order = np.random.default_rng(3).permutation(600)
    assert (loss_groups(values[order], 6) == groups[order]).all()
    assert (loss_groups(3.0 + 2.0 * values, 6) == groups).all()


def test_wrong_options_are_told():
    with pytest.raises(OptionError, match="fraction is 0; expected a share above 0"):
        RepeatedRandomSubset(10, 0)
    with pytest.raises(OptionError, match="Unknown replacement 'no'. Choose one of 'without'"):
        RepeatedRandomSubset(10, 0.5, replacement="no")
    with pytest.raises(OptionError, match="prune_ratio is 1"):
        SlidingWindowLossSampler(10, 5, prune_ratio=1)
    sampler = SlidingWindowLossSampler(10, 5)
    with pytest.raises(DataError, match="rows go up to 10; this sampler has 10 rows"):
        sampler.update([10], [1.0])
    with pytest.raises(DataError, match="the loss of row 3 is nan"):
        sampler.update([2, 3], [1.0, np.nan])
    with pytest.raises(DataError, match=r"expected \(b,\) whole numbers and one loss each"):
        sampler.update([0.5], [1.0])


def test_two_processes_share_losses_and_resume(tmp_path):
    """Distributed data parallel: each rank knows its own losses, both walk the same order."""
    pytest.importorskip("torch", reason="torch is not installed")
    script = tmp_path / "train.py"
    script.write_text(
        "import json, sys\n"
        "import numpy as np, torch, torch.distributed as dist\n"
        "from torch.utils.data import DataLoader\n"
        "from dpdq.data.pruning_samplers import SlidingWindowLossSampler\n"
        "if __name__ == '__main__':\n"
        "    rank, folder = int(sys.argv[1]), sys.argv[2]\n"
        "    dist.init_process_group('gloo', init_method=f'file://{folder}/meet',\n"
        "                            rank=rank, world_size=2)\n"
        "    loss = torch.arange(101) / 101.0\n"
        "    def make():\n"
        "        return SlidingWindowLossSampler(101, 6, prune_ratio=0.1, seed=7)\n"
        "    def train(sampler, loader=None):\n"
        "        done = []\n"
        "        for batch in loader or DataLoader(range(101), 8, sampler=sampler):\n"
        "            sampler.update(batch, loss[batch])\n"
        "            done.append(batch.tolist())\n"
        "        return done\n"
        "    sampler = make()\n"
        "    if rank == 0: len(sampler)  # asks nobody\n"
        "    whole = [train(sampler) for epoch in range(4)]\n"
        "    first = make()\n"
        "    begun = [train(first) for epoch in range(2)]\n"
        "    loader = iter(DataLoader(range(101), 8, sampler=first, num_workers=1,\n"
        "                             prefetch_factor=1))\n"
        "    part = [next(loader)]\n"
        "    first.update(part[0], loss[part[0]])\n"
        "    again = make()\n"
        "    again.load_state_dict(first.state_dict(used=8))\n"
        "    rest = train(again)\n"
        "    resumed = begun + [[b.tolist() for b in part] + rest] + [train(again)]\n"
        "    same = bool((again.losses == sampler.losses).all())\n"
        "    dist.barrier()\n"
        "    json.dump([whole, resumed, same], open(f'{folder}/{rank}.json', 'w'))\n"
        "    dist.destroy_process_group()\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], env=env)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    alone = SlidingWindowLossSampler(101, 6, prune_ratio=0.1, seed=7)
    for whole, resumed, same in told:
        assert resumed == whole
        assert same
    for epoch in range(4):
        order = list(alone)
        parts = [list(itertools.chain(*told[rank][0][epoch])) for rank in range(2)]
        dealt = list(itertools.chain.from_iterable(zip(*parts, strict=True)))
        assert dealt == order[: len(dealt)]
        alone.update(dealt, np.float32(dealt) / np.float32(101))
        assert len(set(dealt)) == len(dealt)
        assert not set(parts[0]) & set(parts[1])


def test_real_digits_are_learned_as_well_from_fresh_halves():
    """On digits half of the updates, with fresh subsets, come within 5 points of all of them."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import SGDClassifier

    x, y = load_digits(return_X_y=True)
    x = x / 16.0
    train, test = np.arange(1200), np.arange(1200, 1797)

    def accuracy(sampler, epochs):
        model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05, random_state=0)
        for _ in range(epochs):
            for batch in np.array_split(np.array(list(sampler)), 5):
                model.partial_fit(x[train[batch]], y[train[batch]], classes=np.arange(10))
        return model.score(x[test], y[test])

    whole = accuracy(RepeatedRandomSubset(1200, 1.0), 4)
    assert accuracy(RepeatedRandomSubset(1200, 0.5), 4) > whole - 0.05
