import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from dpdq.data.samplers import MixtureSampler, QuotaSampler, WeightedSampler, epoch_keys
from dpdq.errors import DataError, OptionError

W = np.random.default_rng(0).gamma(0.7, size=500)
GROUPS = np.array(["a"] * 300 + ["b"] * 150 + ["c"] * 50)

MAKERS = {
    "systematic": lambda **o: WeightedSampler(W, 997, **o),
    "without replacement": lambda **o: WeightedSampler(W, 300, method="without_replacement", **o),
    "quota": lambda **o: QuotaSampler(GROUPS, {"a": 40, "c": 61}, **o),
    "mixture": lambda **o: MixtureSampler(GROUPS, temperature=2.0, **o),
    "cooling": lambda **o: MixtureSampler(GROUPS, temperature=lambda e: 5 if e < 2 else 1, **o),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=list(MAKERS))


@every
def test_ranks_share_out_the_epoch(make):
    whole = make().epoch_rows(0)
    parts = [list(make(rank=r, world_size=4)) for r in range(4)]
    assert len({len(part) for part in parts}) == 1
    dealt = list(itertools.chain.from_iterable(zip(*parts, strict=True)))
    assert dealt == whole[: len(dealt)].tolist()
    assert len(whole) - len(dealt) < 4
    padded = [list(make(rank=r, world_size=4, uneven="pad")) for r in range(4)]
    assert set(itertools.chain(*padded)) == set(whole.tolist())


@every
@pytest.mark.parametrize("stop", [0, 1, 37])
def test_an_epoch_resumes_exactly(make, stop):
    whole = make(seed=3)
    whole.set_epoch(2)
    rows = list(whole)
    first = make(seed=3)
    first.set_epoch(2)
    seen = list(itertools.islice(first, stop))
    state = first.state_dict()
    second = make(seed=3)
    second.load_state_dict(state)
    assert seen + list(second) == rows
    assert second.state_dict(used=stop)["epoch"] == 2  # a loader may have fetched all of it
    following = list(second)  # goes on by itself
    assert following != rows
    assert second.epoch == 3
    fetched_ahead = make(seed=3)
    fetched_ahead.set_epoch(2)
    list(itertools.islice(fetched_ahead, 50))
    third = make(seed=3)
    third.load_state_dict(fetched_ahead.state_dict(used=stop))
    assert list(third) == rows[stop:]


@every
def test_epochs_and_seeds_differ_and_repeat(make):
    sampler = make(seed=1)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert list(make(seed=1)) == first
    assert list(make(seed=2)) != first
    assert len(sampler) == len(first)
    assert all(type(row) is int for row in first)


def test_systematic_counts_are_floor_or_ceiling():
    expected = 997 * W / W.sum()
    total = np.zeros(500)
    for epoch in range(200):
        counts = np.bincount(WeightedSampler(W, 997, seed=5).epoch_rows(epoch), minlength=500)
        assert (counts >= np.floor(expected - 1e-9)).all()
        assert (counts <= np.ceil(expected + 1e-9)).all()
        total += counts
    # a count's sd is at most 1/2; the largest of 500 z-values stays below 6 (1e-6)
    assert np.abs(total / 200 - expected).max() < 6 * 0.5 / np.sqrt(200)


def test_without_replacement_never_repeats_and_follows_the_weights():
    w = np.array([1.0, 2.0, 3.0, 4.0])
    first = Counter()
    for epoch in range(4000):
        rows = WeightedSampler(w, 3, method="without_replacement").epoch_rows(epoch)
        assert len(set(rows.tolist())) == 3
        first[int(rows[0])] += 1
    expected = 400 * w
    assert sum((first[i] - e) ** 2 / e for i, e in enumerate(expected)) < 33  # 1e-6 at 3 df


def test_row_numbers_beyond_float32():
    """2^24 + 2 rows: a float32 index cannot name the last ones."""
    n = 2**24 + 3
    weights = np.zeros(n, dtype=np.float64)
    weights[-3:] = 1.0
    assert sorted(WeightedSampler(weights, 3)) == [n - 3, n - 2, n - 1]


def test_quotas_hold_and_large_groups_are_walked_through():
    sampler = QuotaSampler(GROUPS, {"a": 40, "c": 61}, seed=1)
    seen = Counter()
    for epoch in range(15):
        rows = np.array(list(sampler))
        assert Counter(GROUPS[rows]) == {"a": 40, "c": 61}
        seen.update(rows[GROUPS[rows] == "a"].tolist())
        if epoch == 6:
            assert max(seen.values()) == 1  # 280 of 300 rows
    assert set(seen.values()) == {2}
    assert Counter(GROUPS[list(QuotaSampler(GROUPS, "smallest"))]) == {"a": 50, "b": 50, "c": 50}


