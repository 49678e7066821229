"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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
        pytest.skip("real data are absent: set DPDQ_DATA to a folder that holds adult.parquet")
    return folder
