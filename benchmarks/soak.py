"""Is an interrupted `dvc repro` run again as good as one left alone? Kills at random moments, then every byte.

    python -m benchmarks.soak --kills 30 --seed 0
    python -m benchmarks.soak --kills 30 --seed 1 --reference FOLDER   # a clone in which this has run `dvc repro`
    python -m benchmarks.soak --kills 3 --target evaluate_shapes       # what that stage needs, only
    python -m benchmarks.soak --kills 30 --jobs 2                      # what is killed runs two stages at a time

In one clone `dvc repro` runs undisturbed, at `scale: smoke`. In another it is started again and again, and
DVC, the stage and its workers are killed (SIGKILL) together: the stage is drawn from all, the moment from the
time that the stage and DVC's record of it took undisturbed. With --jobs, pipeline.workflow.reproduce is started in
place of `dvc repro`, and killed with all its stages. At last what was killed runs to its end. Exit status 1 if
dvc.lock, metrics or plots then differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from ruamel.yaml import YAML, YAMLError

SMOKE = {"scale": "smoke", "threads": 1, "densities": [10, 50, 90]}
DURATIONS = Path(".dvc/tmp/durations.json")  # of the undisturbed run's stages, in their order
WHOLE = "dvc.yaml"  # as a target of DVC's: every stage
GUESS = 4.0  # seconds of a stage, where the reference has none
COMPARED = ("dvc.lock", "metrics", "plots")
LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")
# DVC writes both in place, and refuses to start where a kill has cut one off
REFUSALS = {LOCK: ("dvc.lock' validation failed", "unable to read: 'dvc.lock'"), RWLOCK: ("RWLock-file",)}


class Repro:
    """`dvc repro`, or pipeline.workflow.reproduce where there are `jobs`, in a process group of its own.

    Attributes:
        began: when each stage's command started (time.monotonic()), in this order.
        output: all lines.
    """

    def __init__(self, folder: Path, target: str, jobs: int = 1, **environment: str):
        self.folder = folder
        self.began: dict[str, float] = {}
        self.output: list[str] = []
        # DVC orders what a target needs by Python's hashes, in dvc.lock too
        environment |= {} if target == WHOLE else {"PYTHONHASHSEED": "0"}
        environment |= {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": f"{folder}-site-cache"}
        parallel = ["pipeline.workflow.reproduce", "--jobs", str(jobs), "--target", target]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(parallel if jobs > 1 else ["dvc", "repro", target])],
            cwd=folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.match(r"(?:.* \| )?Running stage '(.+)'", line):
                self.began[found[1]] = time.monotonic()

    def wait(self) -> int:
        status = self.process.wait()
        self.reader.join()
        return status

    def kill(self) -> None:
        killed = self._alive()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        deadline = time.monotonic() + 5
        # gone altogether: DVC takes a process that has ended for running until its parent, or init, has seen to it
        while alive := [process for process in {*killed, *self._alive()} if process.is_running()]:
            if time.monotonic() > deadline:
                raise SystemExit(f"error: still there 5 s after the kill: {alive}")
            time.sleep(0.05)

    def _alive(self) -> list[psutil.Process]:
        folder = str(self.folder.resolve())
        return [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == folder]

    def tail(self) -> str:
        return "".join(self.output[-15:])


def copy_state(source: Path, folder: Path) -> Path:
    """A clone with the source's tracked files as they lie there, and nothing run yet."""
    subprocess.run(["git", "clone", "--quiet", str(source), str(folder)], check=True)
    names = subprocess.run(["git", "ls-files", "-z"], cwd=source, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (source / name).is_file():
            shutil.copy2(source / name, folder / name)
    (folder / LOCK).unlink(missing_ok=True)
    return folder


def make_reference(folder: Path, target: str) -> Path:
    """A clone of the current folder at `scale: smoke`, in which all has run, and how long each stage took."""
    copy_state(Path.cwd(), folder)
    yaml = YAML()
    params = yaml.load(folder / "params.yaml")
    params.update(SMOKE)
    yaml.dump(params, folder / "params.yaml")
    repro = Repro(folder, target)
    if repro.wait():
        raise SystemExit(f"error: the undisturbed run failed:\n{repro.tail()}")
    ends = [*repro.began.values(), time.monotonic()][1:]
    durations = {name: end - start for (name, start), end in zip(repro.began.items(), ends, strict=True)}
    (folder / DURATIONS).write_text(json.dumps(durations))
    return folder


def read_durations(reference: Path) -> dict[str, float]:
    if (reference / DURATIONS).exists():
        return json.loads((reference / DURATIONS).read_text())
    return dict.fromkeys(YAML(typ="safe").load(reference / LOCK)["stages"], GUESS)


def plan(durations: dict[str, float], kills: int, moments: random.Random) -> list[tuple[str, float]]:
    """Stages and seconds into them, in the order of the run; no stage twice before each has been drawn once."""
    names = list(durations)
    drawn = names * (kills // len(names)) + moments.sample(names, kills % len(names))
    planned = [(name, moments.uniform(0, durations[name])) for name in drawn]
    return sorted(planned, key=lambda item: (names.index(item[0]), item[1]))


def wait_for_moment(repro: Repro, place: int, seconds: float, order: list[str], done: int | None) -> bool:
    """Wait until that many seconds after the start of the stage at this place, or a later one; False at DVC's end.

    Places are those of `order`; or, where `done` stages were there before, of all stages as they happen to begin.
    """
    while repro.process.poll() is None:
        began = repro.began.copy()
        if done is None:
            seen = [moment for stage, moment in began.items() if order.index(stage) >= place]
        else:
            seen = list(began.values())[max(place - done, 0) :]
        if seen and time.monotonic() >= seen[0] + seconds:
            return True
        time.sleep(0.005)
    repro.wait()
    return False


def count_locked(folder: Path) -> int:
    """How many stages dvc.lock holds whole; -1 if it is cut off within one."""
    try:
        text = (folder / LOCK).read_text()
        stages = len(YAML(typ="safe").load(text)["stages"])
    except FileNotFoundError:
        return 0
    except (YAMLError, TypeError, KeyError):
        return -1
    return stages if text.endswith("\n") else -1


def describe_left(folder: Path, locked_before: int) -> str:
    """What a killed run has left behind: checkpoints, partial files, DVC's files cut off."""
    checkpoints = {path.parent.stem for path in (folder / ".checkpoints").rglob("*.pt")}
    left = [f"checkpoint of {name}" for name in sorted(checkpoints)]
    results = [folder / name for name in ("data", "models", "metrics", "plots")]
    partial = [path.name for result in results for path in result.rglob(".*.partial")]
    left += [f"partial files: {len(partial)}"] * bool(partial)
    left += ["dvc.lock cut off"] * (count_locked(folder) < locked_before)
    try:
        json.loads((folder / RWLOCK).read_text())
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:
        left.append("rwlock cut off")
    return ", ".join(left) or "-"


def mend(folder: Path, output: str) -> str:
    """Do what docs say (how-to/after-an-interruption.md); returns that in words, or raises SystemExit."""
    for path, complaints in REFUSALS.items():
        if any(complaint in output for complaint in complaints):
            (folder / path).unlink()
            return f"deleted {path}"
    raise SystemExit(f"error: dvc repro failed, and not for what a kill leaves in DVC's files:\n{output}")


def start(folder: Path, target: str, jobs: int) -> Repro:
    """`dvc repro` that has got as far as a stage, or to its end; what a kill left in DVC's way is mended."""
    for _ in range(3):
        repro = Repro(folder, target, jobs, CHECKPOINT_SECONDS="0")  # after each step: these stages take seconds
        while not repro.began and repro.process.poll() is None:
            time.sleep(0.01)
        if repro.began or repro.wait() == 0:
            return repro
        print(f"      DVC refused to start: {mend(folder, repro.tail())}", flush=True)
    raise SystemExit(f"error: dvc repro does not start:\n{repro.tail()}")


def disturb(folder: Path, target: str, jobs: int, durations: dict[str, float], kills: list[tuple[str, float]]) -> int:
    """Start `dvc repro` and kill it, for each of the planned kills; returns how many there were."""
    order, done = list(durations), 0
    print(f"{'kill':>4}  {'stage hit':<36}{'seconds into it':>16}  left behind")
    for name, seconds in kills:
        locked = max(count_locked(folder), 0)
        repro = start(folder, target, jobs)
        if wait_for_moment(repro, order.index(name), seconds, order, done=locked if jobs > 1 else None):
            hit, began = list(repro.began.items())[-1]
            into = time.monotonic() - began
            repro.kill()
            done += 1
            print(f"{done:>4}  {hit:<36}{into:>16.1f}  {describe_left(folder, locked)}", flush=True)
        elif repro.process.returncode:
            raise SystemExit(f"error: dvc repro failed:\n{repro.tail()}")
        else:
            print(f"   -  {name:<36}{'':>16}  had run to its end before", flush=True)
    return done


def finish(folder: Path, target: str, jobs: int) -> None:
    """Run `dvc repro`, or what was killed, to its end."""
    repro = start(folder, target, jobs)
    if repro.wait():
        raise SystemExit(f"error: dvc repro failed:\n{repro.tail()}")


def read_results(folder: Path) -> dict[str, bytes]:
    paths = [path for name in COMPARED for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def soak(folder: Path, kills: int, seed: int, reference: Path | None, target: str, jobs: int) -> bool:
    """True if the killed run's results are the undisturbed one's."""
    began = time.monotonic()
    reference = reference or make_reference(folder / "undisturbed", target)
    durations = read_durations(reference)
    print(f"undisturbed: {len(durations)} stages, {sum(durations.values()):.0f} s", flush=True)
    killed = copy_state(reference, folder / "killed")
    done = disturb(killed, target, jobs, durations, plan(durations, kills, random.Random(seed)))
    finish(killed, target, jobs)
    expected, found = read_results(reference), read_results(killed)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    took = f"{(time.monotonic() - began) / 60:.1f} min"
    if different:
        print(f"{done} kills: {len(different)} of {len(expected)} files differ: {', '.join(different)}; {took}")
    else:
        print(f"{done} kills: dvc.lock and all files of metrics/ and plots/, {len(expected)}, are the same; {took}")
    return not different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", default=WHOLE, help="a stage, in place of all")
    parser.add_argument("--jobs", type=int, default=1, help="stages at a time in what is killed")
    parser.add_argument("--reference", type=Path, help="a clone in which `dvc repro` has run, from no dvc.lock on")
    parser.add_argument("--folder", type=Path, help="where the clones go, and stay")
    options = parser.parse_args()
    reference = options.reference.resolve() if options.reference else None
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    same = soak(folder.resolve(), options.kills, options.seed, reference, options.target, options.jobs)
    if same and not options.folder:
        shutil.rmtree(folder)
    elif not same:
        print(f"both clones stay in {folder}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
