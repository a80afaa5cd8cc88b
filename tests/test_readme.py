"""README and docs give the numbers that matter, each by a marker, so from results/; best and worst cells by name.

tests/pages/test_numbers.py holds that a marker's text is what its file says. Here it is held which numbers have to be
there: of the laptop runs, and of published trials.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from benchmarks.stability import compare
from pipeline.pages.numbers import FENCE, MARKER, look_up, pages
from pipeline.params import read_yaml

STUDY = "docs/studies/{}.md".format
Needed = Iterator[Any]  # a value of the file that was last yielded as `File`, or text that a page has to have


class File(str):
    """A file of results/, to which the values after it belong."""


@cache
def recorded(name: str) -> Any:
    return json.loads((REPOSITORY / name).read_text())


def laptop(name: str) -> Any:
    return recorded(f"results/laptop/{name}")


@cache
def page_text(names: tuple[str, ...]) -> str:
    """Of these pages, without markers and line ends."""
    return " ".join(re.sub(r"<!--.*?-->", "", source(names), flags=re.DOTALL).split())


@cache
def source(names: tuple[str, ...]) -> str:
    return "\n".join((REPOSITORY / name).read_text() for name in names)


def values(content: Any) -> Iterator[Any]:
    """Every single value of what a marker points to."""
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from values(item)
    else:
        yield content


@cache
def shown(names: tuple[str, ...]) -> frozenset[tuple[str, Any]]:
    """(file, value) of all markers of these pages."""
    found = set()
    for marker in MARKER.finditer(FENCE.sub("", source(names))):
        file, where, columns, _ = (field.strip() for field in marker["says"].split(";"))
        content = look_up(recorded(file), where) if file.endswith(".json") else []
        if marker["text"].startswith("\n"):
            found |= {(file, alike(value)) for value in values(content)}
        else:
            wanted = [name.strip() for name in columns.split(",") if name.strip()]
            found |= {(file, alike(look_up(content, name))) for name in wanted or [""]}
    return frozenset(found)


def alike(value: Any) -> Any:
    """A number to four digits: where a reading does not depend on an image's scale, two of its numbers are the same."""
    return round(value, 4) if isinstance(value, float) else value


def interval(row: dict, name: str, low: str = "low", high: str = "high") -> list[float]:
    return [row[name], row[low], row[high]]


def what_holds() -> Needed:
    judged = laptop("claims.json")
    yield File("results/laptop/claims.json")
    for counts in judged["by_document"].values():
        yield from counts.values()
    yield from judged["counts"].values()
    for kind in ("experiments", "published answers", "definitions"):
        yield from (judged["by_evidence"][kind][verdict] for verdict in ("reproduced", "not_reproduced"))
    yield from judged["checks"].values()


def another_machine() -> Needed:
    """Two machines with one training run a network each; then the boundaries of two more, older."""
    judged = {
        name: {claim: found["verdict"] for claim, found in laptop(f"{name}/claims.json")["claims"].items()}
        for name in ("bf16", "amx")
    }
    for claim in compare(judged)["differing"]:
        yield f"`{claim}`"
    xeon, elsewhere = (laptop(f"{name}/shapes.json") for name in ("xeon", "avx2"))
    for numbers in (own_accuracies, circles, boundaries):
        here, there = furthest_apart(numbers(xeon), numbers(elsewhere))
        yield from (File("results/laptop/xeon/shapes.json"), here, File("results/laptop/avx2/shapes.json"), there)


def own_accuracies(metrics: dict) -> dict[str, float]:
    return {name: value for name, value in metrics["own_test_accuracy"].items() if name.startswith("M")}


def circles(metrics: dict) -> dict[str, float]:
    shares = metrics["answered_circle_with_4_more_squares"]
    return {f"{name} at {key.split('_')[1]}": share for name, at in shares.items() for key, share in at.items()}


def boundaries(metrics: dict) -> dict[str, float]:
    """Where there is one."""
    fits = {f"{name} at {key.split('_')[1]}": fit for name, at in metrics["bias"].items() for key, fit in at.items()}
    return {label: fit["pse"] for label, fit in fits.items() if fit["pse"] is not None}


def furthest_apart(here: dict[str, float], elsewhere: dict[str, float]) -> tuple[float, float]:
    label = max(here.keys() & elsewhere.keys(), key=lambda label: abs(here[label] - elsewhere[label]))
    return here[label], elsewhere[label]


