"""Passes that other processes can import."""

import os
import signal
import time
from pathlib import Path

import numpy as np

from dpdq.passes import Pass


class Sums(Pass):
    """Sums whose last bits depend on the order of additions, and the row numbers of the blocks."""

    columns = ["x0"]

    def __init__(self, power=1.5):
        self.power = power

    def init(self):
        return {"sum": 0.0, "firsts": np.zeros(0, dtype=np.int64), "rows": 0}

    def map(self, state, batch, first_row):
        x = batch.column(0).to_numpy()
        return {
            "sum": state["sum"] + float(np.sum(np.abs(x) ** self.power)),
            "firsts": np.append(state["firsts"], first_row),
            "rows": state["rows"] + len(x),
        }

    def merge(self, left, right):
        return {
            "sum": left["sum"] + right["sum"],
            "firsts": np.concatenate([left["firsts"], right["firsts"]]),
            "rows": left["rows"] + right["rows"],
        }

    def finish(self, state):
        return state["sum"], state["firsts"].tolist(), state["rows"]


class DiesOnce(Sums):
    """Kills the process that works on some row, `deaths` times in all."""

    def __init__(self, marks, row, deaths=1):
        super().__init__()
        self.marks, self.row, self.deaths = str(marks), row, deaths

    def fingerprint(self):
        return [self.power]

    def map(self, state, batch, first_row):
        if first_row <= self.row < first_row + batch.num_rows:
            for number in range(self.deaths):
                mark = Path(self.marks) / str(number)
                try:
                    mark.open("x").close()
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return super().map(state, batch, first_row)


class Slow(Sums):
    """Takes its time over each block, so that it can be interrupted, and counts the blocks."""

    def __init__(self, log, seconds=0.0):
        super().__init__()
        self.log, self.seconds = str(log), seconds

    def fingerprint(self):
        return [self.power]

    def map(self, state, batch, first_row):
        time.sleep(self.seconds)
        with Path(self.log).open("a") as stream:
            stream.write(f"{first_row}\n")
        return super().map(state, batch, first_row)


class Fails(Sums):
    """Refuses a value, as a pass that checks its data does."""

    def map(self, state, batch, first_row):
        from dpdq.errors import DataError

        raise DataError(f"row {first_row} is bad; mend it")
