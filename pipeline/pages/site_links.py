"""What mkdocs calls as it builds docs/ as a site (mkdocs.yml): links out of docs/ lead somewhere there too.

On GitHub a page may link to any file of the repository. A site has only what lies in docs/. So the files that pages
link to, figures among them, are taken along below `repository/`; Markdown files become pages. Folders are named only.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from urllib.parse import quote, unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TAKEN = "repository"
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
ALWAYS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def _in_repository(source: str) -> str:
    """Path in the repository of a page or file of the site."""
    return source.removeprefix(f"{TAKEN}/") if source.startswith(f"{TAKEN}/") else f"docs/{source}"


def _in_site(path: str) -> str:
    """The reverse."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{TAKEN}/{path}"


def _leads_to(target: str, source: str) -> tuple[str, str] | None:
    """Path in the repository that a link of the page `source` leads to, and the anchor; None if it is an address."""
    path, _, anchor = target.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return None
    here = posixpath.dirname(_in_repository(source))
    return posixpath.normpath(posixpath.join(here, unquote(path))), anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside docs/, and what these pages link to."""
    root = Path(config.config_file_path).parent
    waiting = [*files.documentation_pages(), *(_take(path, root, files, config) for path in ALWAYS)]
    while waiting:
        page = waiting.pop()
        for link in LINK.finditer(page.content_string):
            found = _leads_to(link["target"], page.src_uri)
            if found and not found[0].startswith("docs/") and (root / found[0]).is_file():
                known = files.get_file_from_path(_in_site(found[0]))
                if not known and (taken := _take(found[0], root, files, config)).is_documentation_page():
                    waiting.append(taken)
    return files


def _take(path: str, root: Path, files: Files, config: MkDocsConfig) -> File:
    file = File.generated(config, _in_site(path), abs_src_path=str(root / path))
    files.append(file)
    return file


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links as they are in the site; a link to a folder becomes its text."""
    code = [match.span() for match in CODE.finditer(markdown)]

    def change(link: re.Match[str]) -> str:
        found = _leads_to(link["target"], page.file.src_uri)
        if not found or any(start <= link.start() < end for start, end in code):
            return link[0]
        path, anchor = found
        if not path.startswith("docs/") and not files.get_file_from_path(_in_site(path)):
            return link["text"]
        relative = posixpath.relpath(_in_site(path), posixpath.dirname(page.file.src_uri) or ".")
        return f"{link['picture']}[{link['text']}]({quote(relative)}{'#' + anchor if anchor else ''})"

    return LINK.sub(change, markdown)