def shapes() -> Needed:
    numbers = laptop("shapes/metrics.json")
    own = numbers["own_test_accuracy"]
    networks = {name: value for name, value in own.items() if name.startswith("M")}
    worst, best = min(networks, key=networks.get), max(networks, key=networks.get)
    yield from (f"({worst})", f"({best})")
    yield File("results/laptop/shapes/metrics.json")
    yield from (*interval(own, "mean"), own[worst], own[best])
    for cell in (numbers["lowest"], numbers["highest"]):
        yield from interval(cell, "accuracy")
    yield from (numbers["mean_accuracy_on_denser_sets"], numbers["mean_accuracy_on_sparser_sets"])
    yield from numbers["answered_circle_with_4_more_squares"]["M50"].values()

    said = numbers["statements"]
    yield said["biased_both_ways"]
    apart = said["own_accuracy_by_training_density"]
    yield from interval(apart, "apart")
    yield f"M{apart['least_at']} and M{apart['most_at']}"
    small = said["margins_of_test_sets"]
    yield from interval(small["all"], "up_to_8", "up_to_8_low", "up_to_8_high")
    yield from (small[f"density_{density}"]["up_to_8"] for density in (10, 90))


def normalisation() -> Needed:
    found = laptop("shapes/normalisation.json")
    gain = found["gain_with_tested_density"]
    yield File("results/laptop/shapes/normalisation.json")
    yield from (found["as_saved"]["other_sets"]["mean"], found["tested_density"]["other_sets"]["mean"])
    yield from interval(gain["other_sets"], "mean")
    yield from gain["cells"].values()
    yield from interval(gain["sparser_generalise_better"], "value")
    yield from interval(gain["bias"], "mean")
    yield from interval(found["gain_with_own_density"]["bias"], "mean")


def more_images() -> Needed:
    numbers = laptop("shapes-7400/metrics.json")
    yield File("results/laptop/shapes-7400/metrics.json")
    yield from (*interval(numbers["own_test_accuracy"], "mean"), numbers["own_test_accuracy"]["M10"])
    yield from interval(numbers["statements"]["sparser_trained_generalise_better"], "value")
    yield from interval(numbers["statements"]["slope_by_training_density"]["density_50"], "value")


def ties() -> Needed:
    found = laptop("shapes-ties/ties.json")["all"]
    yield File("results/laptop/shapes-ties/ties.json")
    yield from (found["bias"][target]["mean"] for target in ("hard", "soft"))
    yield from interval(found["less_bias"], "mean")


def consistency() -> Needed:
    groups = laptop("consistency/counters.json")["margins"]["groups"]
    yield File("results/laptop/consistency/counters.json")
    for group in ("other run", "other architecture", "other density"):
        yield from interval(groups[group], "kappa", "kappa_low", "kappa_high")
        yield from interval(groups[group], "kappa_within", "within_low", "within_high")
    yield from interval(groups["other architecture"], "from_repetition", "from_repetition_low", "from_repetition_high")

    yield File("results/paper/consistency/metrics.consistency.trials.json")
    for name in ("cue-conflict", "edges"):
        trials = recorded("results/paper/consistency/metrics.consistency.trials.json")[f"texture-shape_{name}"]
        least = trials["least_consistent"]["cnn - cnn"]
        yield from (least["observers"], *interval(least, "kappa"))
        yield from interval(trials["gap_to_people"], "closed", "closed_low", "closed_high")


def countclip() -> Needed:
    found, kept = laptop("countclip/detector.json"), laptop("countclip/filter.json")
    yield File("results/laptop/countclip/detector.json")
    yield from (found["right_kind_and_count"], found["scenes"])
    yield File("results/laptop/countclip/filter.json")
    yield from (kept[name] for name in ("kept", "rows", "precision", "recall"))
    yield File("results/laptop/countclip/measures.json")
    for row in laptop("countclip/measures.json"):
        yield from (*interval(row, "accuracy"), row["mean_absolute_deviation"])
        yield from interval(row["zero_shot"], "accuracy")
        if row["weights"] in ("last", "held_out"):
            yield from interval(row["zero_shot"], "change", "change_low", "change_high")


def posenet() -> Needed:
    networks = ["pixels/normalised", "counter/trained-zeros", "counter/random-zeros"]
    networks += [f"{name}/random-zeros" for name in ("vgg16", "resnet152")] + ["vgg16/random-circular"]
    yield File("results/laptop/posenet/table2.json")
    for row in laptop("posenet/table2.json"):
        if (row["reading"], row["image"]) == ("optimum", "held-out") and row["network"] in networks:
            yield from interval(row, "spearman", "spearman_low", "spearman_high")


