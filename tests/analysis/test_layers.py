"""The layer of each parameter: as timm writes it down for its models, and by hand."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn

from sgdph_fx import analyze

# Of timm, whose models say by hand which layer each parameter belongs to.
SAME = [
    "test_vit",
    "test_resnet",
    "test_byobnet",
    "test_convnext",
    *(name for name in ("test_maxvit",) if timm.is_model(name)),  # since 1.0.31
    "regnetx_002",
    "swin_s3_tiny_224",
]


@pytest.mark.parametrize("name", SAME)
def test_layers_are_those_that_timm_writes_down(name: str) -> None:
    model = timm.create_model(name)
    found = analyze(model, torch.randn(2, *model.pretrained_cfg["input_size"])).without_rewriting()
    assert {e.name: e.layer for e in found.parameters} == group_parameters(
        model, model.group_matcher(coarse=False), reverse=True
    )


def test_layers_without_blocks_are_the_weights_in_order() -> None:
    layers = (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    model = nn.Sequential(*layers)
    found = {e.name: e.layer for e in analyze(model, torch.randn(2, 3, 6, 6)).parameters}
    assert found == {
        "0.weight": 0, "0.bias": 0, "1.weight": 0, "1.bias": 0,
        "3.direction": 1, "3.gain": 1, "3.bias": 1, "5.weight": 2, "5.bias": 2,
    }  # fmt: skip


def test_what_is_never_read_has_no_layer() -> None:
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    found = analyze(model, torch.randn(1, 2)).parameters
    assert {e.name: e.layer for e in found if e.name.endswith("weight")} == {
        "used.weight": 0,
        "unused.weight": None,
    }
