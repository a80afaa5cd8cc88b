"""jsPsych, the library that the sitting's page is made with: packages of the npm registry, fetched once and verified.

De Leeuw, Gilbert & Luchterhandt (2023), Journal of Open Source Software 8, 5351. Licence: MIT.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pooch
import requests

from pipeline.inputs.download import Resuming, sha256
from pipeline.inputs.sources import CACHE
from pipeline.stage import UserError

REGISTRY = "https://registry.npmjs.org/"
# Path below the registry -> sha256. Each has its script in SCRIPT.
PACKAGES = {
    "jspsych/-/jspsych-8.3.0.tgz": "cf45b01d6e821e5ec12aac714dfda0f2db9d5a49517eb90bc556edf0ffab9cd5",
    "@jspsych/plugin-canvas-keyboard-response/-/plugin-canvas-keyboard-response-2.2.0.tgz": (
        "1707d0743e970e0aa4558e15800f2dda77a2d2440202210d34139dbbce65f560"
    ),
    "@jspsych/plugin-html-keyboard-response/-/plugin-html-keyboard-response-2.2.0.tgz": (
        "6fc76375cfe5d4b4604a7b4801354667f87e2f01801adc3dbdcebb0282fee3a3"
    ),
    "@jspsych/plugin-html-button-response/-/plugin-html-button-response-2.1.0.tgz": (
        "66beeac80663ea3cefd2570a2d5774551752eaf6b58b37ec209087d5cd681c6f"
    ),
    "@jspsych/plugin-survey-html-form/-/plugin-survey-html-form-2.1.0.tgz": (
        "1ded04bbd7f56ba3e4cd484d3a49e4506ff82882ce36ee40d711c7d969538d33"
    ),
}
SCRIPT, STYLE = "package/dist/index.browser.min.js", "package/css/jspsych.css"


def cache() -> Path:
    """Where what was fetched is kept: as published inputs are, outside the repository."""
    return Path(os.environ.get(CACHE) or pooch.os_cache("counting-and-position")) / "jspsych"


def packages(folder: Path | None = None, registry: str = REGISTRY) -> dict[str, bytes]:
    """The packages by their path in PACKAGES: of a folder that holds the .tgz files, else of the registry.

    Raises UserError for one that is not there, not to be had, or not what its sha256 says.
    """
    if folder is None:
        return {path: _fetched(path, registry).read_bytes() for path in PACKAGES}
    found = {}
    for path, digest in PACKAGES.items():
        file = folder / Path(path).name
        if not file.is_file():
            raise UserError(f"{file}: not there; --library should hold {', '.join(Path(p).name for p in PACKAGES)}")
        if (has := sha256(file)) != digest:
            raise UserError(f"{file}: sha256 {has}, should be {digest}; get it anew from {REGISTRY}{path}")
        found[path] = file.read_bytes()
    return found


def _fetched(path: str, registry: str) -> Path:
    folder, name = cache(), Path(path).name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        downloader = Resuming(folder / f"{name}.partial")
        url = f"{registry}{path}"
        return Path(pooch.retrieve(url, f"sha256:{PACKAGES[path]}", name, folder, downloader=downloader))
    except requests.RequestException as error:
        raise UserError(
            f"{registry}{path}: not to be had ({str(error)[:200]}); run again when there is a network, or name a "
            f"folder that holds the .tgz files with --library"
        ) from None
    except ValueError as error:  # pooch's word for another hash
        raise UserError(f"{registry}{path}: {error}; try again later, or from another network") from None


def inlined(found: dict[str, bytes]) -> tuple[list[str], str]:
    """The scripts in the order of PACKAGES, and the style sheet, as text that can stand in an HTML file.

    Raises UserError where a package lacks its script, or a script would end its element.
    """
    scripts = []
    for path, content in found.items():
        scripts.append(_member(path, content, SCRIPT))
        if "</script" in scripts[-1].lower():
            raise UserError(f"{path}: {SCRIPT} holds '</script', so it cannot stand in a page; take the version pinned")
    return scripts, _member(next(iter(found)), next(iter(found.values())), STYLE)


def _member(path: str, content: bytes, name: str) -> str:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            text = tar.extractfile(name).read().decode()
    except (tarfile.TarError, KeyError, AttributeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: has no {name} ({error}); take the version pinned") from None
    return text.partition("//# sourceMappingURL=")[0]
