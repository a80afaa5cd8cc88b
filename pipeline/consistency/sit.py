"""A page with which a person takes the networks' test: more circles or more squares?

    python -m pipeline.consistency.sit                   # writes report/sitting.html, one file that works offline
    python -m pipeline.consistency.sit --serve 8000      # and shows it at http://localhost:8000 until Ctrl-C

The times are those of the published experiments with people: fixation 300 ms, image 200 ms, 1/f noise 200 ms, then
1,500 ms to answer (Geirhos et al., 2018, 'Generalisation in humans and deep neural networks', NeurIPS; they stand in
lab-experiment/experimental-code/params_object_recognition_noise_experiment.yaml of
github.com/rgeirhos/generalisation-humans-DNNs). Images are those of the margin sets, which the networks answer to
(`dvc repro margin_sets`). The page is made with jsPsych (sitting/library.py), sends nothing, and hands the trials over
as CSV. person.py reads them.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path

import cv2
import jinja2
import numpy as np

from pipeline.consistency.sitting import ANSWERS, COLUMNS, MARGINS, NO_ANSWER, TIE, answer, condition_name
from pipeline.consistency.sitting.library import inlined, packages
from pipeline.params import load_params
from pipeline.shards import item_rng, read_shard
from pipeline.stage import UserError, write_bytes

SETS, PAGE = Path("data/shapes/margins"), Path("report/sitting.html")
MASKS = 12  # images of noise, of which each trial has one


@dataclass(frozen=True)
class Picture:
    """One image of a margin set. category: what most of its shapes are; of a tie, what the networks' tables have."""

    condition: str
    image: str
    category: str
    png: bytes

    def record(self) -> dict[str, str]:
        """As the page has it."""
        return {"condition": self.condition, "image": self.image, "category": self.category, "png": uri(self.png)}


def uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def read_set(folder: Path, condition: str, tie: str) -> list[Picture]:
    """The images of a margin set. Raises UserError where it is not there, or holds what is no such image."""
    path = folder / f"{condition.removeprefix(MARGINS)}.tar"
    if not path.is_file():
        near = path.parent if path.parent.is_dir() else folder
        have = sorted(file.name.removesuffix(".tar") for file in near.glob("[dm]*"))
        raise UserError(
            f"{path}: this margin set is not there; {near} has {', '.join(have) or 'none'}; "
            f"'dvc repro margin_sets' draws those of shapes.margin_densities and shapes.margins in params.yaml"
        )
    pictures = []
    for sample in read_shard(path):
        if not {"png", "json"} <= sample.keys():
            raise UserError(f"{path}: {sample['__key__']} lacks a .png or a .json; delete it and run 'dvc repro'")
        record = json.loads(sample["json"])
        margin = record["circles"] - record["squares"]
        category = tie if margin == 0 else ANSWERS[margin < 0]
        pictures.append(Picture(condition, sample["__key__"], category, sample["png"]))
    return pictures


def choose(
    sets: dict[tuple[int, int], list[Picture]], trials: int, practice: int, session: int, seed: int
) -> tuple[list[Picture], list[Picture]]:
    """Images to test and to practise with, by (density, margin) so many of each set; other ones in each session.

    Those to practise with are of the largest margins, from the other end of the sets' random order, so that no session
    tests with them. Raises UserError where the sets have too few images.
    """
    largest = max(abs(margin) for _, margin in sets)
    if practice and not largest:
        raise UserError("--margins 0: a tie has no right answer to practise with; add others, or give --practice 0")
    easy = [key for key in sets if abs(key[1]) == largest]
    shares = {key: practice // len(easy) + (i < practice % len(easy)) for i, key in enumerate(easy)}
    tested, practised = [], []
    for key, pictures in sets.items():
        share = shares.get(key, 0)
        if (needed := trials * session + share) > len(pictures):
            raise UserError(
                f"{condition_name(*key)} has {len(pictures)} images, but session {session} of {trials} trials, with "
                f"{share} to practise, needs {needed}; give fewer --trials, or a larger scale in params.yaml"
            )
        order = item_rng(seed, f"sitting/{condition_name(*key)}").permutation(len(pictures))
        tested += [pictures[i] for i in order[trials * (session - 1) : trials * session]]
        practised += [pictures[i] for i in order[len(order) - share :]]
    return tested, practised


def pink_noise(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitudes fall with frequency as 1/f, as natural images' do: uint8 [side, side], 0..255."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    frequency[0, 0] = np.inf  # the mean
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) / frequency).real
    return np.rint(255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)


def side_of(pictures: Sequence[Picture]) -> int:
    """Pixels of a side. Raises UserError where the images are not square, or of several sizes."""
    shapes = set()
    for picture in pictures:
        image = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None:
            raise UserError(f"{picture.condition}: {picture.image} is no readable PNG; delete the set, 'dvc repro'")
        shapes.add(image.shape)
    if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
        raise UserError(f"images should be square and of one size; found {sorted(shapes)}; run 'dvc repro margin_sets'")
    return next(iter(shapes))[0]


