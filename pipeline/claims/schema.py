"""claims.yaml -> typed, validated claims; a published table becomes a claim a cell.

An unknown key, a missing one, a rule that cannot be applied, a table whose rows do not fit its columns or words that no
cell of it has are errors that name it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.params import read_yaml
from pipeline.section import Section
from pipeline.stage import UserError

CLAIMS = Path("claims.yaml")

Scalar = bool | int | float | str


class Measure(Section):
    """Where a number is, and where its 95% interval.

    file: JSON that a stage or a recorded run wrote. rows: the key of the list in it, where the file is not itself one.
    where: of a list, the one row that has these values. value: the key of the number, with dots between levels. The
    interval is, whichever is given: the keys `low` and `high` (by default '<value>_low' and '<value>_high', else 'low'
    and 'high' right after the value); Wilson's, of a share of `of` trials (a key or a number); or none, where the
    number is `exact`. runs: the value is a mean of several training runs and the published one a single run's, so the
    interval is widened to that of one further run. It is how many there are (a key or a number), where the interval
    covers runs; or the key of a list of what each gave, where it covers images only.
    """

    file: str
    rows: str | None = None
    where: dict[str, Scalar] = Field(default_factory=dict)
    value: str
    low: str | None = None
    high: str | None = None
    of: str | int | None = None
    runs: str | int | None = None
    exact: bool = False

    @model_validator(mode="after")
    def _one_interval(self) -> Measure:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high should be given both or neither")
        if (self.low is not None) + (self.of is not None) + self.exact > 1:
            raise ValueError("of low/high, of and exact, one at most should be given")
        return self


class Rule(Section):
    """What makes a statement reproduced; one of these (docs/reference/claims.md says how intervals are read).

    above, below: a number, or another measure. within: two bounds. equals: the published number; tolerance: the
    widest half interval with which that can be told; rounding: half of its last digit. undefined: the number should
    be undefined (null). is: a word or a number that is the same.
    """

    above: float | Measure | None = None
    below: float | Measure | None = None
    within: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    equals: float | None = None
    tolerance: Annotated[float, Field(gt=0)] | None = None
    rounding: Annotated[float, Field(ge=0)] = 0.0
    undefined: Literal[True] | None = None
    same: Annotated[Scalar | None, Field(alias="is")] = None

    @property
    def kind(self) -> str:
        names = ("above", "below", "within", "equals", "undefined", "same")
        return next(name for name in names if getattr(self, name) is not None)

    @model_validator(mode="after")
    def _one_rule(self) -> Rule:
        names = ("above", "below", "within", "equals", "undefined", "same")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"one of above, below, within, equals, undefined, is should be given, found {given}")
        if (self.equals is None) != (self.tolerance is None):
            raise ValueError("equals needs tolerance, and tolerance equals")
        if self.within is not None and self.within[0] > self.within[1]:
            raise ValueError(f"within = {self.within}: the first should not be above the second")
        return self


class Needs(Section):
    """At which scales and with which inputs a statement can be judged."""

    scale: list[Literal["smoke", "laptop", "paper"]] = Field(default=["laptop", "paper"])
    source: list[Literal["generated", "published"]] = Field(default=["generated", "published"])


class Claim(Section):
    """One published statement. says: in the document's words or ours; where: in the document.

    kind: 'check' is none of the document's, but what a definition or a measure should satisfy; counted apart.
    cannot: why nothing here can judge it. note: what a reader should know. stand_in: what stands here for what was
    published ('SqueezeNet for VGG16'). command: what makes the numbers that are missing. digits: to show; percent:
    show 0.5 as 50%.
    """

    kind: Literal["statement", "check"] = "statement"
    says: str
    where: str
    published: str | float | None = None
    measure: Measure | None = None
    rule: Rule | None = None
    judged_at: Needs = Needs()
    cannot: str | None = None
    note: str | None = None
    stand_in: str | None = None
    command: str | None = None
    digits: Annotated[int, Field(ge=0, le=6)] = 2
    percent: bool = False

    @model_validator(mode="after")
    def _can_be_judged_or_says_why_not(self) -> Claim:
        if self.cannot is None and (self.measure is None or self.rule is None):
            raise ValueError("measure and rule should be given, or cannot: the reason why nothing here can judge it")
        return self


class Table(Section):
    """A published table: a row a line, first the words of `keys`, then a number for each of `columns`.

    claim: as a claim, where '{row key}', '{column}' and '{published}' stand for the cell's; a cell's rule is
    `equals` its number, or `undefined` where it is NaN, unless `claim` has one; with `sign`, it is to lie on the same
    side of 0 as published. words: what a row's word or a column
    stands for, by the name that `claim` has for it: {network: {VGG: vgg16/trained-zeros}}. overrides: what is
    otherwise in the cells that match.
    """

    where: str
    keys: list[str]
    columns: list[str]
    cells: str
    words: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    claim: dict[str, Any]
    sign: bool = False
    tolerance: float | dict[str, float] | None = None  # one, or one a column
    rounding: float = 0.0
    overrides: list[dict[str, Any]] = Field(default_factory=list)


class Document(Section):
    """A published document and what it states."""

    title: str
    authors: str
    study: str
    figures: list[str] = Field(default_factory=list)  # PNG files or folders of them, shown in the report
    claims: dict[str, Claim] = Field(default_factory=dict)
    tables: dict[str, Table] = Field(default_factory=dict)

    def all_claims(self) -> Iterator[tuple[str, Claim]]:
        """Every claim by name; a table's cells are named '<table>/<row>/<column>'."""
        yield from self.claims.items()
        for name, table in self.tables.items():
            yield from cells(name, table)


