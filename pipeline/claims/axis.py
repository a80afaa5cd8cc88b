"""A claim on an axis, as inline SVG: what was measured as a dot on its interval, what was published as a diamond.

The shaded part is where the measured number is to lie for the statement to hold, where the rule has such a part. What
it was compared with, where that was measured too, is a hollow dot. Colours are the page's: classes say what a mark is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

from pipeline.claims.schema import Claim, Rule

WIDTH, HEIGHT, MARGIN = 260, 40, 16  # of the drawing; the margin is on either side of the axis
LINE, COMPARED, BASE, TEXT = 12, 20, 27, 38  # heights: of the measured number, of the compared one, axis, words
PAST = 0.15
PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Axis:
    """From low to high, low < high. ticks: where it has words."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def x(self, value: float) -> float:
        """Where a value stands, from MARGIN to WIDTH - MARGIN; beyond the ends, at the end."""
        share = (value - self.low) / (self.high - self.low)
        return round(MARGIN + min(max(share, 0.0), 1.0) * (WIDTH - 2 * MARGIN), 2)


def axis_over(values: Iterable[float], percent: bool = False) -> Axis | None:
    """The axis that holds all values, with two to five ticks at round numbers; None where there is no value.

    percent: from 0 to 1 at least, where all values lie there. Values that are not finite are left out.
    """
    found = [value for value in values if math.isfinite(value)]
    if not found:
        return None
    if percent and min(found) >= 0 and max(found) <= 1:
        return Axis(0.0, 1.0, (0.0, 0.5, 1.0))
    low, high = min(found), max(found)
    if low == high:
        reach = abs(low) or 1.0
        low, high = low - reach / 2, high + reach / 2
    ticks = [float(tick) for tick in MaxNLocator(nbins=3, steps=[1, 2, 5, 10]).tick_values(low, high)]
    return Axis(ticks[0], ticks[-1], tuple(ticks))


def published_number(claim: Claim) -> float | None:
    """The published value in the measure's units; None where the document has words, or a number of another kind."""
    rule = claim.rule
    if rule is None:
        return None
    if rule.equals is not None:
        return rule.equals
    if is_number(rule.same):
        return float(rule.same)  # type: ignore[arg-type]
    if is_number(claim.published) and 0 in (rule.above, rule.below):
        return float(claim.published)  # type: ignore[arg-type]  # of a table whose cells are to have the same sign
    found = PERCENT.fullmatch(claim.published) if isinstance(claim.published, str) and claim.percent else None
    return float(found[1]) / 100 if found else None


def holds(rule: Rule | None) -> tuple[float, float] | None:
    """From where to where a number is to lie, perhaps infinite; None where the rule has no such part."""
    match rule:
        case Rule(above=float() as bound):
            return bound, math.inf
        case Rule(below=float() as bound):
            return -math.inf, bound
        case Rule(within=[first, last]):
            return first, last
    return None


def numbers(claim: Claim, row: Mapping[str, Any]) -> list[float]:
    """All that is to be seen on a claim's axis: what was measured, compared and published, and the rule's bounds.

    Of a rule that asks for a value, as far around it as the rule tolerates, or a hair's breadth would fill the axis. Of
    bounds, some room on either side, a share PAST of all there is, so that it is seen where the shaded part ends.
    """
    names = ("value", "low", "high", "compared_with", "compared_low", "compared_high")
    drawn = [float(row[name]) for name in names if is_number(row[name])]
    published, rule = published_number(claim), claim.rule
    if published is not None:
        reach = rule.tolerance if rule is not None and rule.tolerance is not None else 0.0
        drawn += [published, *((published - reach, published + reach) if not claim.percent else ())]
    bounds = [bound for bound in holds(rule) or () if math.isfinite(bound)]
    drawn = [value for value in drawn + bounds if math.isfinite(value)]
    if bounds and not claim.percent:
        room = PAST * (max(drawn) - min(drawn))
        drawn += [place for bound in bounds for place in (bound - room, bound + room)]
    return drawn


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def drawing(claim: Claim, row: Mapping[str, Any], axis: Axis | None, words: Mapping[str, str]) -> Markup:
    """The SVG of a claim on an axis; '' where nothing is to be drawn.

    row: as in plots/claims.json. words: 'ours', 'compared' and 'published' as text, for those who hear the page, '' for
    what there is not.
    """
    published, measured = published_number(claim), row["value"] if is_number(row["value"]) else None
    if axis is None or (measured is None and published is None):
        return Markup("")
    parts = [_shade(axis, holds(claim.rule)), f'<path class="axis" d="M{MARGIN} {BASE}H{WIDTH - MARGIN}"/>']
    for tick in axis.ticks:
        parts.append(f'<path class="axis" d="M{axis.x(tick):g} {BASE}v3"/>')
        parts.append(f'<text x="{axis.x(tick):g}" y="{TEXT}">{_text(tick, axis, claim.percent)}</text>')
    if is_number(row["compared_with"]):
        parts.append(_interval(axis, row["compared_low"], row["compared_high"], COMPARED, "compared"))
        parts.append(f'<circle class="compared" cx="{axis.x(row["compared_with"]):g}" cy="{COMPARED}" r="3"/>')
    if measured is not None:
        parts.append(_interval(axis, row["low"], row["high"], LINE, "ours"))
        parts.append(f'<circle class="ours" cx="{axis.x(measured):g}" cy="{LINE}" r="4"/>')
    if published is not None:
        parts.append(f'<path class="published" d="M{axis.x(published):g} {LINE - 7}l7 7l-7 7l-7 -7z"/>')
    label = "; ".join(
        f"{name} {words[key]}"
        for key, name in (("ours", "measured"), ("compared", "compared with"), ("published", "published"))
        if words.get(key)
    )
    ends = f"axis from {_text(axis.low, axis, claim.percent)} to {_text(axis.high, axis, claim.percent)}"
    return Markup('<svg class="axis" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, f"{label}; {ends}", Markup("".join(parts))
    )


def _shade(axis: Axis, part: tuple[float, float] | None) -> str:
    if part is None:
        return ""
    start, end = axis.x(part[0]), axis.x(part[1])
    return f'<rect class="holds" x="{start:g}" y="2" width="{end - start:g}" height="{BASE - 2}"/>'


def _interval(axis: Axis, low: Any, high: Any, height: int, kind: str) -> str:
    """A bar with ends, without one where it goes on beyond the axis."""
    if low is None or high is None:
        return ""
    return f'<path class="{kind}" d="M{axis.x(low):g} {height}H{axis.x(high):g}"/>'


def _text(value: float, axis: Axis, percent: bool) -> str:
    """A tick in as many digits as the axis needs."""
    if percent:
        return f"{100 * value:g}%"
    step = (axis.high - axis.low) / max(len(axis.ticks) - 1, 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:.{digits}f}" if digits <= 4 else f"{value:.6g}"
    return str(escape(text.replace("-", "\N{MINUS SIGN}")))
