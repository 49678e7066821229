"""What are q and p? Tables, files and arrays as rows, and mixed columns as features.

A side of a comparison is a `Source`: rows in a fixed order, with named columns of a few plain
types, read in blocks of 65,536 whose boundaries depend on the rows alone. `open_source` makes one
of whatever the user has. Each fact about a row is kept once and each column is read alone where
that is enough, so that memory is bounded by a block and not by the file.

    open_source(data, side="q")  ->  Source.batches(columns)  ->  pass or features

`infer_columns` says what a column means (numbers, levels, times, text), `Features` turns mixed
columns into numbers by one recipe, `row_hashes` finds equal rows and `assign_folds` keeps equal
rows together. `Reference` is q kept as a file, to be compared with many batches of p.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(
    __name__,
    {
        "open_source": "sources",
        "Source": "sources",
        "infer_columns": "schema",
        "Column": "schema",
        "schema_difference": "schema",
        "level_changes": "schema",
        "Features": "features",
        "row_hashes": "hashing",
        "common_rows": "hashing",
        "bottom_k_rows": "sampling",
        "assign_folds": "folds",
        "ExclusionMask": "folds",
        "units_for_tests": "folds",
        "Reference": "reference",
        "samplers": "samplers",
        "pruning_samplers": "pruning_samplers",
    },
)
