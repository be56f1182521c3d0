"""torchvision's detectors, tiny: each trains a whole Hessian cycle, through RoIAlign where torchvision shows it."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, KeypointRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import DeformConv2d, MultiScaleRoIAlign

from sgdph_fx import SGDPH, Plan, prepare
from tests.torchvision_nodes import IN_PYTHON

SIZE, CHANNELS = 48, 8


class Backbone(nn.Module):
    """Two maps, at a fourth and an eighth of the image's size."""

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        self.out_channels: Any = channels
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 4, 1), nn.BatchNorm2d(channels), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU())

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        first = self.stem(x)
        return OrderedDict([("0", first), ("1", self.down(first))])


def anchors() -> AnchorGenerator:
    return AnchorGenerator(sizes=((8,), (16,)), aspect_ratios=((1.0,),) * 2)


def rois(size: int = 4) -> MultiScaleRoIAlign:
    return MultiScaleRoIAlign(featmap_names=["0", "1"], output_size=size, sampling_ratio=2)


COMMON: dict[str, Any] = {"min_size": SIZE, "max_size": SIZE}


def two_stages() -> dict[str, Any]:
    return {
        **COMMON,
        "rpn_anchor_generator": anchors(),
        "box_roi_pool": rois(),
        "box_head": TwoMLPHead(CHANNELS * 16, 16),
        "box_predictor": Predictor(16, 3),
        "rpn_pre_nms_top_n_train": 20,
        "rpn_post_nms_top_n_train": 10,
        "box_batch_size_per_image": 16,
    }


class Predictor(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scores, self.boxes = nn.Linear(width, classes), nn.Linear(width, 4 * classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.scores(x), self.boxes(x)


class Upscale(nn.ConvTranspose2d):
    """A mask or a heat map for each class."""


DETECTORS: dict[str, Callable[[], nn.Module]] = {
    "Faster R-CNN": lambda: FasterRCNN(Backbone(), **two_stages()),
    "Mask R-CNN": lambda: MaskRCNN(
        Backbone(),
        **two_stages(),
        mask_roi_pool=rois(4),
        mask_head=MaskRCNNHeads(CHANNELS, (CHANNELS,), 1),
        mask_predictor=Upscale(CHANNELS, 3, 2, 2),
    ),
    "Keypoint R-CNN": lambda: KeypointRCNN(
        Backbone(),
        **two_stages(),
        keypoint_roi_pool=rois(4),
        keypoint_head=KeypointRCNNHeads(CHANNELS, (CHANNELS,)),
        keypoint_predictor=Upscale(CHANNELS, 2, 2, 2),
    ),
    "RetinaNet": lambda: retina_net(),
    "FCOS": lambda: FCOS(Backbone(32), 3, **COMMON, anchor_generator=anchors()),
    "SSD": lambda: ssd(),
}


def retina_net() -> RetinaNet:
    head = RetinaNetHead(CHANNELS, 1, 3)
    head.regression_head._loss_type = "smooth_l1"
    return RetinaNet(Backbone(), 3, **COMMON, anchor_generator=anchors(), head=head)


def ssd() -> SSD:
    backbone = Backbone()
    backbone.out_channels = [CHANNELS] * 2
    boxes = DefaultBoxGenerator([[2], [2]], scales=[0.2, 0.5, 0.9])
    return SSD(backbone, boxes, (SIZE, SIZE), 3)


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    targets = {
        "boxes": torch.tensor([[8.0, 8.0, 32.0, 32.0]]),
        "labels": torch.tensor([1]),
        "masks": torch.ones(1, SIZE, SIZE, dtype=torch.uint8),
        "keypoints": torch.tensor([[[12.0, 12.0, 1.0], [20.0, 24.0, 1.0]]]),
    }
    return [torch.rand(3, SIZE, SIZE, generator=generator) for _ in range(2)], [dict(targets)] * 2


def train(optimizer: SGDPH, loss: Callable[[], Any]) -> list[str]:
    """Train one cycle, and give what it warned of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(optimizer.statistics()["cycle_length"]):
            optimizer.zero_grad()
            optimizer.backward(loss())
            optimizer.step()
    return [str(w.message) for w in told if "has no Hessian" in str(w.message)]


def require_hessians(
    optimizer: SGDPH, plan: Plan, hidden: str, below: tuple[str, ...], told: list[str]
) -> None:
    """All second-order parameters have one, or |g| in its place; the authors leave out the last of the cycle.

    Args:
        hidden: The operation that older versions of torchvision hide.
        below: How the names of the parameters below it begin: these have none then, and the first is told.
    """
    names = [entry.name for entry in plan.second_order[:-1]]
    without = () if IN_PYTHON else tuple(name for name in names if name.startswith(below))
    assert optimizer.parameters_without_curvature == without
    assert optimizer.curvature_missed == len(without)
    assert sum("hessian_average" in own for own in optimizer.state.values()) == len(names)
    assert [hidden in text for text in told] == [True] * bool(without)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_trains_a_whole_cycle(name: str) -> None:
    torch.manual_seed(0)
    net = DETECTORS[name]().train()
    images, targets = batch()
    model, groups, report = prepare(net, (images, targets))
    optimizer = SGDPH(groups, lr=1e-3)
    before = [p.detach().clone() for p in model.parameters()]
    length = optimizer.statistics()["cycle_length"]
    told = train(optimizer, lambda: sum(model(images, targets).values()))
    assert optimizer.param_groups[0]["step"] == length == len(report.plan.second_order)
    assert (optimizer.steps_skipped, optimizer.refreshes_skipped) == (0, 0)
    assert all(p.isfinite().all() for p in model.parameters())
    trainable = [q for q, p in zip(before, model.parameters(), strict=True) if p.requires_grad]
    moved = [p for p in model.parameters() if p.requires_grad]
    assert sum(not torch.equal(p, q) for p, q in zip(moved, trainable, strict=True)) > len(moved) / 2
    below = ("backbone.",) if "R-CNN" in name else ()
    require_hessians(optimizer, report.plan, "roi_align", below, told)


def test_a_deformable_convolution_trains_a_whole_cycle() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.offset = nn.Conv2d(4, 18, 3, padding=1)
            self.deformed = DeformConv2d(4, 8, 3, padding=1)
            self.above = nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.below(x)
            out: Tensor = self.above(self.deformed(y, self.offset(y)))
            return out

    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    model, groups, report = prepare(Net(), x)
    optimizer = SGDPH(groups, lr=1e-3)
    told = train(optimizer, lambda: sum(model(x).pow(n).mean() for n in (2, 3)))
    require_hessians(optimizer, report.plan, "deform_conv2d", ("below.", "offset.", "deformed."), told)
