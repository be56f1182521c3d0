"""timm's own layers are known by name; the expectations are read off timm's source."""

from __future__ import annotations

import torch
from timm import layers
from torch import nn

from sgdph_fx import analyze


def test_fused_norms_normalize() -> None:
    for norm in (
        layers.BatchNormAct2d(4),
        layers.GroupNormAct(4, num_groups=2),
        layers.LayerNorm2d(4),
        layers.LayerNormAct2d(4),
    ):
        plan = analyze(nn.Sequential(nn.Conv2d(3, 4, 3), norm))
        assert [(row.verdict, row.norm) for row in plan.convolutions] == [("normalized", "1")], type(norm)
        assert {p.role for p in plan.parameters if p.name[0] == "1"} == {"norm.weight", "norm.bias"}


def test_weight_standardised_convolutions_keep_their_own_gain() -> None:
    model = nn.Sequential(layers.ScaledStdConv2d(3, 4, 3), nn.GELU(), layers.StdConv2d(4, 4, 3), nn.GELU())
    plan = analyze(model)
    assert [(row.verdict, row.decouple) for row in plan.convolutions] == [("bare", False)] * 2
    assert {p.name: (p.order, p.role) for p in plan.parameters if "gain" in p.name} == {"0.gain": (2, "gain")}


def test_a_gain_on_a_standardised_weight_changes_nothing() -> None:
    """Why they are left: the claim in the reason, on numbers."""
    conv = layers.StdConv2d(3, 4, 3, eps=1e-16).double()
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    before = conv(x)
    with torch.no_grad():
        conv.weight *= torch.rand(4, 1, 1, 1) + 0.5
    assert torch.allclose(conv(x), before)


def test_channel_wise_modules() -> None:
    model = nn.Sequential(layers.LayerScale(4), layers.grn.GlobalResponseNorm(4))
    tags = {p.name: (p.order, p.role) for p in analyze(model).parameters}
    assert tags == {
        "0.gamma": (2, "layer_scale"), "1.weight": (2, "layer_scale"), "1.bias": (2, "bias"),
    }  # fmt: skip


def test_transparent_layers() -> None:
    for layer in (layers.DropPath(0.1), layers.BlurPool2d(4), layers.LayerScale2d(4)):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, nn.BatchNorm2d(4))
        assert len(analyze(model).bare) == 0, type(layer)
