"""Are the document's definitions right? Each put to a test that it could fail (convnets-in-vision).

    python -m pipeline.localize.definitions

The numbers are exact: no sampling of images or networks stands behind them, only random boxes and a small network
with random weights, and floating-point error.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, huber_loss, relu
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from pipeline import training
from pipeline.localize.boxes import AS_PRINTED, TEXTBOOK, from_size_and_ratio
from pipeline.localize.counters import build
from pipeline.localize.heat import grad_cam
from pipeline.localize.paths import METRICS
from pipeline.params import Params, load_params
from pipeline.stage import run, write_json

BOXES, SIDE = 500, 48  # random boxes, and pixels of the image that they lie in
MATCHED, SHAPES = 40, 50  # images whose boxes are matched to anchors, and boxes in each


def random_boxes(number: int, side: int) -> Tensor:
    """(x0, y0, x1, y1) at whole pixels, int64 [N, 4], of at least one pixel."""
    corners = torch.randint(0, side + 1, (number, 2, 2)).sort(dim=1).values
    corners[:, 1] = torch.maximum(corners[:, 1], corners[:, 0] + 1)
    return corners.flatten(1)


def jaccard_of_sets(first: Tensor, second: Tensor, side: int) -> Tensor:
    """|A and B| / |A or B| of two boxes' sets of pixels, counted one by one: float64 [N]."""
    y, x = torch.meshgrid(torch.arange(side + 1), torch.arange(side + 1), indexing="ij")

    def pixels(boxes: Tensor) -> Tensor:
        x0, y0, x1, y1 = (column[:, None, None] for column in boxes.unbind(1))
        return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)

    a, b = pixels(first), pixels(second)
    return (a & b).sum((1, 2)).double() / (a | b).sum((1, 2)).double()


def jaccard() -> dict[str, float]:
    """Of random pairs of boxes: how far torchvision's IoU is from the sets', its range, and its gradient."""
    first, second = random_boxes(BOXES, SIDE), random_boxes(BOXES, SIDE)
    by_sets = jaccard_of_sets(first, second, SIDE)
    moving = first.double().requires_grad_()
    overlap = box_iou(moving, second.double()).diagonal()
    (slope,) = torch.autograd.grad(overlap.sum(), moving)
    has_slope, meet = slope.abs().sum(1) > 0, by_sets > 0
    return {
        "apart_from_torchvision": (overlap.detach() - by_sets).abs().max().item(),
        "least": by_sets.min().item(),
        "most": by_sets.max().item(),
        "gradient_where_boxes_meet": has_slope[meet].double().mean().item(),
        "gradient_where_they_do_not": has_slope[~meet].double().mean().item(),
    }


def box_formula() -> dict[str, float]:
    """Width over height of boxes (x, y, s, r) in a square image, less r: the worst, as printed and in the textbook."""
    ratios = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.double)
    boxes = torch.stack([torch.full_like(ratios, v) for v in (24.0, 24.0, 0.5)] + [ratios], dim=1)
    found = {}
    for name, exponent in (("as_printed", AS_PRINTED), ("textbook", TEXTBOOK)):
        x0, y0, x1, y1 = from_size_and_ratio(boxes, SIDE, SIDE, exponent).unbind(1)
        found[name] = ((x1 - x0) / (y1 - y0) - ratios).abs().max().item()
    return found


def grad_cam_by_hand(network: nn.Module, layer: nn.Module, inputs: Tensor, target: Tensor) -> Tensor:
    """The document's alpha and L, written out: maps A kept, dy/dA by autograd, mean over places, ReLU of the sum."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, maps: kept.append(maps))
    scores = network(inputs)
    handle.remove()
    chosen = scores.gather(1, target[:, None]).sum()
    (slopes,) = torch.autograd.grad(chosen, kept[0])
    alpha = slopes.mean(dim=(2, 3), keepdim=True)
    return relu((alpha * kept[0]).sum(1)).detach()


def heat_maps() -> dict[str, float]:
    """How far captum's Grad-CAM is from the document's formula, on a small network; and the least of its values."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    ).double()
    inputs, target = torch.rand(16, 1, 15, 15, dtype=torch.double), torch.randint(0, 3, (16,))
    network(inputs)  # gives the last layer its size
    apart, least = 0.0, 0.0
    for layer in (network[1], network[3]):
        theirs = grad_cam(network, layer, inputs, target)
        apart = max(apart, (theirs - grad_cam_by_hand(network, layer, inputs, target)).abs().max().item())
        least = min(least, theirs.min().item())
    return {"apart_from_formula": apart, "least": least}


