"""The page of a person's sitting: what it holds, where it comes from, and what arguments it refuses."""

from __future__ import annotations

import base64
import json
import re
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from conftest import HANGS, assert_one_line_error, stage_command, stage_environment
from sitting_helpers import draw_sets, library  # noqa: F401 (a fixture)

from pipeline.consistency.sit import Picture, choose, main, parser, pink_noise
from pipeline.consistency.sitting.library import PACKAGES, packages
from pipeline.inputs import download
from pipeline.shards import read_shard
from pipeline.stage import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two margin sets of 12 images."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        draw_sets(folder, density=10, margins=(-4, 4), images=12)
    return folder / "data/shapes/margins"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--image", "0"], ["--image 0", "above 0"]),
        (["--mask", "-5"], ["--mask -5", "above 0"]),
        (["--fixation", "0"], ["--fixation 0"]),
        (["--answer", "-1"], ["--answer -1"]),
        (["--keys", "ff"], ["--keys 'ff'", "two different"]),
        (["--keys", "f"], ["--keys 'f'"]),
        (["--keys", "f "], ["--keys 'f '"]),
        (["--trials", "0"], ["--trials 0", "1 or more"]),
        (["--session", "0"], ["--session 0"]),
        (["--rest", "0"], ["--rest 0"]),
        (["--practice", "-1"], ["--practice -1", "0 or more"]),
        (["--margins", "four"], ["--margins = 'four'", "whole numbers"]),
        (["--margins", "4,4"], ["--margins = '4,4'", "twice"]),
        (["--densities", "30"], ["density-30/margin-8.tar", "margins has density-10;", "dvc repro margin_sets"]),
        (["--margins", "3"], ["margin+3.tar", "density-10 has margin+4, margin-4;"]),
        (["--trials", "20"], ["density-10/margin-4 has 12 images", "24"]),
        (["--margins", "4", "--practice", "9"], ["has 12 images", "13"]),
        (["--library", "nowhere"], ["nowhere/jspsych-8.3.0.tgz", "not there"]),
        (["--library", "changed"], ["changed/jspsych-8.3.0.tgz", "sha256", PACKAGES["jspsych/-/jspsych-8.3.0.tgz"]]),
    ],
)
def test_what_is_wrong_is_named(workspace, drawn, arguments, parts):
    folder = workspace()
    (folder / "changed").mkdir()
    (folder / "changed/jspsych-8.3.0.tgz").write_bytes(b"another")
    defaults = ["--sets", str(drawn), "--densities", "10", "--trials", "4"]
    if "--margins" not in arguments and "30" not in arguments:
        defaults += ["--margins=-4,4"]
    with pytest.raises(UserError) as error:
        main(**vars(parser().parse_args([*defaults, *arguments])))
    for part in parts:
        assert part in str(error.value)
    assert not (folder / "report/sitting.html").exists()


def test_ties_alone_are_nothing_to_practise_with_and_a_mistake_is_a_line(workspace, run_stage):
    draw_sets(workspace(), density=10, margins=(0,), images=4)
    result = run_stage("consistency.sit", "--densities", "10", "--margins", "0", "--trials", "1")
    assert_one_line_error(result, "--margins 0", "--practice 0")


def pictures(condition: str, number: int) -> list[Picture]:
    return [Picture(condition, f"{i:06d}", "circle", b"") for i in range(number)]


def test_sessions_and_practice_share_no_image():
    sets = {(10, margin): pictures(f"margins/density-10/margin{margin:+d}", 10) for margin in (-4, 2, 4)}
    seen: list[tuple[str, str]] = []
    for session in (1, 2, 3):
        tested, practised = choose(sets, trials=3, practice=2, session=session, seed=0)
        assert pd.Series([p.condition for p in tested]).value_counts().to_dict() == {
            "margins/density-10/margin-4": 3,
            "margins/density-10/margin+2": 3,
            "margins/density-10/margin+4": 3,
        }
        assert sorted(p.condition for p in practised) == ["margins/density-10/margin+4", "margins/density-10/margin-4"]
        seen += [(p.condition, p.image) for p in tested]
    seen += [(p.condition, p.image) for p in practised]
    assert len(set(seen)) == len(seen) == 29


