from dpdq.data import pruning_samplers as pruning_samplers
from dpdq.data import samplers as samplers
from dpdq.data.features import Features as Features
from dpdq.data.folds import ExclusionMask as ExclusionMask
from dpdq.data.folds import assign_folds as assign_folds
from dpdq.data.folds import units_for_tests as units_for_tests
from dpdq.data.hashing import common_rows as common_rows
from dpdq.data.hashing import row_hashes as row_hashes
from dpdq.data.reference import Reference as Reference
from dpdq.data.sampling import bottom_k_rows as bottom_k_rows
from dpdq.data.schema import Column as Column
from dpdq.data.schema import infer_columns as infer_columns
from dpdq.data.schema import level_changes as level_changes
from dpdq.data.schema import schema_difference as schema_difference
from dpdq.data.sources import Source as Source
from dpdq.data.sources import open_source as open_source

__all__ = [
    "Column",
    "ExclusionMask",
    "Features",
    "Reference",
    "Source",
    "assign_folds",
    "bottom_k_rows",
    "common_rows",
    "infer_columns",
    "level_changes",
    "open_source",
    "pruning_samplers",
    "row_hashes",
    "samplers",
    "schema_difference",
    "units_for_tests",
]
