from dpdq.engine.local import run as run

__all__ = ["run"]
