"""What a review shows, on differences made by hand; and the whole of it on a small repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import vl_convert
from conftest import HANGS, REPOSITORY

from pipeline.stage import UserError
from pipeline.workflow.lock_check import stale
from pipeline.workflow.offline_plots import VEGA_LITE, page_template
from pipeline.workflow.review import (
    Change,
    Measure,
    Revision,
    changes,
    decimals,
    measures,
    other_outputs,
    rounded,
    verdicts,
)
from pipeline.workflow.review_page import comment, page

NOTHING = {
    "base": Revision("main", "a" * 40, "aaaaaaa, 2026-01-01, first"),
    "new": Revision("workspace", "", "files as they are here"),
    **{part: [] for part in ("params", "stages", "claims", "judged", "plots", "same")},
    "metrics": {},
    "missing": {},
}


@pytest.mark.parametrize(
    ("old", "new", "apart"),
    [
        ((0.5, 0.4, 0.6), (0.8, 0.7, 0.9), True),
        ((0.8, 0.7, 0.9), (0.5, 0.4, 0.6), True),
        ((0.5, 0.4, 0.6), (0.7, 0.6, 0.8), False),  # they touch
        ((0.5, 0.4, 0.6), (0.6, 0.55, 0.65), False),
        ((0.5, 0.1, 0.9), (0.6, 0.55, 0.65), False),  # one within the other
        ((0.5, 0.4, 0.6), (0.9, None, None), False),
        ((0.5, 0.4, 0.6), (None, None, None), False),
    ],
)
def test_intervals_that_do_not_overlap(old, new, apart):
    assert Change("accuracy", Measure(*old), Measure(*new)).apart is apart


def test_a_metric_that_is_new_is_not_marked():
    assert not Change("accuracy", None, Measure(0.5, 0.4, 0.6)).apart


def test_intervals_belong_to_the_value_they_stand_beside():
    tree = {
        "own": {"mean": 0.8, "low": 0.7, "high": 0.9, "M10": 0.75},
        "pair": {"kappa": 0.3, "kappa_low": 0.2, "kappa_high": 0.4, "kappa_low_observers": 0.1, "n": 4},
        "kappa": {"network": "M10", "low": 0.1, "high": 0.2},  # what stands before is no number
    }
    assert measures(tree) == {
        "own.mean": Measure(0.8, 0.7, 0.9),
        "own.M10": Measure(0.75),
        "pair.kappa": Measure(0.3, 0.2, 0.4),
        "pair.kappa_low_observers": Measure(0.1),
        "pair.n": Measure(4),
        "kappa.network": Measure("M10"),
        "kappa.low": Measure(0.1),
        "kappa.high": Measure(0.2),
    }


def test_changes_are_those_that_differ_and_the_clear_ones_come_first():
    old = {"n": 9, "loss": 1.0, "a": {"mean": 0.5, "low": 0.4, "high": 0.6}, "gone": 1}
    new = {"n": 9, "loss": 1.5, "a": {"mean": 0.9, "low": 0.8, "high": 0.95}, "more": None}
    assert [change.name for change in changes(old, new)] == ["a.mean", "loss", "gone", "more"]
    assert changes(old, old) == []


@pytest.mark.parametrize(
    ("numbers", "digits"),
    [([0.85376, 0.7], 3), ([12.345, 0.1], 1), ([1234.5, 1.0], 0), ([7, 1200], 0), ([0.8537, 0.8533], 4), ([0.0], 3)],
)
def test_decimals(numbers, digits):
    assert decimals(numbers) == digits


def test_rounding_is_readable():
    assert rounded(1234.5678, 1) == "1,234.6"
    assert rounded(-0.0001, 3) == "0.000"
    assert rounded(None, 3) == "undefined"
    assert rounded([1, 2], 3) == "[1, 2]"
    clear = Change("a", Measure(0.5, 0.4, 0.61234), Measure(0.75321, 0.7, 0.8))
    assert clear.cells == ["0.500", "[0.400, 0.612]", "0.753", "[0.700, 0.800]", "+0.253"]
    assert Change("a", None, Measure(3)).cells == ["-", "", "3", "", ""]
    assert Change("a", Measure(None), Measure(0.25)).cells == ["undefined", "", "0.250", "", ""]


def test_verdicts_that_changed():
    old = {"claims": {"a": {"verdict": "reproduced"}, "b": {"verdict": "reproduced"}, "c": {"verdict": "reproduced"}}}
    new = {
        "claims": {"a": {"verdict": "reproduced"}, "b": {"verdict": "not reproduced"}, "d": {"verdict": "reproduced"}}
    }
    assert verdicts(old, new) == [
        ("b", "reproduced", "not reproduced"),
        ("c", "reproduced", "-"),
        ("d", "-", "reproduced"),
    ]
    assert verdicts(old, old) == []
    assert verdicts(None, new) == verdicts(old, None) == verdicts(None, None) == []


def test_stages_with_other_outputs():
    stage = "  {}:\n    cmd: x\n    outs:\n    - path: out\n      hash: md5\n      md5: {}\n"
    old = "stages:\n" + stage.format("same", 1) + stage.format("train@10", 2) + stage.format("train@20", 3)
    new = "stages:\n" + stage.format("same", 1) + stage.format("train@10", 4) + stage.format("train@20", 5)
    assert other_outputs(old, new) == [("train: 10, 20", "other outputs")]
    assert other_outputs("", new)[0] == ("same", "new")
    assert other_outputs(old, old) == []


def test_nothing_changed_is_said():
    assert "Nothing" in page(NOTHING)
    assert "Nothing changed" in comment(NOTHING, "{name}")
    turned = NOTHING | {"params": [("params.yaml", "lambda", "one", "<modal>|")]}
    assert "Nothing" not in page(turned) + comment(turned, "{name}")
    assert "<td>&lt;modal&gt;|" in page(turned)
    assert "| `lambda` | one | &lt;modal>\\| |" in comment(turned, "{name}")


def test_what_dvc_lock_does_not_describe():
    made = ["data/a.tar", "data/b"]
    status = {
        "code": [{"changed deps": {"pipeline/code.py": "modified"}}],
        "turned": [{"changed deps": {"params.yaml": {"seed": "modified"}}}, {"changed outs": {"data/b": "deleted"}}],
        "unlocked": [{"changed deps": {"params.yaml": "new"}}, "changed command"],
        "folder": [{"changed deps": {"data": "modified", "data/b/c.csv": "deleted"}}],
        "input": [{"changed deps": {"data/a.tar": "deleted"}}, {"changed outs": {"data/b": "not in cache"}}],
        "looks": ["always changed"],
    }
    assert stale(status, made) == {
        "code": ["pipeline/code.py"],
        "turned": ["seed"],
        "unlocked": ["params.yaml", "command"],
    }


def scripts(html: str) -> list[str]:
    """Addresses from which a page would load a script or style."""
    return re.findall(r"<(?:script|link)[^>]*(?:src|href)\s*=\s*['\"]?(https?:[^'\" >]+)", html)


def test_the_page_for_dvcs_plots_has_vega_in_it_and_no_address():
    template = page_template(vl_convert.javascript_bundle(vl_version=VEGA_LITE))
    assert scripts(template) == []
    assert "window.vegaEmbed=" in template
    assert template.count("{plot_divs}") == 1
    assert "{scripts}" not in template
    with pytest.raises(UserError, match="</script"):
        page_template("x = '</script>'")


MAKE = """
import json, pathlib, ruamel.yaml
from PIL import Image
level = ruamel.yaml.YAML().load(pathlib.Path('params.yaml'))['level']
pathlib.Path('metrics').mkdir(exist_ok=True)
accuracy = {'mean': level / 10, 'low': level / 10 - 0.05, 'high': level / 10 + 0.05}
pathlib.Path('metrics/result.json').write_text(json.dumps({'accuracy': accuracy, 'images': 40}))
pathlib.Path('curve.json').write_text(json.dumps([{'x': x, 'y': x * level} for x in range(3)]))
Image.new('RGB', (30, 30), (level * 20, 0, 0)).save('picture.png')
Image.new('RGB', (30, 30)).save('constant.png')
"""
JUDGE = """
import json, pathlib
mean = json.loads(pathlib.Path('metrics/result.json').read_text())['accuracy']['mean']
verdict = 'reproduced' if mean > 0.5 else 'not reproduced'
claims = {'better-than-half': {'verdict': verdict}, 'always': {'verdict': 'reproduced'}}
pathlib.Path('metrics/claims.json').write_text(json.dumps({'claims': claims}))
"""
WORKFLOW = """
stages:
  make:
    cmd: python -c "$(cat make.py)"
    deps: [make.py]
    params: [level]
    outs: [curve.json, picture.png, constant.png]
    metrics: [metrics/result.json]
  judge:
    cmd: python -c "$(cat judge.py)"
    deps: [judge.py, metrics/result.json]
    metrics: [metrics/claims.json]
