"""Samplers for torch that train on a part of the rows each epoch, and on another the next.

A fixed subset never shows most rows to the model. A fresh one each epoch costs as little and shows
all of them in time:

    RepeatedRandomSubset       a fresh random subset of r n rows every epoch; no scores. The
                               baseline that every pruner has to beat at equal sample updates.
    SlidingWindowLossSampler   rows whose last loss lies in a window that slides from easy to hard

Both stand on `dpdq.data.samplers.EpochSampler`: one global order of rows an epoch, shared out over
the ranks, resumed exactly. The second learns from losses, which each rank knows of its own rows
only; they are added up over the ranks when an epoch begins, so that all ranks walk the same order.
What neither fixes: the learning-rate schedule, which must be laid over the smaller number of steps
that there will be.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from dpdq._optional import is_torch
from dpdq.data.samplers import EpochSampler, epoch_keys
from dpdq.errors import DataError, OptionError

__all__ = ["RepeatedRandomSubset", "SlidingWindowLossSampler"]


def _check_rows(n_rows: int) -> int:
    if int(n_rows) != n_rows or n_rows < 1:
        raise OptionError(f"n_rows is {n_rows}; expected at least 1 row")
    return int(n_rows)


def _smallest(keys: np.ndarray, first: int, stop: int) -> np.ndarray:
    """Rows whose keys have the ranks ``first .. stop - 1``, in the order of their keys."""
    places = {rank for rank in (first, stop - 1) if 0 <= rank < len(keys)}
    found = np.argpartition(keys, sorted(places))[first:stop]
    return found[np.argsort(keys[found], kind="stable")]


class RepeatedRandomSubset(EpochSampler):
    """A fresh uniform random subset every epoch (RS2).

    ``"without"`` shuffles the rows and walks through them block by block, one an epoch, so that no
    row comes twice before floor(1 / r) epochs have passed; the rows that do not fill a block are
    left out of that round, and the next one shuffles anew. ``"with"`` draws each epoch by itself.
    No row comes twice in an epoch either way.

    Parameters
    ----------
    n_rows
        Rows of the data set.
    fraction
        r, the share of the rows that an epoch visits, above 0 and up to 1.
    replacement
        ``"without"`` or ``"with"`` replacement across epochs.
    seed, rank, world_size, uneven
        As in `dpdq.data.samplers.EpochSampler`.

    Raises
    ------
    OptionError
        A fraction outside (0, 1], or an unknown ``replacement``.

    Notes
    -----
    Cost: O(n) time an epoch, 16 bytes a row while the epoch is drawn.
    Held by: tests/data/test_pruning_samplers.py::test_subsets_walk_through_all_rows

    References
    ----------
    .. [M233] Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning.
       Okanovic, 2023, arXiv 2305.18424.

    Examples
    --------
    >>> from dpdq.data.pruning_samplers import RepeatedRandomSubset
    >>> sampler = RepeatedRandomSubset(10, 0.5, seed=0)
    >>> sorted(list(sampler) + list(sampler))
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    def __init__(
        self,
        n_rows: int,
        fraction: float,
        *,
        replacement: str = "without",
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, uneven=uneven)
        self.n_rows = _check_rows(n_rows)
        if not 0 < fraction <= 1:
            raise OptionError(f"fraction is {fraction}; expected a share above 0 and up to 1")
        if replacement not in ("without", "with"):
            raise OptionError(
                f"Unknown replacement {replacement!r}. Choose one of 'without', 'with'."
            )
        self.fraction = float(fraction)
        self.replacement = replacement
        self.n_samples = max(1, round(fraction * self.n_rows))

    def epoch_size(self) -> int:
        """Number of rows of an epoch over all ranks."""
        return self.n_samples

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64."""
        blocks = self.n_rows // self.n_samples if self.replacement == "without" else 1
        keys = epoch_keys(self.n_rows, self.seed, epoch // blocks)
        first = (epoch % blocks) * self.n_samples
        return _smallest(keys, first, first + self.n_samples)


def loss_groups(losses: np.ndarray, n_groups: int) -> np.ndarray:
    """Group of each loss by k-means on the line, numbered from easy to hard.

    Lloyd's iteration on sorted values: the centres are means between cuts, the cuts lie midway
    between centres. It starts where a smooth law has its best groups (as dense as the cube root of
    its density) and draws nothing at random, so every rank finds the same groups. Values that are
    all equal are split evenly by place; groups that would be empty do not exist.

    Parameters
    ----------
    losses
        Shape (n,), finite, at least one.
    n_groups
        k.

    Returns
    -------
    ndarray of shape (n,)
        Numbers from 0 to at most k - 1, none left out.
    """
    n = len(losses)
    order = np.argsort(losses, kind="stable")
    values = losses[order]
    starts = np.arange(1, n_groups) * n // n_groups
    if values[0] != values[-1]:
        # Where f is the density, the best groups lie as densely as f^(1/3): equal sums of gap^(2/3)
        gaps = np.cumsum(np.diff(values) ** (2 / 3))
        shares = np.arange(1, n_groups) / n_groups * gaps[-1]
        starts = np.searchsorted(gaps, shares) + 1
        sums = np.concatenate([[0.0], np.cumsum(values - values.mean())])
        for _ in range(100):
            ends = np.concatenate([[0], starts, [n]])
            filled = ends[1:] > ends[:-1]
            means = np.diff(sums[ends])[filled] / np.diff(ends)[filled]
            means += values.mean()
            moved = np.searchsorted(values, (means[1:] + means[:-1]) / 2, side="right")
            if len(moved) == len(starts) and (moved == starts).all():
                break
            starts = moved
    groups = np.empty(n, dtype=np.int64)
    groups[order] = np.searchsorted(starts, np.arange(n), side="right")
    return np.unique(groups, return_inverse=True)[1]


class SlidingWindowLossSampler(EpochSampler):
    """Rows in a window of losses that slides from easy to hard, again and again (SeTa).

        draw a share 1 - prune_ratio of the rows; group them by their last loss into k groups;
        epoch e >= 1 trains on the groups s .. s + W - 1,   W = round(k scale),
        s = e mod (k - W + 1);   epoch 0, and the last epochs from ``anneal`` on, on all drawn rows

    After every batch hand the losses back: ``sampler.update(rows, losses)``. How many rows an epoch
    has depends on the losses: `epoch_sizes` holds what was really trained on. Rows outside the
    window are not stood for by anything, so the last epochs take no window.

    Parameters
    ----------
    n_rows
        Rows of the data set.
    n_epochs
        Epochs that there will be.
    prune_ratio
        Share of the rows that is left out at random each epoch.
    n_groups, scale
        k and the window's share of it.
    anneal
        Share of the epochs after which there is no window any more.
    initial_loss
        Loss of rows that no epoch visited yet; larger than usual losses puts them among the hard.
    seed, rank, world_size, uneven
        As in `dpdq.data.samplers.EpochSampler`.

    Raises
    ------
    OptionError
        Options outside their range.
    DataError
        Losses that are not finite, or rows that do not exist.

    Notes
    -----
    Cost: O(n log n) time and one sum over the ranks of 16 bytes a row an epoch; 24 bytes a row.
    Held by: tests/data/test_pruning_samplers.py::test_windows_slide_from_easy_to_hard

    Under distributed data parallel each rank updates the rows it trained on, and all ranks must
    begin an epoch together, since that is when losses are summed; every rank keeps its own
    `state_dict`. ``rank`` and ``world_size`` given without a process group cannot sum anything:
    then hand the losses of all ranks to each. ``len`` before an epoch begins is that of the epoch
    begun last. The window's groups are found by k-means from a fixed start here, from random
    centres in the paper's code.

    References
    ----------
    .. [M456] Scale Efficient Training for Large Datasets.
       Zhou, 2025, arXiv 2503.13385.

    Examples
    --------
    >>> import numpy as np
    >>> from dpdq.data.pruning_samplers import SlidingWindowLossSampler
    >>> sampler = SlidingWindowLossSampler(100, n_epochs=8, prune_ratio=0.0)
    >>> rows = np.array(list(sampler))  # epoch 0: all
    >>> sampler.update(rows, losses=rows / 100)
    >>> len(rows), max(sampler)  # epoch 1: the groups 1 to 5 of 0 to 9
    (100, 59)
    """

    def __init__(
        self,
        n_rows: int,
        n_epochs: int,
        *,
        prune_ratio: float = 0.3,
        n_groups: int = 10,
        scale: float = 0.5,
        anneal: float = 0.875,
        initial_loss: float = 3.0,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: str = "drop",
    ) -> None:
        super().__init__(seed=seed, rank=rank, world_size=world_size, uneven=uneven)
        self.n_rows = _check_rows(n_rows)
        if int(n_epochs) != n_epochs or n_epochs < 1:
            raise OptionError(f"n_epochs is {n_epochs}; expected at least 1")
        if not 0 <= prune_ratio < 1:
            raise OptionError(f"prune_ratio is {prune_ratio}; expected a share from 0 to below 1")
        if int(n_groups) != n_groups or n_groups < 1:
            raise OptionError(f"n_groups is {n_groups}; expected at least 1")
        for name, value in (("scale", scale), ("anneal", anneal)):
            if not 0 < value <= 1:
                raise OptionError(f"{name} is {value}; expected a share above 0 and up to 1")
        self.n_epochs, self.prune_ratio = int(n_epochs), float(prune_ratio)
        self.n_groups, self.scale, self.anneal = int(n_groups), float(scale), float(anneal)
        self.n_samples = max(1, round((1.0 - prune_ratio) * self.n_rows))
        self.losses = np.full(self.n_rows, float(initial_loss))
        self.epoch_sizes: dict[int, int] = {}
        self._pending = np.full(self.n_rows, np.nan)
        self._begun = -1
        self._rows = np.zeros(0, np.int64)

    def update(self, rows: Any, losses: Any) -> None:
        """Note the losses of rows that were just trained on; they count from the next epoch on.

        Parameters
        ----------
        rows
            Row numbers, shape (b,); NumPy or torch.
        losses
            Their losses, shape (b,).
        """
        places, values = (x.detach().cpu() if is_torch(x) else x for x in (rows, losses))
        places = np.asarray(places)
        values = np.asarray(values, dtype=np.float64)
        if places.ndim != 1 or places.shape != values.shape or places.dtype.kind not in "iu":
            raise DataError(
                f"rows have shape {places.shape} and losses {values.shape}; expected (b,) whole "
                "numbers and one loss each"
            )
        if len(places) and not (places.min() >= 0 and places.max() < self.n_rows):
            raise DataError(f"rows go up to {places.max()}; this sampler has {self.n_rows} rows")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).argmax())
            raise DataError(f"the loss of row {places[bad]} is {values[bad]}; look for divergence")
        self._pending[places] = values

    def epoch_size(self) -> int:
        """Number of rows, over all ranks, of the epoch that began last."""
        return self.epoch_sizes.get(self._begun, self.n_samples)

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Row numbers of a whole epoch in order, over all ranks, int64; begins the epoch."""
        if epoch != self._begun:
            self._merge()
            self._begin(epoch)
        return self._rows

    def _begin(self, epoch: int) -> None:
        """Fix the rows of an epoch, by the losses known now."""
        rows = _smallest(epoch_keys(self.n_rows, self.seed, epoch), 0, self.n_samples)
        if epoch > 0 and epoch + 1 <= self.anneal * self.n_epochs:
            groups = loss_groups(self.losses[rows], self.n_groups)
            count = int(groups.max()) + 1
            width = max(1, round(count * self.scale))
            start = epoch % (count - width + 1)
            rows = rows[(groups >= start) & (groups < start + width)]
        self._begun, self._rows = epoch, rows
        self.epoch_sizes[epoch] = len(rows)

    def _merge(self) -> None:
        """Take over pending losses, over all ranks where torch's process group is there."""
        fresh = ~np.isnan(self._pending)
        values, counts = np.where(fresh, self._pending, 0.0), fresh.astype(np.float64)
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            torch = sys.modules["torch"]
            device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
            both = torch.from_numpy(np.stack([values, counts])).to(device)
            distributed.all_reduce(both)
            values, counts = both.cpu().numpy()
        seen = counts > 0
        self.losses[seen] = values[seen] / counts[seen]
        self._pending[:] = np.nan

    def state_dict(self, used: int | None = None) -> dict[str, Any]:
        """Where this rank stands, with the losses it knows.

        Parameters
        ----------
        used
            Items of this epoch that training has used; default those handed out.

        Returns
        -------
        dict
            Plain values and arrays.
        """
        return super().state_dict(used) | {
            "begun": self._begun,
            "losses": self.losses.copy(),
            "pending": self._pending.copy(),
            "epoch_sizes": dict(self.epoch_sizes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises
        ------
        OptionError
            If the state is of a sampler with other settings.
        """
        super().load_state_dict(state)
        self.losses = np.array(state["losses"], dtype=np.float64)
        self._pending = np.array(state["pending"], dtype=np.float64)
        self.epoch_sizes = dict(state["epoch_sizes"])
        self._begun = -1
        if state["begun"] >= 0:
            self._begin(int(state["begun"]))

    def _identity(self) -> dict[str, Any]:
        names = ("seed", "world_size", "uneven", "n_rows", "n_epochs", "prune_ratio", "n_groups",
                 "scale", "anneal")  # fmt: skip
        return {name: getattr(self, name) for name in names}
