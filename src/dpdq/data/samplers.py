"""Samplers for torch's ``DataLoader``: weights, quotas and mixtures leave as row numbers.

A sampler says in which order an epoch visits rows. Every rank of a distributed job computes the
same order from (seed, epoch) alone and takes every world_size-th of it, so ranks never meet and
nothing is communicated. Row numbers are 64-bit integers throughout: a float32 index is wrong from
2^24 on, and ``torch.multinomial`` refuses more categories than that.

    WeightedSampler   row i about n w_i times an epoch (systematic), or once at most (without
                      replacement, in weighted random order)
    QuotaSampler      so many rows of every group an epoch
    MixtureSampler    groups mixed in given proportions, each walked through without repetition
                      before it starts again

`state_dict` and `load_state_dict` resume an epoch exactly: they hold the epoch and how many items
this rank has handed out. A ``DataLoader`` with workers fetches ahead, so pass what was *used*:
``sampler.state_dict(used=batches_done * batch_size)``. An iteration that follows a finished one
walks through the next epoch; one that follows an iteration broken off goes on where that stopped.

torch itself is not imported: any iterable with a length is a sampler to it.
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dpdq._random import mix64, row_keys
from dpdq.errors import DataError, OptionError

__all__ = ["EpochSampler", "MixtureSampler", "QuotaSampler", "WeightedSampler"]


def _process() -> tuple[int, int]:
    """Rank and world size of torch's process group, if one is there."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def epoch_keys(n: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """Random uint64 keys of ``n`` places in one epoch."""
    mixed = mix64(np.array([seed, epoch, stream], dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    joined = mix64(mixed[:1] ^ (mixed[1:2] << np.uint64(1)) ^ (mixed[2:3] << np.uint64(2)))
    return row_keys(0, n, int(joined[0] >> np.uint64(1)))


def _uniform(keys: np.ndarray) -> np.ndarray:
    return ((keys >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


class EpochSampler(abc.ABC):
    """Base of samplers: one order of rows an epoch, shared out over ranks.

    Parameters
    ----------
    seed
        The same on every rank.
    rank, world_size
        Which of how many processes this is; default from ``torch.distributed`` when it runs, else
        0 of 1.
    uneven
        What to do with the rows that do not fill a round of all ranks: ``"drop"`` them (fewer than
        world_size), or ``"pad"`` with rows of the epoch's start, which are then seen twice.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        own_rank, own_size = _process()
        self.seed = int(seed)
        self.rank = own_rank if rank is None else int(rank)
        self.world_size = own_size if world_size is None else int(world_size)
        if not 0 <= self.rank < self.world_size:
            raise OptionError(
                f"rank is {self.rank} of world_size {self.world_size}; ranks go from 0"
            )
        if uneven not in ("drop", "pad"):
            raise OptionError(f"Unknown uneven {uneven!r}. Choose one of 'drop', 'pad'.")
        self.uneven = uneven
        self.epoch = 0
        self._position = 0

    @abc.abstractmethod
    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64."""

    @abc.abstractmethod
    def epoch_size(self) -> int:
        """Number of rows of an epoch over all ranks."""

    def __len__(self) -> int:
        size, world = self.epoch_size(), self.world_size
        return size // world if self.uneven == "drop" else -(-size // world)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration walks through, from its start."""
        if epoch < 0:
            raise OptionError(f"epoch is {epoch}; expected at least 0")
        self.epoch, self._position = int(epoch), 0

    def __iter__(self) -> Iterator[int]:
        if self._position and self._position >= len(self):  # the last epoch was walked through
            self.epoch, self._position = self.epoch + 1, 0
        rows = self.epoch_rows(self.epoch)
        length = len(self)
        if self.uneven == "pad" and len(rows):
            rows = np.resize(rows, length * self.world_size)
        own = rows[self.rank : length * self.world_size : self.world_size]
        for place in range(self._position, len(own)):
            self._position = place + 1
            yield int(own[place])

    def state_dict(self, used: int | None = None) -> dict[str, Any]:
        """Where this rank stands.

        Parameters
        ----------
        used
            Items of this epoch that training has used; default those handed out, which is more
            where a loader fetches ahead.

        Returns
        -------
        dict
            Plain values: epoch, position, and what must be the same when it is loaded.
        """
        position = self._position if used is None else int(used)
        if not 0 <= position <= len(self):
            raise OptionError(f"used is {used}; this rank's epoch has {len(self)} items")
        return {"epoch": self.epoch, "position": position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises
        ------
        OptionError
            If the state is of a sampler with another seed, size or world.
        """
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise OptionError(
                    f"the state has {name} {state.get(name)!r} and this sampler {value!r}; "
                    "an epoch resumes exactly only under the same settings"
                )
        self.epoch, self._position = int(state["epoch"]), int(state["position"])

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "world_size": self.world_size,
            "epoch_size": self.epoch_size(),
            "uneven": self.uneven,
        }


class WeightedSampler(EpochSampler):
    """Rows in proportion to their weights.

    ``"systematic"`` gives row i either the floor or the ceiling of n w_i / sum w visits, with
    expectation n w_i / sum w exactly: the least spread that unbiased counts can have.
    ``"without_replacement"`` visits a row once at most, in weighted random order (successive
    sampling); its inclusion probabilities are not proportional to the weights once n is a large
    part of the rows.

    Parameters
    ----------
    weights
        Weights of the rows, shape (n_rows,), not negative, any scale; zero is never visited.
    n_samples
        Visits an epoch over all ranks; default the number of rows of positive weight.
    method
        ``"systematic"`` or ``"without_replacement"``.
    seed, rank, world_size, uneven
        As in `EpochSampler`.

    Raises
    ------
    DataError
        Weights of a wrong shape, negative, not finite or all zero.
    OptionError
        An unknown method, or more rows asked for than can be drawn without replacement.

    Notes
    -----
    Cost: O(n) time an epoch (O(n log n) without replacement), 8 bytes a row and a visit.
    Held by: tests/data/test_samplers.py::test_systematic_counts_are_floor_or_ceiling

    Examples
    --------
    >>> from dpdq.data.samplers import WeightedSampler
    >>> sampler = WeightedSampler([0.0, 1.0, 3.0], n_samples=4, seed=0)
    >>> sorted(sampler)
    [1, 2, 2, 2]
    """

    def __init__(
        self,
        weights: Any,
        n_samples: int | None = None,
        *,
        method: str = "systematic",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, uneven=uneven)
        values = np.asarray(weights, dtype=np.float64)
        if values.ndim != 1 or not np.isfinite(values).all() or (values < 0).any():
            raise DataError(
                f"weights have shape {values.shape}; expected (n,), finite and not negative"
            )
        self._alive = np.flatnonzero(values > 0)
        if len(self._alive) == 0:
            raise DataError("weights are all zero; at least one row must have weight")
        self._shares = values[self._alive] / values[self._alive].sum()
        self.n_samples = len(self._alive) if n_samples is None else int(n_samples)
        if method not in ("systematic", "without_replacement"):
            raise OptionError(
                f"Unknown method {method!r}. Choose one of 'systematic', 'without_replacement'."
            )
        if self.n_samples < 1:
            raise OptionError(f"n_samples is {n_samples}; expected at least 1")
        if method == "without_replacement" and self.n_samples > len(self._alive):
            raise OptionError(
                f"n_samples is {self.n_samples:,} and only {len(self._alive):,} rows have weight; "
                "without replacement an epoch has at most that many"
            )
        self.method = method

    def epoch_size(self) -> int:
        """Number of rows of an epoch over all ranks."""
        return self.n_samples

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64."""
        keys = epoch_keys(len(self._alive), self.seed, epoch)
        if self.method == "without_replacement":
            # Exponential clocks: the n earliest are successive draws by weight.
            clocks = -np.log(_uniform(keys)) / self._shares
            return self._alive[np.argsort(clocks, kind="stable")[: self.n_samples]]
        # The rows stand in random order on a line; a comb of n teeth with random offset picks.
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(self._shares[order])
        offset = _uniform(epoch_keys(1, self.seed, epoch, stream=1))[0]
        teeth = (np.arange(self.n_samples) + offset) / self.n_samples * ends[-1]
        places = np.minimum(np.searchsorted(ends, teeth, side="right"), len(ends) - 1)
        visits = self._alive[order[places]]
        return visits[np.argsort(epoch_keys(len(visits), self.seed, epoch, stream=2))]


class _Groups:
    """Rows of each group, and an endless walk through each without early repetition."""

    def __init__(self, groups: Any) -> None:
        labels = np.asarray(groups)
        if labels.ndim != 1 or len(labels) == 0:
            raise DataError(f"groups have shape {labels.shape}; expected (n,), one label a row")
        names, codes = np.unique(labels, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self.names: list[Any] = names.tolist()
        self.rows = [order[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]

    def place(self, name: Any) -> int:
        if name not in self.names:
            raise OptionError(f"group {name!r} is named, and no row has it")
        return self.names.index(name)

    def walk(self, group: int, first: int, count: int, seed: int) -> np.ndarray:
        """Visits ``first .. first + count - 1`` of a group's endless walk.

        The walk is one random order of the group's rows after another.
        """
        rows = self.rows[group]
        rounds = range(first // len(rows), -(-(first + count) // len(rows)))
        orders = [
            rows[np.argsort(epoch_keys(len(rows), seed, each, stream=10 + group))]
            for each in rounds
        ]
        start = first - rounds.start * len(rows)
        return np.concatenate(orders)[start : start + count] if orders else rows[:0]


class QuotaSampler(EpochSampler):
    """So many rows of every group each epoch, in mixed order.

    A group that is larger than its quota is walked through over the epochs: no row comes again
    before all of its group came. One that is smaller repeats its rows.

    Parameters
    ----------
    groups
        Group of each row, shape (n_rows,).
    quotas
        Group -> rows an epoch; groups that are not named are never visited. ``"smallest"`` gives
        every group as many rows as the smallest has (group-balanced subsampling).
    seed, rank, world_size, uneven
        As in `EpochSampler`.

    Raises
    ------
    OptionError
        A quota below 1, or of a group that no row has.

    Notes
    -----
    Cost: O(visits + rows of the groups) time an epoch, 8 bytes a row.
    Held by: tests/data/test_samplers.py::test_quotas_hold_and_large_groups_are_walked_through

    Examples
    --------
    >>> from dpdq.data.samplers import QuotaSampler
    >>> sampler = QuotaSampler(["a", "a", "a", "b"], "smallest", seed=0)
    >>> rows = list(sampler)
    >>> len(rows), 3 in rows
    (2, True)
    """

    def __init__(
        self,
        groups: Any,
        quotas: Mapping[Any, int] | str,
        *,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, uneven=uneven)
        self._groups = _Groups(groups)
        if isinstance(quotas, str):
            if quotas != "smallest":
                raise OptionError(
                    f"Unknown quotas {quotas!r}. Give a mapping of groups to rows, or 'smallest'."
                )
            least = min(len(rows) for rows in self._groups.rows)
            quotas = dict.fromkeys(self._groups.names, least)
        self._counts = {self._groups.place(name): int(count) for name, count in quotas.items()}
        for name, count in quotas.items():
            if count < 1 or int(count) != count:
                raise OptionError(f"quota of group {name!r} is {count}; expected at least 1 row")

    def epoch_size(self) -> int:
        """Number of rows of an epoch over all ranks."""
        return sum(self._counts.values())

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64."""
        parts = [
            self._groups.walk(group, epoch * count, count, self.seed)
            for group, count in self._counts.items()
        ]
        rows = np.concatenate(parts)
        return rows[np.argsort(epoch_keys(len(rows), self.seed, epoch, stream=3))]


class MixtureSampler(EpochSampler):
    """Groups mixed in given proportions, which may change from epoch to epoch.

        share of group g  =  weight_g / sum of weights,   or  n_g^(1/T) / sum of n^(1/T)

    An epoch has the same number of visits whatever the proportions: those of a group are its
    share, rounded so that they add up, and are walked through without repetition before the group
    starts again.

    Parameters
    ----------
    groups
        Group of each row, shape (n_rows,).
    weights
        Group -> weight, not negative; groups that are not named get none.
    temperature
        T in place of ``weights``: 1 keeps the groups' sizes, infinity makes them equal. A number,
        or a function of the epoch, such as a `dpdq.reweight.CooldownSchedule`.
    n_samples
        Visits an epoch over all ranks; default the number of rows.
    seed, rank, world_size, uneven
        As in `EpochSampler`.

    Raises
    ------
    OptionError
        Both or neither of ``weights`` and ``temperature``, or values outside their range.

    Notes
    -----
    Cost: O(visits + rows of the groups) time an epoch, 8 bytes a row.
    Held by: tests/data/test_samplers.py::test_mixtures_have_their_shares

    With a temperature that changes, the walk of a group goes on from the sum of its earlier
    visits, which is counted from epoch 0: O(epoch) time, so that any epoch can be resumed.

    Examples
    --------
    >>> from dpdq.data.samplers import MixtureSampler
    >>> sampler = MixtureSampler(["a"] * 90 + ["b"] * 10, weights={"a": 1, "b": 1}, seed=0)
    >>> sum(row >= 90 for row in sampler)
    50
    """

    def __init__(
        self,
        groups: Any,
        *,
        weights: Mapping[Any, float] | None = None,
        temperature: float | Callable[[int], float] | None = None,
        n_samples: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, uneven=uneven)
        self._groups = _Groups(groups)
        if (weights is None) == (temperature is None):
            raise OptionError("give weights or temperature, one of them")
        self._weights = None
        if weights is not None:
            self._weights = np.zeros(len(self._groups.rows))
            for name, weight in weights.items():
                if not (weight >= 0 and np.isfinite(weight)):
                    raise OptionError(f"weight of group {name!r} is {weight}; expected 0 or more")
                self._weights[self._groups.place(name)] = weight
            if self._weights.sum() <= 0:
                raise OptionError("weights are all zero; at least one group must have weight")
        self.temperature = temperature
        sizes = [len(rows) for rows in self._groups.rows]
        self.n_samples = sum(sizes) if n_samples is None else int(n_samples)
        if self.n_samples < 1:
            raise OptionError(f"n_samples is {n_samples}; expected at least 1")

    def epoch_size(self) -> int:
        """Number of rows of an epoch over all ranks."""
        return self.n_samples

    def shares(self, epoch: int) -> dict[Any, float]:
        """Share of each group in an epoch."""
        return dict(zip(self._groups.names, self._shares(epoch).tolist(), strict=True))

    def _shares(self, epoch: int) -> np.ndarray:
        if self._weights is not None:
            return self._weights / self._weights.sum()
        given = self.temperature
        temperature = given(epoch) if callable(given) else given
        if temperature is None or not temperature > 0:
            raise OptionError(f"temperature is {temperature}; expected a positive number")
        sizes = np.array([len(rows) for rows in self._groups.rows], dtype=np.float64)
        shares = (sizes / sizes.max()) ** (1.0 / temperature)
        return shares / shares.sum()

    def _counts(self, epoch: int) -> np.ndarray:
        wanted = self._shares(epoch) * self.n_samples
        counts = np.floor(wanted).astype(np.int64)
        rest = self.n_samples - int(counts.sum())
        # The largest remainders get one more; an epoch's own keys break ties.
        ties = epoch_keys(len(counts), self.seed, epoch, stream=4)
        counts[np.lexsort((ties, counts - wanted))[:rest]] += 1
        return counts

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64."""
        counts = self._counts(epoch)
        before = np.zeros_like(counts)
        for earlier in range(epoch):
            before += self._counts(earlier)
        parts = [
            self._groups.walk(group, int(before[group]), int(count), self.seed)
            for group, count in enumerate(counts)
            if count
        ]
        rows = np.concatenate(parts)
        return rows[np.argsort(epoch_keys(len(rows), self.seed, epoch, stream=3))]
