"""Faster R-CNN: a list of images in, a dict of losses out, other shapes at each step, and kernels of torchvision."""

from __future__ import annotations

import warnings

import pytest
import torch

from sgdph_fx import SGDPH, prepare
from tests.optim.test_detectors import DETECTORS, batch

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_detector_trains_a_whole_cycle(device: torch.device, precision: torch.dtype | None) -> None:
    torch.manual_seed(0)
    images, targets = batch()
    images = [image.to(device) for image in images]
    targets = [{name: value.to(device) for name, value in target.items()} for target in targets]
    model, groups, _ = prepare(DETECTORS["Faster R-CNN"]().to(device).train(), (images, targets))
    optimizer = SGDPH(groups, lr=1e-3)
    length = optimizer.statistics()["cycle_length"]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # torchvision's older releases have no derivative of RoIAlign
        for _ in range(length):
            optimizer.zero_grad()
            with torch.autocast(device.type, precision or torch.bfloat16, enabled=precision is not None):
                loss = sum(model(images, targets).values())
            optimizer.backward(loss)
            optimizer.step()
    assert (optimizer.steps_skipped, optimizer.refreshes_skipped) == (0, 0)
    assert all(p.isfinite().all() for p in model.parameters())
    averages = [own for own in optimizer.state.values() if "hessian_average" in own]
    assert len(averages) == length - 1, "all but the last of the cycle, which the authors' variant leaves out"
