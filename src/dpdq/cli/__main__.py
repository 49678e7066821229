"""``python -m dpdq.cli``."""

from dpdq.cli import main

main()
