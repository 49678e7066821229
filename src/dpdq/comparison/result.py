"""The result of a comparison: every number of the page, and weights for every row of q."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpdq.data.writing import write_json, write_table_batches, write_text
from dpdq.passes import BLOCK_ROWS
from dpdq.results import to_json_types

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCHEMA_VERSION", "Comparison", "Record"]

SCHEMA_VERSION = "1.0"


class Record(dict[str, Any]):
    """A dictionary whose keys can also be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            known = ", ".join(self)
            raise AttributeError(f"no {name!r} here; there are {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self]


def _records(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Record({key: _records(item) for key, item in value.items()})
    if isinstance(value, list):
        return [_records(item) for item in value]
    return value


class Comparison:
    """How p differs from q, as `compare` found it.

    The attributes are the keys of ``comparison.json`` (``verdict``, ``columns``, ``divergences``,
    ``overlap``, ``weights``, ...), each readable as an attribute or as a dictionary.

    Attributes
    ----------
    log_ratio_q, log_ratio_p : ndarray, shape (n_q,), (n_p,), or None
        Cross-fitted log dP/dQ of every row, shifted so that E_q[r] = 1; ``None`` after a quick
        comparison.
    run : dict
        Versions, options and seconds: what is in ``run.json``.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        run: Mapping[str, Any],
        log_ratio_q: np.ndarray | None = None,
        log_ratio_p: np.ndarray | None = None,
        log_weights: np.ndarray | None = None,
        keys: Callable[[], Iterable[pa.RecordBatch]] | None = None,
        id_column: str | None = None,
        like: Any = None,
    ) -> None:
        self._values: Record = _records(to_json_types(values))
        self.run = dict(run)
        self.log_ratio_q = log_ratio_q
        self.log_ratio_p = log_ratio_p
        self._log_weights = log_weights
        self._keys = keys
        self._id_column = id_column
        self._like = like

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(self._values)
            raise AttributeError(f"a Comparison has no {name!r}; it has {known}") from None

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        from dpdq.report import terminal_summary

        return terminal_summary(self._values)

    def _repr_html_(self) -> str:
        from dpdq.report import notebook_html

        return notebook_html(self._values)

    def to_dict(self) -> dict[str, Any]:
        """Return every number of the page as JSON types: the content of ``comparison.json``."""
        return to_json_types(self._values)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the page.

        Parameters
        ----------
        path
            The HTML file; it appears whole or not at all.

        Returns
        -------
        pathlib.Path
            The path that was written.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        from dpdq.report import render

        write_text(path, render(self.to_dict(), self.run))
        return Path(path)

    def _weight_batches(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        import pyarrow as pa

        if self.log_ratio_q is None or self._log_weights is None:
            from dpdq.errors import DataError

            raise DataError("a quick comparison has no weights; run it without quick")
        log_ratio, log_weights = self.log_ratio_q, self._log_weights
        fields = [pa.field("row", pa.int64())]
        batches = iter(self._keys()) if self._keys is not None else None
        first = next(batches, None) if batches is not None else None
        if first is not None and self._id_column is not None:
            fields.append(first.schema.field(self._id_column))
        fields += [pa.field("log_ratio", pa.float64()), pa.field("weight", pa.float64())]
        schema = pa.schema(fields)

        def blocks() -> Iterator[pa.RecordBatch]:
            key_batch = first
            for start in range(0, len(log_ratio), BLOCK_ROWS):
                stop = min(start + BLOCK_ROWS, len(log_ratio))
                arrays: list[pa.Array] = [pa.array(np.arange(start, stop))]
                if key_batch is not None and batches is not None:
                    arrays.append(key_batch.column(self._id_column))
                    key_batch = next(batches, None)
                arrays.append(pa.array(log_ratio[start:stop]))
                arrays.append(pa.array(np.exp(log_weights[start:stop])))
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

        return schema, blocks()

    def weights_frame(self) -> Any:
        """Return row key, log ratio and weight (mean one) of every row of q.

        Returns
        -------
        frame
            Of the kind that q came in as (pandas, Polars); an Arrow table otherwise.

        Raises
        ------
        DataError
            After a quick comparison, which has no weights.
        """
        import pyarrow as pa

        schema, batches = self._weight_batches()
        table = pa.Table.from_batches(list(batches), schema=schema)
        kind = type(self._like).__module__.split(".")[0] if self._like is not None else ""
        if kind == "pandas":
            return table.to_pandas()
        if kind == "polars":
            import polars

            return polars.from_arrow(table)
        return table

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write ``report.html``, ``comparison.json``, ``run.json`` and ``weights.parquet``.

        Each file appears whole or not at all; a quick comparison has no ``weights.parquet``.

        Parameters
        ----------
        folder
            Where to write; made if absent.

        Returns
        -------
        dict
            File name -> path, in the order of writing.

        Raises
        ------
        FileError
            If a file cannot be written.
        """
        from dpdq.errors import FileError

        target = Path(folder)
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot make the folder {str(target)!r}: {error.strerror}") from error
        written: dict[str, Path] = {}
        if self.log_ratio_q is not None:
            schema, batches = self._weight_batches()
            write_table_batches(target / "weights.parquet", schema, batches)
            written["weights.parquet"] = target / "weights.parquet"
        write_json(target / "comparison.json", self.to_dict())
        written["comparison.json"] = target / "comparison.json"
        write_json(target / "run.json", to_json_types(self.run))
        written["run.json"] = target / "run.json"
        written["report.html"] = self.report(target / "report.html")
        return written
