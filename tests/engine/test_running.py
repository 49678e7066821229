import numpy as np
import pytest

from dpdq.data import open_source
from dpdq.engine import run
from dpdq.errors import OptionError
from dpdq.passes import BLOCK_ROWS, Pass


class Moments(Pass):
    def init(self):
        return (0, 0.0, [])

    def map(self, state, batch, first_row):
        x = batch.column(0).to_numpy()
        return (state[0] + len(x), state[1] + float(x.sum()), [*state[2], first_row])

    def merge(self, left, right):
        return (left[0] + right[0], left[1] + right[1], left[2] + right[2])

    def finish(self, state):
        return state


def test_blocks_come_in_row_order_with_their_numbers():
    n = 2 * BLOCK_ROWS + 7
    seen = []
    source = open_source(np.arange(n, dtype=float)[:, None], side="q")
    count, total, firsts = run(Moments(), source, progress=seen.append)
    assert (count, total) == (n, n * (n - 1) / 2)
    assert firsts == [0, BLOCK_ROWS, 2 * BLOCK_ROWS]
    assert seen == [BLOCK_ROWS, 2 * BLOCK_ROWS, n]


def test_merged_parts_equal_the_whole():
    x = np.arange(1000.0)[:, None]
    job = Moments()
    parts = []
    for rows in (x[:300], x[300:]):
        state = job.init()
        for batch in open_source(rows, side="q").batches():
            state = job.map(state, batch, 0)
        parts.append(state)
    whole = run(job, open_source(x, side="q"))
    assert job.finish(job.merge(*parts))[:2] == whole[:2]


def test_an_unknown_engine_is_refused():
    with pytest.raises(
        OptionError, match="Unknown engine 'cloud'. Choose one of 'local', 'pool', 'shards', 'ray'."
    ):
        run(Moments(), open_source(np.zeros((3, 1)), side="q"), engine="cloud")
