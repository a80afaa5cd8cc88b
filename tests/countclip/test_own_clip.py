"""A CLIP model and captions of one's own: asked as open_clip itself would, counted by hand, mistakes said in a line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from conftest import assert_one_line_error, published_inputs
from PIL import Image

from pipeline.countclip import clip
from pipeline.countclip.captions import WORDS, nine_captions
from pipeline.countclip.countbench import read_rows
from pipeline.countclip.own_captions import Captioned, read_captioned
from pipeline.countclip.own_model import OwnModel, ask_own, load_own, nine_tokens
from pipeline.countclip.score_own import by_number
from pipeline.countclip.tokens import tokenize_nine
from pipeline.predictions import read_predictions
from pipeline.shards import write_shard
from pipeline.stage import UserError
from pipeline.training import save_weights

HEAD = "image,caption,number"
TINY = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def png(number: int, size: tuple[int, int] = (50, 70)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine images, one of each number, and their table."""
    place = tmp_path / "photos"
    (place / "more").mkdir(parents=True)
    lines = [HEAD]
    for number, word in WORDS.items():
        name = f"more/{number}.png" if number > 8 else f"{number}.png"
        (place / name).write_bytes(png(number))
        lines.append(f'{name},"{word.capitalize()} cats, and a dog",{number}')
    (place / "captions.csv").write_text("\n".join(lines))
    return place


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a small model with a text tower of its own, whose tags squash images to 32 x 32."""
    path = tmp_path / "tiny-custom.json"
    path.write_text(json.dumps(TINY))
    known = dict(open_clip.factory._MODEL_CONFIGS)
    open_clip.add_model_config(path)
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"}
    tags = {"first": {"url": "", **half}, "second": {"url": "", **half}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, path.stem, tags)
    yield path.stem
    open_clip.factory._MODEL_CONFIGS.clear()
    open_clip.factory._MODEL_CONFIGS.update(known)


def as_open_clip(model: torch.nn.Module, name: str, rows: list[Captioned], prepare) -> torch.Tensor:
    """Cosine similarities [N, 9], one image at a time, by open_clip alone."""
    tokenizer, answers = open_clip.get_tokenizer(name), []
    with torch.no_grad():
        for row in rows:
            image = model.encode_image(prepare(Image.open(row.content)).unsqueeze(0), normalize=True)
            text = model.encode_text(tokenizer(nine_captions(row.caption)), normalize=True)
            answers.append((image @ text.T)[0])
    return torch.stack(answers)


def test_a_model_is_asked_as_open_clip_would(folder):
    torch.manual_seed(1)
    own, rows = load_own(clip.SMALL, "none"), read_captioned(folder)
    assert [(row.key, row.number) for row in rows][-2:] == [("more/9.png", 9), ("more/10.png", 10)]
    asked = ask_own(own, rows)
    wanted = as_open_clip(own.model, clip.SMALL, rows, open_clip.image_transform(64, is_train=False))
    torch.testing.assert_close(asked.similarity, wanted, atol=1e-5, rtol=1e-4)
    assert (asked.kept, asked.left_out, asked.cut) == (rows, [], 0)


def test_a_text_tower_of_another_kind_and_the_tags_preparation(folder, tiny):
    torch.manual_seed(1)
    own, rows = load_own(tiny, "none"), read_captioned(folder)
    assert (own.context, own.preparation["resize_mode"]) == (24, "squash")

    def squashed(image: Image.Image) -> torch.Tensor:
        small = image.convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.asarray(small) / 127.5 - 1).float().permute(2, 0, 1)

    wanted = as_open_clip(own.model, tiny, rows, squashed)
    torch.testing.assert_close(ask_own(own, rows).similarity, wanted, atol=1e-5, rtol=1e-4)


def test_a_file_gives_back_the_model_that_it_was_saved_of(folder, tmp_path):
    torch.manual_seed(2)
    saved = clip.build(clip.SMALL).eval()
    save_weights(tmp_path / "own.safetensors", saved)
    rows = read_captioned(folder)[:2]
    asked = ask_own(load_own(clip.SMALL, str(tmp_path / "own.safetensors")), rows)
    wanted = as_open_clip(saved, clip.SMALL, rows, open_clip.image_transform(64, is_train=False))
    torch.testing.assert_close(asked.similarity, wanted, atol=1e-5, rtol=1e-4)


def test_recall_and_its_interval_by_hand():
    confusion = np.zeros((9, 9), int)
    confusion[0, :2] = 8, 2  # of ten images of two, eight are right
    confusion[1, 0] = 8
    table = by_number(confusion).set_index("number")
    two = table.loc[2]
    assert (two["images"], two["right"], two["recall"], two["precision"]) == (10, 8, 0.8, 0.5)
    # Wilson's interval of 8 in 10, as Newcombe's and others' tables have it
    assert two[["recall_low", "recall_high"]].tolist() == pytest.approx([0.4902, 0.9433], abs=5e-5)
    assert (table.loc[3, "recall"], table.loc[3, "precision"]) == (0, 0)
    assert table.loc[4, ["recall", "recall_low", "precision"]].isna().all()


def test_from_a_folder_to_scores(folder, tmp_path, run_stage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (folder / "captions.csv").open("a") as table:
        table.write("\n2.png,two dogs,2\nbroken.png,four birds,4\n")
    (folder / "broken.png").write_bytes(png(0)[:90])
    options = ("--model", clip.SMALL, "--weights", "none", "--images", folder, "--out", "out")
    result = run_stage("countclip.score_own", *options)
    assert result.returncode == 0, result.stderr
    scores = json.loads(Path("out/scores.json").read_text())
    confusion, answers = np.array(scores["confusion"]), read_predictions(["out/answers.parquet"])
    assert confusion.sum(axis=1).tolist() == [2, *[1] * 8]  # one image has two captions
    assert scores["images"] == len(answers) == 10
    assert scores["accuracy"] == pytest.approx(np.trace(confusion) / 10) == answers["correct"].mean()
    assert scores["left_out"] == [{"image": "broken.png", "number": 4, "reason": "image cannot be decoded"}]
    assert {"2.png#1", "2.png#10", "3.png"} < set(answers["image"])
    table = pd.read_csv("out/by_number.csv")
    assert table["right"].tolist() == np.diag(confusion).tolist()
    assert Image.open("out/confusion.png").width > 300
    assert f"accuracy {scores['accuracy']:.3f} [" in result.stdout
    assert "1 images left out, first broken.png" in result.stdout


def test_a_shard_is_asked_as_its_folder(folder, tmp_path):
    rows = read_captioned(folder)
    path = tmp_path / "countbench.tar"
    record = [json.dumps({"number": row.number}).encode() for row in rows]
    samples = [
        {"__key__": f"{i:06d}", "png": row.read(), "txt": row.caption.encode(), "json": record[i]}
        for i, row in enumerate(rows)
    ]
    write_shard(path, samples)
    own = load_own(clip.SMALL, "none")
    assert torch.equal(ask_own(own, read_captioned(path)).similarity, ask_own(own, rows).similarity)
    write_shard(path, [{**samples[0], "json": b"{}"}])
    with pytest.raises(UserError, match=r"countbench\.tar, sample 000000: .*number of 2 to 10 .*found .*None"):
        read_captioned(path)


def test_countbenchs_captions_become_the_studys_tokens():
    rows = read_rows(published_inputs() / "countbench" / "CountBench.json")[::5]
    own = OwnModel(torch.nn.Identity(), open_clip.get_tokenizer("ViT-B-32"), 77, {})
    asked = [nine_tokens(own, Captioned("", row["text"], row["number"], b"")) for row in rows]
    study = tokenize_nine([row["text"] for row in rows], [row["number"] for row in rows])
    assert torch.equal(torch.stack([ids for ids, _ in asked]), study.ids)
    assert sum(cut for _, cut in asked) == study.cut


def test_tokens_that_do_not_tell_numbers_apart_are_said():
    own = OwnModel(torch.nn.Identity(), lambda texts: torch.zeros(len(texts), 8, dtype=torch.long), 8, {})
    with pytest.raises(UserError, match="caption 'two cats': the model's tokens are the same"):
        nine_tokens(own, Captioned("", "two cats", 2, b""))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,text,number\n2.png,two cats,2", r"captions\.csv: lacks the column caption; has image, text, number"),
        ("image;caption;number\n2.png;two cats;2", r"lacks the columns image, .*separate them by commas"),
        (f"{HEAD}\n2.png,two cats,2\nnone.png,two cats,2", r"row 2: image 'none\.png' is not there"),
        (f"{HEAD}\n2.png,two cats,11\n2.png,two cats,0", r"row 1: number = '11'; should be 2 to 10 \(1 more rows"),
        (f"{HEAD}\n2.png,two cats,", r"row 1: number = ''; should be 2 to 10"),
        (f"{HEAD}\n2.png,two cats,3", r"row 1: caption 'two cats' does not spell its number; .*'three'"),
        (f"{HEAD}\n2.png,2 cats,2", r"caption '2 cats' does not spell its number"),
        (HEAD, r"captions\.csv: no rows below its header"),
        ("", r"captions\.csv: lacks the columns image, caption, number; has none"),
        (f'{HEAD}\n2.png,"two cats,2', r"captions\.csv: not a CSV table"),
        (f"{HEAD}\n2.png,two cats, sitting,2", r"row 1: has more cells than the header; put .* in quotes"),
        (f"{HEAD}\n2.png,two cats", r"row 1: has fewer cells than the header"),
    ],
)
def test_a_table_that_is_wrong_is_named(folder, content, said):
    (folder / "captions.csv").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_captioned(folder)
    assert "\n" not in str(error.value)


def test_a_table_as_spreadsheets_write_it(folder):
    rows = [HEAD.split(","), ["2.png", "zwei Kätzchen; two cats", " 2"]]
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, lineterminator="\r\n").writerows(rows)
    assert [(row.key, row.number) for row in read_captioned(folder)] == [("2.png", 2)]


def test_a_folder_without_a_table_or_with_two(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: should hold one \.csv table.*found none"):
        read_captioned(tmp_path / "empty")
    (folder / "other.csv").write_text(HEAD)
    with pytest.raises(UserError, match=r"found captions\.csv, other\.csv"):
        read_captioned(folder)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        read_captioned(tmp_path / "nowhere")


def test_only_broken_images_is_an_error(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"none of the 9 images can be used: 2\.png: image cannot be decoded"):
        ask_own(load_own(clip.SMALL, "none"), read_captioned(folder))


def test_weights_that_are_not_this_models_are_said(tmp_path, tiny):
    other = tmp_path / "other.safetensors"
    save_weights(other, clip.build(tiny))
    with pytest.raises(UserError, match=rf"other\.safetensors: weights of another model than {clip.SMALL}: .*missing"):
        load_own(clip.SMALL, str(other))
    for name in ("pickled.pt", "pickled.safetensors"):  # whatever its name says
        torch.save(clip.build(tiny).state_dict(), tmp_path / name)
        with pytest.raises(UserError, match=rf"{name}: a pickle, which can run code: refused; weights should be safe"):
            load_own(clip.SMALL, str(tmp_path / name))
    other.write_bytes(other.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"other\.safetensors: not a whole safetensors file"):
        load_own(clip.SMALL, str(other))
    with pytest.raises(UserError, match=r"'nowhere': no such file, and not one of open_clip's tags .*first, second"):
        load_own(tiny, "nowhere")


def test_a_tag_without_a_network_and_a_package_that_is_not_there(monkeypatch, tiny):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "create_model", no_network)
    with pytest.raises(UserError, match="first: no weights for tiny-custom: no route to host"):
        load_own(tiny, "first")

    def no_package(name):
        raise ModuleNotFoundError("No module named 'transformers'")

    monkeypatch.setattr(open_clip, "get_tokenizer", no_package)
    with pytest.raises(UserError, match="No module named 'transformers'; install that package"):
        load_own(tiny, "none")


def test_mistakes_are_one_line_for_whoever_runs_it(folder, tmp_path, run_stage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--images", folder, "--out", "out")
    result = run_stage("countclip.score_own", "--model", "ViT-B-23", "--weights", "none", *options)
    assert_one_line_error(result, "model = 'ViT-B-23'", "did you mean ViT-B-32")
    (folder / "captions.csv").unlink()
    result = run_stage("countclip.score_own", "--model", clip.SMALL, "--weights", "none", *options)
    assert_one_line_error(result, "photos: should hold one .csv table")
    assert not Path("out").exists()
