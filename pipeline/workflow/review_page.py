"""A review as one HTML page that needs nothing else, and as Markdown for a pull request."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

ROWS = 40  # of a table in a comment; GitHub takes 65,536 characters
PICTURES = 16  # plots in a comment

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ base.name }} to {{ new.name }}</title>
<style>
:root { color-scheme: light dark; --muted: light-dark(#666, #999); --line: light-dark(#ddd, #444);
  --mark: light-dark(#fff3d6, #463a1c); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; margin: 1.6em 0 .5em; }
h1 { font-size: 1.7rem } h2 { font-size: 1.25rem } h3 { font-size: 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .3rem 0 1rem; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.n { text-align: right; white-space: nowrap; } .i, .muted { color: var(--muted); }
.apart td { background: var(--mark); }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top; max-width: 100%; }
figure.pair { width: calc(50% - 1.2rem); } img { max-width: 100%; background: #fff; } summary { cursor: pointer; }
</style></head><body>
{% macro rows(changes) %}
<table><tr><th>metric<th class=n>{{ base.name }}<th class=n><th class=n>{{ new.name }}<th class=n>
<th class=n>difference</tr>
{% for change in changes %}<tr{% if change.apart %} class=apart{% endif %}><td>{{ change.name }}
{%- for cell in change.cells %}<td class="n{% if loop.index in (2, 4) %} i{% endif %}">{{ cell }}{% endfor %}</tr>
{% endfor %}</table>
{% endmacro %}
<h1>What changed</h1>
<table>{% for side in (base, new) %}<tr><th>{{ side.name }}<td>{{ side.what }}</tr>{% endfor %}</table>
{% if nothing %}<p>Nothing: the same parameters, outputs, metrics and plots.</p>{% endif %}
{% for side, names in missing.items() %}<details><summary>Not compared, as they cannot be read
of {{ side }}: {{ names | length }} metrics files and plots. Mostly their data is not in this cache.</summary>
<p>{{ names | join(", ") }}</p></details>{% endfor %}
{% if params %}<h2>What was turned</h2>
{% if params | length > 30 %}<details><summary>{{ params | length }} parameters</summary>{% endif %}
<table><tr><th>parameter<th>{{ base.name }}<th>{{ new.name }}</tr>
{% for file, name, old, now in params %}<tr><td>{{ name }}
{%- if file != "params.yaml" %} <span class=muted>({{ file }})</span>{% endif %}<td>{{ old }}<td>{{ now }}</tr>
{% endfor %}</table>{% if params | length > 30 %}</details>{% endif %}{% endif %}
{% if stages %}<h2>Stages</h2>
<table>{% for name, how in stages %}<tr><td>{{ name }}<td>{{ how }}</tr>{% endfor %}</table>{% endif %}
{% if judged | length == 1 %}<p class=muted>Claims are judged in {{ judged[0] }} only.</p>{% endif %}
{% if claims %}<h2>Claims judged otherwise</h2>
<table><tr><th>claim<th>{{ base.name }}<th>{{ new.name }}</tr>
{% for name, old, now in claims %}<tr><td>{{ name }}<td>{{ old }}<td>{{ now }}</tr>{% endfor %}</table>{% endif %}
{% if metrics %}<h2>Metrics</h2>
{% if metrics.values() | map("first") | selectattr("apart") | list %}
<p class=muted>Marked: intervals that do not overlap. They are 95% intervals over what their file names, mostly test
images, not over training runs; intervals that overlap do not show that nothing changed.</p>{% endif %}
{% for file, changes in metrics.items() if changes[0].apart %}<h3>{{ file }}</h3>
{{ rows(changes | selectattr("apart")) }}{% endfor %}
{% for file, changes in metrics.items() %}{% set others = changes | rejectattr("apart") | list %}{% if others %}
<details{% if others | length <= 8 %} open{% endif %}><summary>{{ file }}: {{ others | length }} other changes</summary>
{{ rows(others) }}</details>{% endif %}{% endfor %}{% endif %}
{% if plots %}<h2>Plots</h2>
{% for plot in plots %}<h3>{{ plot.title }}</h3>{% if plot.why %}<p>{{ plot.why }}</p>{% endif %}
{% set beside = plot.pictures | length > 1 and not plot.pictures.values() | map("wide") | select | list %}
{% for caption, picture in plot.pictures.items() %}<figure{% if beside %} class=pair{% endif %}>
<figcaption class=muted>{{ caption }}</figcaption>
<img alt="{{ plot.title }}, {{ caption }}" src="{{ picture | inline }}"></figure>
{% endfor %}{% endfor %}{% endif %}
{% if same %}<p class=muted>The same in both: {{ same | join(", ") }}.</p>{% endif %}
</body></html>
"""