def test_mixtures_have_their_shares():
    flat = MixtureSampler(GROUPS, temperature=np.inf, n_samples=600)
    assert Counter(GROUPS[list(flat)]) == {"a": 200, "b": 200, "c": 200}
    own = MixtureSampler(GROUPS, temperature=1.0)
    rows = list(own)
    assert sorted(rows) == list(range(500))  # nothing twice, nothing left out
    two = MixtureSampler(GROUPS, temperature=2.0)
    root = np.sqrt([300, 150, 50])
    np.testing.assert_allclose(list(two.shares(0).values()), root / root.sum())
    only = MixtureSampler(GROUPS, weights={"b": 3, "c": 1}, n_samples=100)
    assert Counter(GROUPS[list(only)]) == {"b": 75, "c": 25}


def test_a_mixture_that_cools_down_goes_on_with_its_walk():
    sampler = MixtureSampler(GROUPS, temperature=lambda e: 5 if e < 2 else 1, n_samples=100)
    seen = Counter()
    for _ in range(4):
        rows = np.array(list(sampler))
        seen.update(rows[GROUPS[rows] == "a"].tolist())
    assert max(seen.values()) == 1  # 45 + 45 + 60 + 60 of 300


def test_keys_of_streams_do_not_meet():
    keys = [epoch_keys(1000, s, e, t) for s in range(3) for e in range(3) for t in range(3)]
    assert len(np.unique(np.concatenate(keys))) == 27_000


@pytest.mark.parametrize(
    "call, error, sentence",
    [
        (lambda: WeightedSampler([-1.0, 1.0]), DataError, "finite and not negative"),
        (lambda: WeightedSampler([0.0, 0.0]), DataError, "weights are all zero"),
        (lambda: WeightedSampler(W, 0), OptionError, "n_samples is 0"),
        (lambda: WeightedSampler(W, method="x"), OptionError, "Unknown method 'x'"),
        (
            lambda: WeightedSampler(W, 501, method="without_replacement"),
            OptionError,
            "n_samples is 501 and only 500 rows have weight",
        ),
        (lambda: WeightedSampler(W, rank=2, world_size=2), OptionError, "rank is 2 of world_s"),
        (lambda: WeightedSampler(W, uneven="x"), OptionError, "Unknown uneven 'x'"),
        (lambda: QuotaSampler(GROUPS, {"d": 1}), OptionError, "group 'd' is named, and no row"),
        (lambda: QuotaSampler(GROUPS, {"a": 0}), OptionError, "quota of group 'a' is 0"),
        (lambda: QuotaSampler(GROUPS, "largest"), OptionError, "Unknown quotas 'largest'"),
        (lambda: MixtureSampler(GROUPS), OptionError, "give weights or temperature"),
        (lambda: MixtureSampler(GROUPS, weights={"a": -1}), OptionError, "weight of group 'a'"),
        (lambda: MixtureSampler(GROUPS, weights={"a": 0}), OptionError, "weights are all zero"),
        (lambda: list(MixtureSampler(GROUPS, temperature=0)), OptionError, "temperature is 0"),
        (lambda: MixtureSampler([], temperature=1), DataError, "groups have shape"),
        (lambda: WeightedSampler(W).set_epoch(-1), OptionError, "epoch is -1"),
        (lambda: WeightedSampler(W).state_dict(used=501), OptionError, "used is 501"),
        (
            lambda: WeightedSampler(W).load_state_dict(WeightedSampler(W, seed=1).state_dict()),
            OptionError,
            "the state has seed 1 and this sampler 0",
        ),
    ],
)
def test_bad_input(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_two_gloo_processes_meet_no_row_twice_and_resume(tmp_path):
    """Distributed data parallel as users run it: ranks come from torch, the loader has workers."""
    pytest.importorskip("torch", reason="torch is not installed")
    script = tmp_path / "train.py"
    script.write_text(
        "import json, sys\n"
        "import numpy as np, torch, torch.distributed as dist\n"
        "from torch.utils.data import DataLoader\n"
        "from dpdq.data.samplers import WeightedSampler\n"
        "if __name__ == '__main__':\n"
        "    rank, folder = int(sys.argv[1]), sys.argv[2]\n"
        "    dist.init_process_group('gloo', init_method=f'file://{folder}/meet',\n"
        "                            rank=rank, world_size=2)\n"
        "    weights = np.arange(1, 102.0)\n"
        "    def make():\n"
        "        return WeightedSampler(weights, 80, method='without_replacement', seed=7)\n"
        "    def batches(sampler):\n"
        "        return [b.tolist() for b in DataLoader(range(101), 8, sampler=sampler)]\n"
        "    whole = batches(make())\n"
        "    first = make()\n"
        "    loader = iter(DataLoader(range(101), 8, sampler=first, num_workers=1))\n"
        "    begun = [next(loader).tolist() for _ in range(2)]\n"
        "    again = make()\n"
        "    again.load_state_dict(first.state_dict(used=16))\n"
        "    rest = batches(again)\n"
        "    dist.barrier()\n"
        "    json.dump([whole, begun + rest], open(f'{folder}/{rank}.json', 'w'))\n"
        "    dist.destroy_process_group()\n"
    )
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(tmp_path)], env=env)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    import json

    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for whole, resumed in told:
        assert resumed == whole
    rows = [row for whole, _ in told for batch in whole for row in batch]
    assert len(rows) == len(set(rows)) == 80
