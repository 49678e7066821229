"""The main job: how does p differ from q, and what follows?

    compare(q, p)   one call from two data sets to verdict, columns, ratio, overlap, weights,
                    slices, performance under shift, and a page
    profile(q)      keep q as a reference file, to be compared with many batches
    Comparison      what comes back: the numbers of the page as attributes, and a log ratio for
                    every row

The job reads each file once to hash its rows, learns on a sample, and scores and counts all rows
in blocks, so that memory is bounded by the block and a few numbers a row.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(
    __name__, {"compare": "job", "profile": "job", "Comparison": "result"}
)
