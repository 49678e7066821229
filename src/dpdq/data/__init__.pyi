from dpdq.data.features import Features as Features
from dpdq.data.folds import assign_folds as assign_folds
from dpdq.data.hashing import row_hashes as row_hashes
from dpdq.data.reference import Reference as Reference
from dpdq.data.schema import Column as Column
from dpdq.data.schema import infer_columns as infer_columns
from dpdq.data.sources import Source as Source
from dpdq.data.sources import open_source as open_source

__all__ = [
    "Column",
    "Features",
    "Reference",
    "Source",
    "assign_folds",
    "infer_columns",
    "open_source",
    "row_hashes",
]