def rows(table: Table) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each line of a table, its words and its numbers."""
    for line in table.cells.strip().splitlines():
        parts = line.split()
        yield line, parts[: len(table.keys)], parts[len(table.keys) :]


def cell_name(table: str, words: list[str], column: str) -> str:
    """The name of the claim that a cell is."""
    return "/".join([table, *words, column])


def cells(name: str, table: Table) -> Iterator[tuple[str, Claim]]:
    """A claim for each cell of a table, by its name.

    Raises ValueError where a row has another number of cells, or the table speaks of what none of them has.
    """
    for line, words, numbers in rows(table):
        if len(words) != len(table.keys) or len(numbers) != len(table.columns):
            raise ValueError(f"{name}: '{line}' should be {len(table.keys)} words and {len(table.columns)} numbers")
    _check_words(name, table)
    for _, words, numbers in rows(table):
        row = dict(zip(table.keys, words, strict=True))
        for column, number in zip(table.columns, numbers, strict=True):
            try:
                yield cell_name(name, words, column), _claim(table, {**row, "column": column}, number)
            except ValidationError as error:
                raise ValueError(f"{cell_name(name, words, column)}: {first_error(error)}") from None
            except ValueError as error:
                raise ValueError(f"{cell_name(name, words, column)}: {error}") from None


def _claim(table: Table, cell: dict[str, str], number: str) -> Claim:
    """What one cell states. cell: its words and its column."""
    try:
        published = None if number == "NaN" else float(number)
    except ValueError:
        raise ValueError(f"'{number}' should be a number or NaN") from None
    content: dict[str, Any] = {"where": table.where, "published": "NaN" if published is None else published}
    if published is None:
        content["rule"] = {"undefined": True}
    elif table.sign:
        content["rule"] = {"above" if published > 0 else "below": 0}
    else:
        reach = table.tolerance.get(cell["column"]) if isinstance(table.tolerance, dict) else table.tolerance
        content["rule"] = {"equals": published, "tolerance": reach, "rounding": table.rounding}
    names = {**cell, **_translated(table, cell), "published": number}
    content |= _filled(table.claim, names)
    for override in table.overrides:
        if _matches(override, cell):
            content |= _filled({key: value for key, value in override.items() if key != "match"}, names)
    return Claim.model_validate(content)


def _matches(override: dict[str, Any], cell: dict[str, str]) -> bool:
    return all(cell[str(key)] in map(str, _listed(wanted)) for key, wanted in override["match"].items())


def _check_words(name: str, table: Table) -> None:
    """Raises ValueError where a row is there twice, or `words`, `tolerance` or an override is of no cell's words."""
    of_rows = [tuple(words) for _, words, _ in rows(table)]
    if twice := [words for words, count in Counter(of_rows).items() if count > 1]:
        raise ValueError(f"{name}: cells: there should be one row of '{' '.join(twice[0])}', found several")
    of_cells = [
        dict(zip([*table.keys, "column"], [*words, c], strict=True)) for words in of_rows for c in table.columns
    ]
    there = {key: list(dict.fromkeys(cell[key] for cell in of_cells)) for key in [*table.keys, "column"]}
    for given, meanings in table.words.items():
        for word in meanings:
            _check_one(f"{name}: words.{given}", word, [word for words in there.values() for word in words])
    for column in table.tolerance if isinstance(table.tolerance, dict) else []:
        _check_one(f"{name}: tolerance", column, table.columns)
    for number, override in enumerate(table.overrides, start=1):
        where = f"{name}: overrides, entry {number}"
        for key in override:
            _check_one(where, key, ["match", *Claim.model_fields])
        match = override.get("match")
        if not isinstance(match, dict):
            raise ValueError(f"{where}: match should say which cells, by {', '.join(there)}; found {match!r}")
        for key, wanted in match.items():
            _check_one(f"{where}: match", key, list(there))
            for word in _listed(wanted):
                _check_one(f"{where}: match.{key}", word, there[str(key)])
        if not any(_matches(override, cell) for cell in of_cells):
            raise ValueError(f"{where}: match: no cell has all of {match}")


