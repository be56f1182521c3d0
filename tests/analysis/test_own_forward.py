"""Convolution classes with a forward of their own: what they do beside convolving is seen, where it can be."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze
from sgdph_fx.plan.entries import ConvolutionEntry

BOTH_WAYS = pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])


def entries(model: nn.Module, x: Tensor | None = None) -> dict[str, ConvolutionEntry]:
    return {entry.name: entry for entry in analyze(model, x).convolutions}


@BOTH_WAYS
def test_what_a_convolution_class_does_after_its_convolution_is_seen(recorded: bool) -> None:
    class Activated(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.gelu(super().forward(x))

    found = entries(
        nn.Sequential(Activated(3, 8, 3), nn.BatchNorm2d(8)), torch.rand(2, 3, 8, 8) if recorded else None
    )
    assert (found["0"].kind, found["0"].verdict, found["0"].decouple) == ("Activated", "bare", True)
    assert "to gelu" in found["0"].reason


@BOTH_WAYS
def test_a_class_that_computes_its_padding_counts_as_its_ancestor(recorded: bool) -> None:
    class SamePadding(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            missing = max((math.ceil(x.shape[-1] / 2) - 1) * 2 + 3 - x.shape[-1], 0)
            return super().forward(F.pad(x, [0, missing, 0, missing]))

    model = nn.Sequential(SamePadding(3, 8, 3, stride=2), nn.BatchNorm2d(8))
    found = entries(model, torch.rand(2, 3, 8, 8) if recorded else None)
    assert (found["0"].kind, found["0"].verdict) == ("SamePadding", "normalized")
