"""docs/reference/parameters.md: every key of params.yaml, with its type, allowed values, value and meaning.

    python -m pipeline.pages.parameters                write the page
    python -m pipeline.pages.parameters --check yes    exit status 1 if the page is not what the schema gives

Types and allowed values come from the schema (pipeline/params.py), values from params.yaml. Meanings are those of
pipeline/pages/meanings.py; a key that it does not have, as one of a new study, has params.yaml's comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel

from pipeline.pages.meanings import meaning
from pipeline.params import PATH, Params, read_yaml
from pipeline.section import distinct
from pipeline.stage import UserError, run, write_bytes

PAGE = Path("docs/reference/parameters.md")
SIDES = {"scales": ("smoke", "laptop", "paper"), "sources": ("generated", "published")}  # a column each
HEAD = """# What can be turned: params.yaml

Each key of [params.yaml](../../params.yaml), with what it may be and what it is. This page is written by
`python -m pipeline.pages.parameters` from the schema, the file and `pipeline/pages/meanings.py`.

Change a key for one experiment with `dvc exp run -S key=value`. Change it for good in the file.
`python -m pipeline.params` checks the file. A key that is misspelt, or a value that is not allowed, is an error. The
error names the key, the value, and what is allowed. A list goes in quotation marks: `-S 'densities=[10,50,90]'`.
"""
INTRODUCTIONS = {
    "": "Keys that more than one study reads.",
    "scales": "`scale` chooses one of three columns. Write a key as `scales.laptop.shapes.images`.",
    "sources": "`source` chooses one of two columns. Write a key as `sources.published.clip.weights`. A name of an "
    "input is one that [sources.yaml](../../sources.yaml) lists.",
}
TITLES = {"": "For all studies", "scales": "scales: how much", "sources": "sources: which inputs"}


def comments(text: str) -> dict[str, str]:
    """What params.yaml says of its keys, by dotted path: comments behind a key, and those on lines before it.

    A comment that lists the values and then says what they mean ('hard | soft   a tie is ...') is cut to the latter.
    """
    found: dict[str, list[str]] = {}
    path: list[tuple[int, str]] = []  # of the key last seen: how far in each part stands
    before: list[str] = []
    for line in text.splitlines():
        alone = re.fullmatch(r"( *)# ?(.*)", line)
        key = re.match(r"( *)([\w-]+):(?= |$)", line)
        if alone and path and len(alone[1]) > path[-1][0] + 8:  # far in: goes on with the comment behind a key
            found[".".join(part for _, part in path)].append(alone[2].strip())
        elif alone:
            before.append(alone[2].strip())
        elif key:
            path = [(at, part) for at, part in path if at < len(key[1])] + [(len(key[1]), key[2])]
            behind = re.search(r"(?<= )# ?(.*)$", line)
            found[".".join(part for _, part in path)] = [*before, *([_meaning(behind[1])] if behind else [])]
            before = []
        else:
            before = []
    return {name: " ".join(said) for name, said in found.items() if any(said)}


def _meaning(said: str) -> str:
    values, _, meaning = re.sub(r" {2,}", "\n", said.strip()).partition("\n")
    if re.fullmatch(r"\w+( \| \w+)+", values) or (" | " in values and meaning):
        return meaning.replace("\n", " ")
    return said.strip()


def allowed(schema: Mapping[str, Any], sections: Mapping[str, Any] | None = None) -> str:
    """What a JSON schema of a value allows, in words; `sections`: those that it refers to, by name ('$defs').

    Raises UserError for a kind of schema that it has no words for.
    """

    def words(part: Mapping[str, Any]) -> str:
        return allowed(part, sections)

    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ("" if len(values) == 1 else "one of ") + ", ".join(f"`{value}`" for value in values)
    if "anyOf" in schema:
        return ", or ".join(map(words, schema["anyOf"]))
    if "$ref" in schema:
        keys = (sections or {})[schema["$ref"].rsplit("/", 1)[-1]]["properties"]
        return f"mapping with {', '.join(f'`{key}` ({words(part)})' for key, part in keys.items())}"
    match schema.get("type"):
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return f"text that matches `{schema['pattern']}`" if "pattern" in schema else "text"
        case "integer" | "number" as kind:
            return f"{kind}{_bounds(schema)}"
        case "array":
            low, high = schema.get("minItems", 0), schema.get("maxItems")
            number = f" of {low}" if low == high else f", at least {low}" if low else ""
            return f"list{number}; each: {words(schema['items'])}"
        case "object" if "patternProperties" in schema:
            (pattern, values), *_ = schema["patternProperties"].items()
            return f"mapping; keys: text that matches `{pattern}`; values: {words(values)}"
        case "object" if "additionalProperties" in schema:
            names = words(schema["propertyNames"]) if "propertyNames" in schema else "a name"
            return f"mapping; keys: {names}; values: {words(schema['additionalProperties'])}"
    raise UserError(f"pipeline/pages/parameters.py: {dict(schema)}: a kind of value it has no words for; add them")


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "multipleOf": "a multiple of",
    }
    said = [f"{word} {schema[key]:.12g}" for key, word in words.items() if key in schema]
    return f", {' and '.join(said)}" if said else ""


def shown(value: Any) -> str:
    """A value as YAML on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{', '.join(map(shown, value))}]"
        case dict():
            return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
        case float():
            return f"{value:.12g}"
    return str(value) or "''"


