"""Every model of ``torchvision.models.list_models()`` but the quantized ones."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torchvision import models

from benchmarks.coverage.sample import Sample, noise

__all__ = ["names", "sample"]

_Inputs = Callable[[int, Any], dict[str, Any]]


def names() -> list[str]:
    """The names of its models."""
    return [name for name in models.list_models() if not name.startswith("quantized_")]


def sample(name: str, batch: int) -> Sample:
    """The model called ``name``, with random weights, and a batch for it."""
    build, inputs = next(
        (build, inputs) for pattern, build, inputs in _TABLE if fnmatchcase(name, f"*{pattern}*")
    )
    weights = {"weights": None, **({"weights_backbone": None} if _has_backbone(name) else {})}
    model = models.get_model(name, **weights, **build)
    return Sample(model, **inputs(batch, model))


def _has_backbone(name: str) -> bool:
    return any(part in name for part in ("rcnn", "retinanet", "ssd", "fcos", "deeplab", "fcn_", "lraspp"))


def _images(*shape: int) -> _Inputs:
    return lambda batch, model: {"args": (noise(batch, *shape),)}


def _pairs(size: int) -> _Inputs:
    def inputs(batch: int, model: Any) -> dict[str, Any]:
        first, second = noise(2, batch, 3, size, size).clamp(-1, 1).unbind()
        return {"args": (first, second)}

    return inputs


def _scenes(size: int) -> _Inputs:
    def inputs(batch: int, model: Any) -> dict[str, Any]:
        images = list(noise(batch, 3, size, size).sigmoid())
        return {"args": (images,), "in_training": {"targets": [_target(size) for _ in images]}}

    return inputs


def _target(size: int) -> dict[str, Tensor]:
    """Two objects, with whatever any of the detectors asks for."""
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.9]]) * size
    masks = torch.zeros(2, size, size, dtype=torch.uint8)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1
    keypoints = torch.full((2, 17, 3), size / 2.0)
    return {"boxes": boxes, "labels": torch.tensor([1, 1]), "masks": masks, "keypoints": keypoints}


_SMALL = {"min_size": 96, "max_size": 96}
# With random weights no score is high: without a threshold of 0 a detector would return nothing to compare.
_FEW_BOXES = {
    "box_score_thresh": 0.0,
    "box_detections_per_img": 20,
    "rpn_post_nms_top_n_train": 40,
    "rpn_post_nms_top_n_test": 40,
    "rpn_score_thresh": 0.0,
}

# First match by name counts: what the builder is told, and the inputs.
_TABLE: tuple[tuple[str, dict[str, Any], _Inputs], ...] = (
    ("ssd300", {"score_thresh": 0.0}, _scenes(300)),
    ("ssdlite", {"score_thresh": 0.0}, _scenes(320)),
    ("rcnn", {**_SMALL, **_FEW_BOXES}, _scenes(96)),
    ("retinanet", {**_SMALL, "score_thresh": 0.0}, _scenes(96)),
    ("fcos", {**_SMALL, "score_thresh": 0.0}, _scenes(96)),
    ("raft", {}, _pairs(128)),
    ("inception", {}, _images(3, 299, 299)),
    ("maxvit", {}, _images(3, 224, 224)),
    ("mvit", {}, _images(3, 16, 224, 224)),
    ("vit_h_14", {"image_size": 56}, _images(3, 56, 56)),
    ("vit_", {"image_size": 64}, _images(3, 64, 64)),
    ("swin3d", {}, _images(3, 4, 64, 64)),
    ("s3d", {}, _images(3, 14, 224, 224)),
    ("r3d", {}, _images(3, 4, 64, 64)),
    ("mc3", {}, _images(3, 4, 64, 64)),
    ("r2plus1d", {}, _images(3, 4, 64, 64)),
    ("", {}, _images(3, 64, 64)),
)
