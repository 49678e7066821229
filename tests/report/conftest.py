"""A headless Chromium for the tests of the page; skips with the reason where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def find_chromium() -> str | None:
    named = os.environ.get("DPDQ_CHROMIUM")
    for path in (
        named,
        "/usr/bin/chromium",
        shutil.which("chromium"),
        shutil.which("chromium-browser"),
        shutil.which("google-chrome"),
    ):
        if path and Path(path).exists():
            return path
    return None


@pytest.fixture(scope="session")
def browser():
    """A running browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _absent("playwright is not installed")
    path = find_chromium()
    if path is None:
        _absent("chromium is not installed (looked for /usr/bin/chromium and in PATH)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield started
        started.close()


def _absent(reason: str):
    if os.environ.get("DPDQ_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
