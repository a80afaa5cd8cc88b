"""Detectors, segmenter and regressor: what they are made of, what they learn from, what they make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, huber_loss
from torchvision.ops import box_iou

from pipeline.localize.counters import build, choose_threshold, count, find
from pipeline.localize.detection import NMS_IOU, Detector, faster_rcnn, ssd
from pipeline.localize.network import Pyramid, as_input, resnet18
from pipeline.localize.regression import Regressor
from pipeline.localize.scenes import CIRCLE, SQUARE, Scenes, Shapes
from pipeline.localize.segmentation import Segmenter, components
from pipeline.params import load_params
from pipeline.shapes.network import build_network

SIZE = 32
ANCHORS = [0.1, 0.2, 0.4]


def drawn(*rows: tuple[int, float, float, float]) -> tuple[np.ndarray, Shapes]:
    """An image of these shapes (label, x, y, half, in 0..1), and them."""
    label, x, y, half = np.array(rows, dtype=float).reshape(-1, 4).T
    shapes = Shapes(label.astype(np.int64), x, y, half)
    return (255 * (shapes.mask(SIZE) > 0)).astype(np.uint8), shapes


def some(n: int, seed: int = 0, shapes: int = 3) -> Scenes:
    rng = np.random.default_rng(seed)
    scenes = [
        drawn(*((rng.integers(1, 3), *rng.uniform(0.2, 0.8, 2), rng.uniform(0.08, 0.15)) for _ in range(shapes)))
        for _ in range(n)
    ]
    return Scenes([f"{i}" for i in range(n)], np.stack([image for image, _ in scenes]), [s for _, s in scenes])


@pytest.fixture(params=["regress", "ssd", "faster_rcnn", "segment"])
def counter(request):
    torch.manual_seed(0)
    return {
        "regress": Regressor,
        "ssd": lambda: ssd(SIZE, 2, 16, ANCHORS, [2.0]),
        "faster_rcnn": lambda: faster_rcnn(SIZE, 2, 16, ANCHORS, [2.0]),
        "segment": lambda: Segmenter(SIZE, 2, 16, 2 * SIZE),
    }[request.param]()


ODD = {
    "no shapes": [],
    "300 shapes": [(1 + i % 2, (i % 20) / 20 + 0.02, (i // 20) / 15 + 0.03, 0.02) for i in range(300)],
    "cut by the border": [(CIRCLE, 0.0, 0.5, 0.1), (SQUARE, 1.0, 1.0, 0.05), (CIRCLE, 0.5, 0.999, 0.04)],
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_images_can_be_learned_from_and_looked_at(counter, odd):
    image, shapes = drawn(*ODD[odd])
    usual = some(1)
    pixels = torch.from_numpy(np.stack([image, usual.pixels[0]]))
    counter.prepare(np.stack([shapes.counts, usual.counts[0]]))
    losses = counter.train().loss(pixels, [shapes, usual.shapes[0]])
    losses["loss"].backward()
    assert all(torch.isfinite(value).all() for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in counter.parameters() if p.grad is not None)
    found = find(counter, Scenes(["0"], image[None], [shapes]), torch.device("cpu"))
    counted = count(counter, found, counter.thresholds[0])
    assert counted.shape == (1, 2)
    assert np.isfinite(counted).all()
    assert counter.training  # its mode is left as found


def test_training_teaches(counter):
    scenes = some(16)
    counter.prepare(scenes.counts)
    optimizer = torch.optim.AdamW(counter.parameters(), 3e-3)
    counter.train()
    losses = []
    for i in range(60):
        these = np.random.default_rng(i).permutation(16)[:8]
        loss = counter.loss(torch.from_numpy(scenes.pixels[these]), [scenes.shapes[k] for k in these])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_heads_have_k_plus_1_and_4_channels_an_anchor():
    head = ssd(SIZE, 2, 16, ANCHORS, [2.0]).network.head
    for conv in head.classification_head.module_list:
        assert conv.out_channels == 4 * (2 + 1)  # N = 4: two sizes of ratio 1, one of 2, one of 1/2
    for conv in head.regression_head.module_list:
        assert conv.out_channels == 4 * 4


def test_the_detectors_loss_is_cross_entropy_and_hubers():
    """One shape, one anchor that matches, all others background: both parts by the formula."""
    torch.manual_seed(0)
    network = ssd(SIZE, 2, 16, ANCHORS, []).train().network
    image, shapes = drawn((CIRCLE, 0.53125, 0.53125, 0.05))
    seen = {}
    network.head.register_forward_hook(lambda _, __, out: seen.update(out))
    losses = network(list(as_input(torch.from_numpy(image[None]))), [
        {"boxes": torch.from_numpy(shapes.boxes) * SIZE, "labels": torch.tensor([CIRCLE])}
    ])  # fmt: skip
    with torch.no_grad():
        maps = list(network.backbone(as_input(torch.from_numpy(image[None]))).values())
    from torchvision.models.detection.image_list import ImageList

    anchors = network.anchor_generator(ImageList(torch.zeros(1, 1, SIZE, SIZE), [(SIZE, SIZE)]), maps)[0]
    iou = box_iou(torch.from_numpy(shapes.boxes) * SIZE, anchors)[0]
    matched = iou >= 0.5
    matched[iou.argmax()] = True
    wanted = network.box_coder.encode_single(
        (torch.from_numpy(shapes.boxes) * SIZE).expand(int(matched.sum()), 4), anchors[matched]
    )
    offsets = huber_loss(seen["bbox_regression"][0][matched], wanted, reduction="sum") / matched.sum()
    torch.testing.assert_close(losses["bbox_regression"], offsets)
    logits = seen["cls_logits"][0]
    labels = torch.where(matched, CIRCLE, 0)
    each = cross_entropy(logits, labels, reduction="none")
    hardest = each[~matched].sort(descending=True).values[: 3 * int(matched.sum())]  # three negatives a positive
    torch.testing.assert_close(losses["classification"], (each[matched].sum() + hardest.sum()) / matched.sum())


def test_of_boxes_of_one_kind_that_overlap_the_best_is_left():
    torch.manual_seed(0)
    network = ssd(SIZE, 2, 16, ANCHORS, []).eval()
    with torch.no_grad():
        for found in network.find(torch.from_numpy(some(4).pixels)):
            assert len(found["boxes"]) > 10
            assert ((found["boxes"] >= 0) & (found["boxes"] <= 1)).all()
            for label in (SQUARE, CIRCLE):
                boxes = found["boxes"][found["labels"] == label]
                overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
                assert overlaps.numel() == 0 or overlaps.max() <= NMS_IOU + 1e-5


def test_boxes_are_tallied_from_the_threshold_on():
    found = {
        "boxes": torch.rand(4, 4),
        "labels": torch.tensor([CIRCLE, SQUARE, CIRCLE, CIRCLE]),
        "scores": torch.tensor([0.9, 0.5, 0.5, 0.1]),
    }
    detector = Detector(torch.nn.Identity())
    assert detector.tally(found, 0.5).tolist() == [1, 2]
    assert detector.tally(found, 0.95).tolist() == [0, 0]
    best, error = choose_threshold(detector, [found], np.array([[1, 3]]))
    assert (best, error) == (0.1, 0.0)


def test_components_by_hand():
    mask = np.array(
        [
            [1, 1, 0, 2, 0],
            [0, 0, 0, 0, 2],  # diagonal neighbours are not connected
            [1, 0, 2, 2, 2],
            [0, 0, 2, 0, 0],
        ]
    )
    assert components(mask).tolist() == [2, 2]
    assert components(np.array([[1, 1, 0, 2], [0, 0, 0, 2], [1, 0, 0, 0]]), least=2).tolist() == [1, 1]
    assert components(np.zeros((3, 3), int)).tolist() == [0, 0]


def test_components_of_shapes_that_touch_are_too_few():
    _, apart = drawn((CIRCLE, 0.2, 0.2, 0.1), (CIRCLE, 0.7, 0.7, 0.1))
    _, touching = drawn((CIRCLE, 0.4, 0.4, 0.1), (CIRCLE, 0.5, 0.4, 0.1))
    assert components(apart.mask(64)).tolist() == [0, 2]
    assert components(touching.mask(64)).tolist() == [0, 1]


def test_masks_may_be_finer_than_images():
    segmenter = Segmenter(SIZE, 2, 16, 4 * SIZE).eval()
    with torch.no_grad():
        logits = segmenter(torch.zeros(2, SIZE, SIZE, dtype=torch.uint8))
    assert logits.shape == (2, 3, 4 * SIZE, 4 * SIZE)


def test_the_regressor_answers_in_shapes():
    regressor = Regressor().eval()
    counts = np.array([[10, 20], [30, 40]])
    regressor.prepare(counts)
    torch.nn.init.zeros_(regressor.network.fc.weight)
    regressor.network.fc.bias.data = torch.tensor([0.0, 1.0])
    with torch.no_grad():
        found = regressor.find(torch.zeros(1, SIZE, SIZE, dtype=torch.uint8))
    np.testing.assert_allclose(found[0], [20, 30 + 10])  # the mean, and one standard deviation above it
    losses = regressor.loss(torch.zeros(2, SIZE, SIZE, dtype=torch.uint8), [some(1).shapes[0]] * 2)
    squares, circles = some(1).counts[0]
    off = np.array([0 - (squares - 20) / 10, 1 - (circles - 30) / 10])
    huber = np.where(np.abs(off) < 1, off**2 / 2, np.abs(off) - 0.5).mean()
    assert losses["loss"].item() == pytest.approx(huber, rel=1e-5)


@pytest.mark.parametrize(("stride", "finest"), [(2, 16), (4, 8)])
def test_the_pyramids_maps(stride, finest):
    maps = Pyramid(stride, 24)(torch.zeros(1, 1, SIZE, SIZE))
    assert [tuple(m.shape) for m in maps.values()] == [(1, 24, finest, finest), (1, 24, finest // 2, finest // 2)]


def test_the_network_is_the_shapes_studys():
    theirs, ours = build_network().eval(), resnet18().eval()
    ours.load_state_dict(theirs.state_dict())
    images = as_input(torch.from_numpy(some(3).pixels))
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["regress", "ssd", "faster_rcnn", "segment"])
def test_params_build_every_counter(name):
    assert sum(p.numel() for p in build(name, load_params()).parameters()) > 1e5


@pytest.mark.parametrize("detector", [ssd, faster_rcnn])
def test_boxes_are_not_rounded_where_arithmetic_is(detector):
    """In bf16 there are 256 numbers between 16 and 32: boxes there would lie on eighths of a pixel."""
    torch.manual_seed(0)
    network = detector(SIZE, 2, 16, ANCHORS, []).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        boxes = network.find(torch.from_numpy(some(1).pixels))[0]["boxes"] * SIZE
    places = boxes[(boxes > 16) & (boxes < SIZE)] * 8
    assert len(places) > 10
    assert ((places - places.round()).abs() > 1e-3).float().mean() > 0.5