def page(
    tested: Sequence[Picture], practised: Sequence[Picture], settings: dict, library: Path | None, seed: int
) -> str:
    """The whole page. settings: keys, session, rest, and the times in ms: fixation, image, mask, answer."""
    side = side_of([*tested, *practised])
    rng = item_rng(seed, "sitting/masks")
    masks = [cv2.imencode(".png", pink_noise(side, rng))[1].tobytes() for _ in range(MASKS)]
    plan = settings | {
        "side": side,
        "columns": COLUMNS,
        "answers": ANSWERS,
        "no_answer": NO_ANSWER,
        "trials": [picture.record() for picture in tested],
        "practice": [picture.record() for picture in practised],
        "masks": [uri(mask) for mask in masks],
    }
    scripts, style = inlined(packages(library))
    folder = files("pipeline.consistency") / "sitting"
    template = jinja2.Environment(trim_blocks=True).from_string((folder / "page.html").read_text())
    return template.render(
        scripts=scripts,
        style=style,
        timeline=(folder / "timeline.js").read_text(),
        plan=json.dumps(plan).replace("<", "\\u003c"),
    )


def serve(content: str, port: int) -> None:
    """Show the page on this machine only, until Ctrl-C. Raises UserError where the port is not to be had."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/"
            body = content.encode() if there else b""
            self.send_response(200 if there else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep no account of who asked."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except (OSError, OverflowError) as error:
        raise UserError(f"--serve {port}: {error}; name a free port, 1024 to 65535") from None
    with server:
        print(f"http://localhost:{server.server_port}  (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def numbers(text: str, option: str) -> list[int]:
    """'-8,0,8' as a list. Raises UserError where it is none, or has a number twice."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(
            f"{option} = '{text}': should be whole numbers with commas between, as in {option}=-8,0,8"
        ) from None
    if len(set(found)) < len(found):
        raise UserError(f"{option} = '{text}': has a number twice")
    return found


def checked(settings: dict, counts: dict[str, int]) -> None:
    """Raises UserError for a time or a number that is not positive, and keys that are not two."""
    for name in ("fixation", "image", "mask", "answer"):
        if settings[name] <= 0:
            raise UserError(f"--{name} {settings[name]}: a time should be above 0 milliseconds")
    for name, least in {"trials": 1, "session": 1, "rest": 1, "practice": 0}.items():
        if counts[name] < least:
            raise UserError(f"--{name} {counts[name]}: should be {least} or more")
    keys = settings["keys"]
    if len(keys) != 2 or len(set(keys.lower())) != 2 or not (keys.isascii() and keys.isalnum()):
        raise UserError(f"--keys {keys!r}: should be two different letters or digits, for circles and for squares: fj")


def main(
    sets: Path,
    densities: str,
    margins: str | None,
    trials: int,
    practice: int,
    session: int,
    rest: int,
    fixation: int,
    image: int,
    mask: int,
    answer: int,
    keys: str,
    library: Path | None,
    out: Path,
    serve_at: int | None,
) -> str:
    settings = {"fixation": fixation, "image": image, "mask": mask, "answer": answer, "keys": keys.lower()}
    settings |= {"session": session, "rest": rest}
    checked(settings, {"trials": trials, "session": session, "rest": rest, "practice": practice})
    params = load_params()
    study = params.shapes
    tie = ANSWERS[1] if study.target == "hard" else TIE
    wanted = [
        (density, margin)
        for density in numbers(densities, "--densities")
        for margin in (study.margins if margins is None else numbers(margins, "--margins"))
    ]
    read = {key: read_set(sets, condition_name(*key), tie) for key in wanted}
    tested, practised = choose(read, trials, practice, session, params.seed)
    content = page(tested, practised, settings, library, params.seed)
    write_bytes(out, content.encode())
    made = f"{out}: {len(tested)} trials and {len(practised)} to practise, {len(content) / 2**20:.1f} MiB"
    if serve_at is not None:
        print(made)
        serve(content, serve_at)
        return "ended"
    return made


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m pipeline.consistency.sit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--sets", type=Path, default=SETS, help=f"folder of the margin sets ({SETS})")
    add("--densities", default="50", help="shapes in an image, with commas between (50)")
    add("--margins", help="circles - squares, with commas between: --margins=-4,0,4 (shapes.margins of params.yaml)")
    add("--trials", type=int, default=20, help="images of each margin set (20)")
    add("--practice", type=int, default=8, help="trials before, with feedback, which are not kept (8)")
    add("--session", type=int, default=1, help="which session of a person: each has other images (1)")
    add("--rest", type=int, default=45, help="trials between breaks (45)")
    add("--fixation", type=int, default=300, help="ms of the cross (300)")
    add("--image", type=int, default=200, help="ms of the image (200)")
    add("--mask", type=int, default=200, help="ms of the noise after it (200)")
    add("--answer", type=int, default=1500, help="ms to answer after the noise (1500); answers during it count too")
    add("--keys", default="fj", help="the key for circles and the key for squares (fj)")
    add("--library", type=Path, help="folder with jsPsych's packages (.tgz), for a machine without a network")
    add("--out", type=Path, default=PAGE, help=f"the page ({PAGE})")
    add("--serve", type=int, dest="serve_at", metavar="PORT", help="show it on this machine; 0: any free port")
    return found


if __name__ == "__main__":
    answer(main, parser())
