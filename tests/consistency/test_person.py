"""What a sitting's trials say of a person: by hand, against other libraries, with a planted bias; and bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import assert_one_line_error
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency.compare import compare
from pipeline.consistency.person import by_margin, psychometrics, read_sitting, with_networks
from pipeline.consistency.sets import read_trial_files
from pipeline.consistency.sitting import counts_of
from pipeline.predictions import write_predictions
from pipeline.stage import UserError

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("margins/density-50/margin+4", (27, 23)),
        ("margins/density-10/margin-8", (1, 9)),
        ("margins/density-10/margin+0", (5, 5)),
        ("margins/density-10/margin+3", None),
        ("margins/density-4/margin+6", None),
        ("density-10/margin+4", None),
        ("", None),
    ],
)
def test_a_condition_tells_how_many_there_were(name, counts):
    assert counts_of(name) == counts


def trial(number: int, margin: int, response: str, image: int = 0, rt: str = "0.5", category: str = "") -> str:
    category = category or ("circle" if margin > 0 else "square")
    condition = f"margins/density-10/margin{margin:+d}"
    name = f"{number:04d}_majority_subject-7_{condition.replace('/', '-')}_{category}_0_{image:06d}"
    return f"subject-7,1,{number},{rt},{response},{category},{condition},{name}"


SITTING = [
    trial(1, 4, "circle", 0),
    trial(2, -4, "square", 1),
    trial(3, 0, "circle", 2),
    trial(4, 4, "square", 3),
    trial(5, -4, "na", 4, rt="NaN"),
    trial(6, 0, "square", 5),
]


def write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_sitting_by_margin_as_counted_by_hand(tmp_path):
    trials = read_sitting([write(tmp_path / "a.csv", SITTING)])
    assert trials["condition"].iloc[0] == "margins/density-10/margin+4"
    assert trials["image"].tolist() == [f"00000{i}" for i in range(6)]
    assert trials["correct"].tolist() == [True, True, None, False, False, None]
    table = by_margin(trials).set_index("margin")
    assert table["trials"].tolist() == [2, 2, 2]
    assert table["missed"].tolist() == [1, 0, 0]
    assert table["circle"].tolist() == [0.0, 0.5, 0.5]
    assert table.loc[[-4, 4], "right"].tolist() == [0.5, 0.5]
    assert np.isnan(table.loc[0, "right"])
    # Wilson's interval of 1 in 2: 0.0945 and 0.9055
    assert table.loc[4, ["right_low", "right_high"]].tolist() == pytest.approx([0.0945, 0.9055], abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "header", "parts"),
    [
        ([], HEADER, ["no trials below the header"]),
        ([row.replace("subject-7", "") for row in SITTING], HEADER, ["row 2", "no observer", "'subj'"]),
        (SITTING, HEADER.replace("object_response", "answer"), ["lacks the columns ['response']", "object_response"]),
        ([row.replace(",", ";") for row in SITTING], HEADER.replace(",", ";"), ["separated by ';'", "commas"]),
        ([*SITTING[:5], SITTING[5].replace("subject-7", "anna")], HEADER, ["subject-7, anna", "one person's"]),
        (SITTING[:5], HEADER, ["unfinished", "density-10/margin+0 has 1 trials"]),
        (SITTING[1:], HEADER, ["unfinished", "no trial 1"]),
        ([trial(1, 4, "k"), *SITTING[1:]], HEADER, ["row 2", "object_response = 'k'", "circle, square or na"]),
        ([*SITTING[:3], trial(4, 4, "circle", 3, rt="0")], HEADER, ["row 5", "rt = '0.0'", "above 0"]),
        ([*SITTING[:3], trial(4, 4, "circle", 3, rt="-0.4")], HEADER, ["row 5", "rt = '-0.4'"]),
        ([*SITTING[:3], trial(4, 4, "circle", 3, rt="NaN")], HEADER, ["row 5", "rt = nan"]),
        ([trial(1, 4, "circle", category="square")], HEADER, ["row 2", "category = 'square'"]),
        ([SITTING[0].replace("/margin+4", "/margin+3")], HEADER, ["row 2", "density-10/margin+3", "margin set"]),
        ([SITTING[0].removesuffix("000000")], HEADER, ["row 2", "imagename = '0001_majority"]),
        ([*SITTING[:5], SITTING[2].replace(",3,", ",6,")], HEADER, ["row 7", "answered before", "--session"]),
        ([SITTING[0].replace(",1,1,", ",one,1,")], HEADER, ["row 2", "session = 'one'"]),
        ([SITTING[0].replace(",1,1,", ",0,1,")], HEADER, ["row 2", "session = '0'", "from 1"]),
        ([SITTING[0].replace(",1,1,", ",1,first,")], HEADER, ["row 2", "trial = 'first'", "from 1"]),
        (SITTING, HEADER.replace("rt", "seconds"), ["lacks the columns ['rt']"]),
    ],
)  # fmt: skip
def test_what_is_no_sitting_is_named(tmp_path, rows, header, parts):
    with pytest.raises(UserError) as error:
        read_sitting([write(tmp_path / "trials.csv", rows, header)])
    for part in ["trials.csv", *parts]:
        assert part in str(error.value)


def test_a_mistake_is_a_line(workspace, run_stage):
    write(workspace() / "cut.csv", SITTING[:5])
    assert_one_line_error(run_stage("consistency.person", "cut.csv"), "cut.csv: an unfinished sitting")
    assert_one_line_error(run_stage("consistency.person", "trials.csv"), "trials.csv: No such file")


def predictions(path: Path, observer: str, correct: dict[tuple[int, int], bool]) -> None:
    rows = [
        {
            "observer": observer,
            "condition": f"margins/density-10/margin{margin:+d}",
            "image": f"{image:06d}",
            "category": "circle" if margin > 0 else "square",
            "response": "circle" if (margin > 0) == right else "square",
            "correct": right,
        }
        for (margin, image), right in correct.items()
    ]
    write_predictions(path, pd.DataFrame(rows))


def many(size: int, seed: int, margins: tuple[int, ...] = (-4, 4)) -> dict[tuple[int, int], bool]:
    rng = np.random.default_rng(seed)
    return {(margin, image): bool(rng.random() < 0.7) for margin in margins for image in range(size)}


def test_error_consistency_is_cohens_kappa_of_the_shared_trials(tmp_path):
    person = many(40, 1)
    rows = [
        trial(n, margin, "circle" if (margin > 0) == right else "square", image)
        for n, ((margin, image), right) in enumerate(person.items(), start=1)
    ]
    ties = [trial(len(rows) + 1 + i, 0, "circle", i) for i in range(40)]
    trials = read_sitting([write(tmp_path / "a.csv", [*rows, *ties])])
    whole, part = many(50, 2, (-4, 0, 4)), {key: right for key, right in many(40, 3).items() if key[1] >= 10}
    predictions(tmp_path / "one.parquet", "M50", whole)  # on more images, ties among them
    predictions(tmp_path / "two.parquet", "M10", part)  # on fewer
    predictions(tmp_path / "other.parquet", "M90", {(6, 1): True})  # on none of these
    files = [tmp_path / f"{name}.parquet" for name in ("one", "two", "other")]
    table = with_networks(trials, files, seed=0).set_index("network")
    assert table["trials"].to_dict() == {"M50": 80, "M10": 60}
    for name, correct in {"M50": whole, "M10": part}.items():
        shared = [key for key in person if key in correct]
        wanted = cohen_kappa_score([person[key] for key in shared], [correct[key] for key in shared])
        assert table.loc[name, "kappa"] == pytest.approx(wanted)
        assert table.loc[name, "low"] < wanted < table.loc[name, "high"]


def test_who_answers_as_a_network_does_agrees_with_it_wholly(workspace, run_stage):
    folder = workspace()
    same = many(20, 4)
    rows = [
        trial(n, margin, "circle" if (margin > 0) == right else "square", image)
        for n, ((margin, image), right) in enumerate(same.items(), start=1)
    ]
    write(folder / "trials.csv", rows)
    result = run_stage("consistency.person", "trials.csv")
    assert "no predictions there: data/shapes/predictions," in result.stdout
    predictions(folder / "data/shapes/predictions/paper/M50-run0.parquet", "M50-run0", same)
    result = run_stage("consistency.person", "trials.csv")
    assert result.returncode == 0, result.stderr
    assert "subject-7: 40 trials in 1 session(s), 0 without an answer" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("M50-run0"))
    assert line.endswith("1.00 [1.00, 1.00]")


def test_a_sitting_beside_a_network_is_a_set_of_params_yaml(tmp_path):
    same = many(20, 4)
    rows = [
        trial(n, margin, "circle" if (margin > 0) == right else "square", image)
        for n, ((margin, image), right) in enumerate(same.items(), start=1)
    ]
    write(tmp_path / "trials.csv", rows)
    predictions(tmp_path / "M50-run0.parquet", "M50-run0", same)
    table = read_trial_files(tmp_path, ["circle", "square", "tie"])
    parts = {str(name): part for name, part in table.groupby("observer", observed=True)}
    assert {name: len(part) for name, part in parts.items()} == {"subject-7": 40, "M50-run0": 40}
    assert set(parts["subject-7"]["kind"]) == {"person"}
    found = compare(parts["subject-7"], parts["M50-run0"], resamples=10)
    assert (found.trials, found.conditions, found.observed, found.kappa) == (40, 2, 1.0, pytest.approx(1.0))


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_a_planted_bias_and_a_planted_weber_fraction_are_found(tmp_path, shift):
    """Answers as the linear model with scalar variability gives them, w = 0.15, to 150 images of each margin."""
    rng = np.random.default_rng(7)
    rows, w = [], 0.15
    for margin in (-8, -6, -4, -2, 2, 4, 6, 8):
        sd = w * np.hypot(5 + margin / 2, 5 - margin / 2)
        for image in range(150):
            response = "circle" if margin - shift + sd * rng.standard_normal() > 0 else "square"
            rows.append(trial(len(rows) + 1, margin, response, image))
    found = psychometrics(read_sitting([write(tmp_path / "a.csv", rows)]), seed=0)[10]
    assert found["pse"][1] < shift < found["pse"][2]
    if shift == 0:
        assert found["weber"]["low"] < w < found["weber"]["high"]
