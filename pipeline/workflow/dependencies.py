"""Keep dvc.yaml's dependencies: of each stage the code that it imports, of `claims` the files that claims.yaml names.

    python -m pipeline.workflow.dependencies          # writes dvc.yaml, its comments and order kept
    python -m pipeline.workflow.dependencies --check yes    # only says what it would change

A stage that does not name what it reads would be taken for up to date when it is not.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.stage import UserError, run, write_bytes

DVC_YAML, CLAIMS = Path("dvc.yaml"), Path("claims.yaml")
PACKAGE = "pipeline"
NO_RESULT = {"stage", "params", "section"}  # the command line, and the validation of params.yaml


def imports(module: Path) -> set[Path]:
    """The files of our package that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    files = (Path(f"{name.replace('.', '/')}.py") for name in names if name.startswith(PACKAGE))
    return {file for file in files if file.exists()}


def code_of(command: str) -> set[str]:
    """Files of our package that a stage's command runs, whatever imports them; those of no result left out."""
    found: set[Path] = set()
    todo = {module_of(command)}
    while todo:
        module = todo.pop()
        found.add(module)
        todo |= imports(module) - found
    return {module.as_posix() for module in found if module.stem not in NO_RESULT}


def module_of(command: str) -> Path:
    name = next((word for word in command.split() if word.startswith(f"{PACKAGE}.")), None)
    path = Path(f"{(name or '').replace('.', '/')}.py")
    if not path.is_file():
        raise UserError(
            f"{DVC_YAML}: '{command}': should be 'python -m {PACKAGE}.<study>.<stage>' of a file that is here"
        )
    return path


def files_of_claims(content: Any) -> set[str]:
    """Every file that claims.yaml's measures name."""
    if isinstance(content, Mapping):
        own = {content["file"]} if isinstance(content.get("file"), str) else set()
        return own.union(*map(files_of_claims, content.values()))
    return set().union(*map(files_of_claims, content)) if isinstance(content, list) else set()


def body(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a stage of dvc.yaml does: of one with `foreach`, the part that is repeated."""
    return stage.get("do", stage)


def within(file: str, output: str) -> str | None:
    """The part of a file's path that is an output; None where the file is not in it.

    output: as dvc.yaml has it; ${...} stands for any name. Of 'plots/set/a.json' in 'plots/${key}', 'plots/set'.
    """
    pattern = "[^/]+".join(map(re.escape, re.split(r"\$\{[^}]*\}", PurePosixPath(output).as_posix())))
    found = re.match(rf"{pattern}(?=/|$)", PurePosixPath(file).as_posix())
    return found[0] if found else None


def outputs_of(stages: Mapping[str, Any]) -> list[str]:
    listed = [
        out
        for stage in map(body, stages.values())
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    return [str(next(iter(out)) if isinstance(out, Mapping) else out) for out in listed]


def renewed(old: list[str], wanted: set[str], ours: set[str]) -> list[str]:
    """The dependencies with `wanted` in place of those that are `ours` to keep; what stays keeps its place."""
    kept = [path for path in old if path in wanted or path not in ours]
    new = sorted(wanted - set(kept))
    last = max((i for i, path in enumerate(kept) if path in wanted), default=-1) + 1
    return kept[:last] + new + kept[last:]


def dependencies(stages: Mapping[str, Any], claims: Any) -> dict[str, list[str]]:
    """What each stage of dvc.yaml should depend on, in order. claims: the content of claims.yaml.

    Data and recorded results are a person's to list; code, and what `claims` reads of other stages, are not.
    """
    outputs, found = outputs_of(stages), {}
    for name, stage in stages.items():
        old = [str(path) for path in body(stage)["deps"]]
        found[name] = renewed(old, code_of(body(stage)["cmd"]), {path for path in old if path.endswith(".py")})
    if "claims" in found:
        read = {next(filter(None, (within(file, out) for out in outputs)), None) for file in files_of_claims(claims)}
        made = {path for path in found["claims"] if any(within(path, out) == path for out in outputs)}
        found["claims"] = renewed(found["claims"], read - {None}, made)
    return found


def main(check: str = "no") -> str:
    """Write dvc.yaml. check: 'yes' raises UserError instead, where it is not as it should be."""
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 10**6, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content: CommentedMap = yaml.load(DVC_YAML)
    stages = content["stages"]
    found = dependencies(stages, YAML(typ="safe").load(CLAIMS) if CLAIMS.exists() else {})
    changed = {}
    for name, wanted in found.items():
        old = list(body(stages[name])["deps"])
        if old != wanted:
            changed[name] = [f"+{path}" for path in wanted if path not in old] + [
                f"-{p}" for p in old if p not in wanted
            ]
            body(stages[name])["deps"] = CommentedSeq(wanted)
    said = "; ".join(f"{name}: {' '.join(why) or 'order'}" for name, why in changed.items())
    if changed and check == "yes":
        raise UserError(f"{DVC_YAML}: {said}; 'python -m pipeline.workflow.dependencies' writes it")
    if changed:
        text = io.StringIO()
        yaml.dump(content, text)
        write_bytes(DVC_YAML, text.getvalue().encode())
    return said or f"{len(found)} stages, as they should be,"


if __name__ == "__main__":
    run(main, check=str)