plots:
  - The curve: {x: x, y: {curve.json: y}}
  - picture.png
  - constant.png
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository of two stages, at `level: 3`, as committed."""
    files = {"make.py": MAKE, "judge.py": JUDGE, "dvc.yaml": WORKFLOW, "params.yaml": "level: 3\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    do(tmp_path, "git", "init", "--quiet", "--initial-branch", "main")
    do(tmp_path, "git", "config", "user.email", "tests@example.org")
    do(tmp_path, "git", "config", "user.name", "tests")
    do(tmp_path, "dvc", "init", "--quiet")
    do(tmp_path, "dvc", "repro", "--quiet")
    do(tmp_path, "git", "add", "--all")
    do(tmp_path, "git", "commit", "--quiet", "--message", "three")
    return tmp_path


def do(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess:
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    extra = {"PATH": bin_first, "PYTHONPATH": str(REPOSITORY), "DVC_NO_ANALYTICS": "1"}
    extra["DVC_SITE_CACHE_DIR"] = str(folder / ".dvc/tmp/site")
    environment = {name: value for name, value in os.environ.items() if name != "DVC_ROOT"} | extra
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=HANGS)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_an_experiment_is_reviewed_on_one_page(small):
    do(small, "dvc", "exp", "run", "--quiet", "--name", "six", "-S", "level=6")
    assert "1 metrics and 2 plots changed" in do(small, sys.executable, "-m", "pipeline.workflow.review").stdout
    html = (small / "review/index.html").read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL))
    assert "HEAD" in text
    assert "workspace" in text
    assert "accuracy.mean 0.300 [0.250, 0.350] 0.600 [0.550, 0.650] +0.300" in text
    assert "<tr class=apart><td>accuracy.mean" in html
    assert "level 3 6" in text
    assert "better-than-half not reproduced reproduced" in text
    assert "always" not in text
    assert "<td>images" not in html
    captions = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', html)
    assert captions == ["The curve, HEAD and workspace", "picture.png, HEAD", "picture.png, workspace"]
    assert "The same in both: constant.png." in text
    assert scripts(html) == []
    assert "<script" not in html
    summary = (small / "review/summary.md").read_text()
    assert "| `metrics/result.json` `accuracy.mean` | 0.300 | [0.250, 0.350] | 0.600 |" in summary
    linked = re.findall(r'src="(pictures/[0-9a-f]+\.png)"', summary)
    assert len(linked) == 3
    assert all((small / "review" / name).read_bytes().startswith(b"\x89PNG") for name in linked)

    do(small, "git", "checkout", "--quiet", "--force", "main")
    do(small, "dvc", "checkout", "--quiet")
    assert "0 metrics and 0 plots" in do(small, sys.executable, "-m", "pipeline.workflow.review").stdout
    assert "Nothing" in (small / "review/index.html").read_text()
    named = do(small, sys.executable, "-m", "pipeline.workflow.review", "--base", "main", "--new", "six").stdout
    assert "1 metrics and 2 plots changed" in named
    wrong = do(small, sys.executable, "-m", "pipeline.workflow.review", "--base", "sixx", check=False)
    assert wrong.returncode == 1
    assert "the name 'sixx'" in wrong.stderr


@pytest.mark.slow
def test_dvc_lock_is_checked_without_data(small, tmp_path_factory):
    clone = tmp_path_factory.mktemp("without-data") / "clone"
    do(small, "git", "clone", "--quiet", str(small), str(clone))
    check = (sys.executable, "-m", "pipeline.workflow.lock_check")
    assert "true of 2 stages" in do(clone, *check).stdout

    (clone / "params.yaml").write_text("level: 4\n")
    turned = do(clone, *check, check=False)
    assert turned.returncode == 1
    assert "1 of 2 stages: make (level)" in turned.stderr

    (clone / "params.yaml").write_text("level: 3\n")
    (clone / "judge.py").write_text(JUDGE + "# edited\n")
    edited = do(clone, *check, check=False)
    assert edited.returncode == 1
    assert "1 of 2 stages: judge (judge.py)" in edited.stderr

    (clone / "judge.py").write_text(JUDGE)
    lock = (clone / "dvc.lock").read_text()
    passed_on = re.findall(r"path: metrics/result.json\n\s+hash: md5\n\s+md5: (\w+)", lock)
    assert len(passed_on) == 2
    (clone / "dvc.lock").write_text(lock.replace(passed_on[0], "f" * 32, 1))
    torn = do(clone, *check, check=False)
    assert torn.returncode == 1
    assert "judge (metrics/result.json)" in torn.stderr


@pytest.mark.slow
def test_dvc_plots_pages_open_offline(small):
    before = Path(do(small, "dvc", "plots", "show", "--out", "before").stdout.strip().removeprefix("file://"))
    assert scripts(before.read_text())  # as DVC has it
    do(small, sys.executable, "-m", "pipeline.workflow.offline_plots")
    after = Path(do(small, "dvc", "plots", "show", "--out", "after").stdout.strip().removeprefix("file://")).read_text()
    assert scripts(after) == []
    assert "vegaEmbed('#" in after
    assert "window.vegaEmbed=" in after
