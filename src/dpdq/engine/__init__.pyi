from dpdq.engine.running import Engine as Engine
from dpdq.engine.running import run as run

__all__: list[str]