def _check_one(where: str, found: Any, allowed: list[str]) -> None:
    if str(found) not in allowed:
        close = difflib.get_close_matches(str(found), allowed, n=1)
        meant = f"; did you mean '{close[0]}'?" if close else ""
        raise ValueError(f"{where}: '{found}' is none of {', '.join(allowed)}{meant}")


def _listed(wanted: Any) -> list:
    return wanted if isinstance(wanted, list) else [wanted]


def _translated(table: Table, cell: dict[str, str]) -> dict[str, Scalar]:
    """`words` says, for each name, what a cell's words stand for: {image: {bear_spc: natural, ...}}."""
    found: dict[str, Scalar] = {}
    for name, meanings in table.words.items():
        for word, meaning in product(cell.values(), [meanings]):
            if word in meaning:
                found[name] = meaning[word]
    return found


def _filled(content: Any, names: dict[str, Scalar]) -> Any:
    """Content with '{name}' replaced; what is nothing but one name keeps its type. Raises ValueError at other names."""
    match content:
        case dict():
            return {key: _filled(value, names) for key, value in content.items()}
        case list():
            return [_filled(value, names) for value in content]
        case str():
            for name in re.findall(r"\{(\w+)\}", content):
                _check_one(f"'{content}'", name, list(names))
            if whole := re.fullmatch(r"\{(\w+)\}", content):
                return names[whole[1]]
            return re.sub(r"\{(\w+)\}", lambda m: str(names[m[1]]), content)
        case _:
            return content


def first_error(error: ValidationError) -> str:
    """The first of pydantic's errors: the key and what is wrong with it."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place + ': ' if place else ''}{first['msg'].removeprefix('Value error, ')}"


def read_claims(path: str | Path = CLAIMS) -> dict[str, tuple[Document, dict[str, Claim]]]:
    """Every document with its claims, tables included. Raises UserError where the file is not one of claims."""
    content = read_yaml(path)
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path}: should be documents by name ('shapes-paper: ...'), found a {type(content).__name__}")
    found = {}
    for name, entry in content.items():
        try:
            document = Document.model_validate(entry)
            found[name] = (document, dict(document.all_claims()))
        except ValidationError as error:
            raise UserError(f"{path}: {name}: {first_error(error)}") from None
        except ValueError as error:
            raise UserError(f"{path}: {name}: {error}") from None
    return found
