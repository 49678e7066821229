"""What a mechanism hands back: the rows kept, why, and what the choice did to the pool."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq._random import RandomState, as_generator, child_seed, row_keys
from dpdq.errors import DataError
from dpdq.results import Result

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Selection"]


@dataclasses.dataclass(frozen=True, repr=False)
class Selection(Result):
    """Rows of a pool that a mechanism kept.

    Attributes
    ----------
    rows
        Row numbers kept, ascending, shape (k,).
    n_pool
        Rows of the pool.
    mechanism
        How they were chosen.
    utility
        Utility of every row of the pool, shape (n_pool,).
    weights
        Weight of each kept row, shape (k,); ones where the mechanism gives none.
    threshold
        Smallest utility kept, where the mechanism is a cut.
    cost, budget
        What the kept rows cost and what they might, in ``unit``.
    unit
        ``"rows"``, or what the cost counts, such as ``"tokens"``.
    reasons
        Number of each row's reason, shape (n_pool,), into ``reason_names``.
    reason_names
        Why rows were kept or dropped.
    status
        The choice in a sentence.
    """

    rows: np.ndarray
    n_pool: int
    mechanism: str
    utility: np.ndarray
    weights: np.ndarray
    threshold: float | None = None
    cost: float = 0.0
    budget: float = 0.0
    unit: str = "rows"
    reasons: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int8))
    reason_names: tuple[str, ...] = ()
    status: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def mask(self) -> np.ndarray:
        """Whether each row of the pool is kept, shape (n_pool,)."""
        kept = np.zeros(self.n_pool, dtype=bool)
        kept[self.rows] = True
        return kept

    def trail(self, columns: Mapping[str, Any] | None = None) -> pa.Table:
        """Every row of the pool with its score, whether it is kept, and why.

        Parameters
        ----------
        columns
            More columns to carry along, such as keys or sources, each of length ``n_pool``.

        Returns
        -------
        pyarrow.Table
            Columns ``row``, ``utility``, ``kept``, ``weight``, ``reason`` and those given.
        """
        import pyarrow as pa

        weight = np.zeros(self.n_pool)
        weight[self.rows] = self.weights
        names = pa.array(self.reason_names, pa.string())
        reason = pa.DictionaryArray.from_arrays(pa.array(self.reasons.astype(np.int32)), names)
        table = {
            "row": np.arange(self.n_pool, dtype=np.int64),
            "utility": self.utility,
            "kept": self.mask,
            "weight": weight,
            "reason": reason,
        }
        return pa.table(table | dict(columns or {}))

    def keep_rates(self, by: Any) -> pa.Table:
        """Share of rows kept, by source or any other label, with 95 % Wilson intervals.

        Parameters
        ----------
        by
            A label a row, shape (n_pool,); numbers of more than 20 values are cut at their
            deciles.

        Returns
        -------
        pyarrow.Table
            Columns ``level``, ``n``, ``kept``, ``share``, ``low``, ``high``; largest level first.
        """
        import pyarrow as pa

        names, codes = level_codes(by, self.n_pool)
        n = np.bincount(codes, minlength=len(names))
        kept = np.bincount(codes[self.rows], minlength=len(names))
        z2 = 1.959963984540054**2
        share = kept / n
        centre = (kept + z2 / 2) / (n + z2)
        half = np.sqrt(z2) / (n + z2) * np.sqrt(kept * (n - kept) / n + z2 / 4)
        order = np.argsort(-n, kind="stable")
        columns = {
            "n": n,
            "kept": kept,
            "share": share,
            "low": centre - half,
            "high": centre + half,
        }
        levels = {"level": pa.array([names[i] for i in order], pa.string())}
        return pa.table(levels | {name: values[order] for name, values in columns.items()})

    def random_control(self, random_state: RandomState = None, *, match: Any = None) -> Selection:
        """A uniform draw of as many rows, to hold this selection against.

        Parameters
        ----------
        random_state
            Seed.
        match
            A label a row (lengths are cut at their deciles): the control then has as many rows of
            every label as this selection, so that what the label alone brings cancels.

        Returns
        -------
        Selection
            The control, with the same number of rows.
        """
        seed = child_seed(as_generator(random_state))
        keys = row_keys(0, self.n_pool, seed)
        if match is None:
            codes = np.zeros(self.n_pool, dtype=np.int64)
        else:
            codes = level_codes(match, self.n_pool)[1]
        wanted = np.bincount(codes[self.rows], minlength=int(codes.max()) + 1)
        order = np.lexsort((keys, codes))
        starts = np.searchsorted(codes[order], np.arange(len(wanted)))
        picked = [order[a : a + k] for a, k in zip(starts, wanted, strict=True)]
        rows = np.sort(np.concatenate(picked)).astype(np.int64)
        reasons = np.ones(self.n_pool, dtype=np.int8)
        reasons[rows] = 0
        return dataclasses.replace(
            self,
            rows=rows,
            mechanism="random control" if match is None else "random control, matched",
            weights=np.ones(len(rows)),
            threshold=None,
            cost=float(len(rows)),
            budget=float(len(rows)),
            unit="rows",
            reasons=reasons,
            reason_names=("drawn", "not drawn"),
            status=f"{len(rows):,} of {self.n_pool:,} rows drawn at random",
        )


def level_codes(by: Any, n: int) -> tuple[list[str], np.ndarray]:
    """Names of levels and the level of each row; many-valued numbers are cut at deciles.

    Raises
    ------
    DataError
        A wrong length.
    """
    values = np.asarray(by)
    if values.shape != (n,):
        raise DataError(f"labels have shape {values.shape}; expected ({n},), one a row of the pool")
    if np.issubdtype(values.dtype, np.number) and len(np.unique(values)) > 20:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, 11)[1:-1]))
        codes = np.searchsorted(edges, values, side="left")
        ends = [values.min(), *edges, values.max()]
        names = [f"{ends[i]:.6g} to {ends[i + 1]:.6g}" for i in range(len(edges) + 1)]
        present, codes = np.unique(codes, return_inverse=True)
        return [names[i] for i in present], codes
    levels, codes = np.unique(values.astype(str), return_inverse=True)
    return [str(level) for level in levels], codes
