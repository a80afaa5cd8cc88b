"""Numbers in README.md and docs/ come from result files: this writes them, and no one types them.

    python -m pipeline.pages.numbers                write the numbers anew
    python -m pipeline.pages.numbers --check yes    say which pages differ from their files; exit status 1 if any does

A marker says where a number comes from; the text up to the closing marker is written by this command:

    right on <!--= results/laptop/shapes/metrics.json; own_test_accuracy; mean, low, high; percent -->..<!--/--> of all

Its four fields are separated by ';':

file    a .json or .jsonl below results/ or metrics/
where   a dotted path into it; a number is a place in a list (from 0, or from the end with -1); `name=value` takes the
        members of a list that have that value, `a=1&b=2` those that have both; `*.name` takes what each member has
        there; `length()` and `sum()` end a path. Empty: the whole file
names   what is taken from there, paths likewise. None or one: a value. Two: 'low to high'. Three: 'value [low, high]'
format  Python's (`.2f`, `+.1f`, `.0%`), or `percent` (one digit), `points` and `+points` (times 100, one digit),
        `count` (12,345), `minutes` (of seconds). None: integers as `count`, numbers in six digits, text as it is. null
        is 'undefined'

A marker that ends its line begins a table, one row for each member of the list or mapping at `where`. Each name is a
column, `name as title` gives it a heading, `*` is the row's key or place, `value+low+high` is an interval in one cell.
The format is one for all columns, or one for each, with commas between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.stage import UserError, run, write_bytes

MARKER = re.compile(r"<!--=(?P<says>.*?)-->(?P<text>.*?)<!--/-->", re.DOTALL)
STRAY = re.compile(r"<!--[=/]")
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$|``[^`\n]+``|`[^`\n]+`", re.DOTALL | re.MULTILINE)
BEGINNING = re.compile(
    r"[ >\t]*([-*+]|\d+[.)])?\s*"
)  # of a line or a list's item, where a comment opens a block of HTML
ENDS = ("length()", "sum()")
FOLDERS = ("results", "metrics")
ALIASES: dict[str, Callable[[float], str]] = {
    "percent": lambda value: f"{value:.1%}",
    "points": lambda value: f"{100 * value:.1f}",
    "+points": lambda value: f"{100 * value:+.1f}",
    "count": lambda value: f"{value:,.0f}",
    "minutes": lambda value: f"{value / 60:.0f}",
}


def pages(root: Path = Path()) -> list[Path]:
    """README.md and every page of docs/, in the order of their names; hidden folders have none."""
    below = (page for page in (root / "docs").rglob("*.md") if "/." not in page.relative_to(root).as_posix())
    return [root / "README.md", *sorted(below)]


@cache
def _read(path: Path) -> Any:
    if path.suffix not in (".json", ".jsonl"):
        raise UserError(f"'{path.name}' should be a .json or .jsonl file")
    try:
        text = path.read_text()
        return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    except FileNotFoundError:
        raise UserError(f"'{path}' is not there; correct the name, or let 'dvc repro' make it") from None
    except json.JSONDecodeError as error:
        raise UserError(f"'{path}' is not JSON: {error}; make it anew") from None


def look_up(content: Any, where: str) -> Any:
    """What is at a dotted path: of mappings a key, of lists a place, `name=value`, or `length()` or `sum()` of them.

    A key may hold dots itself. `name=value` gives the member that has it, or the list of them where several do.
    Raises UserError where nothing is there, with what could be.
    """
    steps = where.split(".") if where else []
    while steps:
        content, used = _step(content, steps, where)
        steps = steps[used:]
    return content


def _step(content: Any, steps: Sequence[str], where: str) -> tuple[Any, int]:
    step = steps[0].strip()
    members = list(content.values()) if isinstance(content, Mapping) else content
    if step in ENDS and isinstance(members, list):
        return (len(members) if step == "length()" else sum(members)), 1
    if step == "*" and isinstance(members, list):
        used = next((at for at, later in enumerate(steps) if later in ENDS), len(steps))
        return [look_up(member, ".".join(steps[1:used])) for member in members], used
    if isinstance(content, Mapping):
        for used in range(1, len(steps) + 1):
            if (key := ".".join(steps[:used]).strip()) in content:
                return content[key], used
        raise UserError(f"'{where}': nothing is called '{step}'; there are {_some(content)}")
    if isinstance(content, list) and "=" in step:
        for used in range(1, len(steps) + 1):  # a value may hold dots, as 0.5 does
            wanted = [pair.split("=", 1) for pair in ".".join(steps[:used]).split("&")]
            if all(len(pair) == 2 for pair in wanted) and (
                found := [row for row in content if all(str(row.get(k.strip())) == v.strip() for k, v in wanted)]
            ):
                return (found[0] if len(found) == 1 else found), used
        raise UserError(f"'{where}': no member has '{step}'; each has {_some(content[0] if content else ())}")
    if isinstance(content, list) and re.fullmatch(r"-?\d+", step) and -len(content) <= int(step) < len(content):
        return content[int(step)], 1
    kind = f"a list of {len(content)}" if isinstance(content, list) else f"the value {content!r}"
    raise UserError(f"'{where}': '{step}' is looked for in {kind}; use a place in it, or a shorter path")


def _some(names: Iterable[Any], most: int = 12) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def formatted(value: Any, spec: str) -> str:
    """A value of a result file as a page shows it; null is 'undefined'. Raises UserError where `spec` is no format."""
    match value:
        case None:
            return "undefined"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case list() | dict():
            raise UserError(f"is a {type(value).__name__} of {len(value)}, not a value; name one of its members")
    if spec in ALIASES:
        return ALIASES[spec](value)
    try:
        return format(value, spec or (",d" if isinstance(value, int) else ".6g"))
    except ValueError:
        raise UserError(f"'{spec}' is no format; use Python's, such as .2f, or {', '.join(ALIASES)}") from None


def _together(values: Sequence[Any], spec: str) -> str:
    """A value, 'low to high', or 'value [low, high]'. A percent sign stands once."""
    texts = [formatted(value, spec) for value in values]
    match texts:
        case [one]:
            return one
        case [low, high]:
            return f"{low.removesuffix('%')} to {high}"
        case [one, low, high]:
            return f"{one} [{low.removesuffix('%')}, {high.removesuffix('%')}]".replace("[+", "[").replace(", +", ", ")
    raise UserError(f"{len(texts)} names: one is a value, two are bounds, three a value and its bounds")


def _table(content: Any, names: Sequence[str], specs: Sequence[str]) -> str:
    if not isinstance(content, Mapping | list):
        raise UserError("a table needs a list or a mapping; for a single value, let text follow the marker")
    rows = list(content.items() if isinstance(content, Mapping) else enumerate(content))
    if len(specs) not in (1, len(names)):
        raise UserError(f"{len(specs)} formats for {len(names)} columns; give one, or one for each")
    specs = list(specs) if len(specs) == len(names) else [specs[0]] * len(names)
    columns = [tuple(part.strip() for part in name.partition(" as ")) for name in names]
    titles = [title or path.split("+")[0].split(".")[-1].replace("_", " ") for path, _, title in columns]

    def cell(key: Any, row: Any, path: str, spec: str) -> str:
        values = [key if part == "*" else look_up(row, part.strip()) for part in path.split("+")]
        return _together(values, spec)

    lines = [titles, ["---"] * len(titles)]
    lines += [
        [cell(key, row, path, spec) for (path, _, _), spec in zip(columns, specs, strict=True)] for key, row in rows
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _written(says: str, text: str, root: Path) -> str:
    """What stands between a marker that says this and its end; `text` stands there now."""
    fields = [field.strip() for field in says.split(";")]
    if len(fields) != 4:
        raise UserError(f"{len(fields)} fields; should be four: file; where; names; format")
    file, where, names, spec = fields
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] not in [(folder,) for folder in FOLDERS]:
        raise UserError(f"'{file}' should lie below {' or '.join(FOLDERS)}/")
    content = look_up(_read(root / path), where)
    named = [name.strip() for name in names.split(",") if name.strip()]
    if text.startswith("\n"):
        return f"\n\n{_table(content, named, [part.strip() for part in spec.split(',')])}\n\n"
    return _together([look_up(content, name) for name in named] or [content], spec)


def filled(text: str, root: Path = Path()) -> str:
    """A page with every marker's numbers as the files below `root` have them. Raises UserError naming the marker."""
    code = [match.span() for match in FENCE.finditer(text)]

    def shown(place: int) -> bool:
        return any(start <= place < end for start, end in code)

    def write(match: re.Match[str]) -> str:
        if shown(match.start()):
            return match[0]
        line = text.count("\n", 0, match.start()) + 1
        try:
            new = _written(match["says"], match["text"], root)
        except UserError as error:
            raise UserError(f"line {line}: {match['says'].strip()}: {error}") from None
        if BEGINNING.fullmatch(text[: match.start()].rpartition("\n")[2]) and not new.startswith("\n"):
            raise UserError(f"line {line}: begins with a marker, so it is shown as HTML; put a word before it")
        return f"<!--={match['says']}-->{new}<!--/-->"

    if any(not shown(stray.start()) for stray in STRAY.finditer(MARKER.sub("", text))):
        raise UserError("a marker has no end; each <!--= ... --> needs its <!--/-->")
    return MARKER.sub(write, text)


def differing(root: Path = Path()) -> dict[Path, str]:
    """Pages that are not what their files make of them, and what they should be. Raises UserError naming the page."""
    found = {}
    for page in pages(root):
        text = page.read_text()
        try:
            new = filled(text, root)
        except UserError as error:
            raise UserError(f"{page}, {error}") from None
        if new != text:
            found[page] = new
    return found


def main(check: str = "") -> str:
    """`check`: 'yes' only says what differs."""
    _read.cache_clear()
    found = differing()
    if check and found:
        names = ", ".join(map(str, found))
        raise UserError(f"{names}: other numbers than their files; 'python -m pipeline.pages.numbers' writes them")
    for page, text in found.items():
        write_bytes(page, text.encode())
    return f"{len(found)} of {len(pages())} pages {'differ' if check else 'written'}"


if __name__ == "__main__":
    run(main, check=str)