def heads(params: Params) -> dict[str, int]:
    """Channels of the detectors' heads beside the document's N (k + 1) and 4 N, k = 2 kinds."""
    network = build("ssd", params).network
    per_place = network.anchor_generator.num_anchors_per_location()
    category, offsets = (head.module_list for head in (network.head.classification_head, network.head.regression_head))
    proposals = build("faster_rcnn", params).network.rpn
    anchors = proposals.anchor_generator.num_anchors_per_location()[0]
    return {
        "ssd_category_beyond": sum(conv.out_channels - 3 * n for conv, n in zip(category, per_place, strict=True)),
        "ssd_offsets_beyond": sum(conv.out_channels - 4 * n for conv, n in zip(offsets, per_place, strict=True)),
        "proposals_category_beyond": proposals.head.cls_logits.out_channels - 3 * anchors,
        "proposals_offsets_beyond": proposals.head.bbox_pred.out_channels - 4 * anchors,
    }


def huber() -> dict[str, float]:
    """Largest distance of Huber's loss (delta 1) from e^2 / 2 within 1, and of its slope from +-1 beyond."""
    error = torch.linspace(-4, 4, 801, dtype=torch.double, requires_grad=True)
    loss = huber_loss(error, torch.zeros_like(error), reduction="none")
    (slope,) = torch.autograd.grad(loss.sum(), error)
    near = error.detach().abs() <= 1
    return {
        "apart_from_l2_near_0": (loss - error**2 / 2)[near].abs().max().item(),
        "slope_apart_from_l1_beyond": (slope - error.sign())[~near].abs().max().item(),
    }


