"""Plots without a network: DVC's pages with Vega in them, and the plots of two revisions as pictures.

`python -m pipeline.workflow.offline_plots` writes the page template that `dvc plots show` and `dvc plots diff` use.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import vl_convert

from pipeline.stage import UserError, run, write_bytes
from pipeline.workflow.dvc_parts import output_of

VEGA_LITE = "5.21"  # of those in the wheel, the last that DVC's templates (schema v5) are written for
CONFIG = Path(".dvc")  # DVC reads a relative template from here


# a template as DVC's manual describes it (plots.html_template)
PAGE = """<!DOCTYPE html>
<html>
<head>
    <meta charset="utf-8">
    {refresh_tag}
    <title>DVC Plot</title>
    <script>BUNDLE</script>
    <style>table { border-spacing: 15px; }</style>
</head>
<body>
    {plot_divs}
</body>
</html>
"""


def page_template(bundle: str) -> str:
    """A page for DVC's plots with `bundle`, JavaScript that defines vegaEmbed, in place of addresses of scripts.

    UserError if the bundle would end its element, or holds what DVC fills in.
    """
    bad = [word for word in ("</script", "{scripts}", "{plot_divs}", "{refresh_tag}") if word in bundle]
    if bad:
        raise UserError(f"vl-convert-python's bundle holds {bad}: take the version of requirements.txt")
    return PAGE.replace("BUNDLE", bundle)


class Plot(NamedTuple):
    """A plot that changed: PNG pictures by caption, or why there is none."""

    title: str
    pictures: dict[str, bytes]
    why: str = ""


def differing_plots(base: str, new: str) -> tuple[list[Plot], list[str], list[tuple[str, str]]]:
    """Plots that differ, titles of those that do not, and (title, revision) of those whose data is not here.

    Points of two revisions come in one picture, as the plot's template has it; images stay two. UserError if
    DVC does not know a revision.
    """
    changed, same = [], []
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["plots", "diff", "--json", "--out", folder, base, new]
        found = json.loads(output_of(*arguments))
        missing = [(error["name"], error["rev"]) for error in found.get("errors", [])]
        absent = {title for title, _ in missing}
        for title, parts in found.get("data", {}).items():
            if title in absent or not parts:
                continue
            read = _images if parts[0]["type"] == "image" else _drawn
            try:
                pictures = read(parts, base, new)
            except ValueError as error:  # from Vega-Lite
                changed.append(Plot(title, {}, f"Vega-Lite cannot draw it: {str(error).splitlines()[0]}"))
                continue
            if pictures:
                changed.append(Plot(title, pictures))
            else:
                same.append(title)
    return changed, same, missing


def _images(parts: list[dict], base: str, new: str) -> dict[str, bytes]:
    files = {part["revisions"][0]: Path(part["url"]).read_bytes() for part in parts}
    return {} if files.get(base) == files.get(new) else {name: files[name] for name in (base, new) if name in files}


def _drawn(parts: list[dict], base: str, new: str) -> dict[str, bytes]:
    drawn = {}
    for part in parts:
        spec = json.loads(part["content"]) if isinstance(part["content"], str) else part["content"]
        points: dict[str, list[dict]] = {base: [], new: []}
        for point in spec["data"]["values"]:
            points[point["rev"]].append({key: value for key, value in point.items() if key != "rev"})
        if points[base] != points[new]:
            caption = " and ".join(name for name, values in points.items() if values)
            drawn[caption] = vl_convert.vegalite_to_png(json.dumps(spec), vl_version=VEGA_LITE, scale=1.5)
    return drawn


def main() -> str:
    if not CONFIG.is_dir():
        raise UserError(f"{Path.cwd()} is not the root of the repository: run it where {CONFIG} is")
    path = Path(sys.prefix) / "share/dvc-plots.html"  # goes with the installation that it belongs to
    write_bytes(path, page_template(vl_convert.javascript_bundle(vl_version=VEGA_LITE)).encode())
    output_of("config", "--local", "plots.html_template", os.path.relpath(path, CONFIG))
    return "a page for dvc plots"


if __name__ == "__main__":
    run(main)
