"""The report's section on guests: networks of the user's own beside the paper's (params.yaml, shapes.guests)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pipeline.params import load_params

METRICS, PLOTS = Path("metrics/shapes/guests"), Path("plots/shapes/guests")
TEMPLATE = """\
<p>{{ guests | length }} of shapes.guests in params.yaml. Intervals are 95%.</p>
{% for guest in guests %}
<h3>{{ guest.name }}</h3>
<p>{{ guest.build }}, {{ "{:,}".format(guest.parameters) }} parameters,
{{ "trained here" if guest.trained_here else "as it came" }}.
{% if guest.always_answers %}It answers '{{ guest.always_answers }}' to every image.{% endif %}</p>
<table>
<tr><th>density of the test set</th><th>accuracy</th><th>the paper's networks</th></tr>
{% for row in guest.accuracy %}
<tr><td>{{ row.density }}</td><td>{{ row.accuracy }}</td><td>{{ row.networks }}</td></tr>
{% endfor %}
</table>
<table>
<tr><th>density of the margin sets</th><th>point of subjective equality (shapes)</th></tr>
{% for row in guest.bias %}
<tr><td>{{ row.density }}</td><td>{{ row.pse }}</td></tr>
{% endfor %}
</table>
<table>
<tr><th>Weber fraction</th><th></th></tr>
{% for row in guest.weber %}
<tr><td>{{ row.sets }}</td><td>{{ row.fraction }}</td></tr>
{% endfor %}
</table>
<table>
<tr><th>network</th><th>kappa of errors</th><th>observed agreement</th></tr>
{% for row in guest.kappa %}
<tr><td>{{ row.network }}</td><td>{{ row.kappa }}</td><td>{{ row.observed }}</td></tr>
{% endfor %}
</table>
{% if guest.picture %}<img alt="{{ guest.name }} beside the paper's networks" src="{{ guest.picture }}">{% endif %}
{% endfor %}
"""


def shown(value: float | None, low: float | None = None, high: float | None = None, digits: int = 3) -> str:
    """A number with its interval; 'undefined' where there is none. A bound without end is an infinity sign."""
    if value is None:
        return "undefined"
    if low is None and high is None:
        return f"{value:.{digits}f}"
    bounds = ("-∞" if low is None else f"{low:.{digits}f}", "∞" if high is None else f"{high:.{digits}f}")
    return f"{value:.{digits}f} [{bounds[0]}, {bounds[1]}]"


def section_of(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of one guest. found: its file of metrics (pipeline/shapes/compare_guest.py)."""
    picture = PLOTS / name / "guest.png"
    encoded = base64.b64encode(picture.read_bytes()).decode() if picture.exists() else ""

    def fraction(row: dict[str, Any]) -> str:
        value = shown(row["weber_fraction"], row["low"], row["high"])
        return f"{value}: {row['reason']}" if row["reason"] else value

    return {
        **{key: found[key] for key in ("build", "parameters", "trained_here", "always_answers")},
        "name": name,
        "accuracy": [
            {
                "density": test.removeprefix("test_"),
                "accuracy": shown(row["accuracy"], row["low"], row["high"]),
                "networks": f"{row['networks_lowest']:.3f} to {row['networks_highest']:.3f}",
            }
            for test, row in found["accuracy"].items()
        ],
        "bias": [
            {
                "density": density.removeprefix("density_"),
                "pse": shown(row["pse"], row["pse_low"], row["pse_high"], digits=2),
            }
            for density, row in found["bias"].items()
        ],
        "weber": [{"sets": sets.replace("_", " "), "fraction": fraction(row)} for sets, row in found["weber"].items()],
        "kappa": [
            {
                "network": network,
                "kappa": shown(row["kappa"], row["low"], row["high"]),
                "observed": shown(row["observed"]),
            }
            for network, row in found["kappa"].items()
        ],
        "picture": f"data:image/png;base64,{encoded}" if encoded else "",
    }


def guests_html() -> Markup:
    """The section as HTML, of the guests that params.yaml names and that have metrics; '' where there are none.

    Raises UserError for a params.yaml that is not valid.
    """
    names = [guest.name for guest in load_params().shapes.guests]
    files = {name: METRICS / f"{name}.json" for name in names}
    guests = [section_of(name, json.loads(file.read_text())) for name, file in files.items() if file.exists()]
    if not guests:
        return Markup("")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return Markup(environment.from_string(TEMPLATE).render(guests=guests))
