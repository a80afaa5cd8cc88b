"""Files of trials in the field's formats: every header is read, and what is wrong is named in one line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY, edit_params, published_inputs
from ruamel.yaml import YAML

from pipeline.consistency.formats import read_csv
from pipeline.consistency.sets import read_trial_files
from pipeline.consistency.trials import read_trials
from pipeline.predictions import write_predictions
from pipeline.stage import UserError

CONSISTENCY = {"analyse_consistency", "figures_consistency"}
IMAGES = ["n02690373_1.png", "n02690373_2.png", "n03041632_7.png"]
RIGHT = [True, False, True]
HEADERS = {  # a header, and a row of trial i: given answer, right answer, image
    "modelvshuman": (
        "subj,session,trial,rt,object_response,category,condition,imagename",
        "subject-01,1,{i},0.5,{given},{right},c05,000{i}_cop_s01_c05_{right}_10_{image}",
    ),
    "another case": (
        "subj,Session,trial,rt,object_response,category,condition,imagename",
        "subject-01,1,{i},NaN,{given},{right},c5,000{i}_cop_s01_c05_{right}_10_{image}",
    ),
    "capitals": (
        "SUBJ,SESSION,TRIAL,RT,OBJECT_RESPONSE,CATEGORY,CONDITION,IMAGENAME",
        "subject-01,2,{i},NaN,{given},{right},c5,{image}",
    ),
    "no session": (
        "subj,trial,rt,object_response,category,condition,imagename",
        "subject-01,{i},NaN,{given},{right},c5,{image}",
    ),
    "response": (
        "subj,session,trial,rt,response,category,condition,imagename",
        "subject-01,1,{i},NaN,{given},{right},c5,{image}",
    ),
    "another order, and more": (
        "imagename,condition,category,response,subj,Session,Age, block,IQA",
        "{image},c5,{right},{given},subject-01,1,31, 2,0.25",
    ),
    "spaces and quotes": (
        'subj, object_response, category, condition,"imagename"',
        'subject-01, {given}, {right}, c5,"{image}"',
    ),
    "plain": ("observer,image,correct,condition", "subject-01,{image},{correct},c5"),
}


def text(header: str, row: str, first: int = 0, last: int = 3, **changes: str) -> str:
    lines = [header]
    for i in range(first, last):
        right = "airplane" if i < 2 else "knife"
        values = {"i": i, "right": right, "given": right if RIGHT[i] else "dog", "image": IMAGES[i]}
        lines.append(row.format(**values | {"correct": int(RIGHT[i])} | changes))
    return "\n".join(lines) + "\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_every_header_of_the_field_is_read(tmp_path, name, encoding, line):
    content = text(*HEADERS[name]).replace("\n", line).encode(encoding)
    trials = read_trial_files(write(tmp_path / "contrast/subject-01.csv", content).parent)
    assert trials["observer"].tolist() == ["subject-01"] * 3
    assert trials["kind"].tolist() == ["person"] * 3
    assert trials["image"].tolist() == IMAGES
    assert trials["correct"].tolist() == RIGHT
    assert set(trials["condition"]) == {"contrast/c5"}


def test_columns_beyond_are_kept_and_numbers_stay_numbers(tmp_path):
    trials = read_trial_files(write(tmp_path / "a.csv", text(*HEADERS["another order, and more"])))
    assert trials["age"].tolist() == [31] * 3
    assert trials["block"].tolist() == [2] * 3
    assert trials["iqa"].tolist() == [0.25] * 3


def test_of_two_names_for_an_answer_that_of_the_field_counts(tmp_path):
    content = "subj,imagename,category,response,object_response\na,x,dog,cat,dog\n"
    trials = read_trial_files(write(tmp_path / "a.csv", content))
    assert trials["correct"].tolist() == [True]
    assert trials["other_response"].tolist() == ["cat"]


def test_sessions_are_put_together_and_what_was_seen_again_counts_once(tmp_path):
    header, row = HEADERS["another case"]
    second = row.replace("subject-01,1", "subject-01,2")
    for path in ("colour/subject-01_session_1.csv", "colour/subject-01_session_2.csv"):
        part = text(header, row, 0, 2) if path.endswith("1.csv") else text(header, second, 1, 3, given="airplane")
        write(tmp_path / path, part)
    counts: Counter = Counter()
    trials = read_trial_files(tmp_path / "colour", counts=counts)
    assert trials["image"].tolist() == IMAGES
    assert trials["session"].tolist() == [1, 1, 2]
    assert trials["correct"].tolist() == [True, False, False]  # image 2 as in session 1, where it was wrong
    assert counts == {"repeated_in_a_later_session": 1}


def test_no_answer_in_time_is_wrong_and_counted(tmp_path):
    counts: Counter = Counter()
    path = write(tmp_path / "a.csv", "subj,imagename,category,object_response\na,x,dog,na\na,y,dog,dog\n")
    assert read_trial_files(path, counts=counts)["correct"].tolist() == [False, True]
    assert counts == {"without_an_answer": 1}


def test_a_single_condition_has_one_name(tmp_path):
    header, row = HEADERS["modelvshuman"]
    write(tmp_path / "edge/subject-01.csv", text(header, row.replace(",c05,", ",0,")))
    write(tmp_path / "edge/resnet50.csv", text(header, row.replace(",c05,", ",NaN,").replace("subject-01", "resnet50")))
    assert set(read_trial_files(tmp_path)["condition"]) == {"edge/-"}


def test_a_plain_table_may_leave_out_what_has_no_right_answer(tmp_path):
    path = write(tmp_path / "a.csv", "observer,image,correct\na,x,TRUE\na,y,0\na,z,\n")
    assert read_trial_files(path)["correct"].tolist() == [True, False, None]


def test_parquet_and_csv_make_one_set(tmp_path):
    network = pd.DataFrame({"observer": "resnet50", "condition": "margins/m4", "image": ["a", "b"]})
    network = network.assign(category="circle", response=["circle", "square"], correct=[True, False], kind="network")
    write_predictions(tmp_path / "networks/resnet50.parquet", network)
    write(tmp_path / "people/anna.csv", "observer,condition,image,correct,kind\nanna,margins/m4,b,1,person\n")
    trials = read_trial_files(tmp_path).set_index(["observer", "image"])
    assert trials["correct"].to_dict() == {("resnet50", "a"): True, ("resnet50", "b"): False, ("anna", "b"): True}
    assert trials["kind"].to_dict()["anna", "b"] == "person"
    assert set(trials["condition"]) == {"margins/m4"}


def test_categories_of_ones_own_are_read(tmp_path):
    path = write(tmp_path / "a.csv", "subj,imagename,category,response\na,x,circle,square\na,y,square,square\n")
    assert read_trial_files(path)["correct"].tolist() == [False, True]
    fish = write(tmp_path / "fish.csv", "subj,imagename,category,response\na,x,dog,fish\na,y,fish,fish\n")
    assert read_trial_files(fish, ["dog", "fish"])["correct"].tolist() == [False, True]


GOOD = "observer,image,correct\na,x,1\n"
BAD = {
    "semicolons": ("subj;session;trial\na;1;2\n", ["';'", "expected commas"]),
    "tabs": ("observer\timage\tcorrect\na\tx\t1\n", ["'\\t'", "expected commas"]),
    "latin-1": ("observer,image,correct\nJosé,x,1\n".encode("latin-1"), ["row 2", "byte 0xe9", "expected UTF-8"]),
    "utf-16": (GOOD.encode("utf-16"), ["UTF-16", "expected CSV in UTF-8"]),
    "empty": ("", ["empty", "expected a line of column names"]),
    "header only": ("observer,image,correct\n", ["no trials below the header"]),
    "no image": ("subj,picture,correct\na,x,1\n", ["lacks the columns ['image']", "'picture'", "imagename or image"]),
    "no observer": ("who,image,correct\na,x,1\n", ["lacks the columns ['observer']", "subj or observer"]),
    "no answer": ("subj,image\na,x\n", ["lacks the columns ['correct']", "response and category serve"]),
    "no category": ("subj,image,response\na,x,dog\n", ["lacks the columns ['category']", "has ['subj',"]),
    "twice a column": ("subj,Subj,image,correct\na,a,x,1\n", ["['subj'] twice"]),
    "a row too short": ("observer,image,correct\na,x,1\na,y\n", ["Expected 3 columns, got 2"]),
    "unknown correct": (
        "observer,image,correct\na,x,1\na,y,yes\n",
        ["row 3", "correct = 'yes'", "allowed: 1, 1.0, true"],
    ),
    "a session that is none": ("observer,image,correct,session\na,x,1,one\n", ["row 2", "session = 'one'"]),
    "an image without a name": ("observer,image,correct\na,,1\n", ["row 2", "no image"]),
    "unknown category": (
        "subj,image,category,response\na,x,dog,dog\na,y,dgo,dog\n",
        ["row 3", "category = 'dgo'", "bear"],
    ),
    "unknown response": (
        "subj,image,category,response\na,x,dog,dgo\n",
        ["row 2", "response = 'dgo'", "airplane, bear"],
    ),
    "two answers": (
        "observer,image,correct\na,x,1\na,y,1\na,x,0\n",
        ["row 4", "observer a answered image x", "twice, first in", "row 2", "'session'"],
    ),
    "two categories": (
        "observer,image,correct,category\na,x,1,dog\nb,x,0,cat\n",
        ["row 3", "category = 'cat' of image x", "another row has 'dog'"],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named_in_a_line(tmp_path, what):
    content, parts = BAD[what]
    path = write(tmp_path / "mine.csv", content)
    with pytest.raises(UserError) as error:
        read_trial_files(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_two_answers_in_two_files_name_both(tmp_path):
    for name in ("one.csv", "two.csv"):
        write(tmp_path / name, GOOD)
    with pytest.raises(
        UserError, match=r"two.csv, row 2: observer a answered image x .*twice, first in .*one.csv, row 2"
    ):
        read_trial_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "said"), [("none", "not there"), ("empty", "no .parquet or .csv file"), ("a.txt", "not '.txt'")]
)
def test_what_holds_no_trials_is_named(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "a.txt", GOOD)
    with pytest.raises(UserError, match=said):
        read_trial_files(tmp_path / name)


def test_the_published_reader_takes_either_case_too(tmp_path):
    header, row = HEADERS["another case"]
    write(tmp_path / "noise-generalisation_colour/subject-01.csv", text(header, row))
    trials = read_trials(tmp_path)
    assert trials["image"].tolist() == IMAGES
    assert trials["correct"].tolist() == RIGHT
    assert trials["session"].tolist() == [1] * 3


def test_published_trials_are_the_same_through_both_readers():
    folder = published_inputs() / "error-consistency/noise-generalisation_contrast-png"
    key = ["observer", "condition", "image"]
    strict = read_trials(folder).set_index(key)["correct"].sort_index()
    found = read_trial_files(folder).astype(dict.fromkeys(key, str)).set_index(key)["correct"].sort_index()
    pd.testing.assert_series_equal(found, strict, check_index_type=False)


def test_rows_know_their_line(tmp_path):
    assert read_csv(write(tmp_path / "a.csv", text(*HEADERS["plain"])))["row"].tolist() == [2, 3, 4]


def test_a_new_set_in_params_is_two_stages_more(tmp_path, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site-cache"))
    folder = tmp_path / "project"
    folder.mkdir()
    yaml = YAML()
    stages = yaml.load(REPOSITORY / "dvc.yaml")["stages"]
    yaml.dump({"stages": {name: stages[name] for name in CONSISTENCY}}, folder / "dvc.yaml")
    (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    monkeypatch.chdir(folder)
    with Repo.init(str(folder), no_scm=True) as repo:
        before = {stage.addressing for stage in repo.index.stages}
    mine = {"predictions": "trials/mine.csv", "observers": ["kind"], "compare": "groups"}
    edit_params(folder / "params.yaml", {"consistency.sets.mine": mine})
    with Repo(str(folder)) as repo:
        stages = {stage.addressing: stage for stage in repo.index.stages}
    assert {name.partition("@")[0] for name in before} == CONSISTENCY
    assert stages.keys() - before == {"analyse_consistency@mine", "figures_consistency@mine"}
    analysed = stages["analyse_consistency@mine"]
    assert "trials/mine.csv" in {str(dependency) for dependency in analysed.deps}
    assert {str(out) for out in analysed.outs} == {"plots/consistency/mine", "metrics/consistency/mine.json"}
    assert {str(out) for out in stages["figures_consistency@mine"].outs} == {"plots/consistency_figures/mine"}
