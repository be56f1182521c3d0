"""Inputs that a model may run on, guessed from what it says of itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.rules import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.trace import ExampleInputs

__all__ = ["Guess", "guesses"]

# What is tried for the spatial sizes of an input, by the number of its spatial dimensions.
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((512,), (4096,)),
    2: ((224, 224), (299, 299), (64, 64), (32, 32)),
    3: ((16, 112, 112), (32, 32, 32)),
}


@dataclass(frozen=True)
class Guess:
    """Example inputs, with what they are and where they come from, in words."""

    inputs: ExampleInputs
    what: str
    source: str


def guesses(model: nn.Module) -> Iterator[Guess]:
    """Inputs worth trying, the likeliest first.

    From timm's ``pretrained_cfg``, from a transformers ``config``, from the arguments of torchvision's
    detectors, and from the channels of the first convolution.
    """
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    if size is not None:
        yield _image(tuple(size), "the model's pretrained_cfg")
    yield from _from_config(model)
    if {"images", "targets"} <= inspect.signature(model.forward).parameters.keys():
        yield Guess(_detect, "two images and targets for them", "the arguments of torchvision's detectors")
    first = next((m for m in model.modules() if isinstance(rule_of(m), Conv)), None)
    rule = rule_of(first) if first is not None else None
    if isinstance(rule, Conv):
        channels = getattr(first, "in_channels", 3)
        for spatial in SIZES[rule.dims]:
            yield _image((channels, *spatial), "the channels of the first convolution")


def _image(shape: tuple[int, ...], source: str) -> Guess:
    sizes = "×".join(map(str, (2, *shape)))
    return Guess(_random(2, *shape), f"random numbers of shape {sizes}", source)


def _from_config(model: nn.Module) -> Iterator[Guess]:
    config = getattr(model, "config", None)
    name = getattr(model, "main_input_name", None)
    if config is None or name is None:
        return
    vision = getattr(config, "vision_config", config)
    pixels = getattr(vision, "image_size", None) or 224
    height, width = pixels if isinstance(pixels, list | tuple) else (pixels, pixels)
    inputs: dict[str, Tensor] = {}
    if name == "pixel_values" or hasattr(config, "vision_config"):
        inputs["pixel_values"] = _random(2, getattr(vision, "num_channels", 3), height, width)
    if name == "input_ids" or hasattr(config, "text_config"):
        inputs["input_ids"] = torch.ones(2, 16, dtype=torch.int64)
    if name == "input_values":
        inputs["input_values"] = _random(2, 4096)
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = torch.ones(2, 8, dtype=torch.int64)
    if inputs:
        yield Guess(inputs, ", ".join(inputs), "the model's config")


def _detect(model: nn.Module) -> Any:
    images = [_random(3, 224, 224) for _ in range(2)]
    with torch.no_grad():
        return model(images, [_target() for _ in images]) if model.training else model(images)


def _target() -> dict[str, Tensor]:
    return {
        "boxes": torch.tensor([[20.0, 20.0, 120.0, 160.0]]),
        "labels": torch.ones(1, dtype=torch.int64),
        "masks": torch.ones(1, 224, 224, dtype=torch.uint8),
        "keypoints": torch.tensor([[[60.0, 80.0, 1.0]] * 17]),
    }


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