def leaves(model: type[BaseModel], value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str, Any]]:
    """Dotted path, allowed values and value of every key of a section, and of the sections in it."""
    schema = model.model_json_schema(by_alias=True)
    for name, field in model.model_fields.items():
        key = field.alias or name
        here, found = (*path, key), value.get(key, field.get_default(call_default_factory=True))
        inner = get_args(field.annotation)[1] if get_origin(field.annotation) is dict else None
        if _is_section(field.annotation):
            yield from leaves(field.annotation, found, here)
        elif _is_section(inner):
            for member, content in found.items():
                yield from leaves(inner, content, (*here, str(member)))
        else:
            words = allowed(schema["properties"][key], schema.get("$defs"))
            if any(isinstance(check, AfterValidator) and check.func is distinct for check in field.metadata):
                words += "; all different"
            yield ".".join(here), words, found


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def page(content: Mapping[str, Any], text: str) -> str:
    """The page for a params.yaml: `content` is what it holds, `text` what it says."""
    said = comments(text)
    parts = [HEAD]
    sections = {field.alias or name: field.annotation for name, field in Params.model_fields.items()}
    plain = [name for name, annotation in sections.items() if not _is_section(annotation)]
    rows = [row for row in leaves(Params, content) if row[0] in plain]
    parts.append(_section("", [_row(row, said) for row in rows], ("key", "allowed", "value", "meaning")))
    for name, annotation in sections.items():
        if name in SIDES or not _is_section(annotation):
            continue
        rows = [_row(row, said) for row in leaves(annotation, content[name], (name,))]
        parts.append(_section(name, rows, ("key", "allowed", "value", "meaning")))
    for name, sides in SIDES.items():
        models = [sections[name].model_fields[side].annotation for side in sides]
        each = [
            {path: (words, value) for path, words, value in leaves(model, content[name][side])}
            for model, side in zip(models, sides, strict=True)
        ]
        keys = list(reduce(lambda one, other: one | other, each))
        rows = []
        for key in keys:
            words = next(side[key][0] for side in each if key in side)
            values = [f"`{shown(side[key][1])}`" if key in side else "" for side in each]
            in_file = [f"{name}.{side}.{key}" for side in sides]  # where params.yaml has it
            rows.append((f"`{key}`", words, *values, meaning(f"{name}.{key}", said, *in_file)))
        parts.append(_section(name, rows, ("key", "allowed", *sides, "meaning")))
    return "\n".join(parts)


def _row(leaf: tuple[str, str, Any], said: Mapping[str, str]) -> tuple[str, ...]:
    path, words, value = leaf
    return f"`{path}`", words, f"`{shown(value)}`", meaning(path, said)


def _section(name: str, rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    introduction = INTRODUCTIONS.get(name)
    return "\n".join(
        [f"## {TITLES.get(name, name)}", "", *([introduction, ""] if introduction else []), _table(head, rows), ""]
    )


def main(check: str = "") -> str:
    """`check`: 'yes' only says whether the page is current."""
    new = page(read_yaml(PATH), PATH.read_text())
    old = PAGE.read_text() if PAGE.exists() else ""
    if check and new != old:
        raise UserError(f"{PAGE}: not what the schema and {PATH} give; 'python -m pipeline.pages.parameters' writes it")
    if not check:
        write_bytes(PAGE, new.encode())
    return f"{PAGE}, {new.count(chr(10) + '| `')} keys,"


if __name__ == "__main__":
    run(main, check=str)