def candidates(params: Params, anchors: Tensor) -> dict[str, int]:
    """How many boxes an image has, corners at whole pixels: the document's exercise; and the detector's anchors.

    A side of S pixels has S (S + 1) / 2 spans; a box is one of either side. 'apart_from_formula': boxes counted one by
    one in an image of SIDE pixels, minus the formula.
    """
    edges = torch.arange(SIDE + 1)
    spans = (edges[:, None] < edges).flatten()  # of all pairs of a first and a last edge
    size = params.at_scale.shapes.resolution
    return {
        "boxes": (size * (size + 1) // 2) ** 2,
        "apart_from_formula": int((spans[:, None] & spans).sum()) - (SIDE * (SIDE + 1) // 2) ** 2,
        "anchors": len(anchors),
    }


def anchors_of(network: nn.Module, size: int) -> Tensor:
    """Every anchor of a single-shot detector in an image of size x size pixels: x0, y0, x1, y1 [anchors, 4]."""
    images = ImageList(torch.zeros(1, 1, size, size), [(size, size)])
    with torch.no_grad():
        maps = list(network.eval().backbone(images.tensors).values())
    return network.anchor_generator(images, maps)[0]


def greedy(overlaps: Tensor, least: float) -> Tensor:
    """The true box that each anchor is given, -1 for none: int64 [anchors], of IoU [boxes, anchors].

    The textbook's procedure (Zhang et al., 'Anchor Boxes'), written out: the largest IoU of all is taken, its box and
    anchor are struck off, and so on until each box has an anchor; an anchor that is left is given the box with which
    its IoU is largest, where that is at least `least`.
    """
    most, given = overlaps.max(dim=0)
    given[most < least] = -1
    left = overlaps.clone()
    for _ in range(min(left.shape)):
        box, anchor = divmod(int(left.argmax()), left.shape[1])
        given[anchor] = box
        left[box], left[:, anchor] = -1, -1
    return given


def matching(network: nn.Module, anchors: Tensor, params: Params) -> dict[str, float]:
    """How a detector's own matcher assigns the boxes of random shapes, as wide as its anchors may be, to its anchors.

    'otherwise': share of boxes whose anchors are others than by `greedy`; 'without_anchor': that have none;
    'below_least': share of the matched anchors whose IoU with their box is below the least that is asked.
    """
    size, (smallest, *_, largest) = params.at_scale.shapes.resolution, params.localize.anchors
    least = network.proposal_matcher.high_threshold
    otherwise, without, below = [], [], []
    for _ in range(MATCHED):
        half = (smallest + (largest - smallest) * torch.rand(SHAPES, 1)) * size / 2
        centres = half + torch.rand(SHAPES, 2) * (size - 2 * half)
        overlaps = box_iou(torch.cat([centres - half, centres + half], dim=1), anchors)
        given, by_hand = network.proposal_matcher(overlaps), greedy(overlaps, least)
        boxes = torch.arange(SHAPES)[:, None]
        mine, theirs = given == boxes, by_hand == boxes  # [boxes, anchors]
        otherwise.append((mine != theirs).any(dim=1).double())
        without.append((~mine.any(dim=1)).double())
        below.append((overlaps[mine] < least).double())
    names = ("otherwise", "without_anchor", "below_least")
    return {k: torch.cat(v).mean().item() for k, v in zip(names, (otherwise, without, below), strict=True)}


def twice(images: Tensor) -> Tensor:
    """Images [N, C, H, W] at twice their size, each pixel a square of four."""
    return images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def conv_layer(conv: nn.Conv2d) -> dict[str, float]:
    """What a 3 x 3 conv layer of one channel, float64, makes of an image that is shifted, turned, or of twice the size.

    'apart_when_shifted', of an image moved by 3 pixels, from its maps moved so; 'apart_when_scaled', from its maps at
    twice the size, as a share of their spread (0: scale equivariant; 2 ** 0.5: unrelated); 'apart_when_rotated', of an
    image turned by 90 degrees, from its maps turned so, likewise; 'apart_behind_pooling', from its maps themselves,
    where 2 x 2 pixels are averaged before the layer.
    """
    images = torch.rand(16, 1, 24, 24, dtype=torch.double)
    with torch.no_grad():
        maps, shifted, scaled = conv(images), conv(images.roll(3, dims=3)), conv(twice(images))
        pooled, rotated = conv(avg_pool2d(twice(images), 2)), conv(images.rot90(dims=(2, 3)))
    expected = twice(maps)
    scaled = scaled[..., 1:-1, 1:-1]  # without the border that the enlarged maps have not
    return {
        "apart_when_shifted": (shifted[..., 3:] - maps[..., :-3]).abs().max().item(),
        "apart_when_scaled": ((scaled - expected).square().mean().sqrt() / expected.std()).item(),
        "apart_when_rotated": ((rotated - maps.rot90(dims=(2, 3))).square().mean().sqrt() / maps.std()).item(),
        "apart_behind_pooling": (pooled - maps).abs().max().item(),
    }


def main() -> str:
    params = load_params()
    training.configure(params.seed, "localize/definitions", params.threads)
    found = {
        "jaccard": jaccard(),
        "box": box_formula(),
        "grad_cam": heat_maps(),
        "heads": heads(params),
        "huber": huber(),
        "conv_layer": conv_layer(nn.Conv2d(1, 8, 3).double()),
    }
    detector = build("ssd", params).network
    anchors = anchors_of(detector, params.at_scale.shapes.resolution)
    found |= {"candidates": candidates(params, anchors), "matching": matching(detector, anchors, params)}
    write_json(METRICS / "definitions.json", found)
    return f"{sum(map(len, found.values()))} numbers"


if __name__ == "__main__":
    run(main)
