"""`make docs`: a site that opens offline, in which every link and picture leads to a file of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from conftest import REPOSITORY

pytest.importorskip("material", reason="mkdocs-material is not installed; 'make docs' installs it")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_link_of_the_site_leads_to_a_file_of_it(site):
    broken = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # served from anywhere, so with absolute links
            continue
        for address in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
            target = unquote(re.sub(r"[?#].*", "", address))
            if not target or re.match(r"[a-z]+:|//", target):
                continue
            path = (page.parent / target).resolve()
            if not path.exists():
                broken.append(f"{page.relative_to(site)}: {address}")
    assert broken == []


def test_pages_load_nothing_from_the_web(site):
    text = (site / "index.html").read_text()
    loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?(https?:[^\"\s>]+)", text)
    loaded += re.findall(r"<link[^>]* href=\"?(https?:[^\"\s>]+)[^>]*stylesheet", text)
    assert loaded == []


def test_search_works_without_a_server(site):
    index = (site / "search/search_index.js").read_text()  # a script, since a page of a file may not read other files
    assert "Go on after an interruption" in index


def test_figures_are_taken_along(site):
    assert (site / "repository/results/laptop/claims.png").read_bytes() == (
        REPOSITORY / "results/laptop/claims.png"
    ).read_bytes()