def test_the_mask_is_noise_of_1_over_f():
    noise = pink_noise(128, np.random.default_rng(0)).astype(float)
    assert (noise.min(), noise.max()) == (0, 255)
    amplitude = np.abs(np.fft.fft2(noise - noise.mean()))
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128))
    there = (frequency > 0) & (frequency < 0.5)
    slope = np.polyfit(np.log(frequency[there]), np.log(amplitude[there]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


def test_the_page_holds_everything_and_sends_nothing(workspace, run_stage, library):  # noqa: F811
    folder = workspace()
    draw_sets(folder, density=10, margins=(-4, 0, 4), images=8)
    result = run_stage(
        "consistency.sit", "--densities", "10", "--margins=-4,0,4", "--trials", "5", "--practice", "3", "--library",
        library, "--image", "250", "--session", "1", "--keys", "ZM",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "15 trials and 3 to practise" in result.stdout
    page = (folder / "report/sitting.html").read_text()

    assert "This page sends nothing, and stores nothing about you but what you type" in page
    assert "default-src 'none'" in page  # the browser refuses whatever it might send
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']?(https?:)?//", page)
    assert page.count("<script") == page.count("</script>") == 7  # plan, jsPsych and four plugins, timeline
    assert "sourceMappingURL" not in page

    plan = json.loads(re.search(r'<script type="application/json" id="plan">(.*?)</script>', page)[1])
    assert (plan["image"], plan["mask"], plan["keys"], plan["session"], plan["side"]) == (250, 200, "zm", 1, 32)
    assert len({(trial["condition"], trial["image"]) for trial in [*plan["trials"], *plan["practice"]]}) == 18
    right = {f"margins/density-10/margin{m:+d}": "circle" if m > 0 else "square" for m in (-4, 0, 4)}
    for trial in plan["trials"]:
        assert trial["category"] == right[trial["condition"]]
        shard = {s["__key__"]: s["png"] for s in read_shard(f"data/shapes/{trial['condition']}.tar")}
        assert base64.b64decode(trial["png"].partition(",")[2]) == shard[trial["image"]]
    assert {trial["condition"] for trial in plan["practice"]} == right.keys() - {"margins/density-10/margin+0"}


def test_it_is_shown_on_this_machine_until_it_is_interrupted(workspace, library):  # noqa: F811
    folder = workspace()
    draw_sets(folder, density=10, margins=(-4, 4), images=3)
    command = stage_command("consistency.sit", "--densities", 10, "--margins=-4,4", "--trials", 1, "--practice", 2)
    process = subprocess.Popen(
        [*command, "--library", library, "--serve", "0"],
        env=stage_environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(line.split()[0] for line in process.stdout if line.startswith("http://localhost"))
        answer = requests.get(address, timeout=HANGS)
        assert answer.text == (folder / "report/sitting.html").read_text()
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert requests.get(f"{address}/params.yaml", timeout=HANGS).status_code == 404
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS) == 0
    finally:
        process.kill()
        process.stdout.close()


class Another(BaseHTTPRequestHandler):
    """A registry whose packages are not those of the sha256."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"another")

    def log_message(self, *_: object) -> None:
        pass


def test_a_package_that_is_another_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Another) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=r"jspsych-8.3.0.tgz: .*hash"):
            packages(registry=f"http://127.0.0.1:{server.server_port}/")
        server.shutdown()
    assert not list(tmp_path.rglob("*.tgz"))


def test_without_a_network_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDIES_CACHE", str(tmp_path))
    monkeypatch.setattr(download, "WAIT", 0)
    with pytest.raises(UserError, match=r"not to be had.*--library"):
        packages(registry="http://127.0.0.1:9/")