def localize() -> Needed:
    numbers = laptop("localize/metrics.json")
    yield File("results/laptop/localize/metrics.json")
    densities = ("density_10", "density_50", "density_100")
    yield from (numbers["accuracy_on_margin_sets_but_ties"]["classify"][density] for density in densities)
    for counter in ("regress", "ssd", "segment", "true mask"):
        for density in densities:
            yield from interval(numbers["against_classify"][counter][density], "gain", "gain_low", "gain_high")
    yield from (numbers["ap50"]["ssd"][f"density_{density}"] for density in (10, 50, 90))
    errors = numbers["count_error"]
    yield from (errors[name]["density_50"] for name in errors)
    yield from (errors[name][f"density_{density}"] for name in ("regress", "ssd", "segment") for density in (10, 90))
    heat = laptop("localize/explanations.json")["M10"]
    yield File("results/laptop/localize/explanations.json")
    for method in ("grad-cam layer1", "grad-cam layer2", "grad-cam layer3", "grad-cam layer4", "lime"):
        yield from interval(heat[method]["chosen_over_area"], "value", "value_low", "value_high")
        yield heat[method]["other_over_area"]["value"]
        yield from interval(heat[method]["specificity"], "gain", "gain_low", "gain_high")
        yield from (heat[method]["pointing"]["value"], heat[method]["deletion"]["value"])
        yield heat[method]["deletion"]["random"]
    own = laptop("localize/probe.json")["r2_of_last_layer"]["own density"]["trained"]["difference"]
    yield File("results/laptop/localize/probe.json")
    yield from interval(own, "r2", "r2_low", "r2_high")


@pytest.mark.parametrize(
    ("needed", "where"),
    [
        (what_holds, ("README.md", STUDY("verdicts"))),
        (another_machine, ("README.md", STUDY("verdicts"), "docs/explanation/same-bytes.md")),
        (shapes, (STUDY("implicit-counting"),)),
        (normalisation, (STUDY("implicit-counting"),)),
        (more_images, (STUDY("implicit-counting"),)),
        (ties, (STUDY("implicit-counting"),)),
        (consistency, (STUDY("error-consistency"),)),
        (countclip, (STUDY("countclip"),)),
        (posenet, (STUDY("posenet"),)),
        (localize, (STUDY("convnets-in-vision"),)),
    ],
)
def test_pages_have_the_recorded_numbers(needed: Callable[[], Needed], where: tuple[str, ...]):
    missing, file = [], ""
    for one in needed():
        if isinstance(one, File):
            file = one
        elif (file, alike(one)) not in shown(where) and not (isinstance(one, str) and one in page_text(where)):
            missing.append((file, one))
    assert missing == []


def test_readme_has_the_verdicts_of_every_study():
    judged = laptop("claims.json")["by_document"]
    rows = [re.sub(r"<!--.*?-->", "", line) for line in source(("README.md",)).splitlines()]
    for document, counts in judged.items():
        row = next(line for line in rows if f"(docs/studies/{document}.md)" in line)
        assert [cell.strip() for cell in row.strip("| ").split("|")[-3:]] == [str(count) for count in counts.values()]


def test_every_command_of_ours_that_pages_name_is_there():
    text = source(tuple(str(page.relative_to(REPOSITORY)) for page in pages(REPOSITORY)))
    modules = set(re.findall(r"python -m ((?:pipeline|benchmarks)\.[\w.]+\w)", " ".join(text.split())))
    assert modules
    paths = {name: REPOSITORY / name.replace(".", "/") for name in modules}
    assert [name for name, path in paths.items() if not (Path(f"{path}.py").exists() or path.is_dir())] == []
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE))
    rules = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert targets - rules == set()


def test_environment_variables_that_pages_name_are_read():
    named = re.findall(r"^\| `([A-Z_]+)` \|", source(("docs/reference/commands.md",)), re.MULTILINE)
    code = "".join(path.read_text() for path in (REPOSITORY / "pipeline").rglob("*.py"))
    assert [name for name in named if name != "PIP_EXTRA_INDEX_URL" and f'"{name}"' not in code] == []


def test_make_help_names_every_rule():
    text = (REPOSITORY / "Makefile").read_text()
    rules = set(re.findall(r"^([a-z]+):", text, re.MULTILINE))
    told = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([a-z]+)  *\S", told, re.MULTILINE)) == rules


def test_the_citation_has_what_its_format_asks_for():
    cited = read_yaml(REPOSITORY / "CITATION.cff")
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert cited["title"] == (REPOSITORY / "README.md").read_text().splitlines()[0].removeprefix("# ")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert str(cited["version"]) == project["version"]


def test_readme_says_that_there_is_no_licence_as_long_as_there_is_none():
    there = [path.name for path in REPOSITORY.iterdir() if re.match(r"(?i)(licen[cs]e|copying)", path.name)]
    assert ("There is no licence file" in page_text(("README.md",))) == (there == [])