COMMENT = """### `{{ base.name }}` → `{{ new.name }}`
{% for side in (base, new) %}
- `{{ side.name }}`: {{ side.what | cell }}
{% endfor %}

{% if nothing %}Nothing changed: the same parameters, outputs, metrics and plots.
{% endif %}
{% for side, names in missing.items() %}
Not compared, as they cannot be read of `{{ side }}`: {{ names | length }} metrics files and plots.

{% endfor %}
{% if params %}
| turned | {{ base.name }} | {{ new.name }} |
|---|---|---|
{% for file, name, old, now in params[:limit] %}
| `{{ name }}` | {{ old | cell }} | {{ now | cell }} |
{% endfor %}
{% if params | length > limit %}
| and {{ params | length - limit }} more | | |
{% endif %}

{% endif %}
{% if stages %}
Stages: {% for name, how in stages %}{{ "; " if not loop.first }}`{{ name }}` {{ how }}{% endfor %}.

{% endif %}
{% if claims %}
| claim | {{ base.name }} | {{ new.name }} |
|---|---|---|
{% for row in claims[:limit] %}
| {{ row | map("cell") | join(" | ") }} |
{% endfor %}

{% endif %}
{% macro rows(found) %}
| metric | {{ base.name }} | | {{ new.name }} | | difference |
|---|--:|---|--:|---|--:|
{% for file, change in found[:limit] %}
| `{{ file }}` `{{ change.name }}` | {{ change.cells | map("cell") | join(" | ") }} |
{% endfor %}
{% if found | length > limit %}
| and {{ found | length - limit }} more | | | | | |
{% endif %}
{% endmacro %}
{% if apart %}
Intervals that do not overlap:

{{ rows(apart) }}
{% endif %}
{% if others %}
<details><summary>{{ others | length }} other metrics changed</summary>

{{ rows(others) }}
</details>

{% endif %}
{% for plot in plots[:most] if plot.pictures %}
<details><summary>{{ plot.title }}</summary>
{% for caption, picture in plot.pictures.items() %}
<img alt="{{ caption | cell }}" title="{{ caption | cell }}" src="{{ picture | link }}"
 width="{{ 100 // (plot.pictures | length) - 2 }}%">
{% endfor %}
</details>
{% endfor %}
{% if plots | length > most %}
Not shown here, for length: {{ plots[most:] | map(attribute="title") | join(", ") }}.
{% endif %}
{% if same %}

{{ same | length }} plots are the same in both.
{% endif %}
"""


def _inline(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _wide(picture: bytes) -> bool:
    """Too wide to be read beside another: more than twice its height, by the PNG's header."""
    width, height = struct.unpack(">II", picture[16:24])
    return width > 2 * height


def picture_name(picture: bytes) -> str:
    """A file name by content, so that another picture has another address and no cache shows the old one."""
    return f"{hashlib.sha256(picture).hexdigest()[:16]}.png"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def page(found: Mapping[str, Any]) -> str:
    """One HTML file with everything in it."""
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"inline": _inline, "wide": _wide}
    return environment.from_string(PAGE).render(found, nothing=unchanged(found))


def comment(found: Mapping[str, Any], pictures: str) -> str:
    """Markdown for a pull request; `pictures` is their address, with {name} in it."""
    environment = Environment(trim_blocks=True)  # Markdown, not HTML: a cell escapes what it must
    environment.filters |= {"cell": _cell, "link": lambda picture: pictures.replace("{name}", picture_name(picture))}
    rows = [(file, change) for file, changed in found["metrics"].items() for change in changed]
    sides = {"apart": [row for row in rows if row[1].apart], "others": [row for row in rows if not row[1].apart]}
    limits = {"limit": ROWS, "most": PICTURES, "nothing": unchanged(found)}
    return environment.from_string(COMMENT).render(found, **sides, **limits)


def unchanged(found: Mapping[str, Any]) -> bool:
    """Nothing changed, as far as everything could be compared."""
    return not any(found[part] for part in ("params", "stages", "claims", "metrics", "plots", "missing"))
