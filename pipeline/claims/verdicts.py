"""When a statement is reproduced: rules on intervals, the same for every claim.

    above x      the whole interval is above x         not: the whole interval is below x
    below x      the whole interval is below x         not: the whole interval is above x
    within a, b  the whole interval lies in [a, b]     not: the whole interval lies outside
    equals x     the interval, widened by half of x's last digit, holds x and reaches no further than the tolerance
                                                       not: it does not hold x
    undefined    the number is undefined, as published not: it is a number
    is x         the very same word or number          not: another

Where x is itself measured, its whole interval counts. Whatever lies between 'reproduced' and 'not reproduced'
cannot be judged with so many images and runs, and so can a number that is undefined. Intervals are 95%, each by
itself: of twenty true statements one may be missed. The published number's own error is not known and not added.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.claims.evidence import Number, Run, UnmeasuredError, measure
from pipeline.claims.schema import Claim, Measure, Rule

REPRODUCED, NOT, CANNOT = "reproduced", "not reproduced", "cannot be judged here"
VERDICTS = (REPRODUCED, NOT, CANNOT)


@dataclass(frozen=True)
class Verdict:
    """verdict: one of VERDICTS; reason: of it, in words; number: ours, None where there is none."""

    verdict: str
    reason: str
    run: Run | None = None
    number: Number | None = None
    other: Number | None = None  # the measured one that it was compared with


def in_words(rule: Rule) -> str:
    """A rule as a reader sees it."""

    def side(bound: float | Measure | None) -> str:
        return "what it is compared with" if isinstance(bound, Measure) else f"{bound:g}"

    match rule.kind:
        case "above":
            return f"above {side(rule.above)}"
        case "below":
            return f"below {side(rule.below)}"
        case "within":
            return f"within {rule.within[0]:g} to {rule.within[1]:g}"
        case "equals":
            return f"equals {rule.equals:g}, interval of ±{rule.tolerance:g} at most"
        case "undefined":
            return "undefined"
        case _:
            return f"is {rule.same}"


def apply(rule: Rule, number: Number, other: Number | None = None) -> tuple[str, str]:
    """Verdict and reason of a measured number. other: the measured bound of 'above' or 'below'."""
    if rule.kind == "undefined":
        return (REPRODUCED, "undefined, as published") if number.value is None else (NOT, "a number, not undefined")
    if number.value is None:
        return CANNOT, "undefined here"
    if rule.kind == "same":
        return (REPRODUCED, "the same") if number.value == rule.same else (NOT, f"here {number.value}")
    if isinstance(number.value, bool) or not isinstance(number.value, int | float):
        return CANNOT, f"not a number: {number.value!r}"
    low, high = number.bounds
    if rule.kind in ("above", "below"):
        bound = rule.above if rule.kind == "above" else rule.below
        if isinstance(bound, Measure):
            if other is None or other.value is None:
                return CANNOT, "what it is compared with is undefined here"
            least, most = other.bounds
        else:
            least = most = float(bound)  # type: ignore[arg-type]
        holds, fails = (low > most, high < least) if rule.kind == "above" else (high < least, low > most)
        if low == high == least == most:
            fails = True
        subject = "it" if low == high else "the whole interval"
        if holds:
            return REPRODUCED, f"{subject} is {in_words(rule)}"
        if fails:
            return NOT, f"{subject} is not {in_words(rule)}"
        return CANNOT, "the intervals overlap" if isinstance(bound, Measure) else "the interval lies on both sides"
    if rule.kind == "within":
        first, last = rule.within  # type: ignore[misc]
        if low >= first and high <= last:
            return REPRODUCED, in_words(rule)
        if high < first or low > last:
            return NOT, f"not {in_words(rule)}"
        return CANNOT, "the interval lies on both sides of a bound"
    assert rule.equals is not None and rule.tolerance is not None
    holds, fails = ("it is", "it is not") if low == high else ("the interval holds", "the interval does not hold")
    if not low - rule.rounding <= rule.equals <= high + rule.rounding:
        return NOT, f"{fails} {rule.equals:g}"
    if (high - low) / 2 > rule.tolerance:
        return CANNOT, f"the interval holds {rule.equals:g}, and is wider than ±{rule.tolerance:g}"
    return REPRODUCED, f"{holds} {rule.equals:g}"


def judge(claim: Claim, runs: list[Run]) -> list[Verdict]:
    """A verdict for each run that can judge the claim, what weighs most first; one without a run where none can."""
    if claim.cannot is not None:
        return [Verdict(CANNOT, claim.cannot)]
    assert claim.measure is not None and claim.rule is not None
    needs = claim.judged_at
    # this run's files may be missing, a recorded one's are for another question then
    runs = [run for run in runs if run.files is None or run.path(claim.measure.file)]
    runs = sorted(runs, key=lambda run: run.rank, reverse=True)  # stable: this run comes first among equals
    fit = [run for run in runs if run.scale in needs.scale and run.source in needs.source]
    verdicts, reasons = [], []
    for run in fit:
        bound = claim.rule.above if claim.rule.above is not None else claim.rule.below
        try:
            number = measure(claim.measure, run)
            other = measure(bound, run) if isinstance(bound, Measure) else None
        except UnmeasuredError as error:
            reasons.append(str(error))
            continue
        verdict, reason = apply(claim.rule, number, other)
        verdicts.append(Verdict(verdict, reason, run, number, other))
    if verdicts:
        return verdicts
    if not fit:
        inputs = f" with source {needs.source[0]}" if len(needs.source) == 1 else ""
        reasons = [f"needs scale {' or '.join(needs.scale)}{inputs}"]
    missing = "; ".join(reasons) + (f": {claim.command}" if claim.command else "")
    for run in runs if not fit else []:  # what was measured otherwise, to look at
        try:
            return [Verdict(CANNOT, missing, run, measure(claim.measure, run))]
        except UnmeasuredError:
            continue
    return [Verdict(CANNOT, missing)]
