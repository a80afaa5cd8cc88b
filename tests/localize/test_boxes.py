"""The document's boxes (x, y, s, r), by hand and against torchvision's anchors."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_convert, box_iou

from pipeline.localize.boxes import AS_PRINTED, from_size_and_ratio, to_size_and_ratio
from pipeline.localize.segmentation import overlap


def random_boxes(n: int, height: int, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    corners = torch.rand(n, 2, 2).sort(dim=1).values * torch.tensor([width, height])
    return corners.flatten(1) + torch.tensor([0.0, 0.0, 1.0, 1.0])


def test_by_hand():
    # half of 80 x 60, four times as wide as high: w = 80 * 0.5 * 2, h = 60 * 0.5 / 2
    box = from_size_and_ratio(torch.tensor([[50.0, 40.0, 0.5, 4.0]]), height=60, width=80)
    assert box.tolist() == [[10.0, 32.5, 90.0, 47.5]]


def test_there_and_back():
    boxes = random_boxes(200, 48, 96)
    back = from_size_and_ratio(to_size_and_ratio(boxes, 48, 96).clamp(max=torch.tensor([1e9, 1e9, 1.0, 1e9])), 48, 96)
    torch.testing.assert_close(back, boxes, rtol=1e-4, atol=1e-3)


def test_the_formula_as_printed_leaves_every_box_with_the_images_shape():
    asked = torch.tensor([[0.0, 0.0, 0.4, ratio] for ratio in (0.25, 1.0, 4.0)])
    printed = box_convert(from_size_and_ratio(asked, 60, 80, exponent=AS_PRINTED), "xyxy", "cxcywh")
    torch.testing.assert_close(printed[:, 2] / printed[:, 3], torch.full((3,), 80 / 60))
    textbook = box_convert(from_size_and_ratio(asked, 64, 64), "xyxy", "cxcywh")
    torch.testing.assert_close(textbook[:, 2] / textbook[:, 3], asked[:, 3])
    torch.testing.assert_close(textbook[:, 2] * textbook[:, 3], torch.full((3,), (0.4 * 64) ** 2))


def test_torchvisions_anchors_are_the_textbooks():
    """SSD's default boxes: size s with ratios 1, 2 and 1/2, on every place of a 4 x 4 map."""
    generator = DefaultBoxGenerator([[2]], scales=[0.2, 0.45])
    images = ImageList(torch.zeros(1, 1, 64, 64), [(64, 64)])
    theirs = generator(images, [torch.zeros(1, 8, 4, 4)])[0].view(16, 4, 4)
    places = torch.tensor([[(i + 0.5) * 16, (j + 0.5) * 16] for j in range(4) for i in range(4)])
    kinds = torch.tensor([[0.2, 1.0], [0.3, 1.0], [0.2, 2.0], [0.2, 0.5]])
    ours = torch.stack(
        [from_size_and_ratio(torch.cat([places[i].expand(4, 2), kinds], dim=1), 64, 64) for i in range(16)]
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_the_jaccard_index_of_masks_is_torchvisions_iou_of_boxes():
    boxes = random_boxes(30, 40, 40).round().long()
    masks = torch.zeros(30, 48, 48, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    theirs = box_iou(boxes.float(), boxes.float())
    for i in range(30):
        for j in range(30):
            both, either = overlap(masks[i].numpy(), masks[j].numpy())
            assert both / either == pytest.approx(theirs[i, j].item(), abs=1e-6)


@pytest.mark.parametrize(("size", "ratio", "message"), [(0.0, 1, "sizes"), (1.2, 1, "sizes"), (0.5, 0, "ratios")])
def test_sizes_and_ratios_out_of_range(size, ratio, message):
    with pytest.raises(ValueError, match=message):
        from_size_and_ratio(torch.tensor([[0.0, 0.0, size, ratio]]), 8, 8)


def test_a_box_without_area_has_no_ratio():
    with pytest.raises(ValueError, match="wider and higher"):
        to_size_and_ratio(torch.tensor([[1.0, 1.0, 1.0, 5.0]]), 8, 8)
