"""A real browser for tests: Debian's Chromium, driven by Playwright. A module that imports this skips without it.

pip install -r requirements-browser.txt; apt-get install chromium      or another Chromium, as CHROMIUM=/path/to/it
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

playwright = pytest.importorskip(
    "playwright.sync_api", reason="needs Playwright: pip install -r requirements-browser.txt", exc_type=ImportError
)

PATIENCE = 240_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("no Chromium: 'apt-get install chromium', or name one in CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"], timeout=PATIENCE)
        yield browser
        browser.close()
