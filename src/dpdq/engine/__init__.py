"""Runs passes: one walk over the rows of a side, in process, on a pool, as shards or on Ray.

A pass (`dpdq.passes.Pass`) says what to do with a block of rows and how two states join; the
engine decides where the blocks are worked on. Blocks, parts and the order of merging depend on the
data alone, so the answer does too, to the last bit:

    run(pass_, source)                                    in this process
    run(pass_, source, engine="pool")                     in spawned processes of this machine
    run(pass_, source, engine="shards", folder="job")     one of several processes that share a
                                                          folder and were started with a rank each
    run(pass_, source, engine="ray")                      as tasks of a Ray cluster

With ``folder=`` every engine keeps its finished parts there and goes on from them when it is
started again; parts are zip files of JSON and ``.npy``.
"""

from dpdq._lazy import attach as _attach

__getattr__, __dir__, __all__ = _attach(__name__, {"run": "running", "Engine": "running"})
