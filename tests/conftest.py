"""Fixtures that all tests share, and the switches of the suite.

``DPDQ_DATA`` names the folder of real data; with ``DPDQ_REQUIRE_DATA=1`` a test of real data fails
where it would skip. ``DPDQ_TEST_WITHOUT=torch,polars`` hides optional packages.
"""

from __future__ import annotations

import importlib.abc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")


class _Hidden(importlib.abc.MetaPathFinder):
    """Makes packages look as if they were not installed."""

    names = frozenset(filter(None, os.environ.get("DPDQ_TEST_WITHOUT", "").split(",")))

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if _Hidden.names:
    sys.meta_path.insert(0, _Hidden())


def find_shared_data() -> Path | None:
    """The folder of real data beside the checkout (or named by DPDQ_DATA), if there is one."""
    named = os.environ.get("DPDQ_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    for folder in ([Path(named)] if named else []) + [beside]:
        if (folder / "adult.parquet").exists():
            return folder
    return None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; skips where it is absent."""
    folder = find_shared_data()
    if folder is None:
        text = "real data are absent: set DPDQ_DATA to a folder that holds adult.parquet"
        if os.environ.get("DPDQ_REQUIRE_DATA") == "1":
            pytest.fail(text)
        pytest.skip(text)
    return folder
