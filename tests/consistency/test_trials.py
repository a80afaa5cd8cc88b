"""Reading the published CSV format: people and networks aligned, and what is wrong named with file and row."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from conftest import published_inputs
from sklearn.metrics import cohen_kappa_score

from pipeline.consistency import error_consistency, read_trials
from pipeline.consistency.trials import CNNS, kind_of
from pipeline.stage import UserError

HEADER = "subj,session,trial,rt,object_response,category,condition,imagename"
NETWORK = [
    "resnet50,1,1,NaN,dog,dog,NaN,dog1-cat2.png",
    "resnet50,1,2,NaN,cat,dog,NaN,dog2-cat1.png",
    "resnet50,1,3,NaN,bird,bird,NaN,bird10-bird3.png",
]
PERSON = [
    "subject-01,1,1,0.9,bird,bird,0,0001_s5n_s01_0_bird_00_bird10-bird3.png",
    "subject-01,1,2,NaN,na,dog,0,0002_s5n_s01_0_dog_00_dog2-cat1.png",
    "subject-01,1,3,0.7,dog,dog,0,0003_s5n_s01_0_dog_00_dog1-cat2.png",
]


def write(folder: Path, name: str, rows: list[str], header: str = HEADER) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    folder = tmp_path / "texture-shape_cue-conflict"
    write(folder, "resnet50", NETWORK)
    write(folder, "subject-01", PERSON)
    return folder


def test_people_and_networks_are_aligned(experiment):
    counts = Counter()
    trials = read_trials(experiment, counts)
    assert trials["observer"].tolist() == ["resnet50"] * 3 + ["subject-01"] * 3
    assert trials["kind"].tolist() == ["cnn"] * 3 + ["person"] * 3
    for _, rows in trials.groupby("observer"):
        assert rows["image"].tolist() == ["bird10-bird3.png", "dog1-cat2.png", "dog2-cat1.png"]
        assert rows["category"].tolist() == ["bird", "dog", "dog"]
        assert rows["texture"].tolist() == ["bird", "cat", "cat"]
    assert trials["condition"].unique().tolist() == ["texture-shape_cue-conflict/-"]
    assert trials["correct"].tolist() == [True, True, False] * 2
    assert trials["response"].isna().tolist() == [False] * 5 + [True]
    assert counts["texture-shape_cue-conflict", "no response"] == 1


def test_a_folder_of_experiments_is_read_whole(experiment):
    write(experiment.parent / "texture-shape_edges", "resnet50", ["resnet50,1,1,NaN,dog,dog,NaN,dog1.png"])
    trials = read_trials(experiment.parent)
    assert trials["condition"].str.split("/").str[0].value_counts().to_dict() == {
        "texture-shape_cue-conflict": 6,
        "texture-shape_edges": 1,
    }


@pytest.mark.parametrize(
    ("rows", "header", "parts"),
    [
        (
            NETWORK,
            HEADER.replace("object_response", "answer"),
            ["alexnet.csv", "lacks the columns ['response']", "object_response or response"],
        ),
        ([NETWORK[0], "alexnet,1,2,NaN,cow,dog,NaN,dog2-cat1.png"], HEADER, ["row 3", "'cow'", "airplane, bear"]),
        ([NETWORK[0], "alexnet,1,2,NaN,dog,cow,NaN,dog2-cat1.png"], HEADER, ["row 3", "category = 'cow'"]),
        ([NETWORK[0], "alexnet,one,2,NaN,dog,dog,NaN,dog2-cat1.png"], HEADER, ["row 3", "session = 'one'"]),
        ([], HEADER, ["no trials"]),
    ],
)
def test_what_a_file_has_wrong_is_named(experiment, rows, header, parts):
    write(experiment, "alexnet", rows, header)
    with pytest.raises(UserError) as error:
        read_trials(experiment)
    for part in ["alexnet.csv", *parts]:
        assert part in str(error.value)


def alexnet(rows: list[str]) -> list[str]:
    return [row.replace("resnet50", "alexnet") for row in rows]


def test_a_missing_trial_is_named(experiment):
    write(experiment, "alexnet", alexnet(NETWORK[:2]))
    with pytest.raises(UserError, match=r"alexnet.csv: observer alexnet lacks 1 of 3 trials.*bird10-bird3.png"):
        read_trials(experiment)


def test_a_trial_that_is_there_twice_is_named(experiment):
    write(experiment, "alexnet", alexnet([*NETWORK, NETWORK[1]]))
    with pytest.raises(UserError, match=r"alexnet.csv, row 5: .*dog2-cat1.png.*twice.*first in row 3"):
        read_trials(experiment)


def test_observers_that_saw_different_images_are_named(experiment):
    write(experiment, "alexnet", alexnet([*NETWORK[:2], "alexnet,1,3,NaN,bird,bird,NaN,bird9-car3.png"]))
    with pytest.raises(UserError, match=r"alexnet.csv, row 4: bird9-car3.png .* 1 of the 3 observers"):
        read_trials(experiment)


def test_an_image_of_two_categories_is_named(experiment):
    write(experiment, "alexnet", alexnet([*NETWORK[:2], "alexnet,1,3,NaN,bird,cat,NaN,bird10-bird3.png"]))
    with pytest.raises(UserError, match=r"category = .*bird10-bird3.png another category"):
        read_trials(experiment)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no trials: neither it nor a folder in it holds"):
        read_trials(tmp_path)


def test_noise_experiments_have_sessions_conditions_and_own_images(tmp_path):
    folder = tmp_path / "noise-generalisation_contrast-png"
    name = "0001_cop_{}_{}_knife_10_n03041632_{}.png"
    for session, images in {1: [7, 8], 2: [8, 9]}.items():
        rows = [f"cornet-s,{session},1,NaN,knife,knife,c05,{name.format('dnn', 'c05', i)}" for i in images]
        write(folder, f"cornet-s_session-{session}", rows)
    write(folder, "subject-01", [f"subject-01,1,1,0.5,oven,knife,c5,{name.format('s01', 'c5', 9)}"])
    counts = Counter()
    trials = read_trials(folder, counts)
    assert trials["condition"].unique().tolist() == ["noise-generalisation_contrast-png/c5"]
    network = trials[trials["observer"] == "cornet-s"]
    assert network["image"].tolist() == [f"n03041632_{i}.png" for i in (7, 8, 9)]
    assert network["session"].tolist() == [1, 1, 2]  # image 8 counts once, the first time
    assert trials.loc[trials["observer"] == "subject-01", "image"].tolist() == ["n03041632_9.png"]
    assert counts["noise-generalisation_contrast-png", "repeated in a later session"] == 1


def test_conditions_of_three_numbers_stay_as_they_are(tmp_path):
    folder = tmp_path / "noise-generalisation_eidolon"
    write(folder, "resnet50", ["resnet50,2,1,NaN,dog,dog,1-0-10,0001_eid_dnn_1-0-10_dog_10_n02105251_7529.JPEG"])
    assert read_trials(folder)["condition"].tolist() == ["noise-generalisation_eidolon/1-0-10"]


@pytest.mark.parametrize(
    ("observer", "kind"),
    [
        ("subject-07", "person"),
        ("densenet121", "cnn"),
        ("vgg16-bn", "cnn"),
        ("vgg16", "other network"),  # the paper's sixteen have the VGGs with batch norm
        ("cornet-s", "recurrent cnn"),
        ("bagnet9", "bagnet"),
        ("resnet50-trained-on-SIN-and-IN", "stylized resnet"),
        ("simulated-family-a-03", "simulated family a"),
    ],
)
def test_kinds_of_observers(observer, kind):
    assert kind_of(observer) == kind


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    return read_trials(published_inputs() / "error-consistency")


def test_the_published_trials_are_complete(published):
    shape = published.groupby("condition")["observer"].agg(["nunique", "size"])
    assert shape.loc["texture-shape_cue-conflict/-"].tolist() == [35, 35 * 1280]
    assert shape.loc["texture-shape_edges/-"].tolist() == [35, 35 * 160]
    kinds = published.drop_duplicates("observer")["kind"].value_counts().to_dict()
    assert kinds == {
        "cnn": 16,
        "person": 10,
        "bagnet": 3,
        "stylized resnet": 3,
        "other network": 2,
        "recurrent cnn": 1,
    }


def answers(published: pd.DataFrame, experiment: str) -> dict[str, pd.Series]:
    rows = published[published["condition"] == f"{experiment}/-"]
    return {observer: own.set_index("image")["correct"] for observer, own in rows.groupby("observer")}


def mean_kappa(correct: dict[str, pd.Series], first: list[str], second: list[str]) -> float:
    pairs = [(a, b) for a in first for b in second if a != b]
    return sum(error_consistency(correct[a], correct[b]).kappa for a, b in pairs) / len(pairs)


def test_numbers_that_the_authors_printed(published):
    """From the comments of their data-analysis.R, 'PRINT NUMBERS REPORTED IN PAPER', to three decimals."""
    correct = answers(published, "texture-shape_cue-conflict")
    people = [f"subject-{i:02d}" for i in range(1, 11)]
    assert mean_kappa(correct, people, people) == pytest.approx(0.331, abs=5e-4)
    for network, printed in {
        "resnet50": 0.068,
        "cornet-s": 0.066,
        "alexnet": 0.080,
        "resnet50-trained-on-SIN": 0.195,
        "resnet50-trained-on-SIN-and-IN": 0.098,
        "resnet50-trained-on-SIN-and-IN-then-finetuned-on-IN": 0.066,
    }.items():
        assert mean_kappa(correct, [network], people) == pytest.approx(printed, abs=5e-4)
    assert mean_kappa(correct, ["resnet50"], ["cornet-s"]) == pytest.approx(0.711, abs=5e-4)


def test_the_pair_that_the_authors_printed_is_of_half_of_the_trials():
    """0.793, 'resnet18 densenet121' on edges: by R's `dat$subj == cnn` with a list of (name, colour, sign, name).

    R repeats the four entries along the trials, of which so only the first and the fourth of every four are kept.
    """
    folder = published_inputs() / "error-consistency/texture-shape_edges"
    tables = {name: pd.read_csv(folder / f"texture-shape_edges_{name}_session-1.csv") for name in sorted(CNNS)}
    order = tables["alexnet"]["imagename"]
    correct = {}
    for name, rows in tables.items():
        assert (rows["imagename"] == order).all()
        correct[name] = (rows["object_response"] == rows["category"])[rows.index % 4 % 3 == 0]
    kappas = {pair: cohen_kappa_score(*(correct[name] for name in pair)) for pair in combinations(correct, 2)}
    assert max(kappas, key=kappas.get) == ("densenet121", "resnet18")
    assert kappas["densenet121", "resnet18"] == pytest.approx(0.793, abs=5e-4)


@pytest.mark.parametrize("experiment", ["texture-shape_cue-conflict", "texture-shape_edges"])
def test_every_published_pair_is_cohens_kappa(published, experiment):
    correct = answers(published, experiment)
    pairs = list(combinations(correct, 2))
    assert len(pairs) == 595
    for a, b in pairs[::7]:
        wanted = cohen_kappa_score(correct[a], correct[b].loc[correct[a].index])
        assert error_consistency(correct[a], correct[b]).kappa == pytest.approx(wanted, abs=1e-12)
