"""Real models compute the same before and after ``prepare`` and after ``restore``, and so do their input gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from sgdph_fx import prepare, restore


@dataclass(frozen=True)
class Subject:
    name: str
    pixels: int = 64
    options: tuple[tuple[str, object], ...] = ()

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return get_model(self.name, weights=None, **dict(self.options))


SUBJECTS = [
    Subject("vgg11"),
    Subject("resnet18"),
    Subject("densenet121"),
    Subject("efficientnet_b0"),
    Subject("convnext_tiny"),
    Subject("vit_b_16", 32, (("image_size", 32),)),
    Subject("squeezenet1_1"),
    Subject("mobilenet_v3_small"),
    Subject("googlenet", 96, (("init_weights", False),)),
]


def run(model: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    """Outputs and input gradient, with dropout drawn from the same seed and batch norm's buffers left alone."""
    model = copy.deepcopy(model).train(training)
    leaf = x.clone().requires_grad_()
    torch.manual_seed(1)
    result = model(leaf)
    outputs = [result] if isinstance(result, Tensor) else [r for r in result if r is not None]
    gradient = torch.autograd.grad(sum(o.square().sum() for o in outputs), leaf)
    return [o.detach() for o in outputs] + list(gradient)


# In double precision only the small ones: the others would take minutes to say the same again.
CASES = [(subject, torch.float32) for subject in SUBJECTS] + [
    (subject, torch.float64)
    for subject in SUBJECTS
    if subject.name in ("resnet18", "squeezenet1_1", "mobilenet_v3_small")
]


@pytest.mark.parametrize(("subject", "dtype"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_same_function(subject: Subject, dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    model = subject.build().to(dtype)
    x = torch.rand(2, 3, subject.pixels, subject.pixels, dtype=dtype)
    prepared = prepare(model).model
    back = restore(prepared)
    for training in (True, False):
        expected = run(model, x, training)
        for candidate in (prepared, back):
            for ours, theirs in zip(run(candidate, x, training), expected, strict=True):
                assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()
    assert list(back.state_dict()) == list(model.state_dict())
