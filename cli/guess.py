"""Guess inputs that a model may run on, from its configuration or its first layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.rules import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.trace import ExampleInputs

from .forward import needed_parameters, parameter_names

__all__ = ["Guess", "guesses"]

Sizes = Mapping[int, tuple[tuple[int, ...], ...]]

# What is tried for the spatial sizes of an input, by the number of its spatial dimensions.
OF_IMAGES: Sizes = {
    1: ((512,), (4096,)),
    2: ((224, 224), (299, 299), (64, 64), (32, 32)),
    3: ((16, 112, 112), (32, 32, 32)),
}
# With many channels an input is no image but the inside of a network, or a generator's latent: small sizes come first.
OF_FEATURES: Sizes = {
    1: ((32,), (512,)),
    2: ((8, 8), (16, 16), (32, 32), (64, 64), (224, 224)),
    3: ((4, 4, 4), (8, 8, 8), (16, 16, 16)),
}
OF_LATENTS: Sizes = {
    1: ((1,), (8,), (32,)),
    2: ((1, 1), (4, 4), (8, 8), (16, 16)),
    3: ((1, 1, 1), (4, 4, 4), (8, 8, 8)),
}
MOST_CHANNELS_OF_IMAGES = 4


@dataclass(frozen=True)
class Guess:
    """Example inputs, with what they are and where they come from, in words.

    Args:
        inputs: The inputs.
        what: What they are.
        source: Where the guess comes from.
        shape: The shape of the one input, as ``--input`` takes it; empty if it is more than one tensor.
    """

    inputs: ExampleInputs
    what: str
    source: str
    shape: str = ""


def guesses(model: nn.Module) -> Iterator[Guess]:
    """Inputs worth trying, the likeliest first.

    From timm's ``pretrained_cfg``, from a transformers ``config``, from the arguments of torchvision's
    detectors, and from the channels of the first convolution. The latter two know nothing of further arguments.
    """
    needed = [parameter.name for parameter in needed_parameters(model)]
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size")
    if size is not None:
        yield _random_numbers(model, tuple(size), "the model's pretrained_cfg")
    yield from _from_config(model)
    if {"images", "targets"} <= {*parameter_names(model)}:
        yield Guess(_detect, "two images and targets for them", "the arguments of torchvision's detectors")
    if len(needed) <= 1:
        yield from _from_first_layer(model)


def _from_first_layer(model: nn.Module) -> Iterator[Guess]:
    for module in model.modules():
        rule = rule_of(module)
        if isinstance(module, nn.Embedding):
            tokens = torch.ones(2, 16, dtype=torch.int64)
            yield Guess(
                _named(model, tokens), "token numbers of shape 2×16", "the first embedding", "2,16:int64"
            )
            return
        if isinstance(rule, Conv):
            channels = getattr(module, "in_channels", 3)
            for spatial in _sizes(rule, channels)[rule.dims]:
                shape = (channels, *spatial)
                yield _random_numbers(model, shape, "the channels of the first convolution")
            return


def _sizes(rule: Conv, channels: int) -> Sizes:
    if rule.transposed:
        return OF_LATENTS
    return OF_IMAGES if channels <= MOST_CHANNELS_OF_IMAGES else OF_FEATURES


def _random_numbers(model: nn.Module, shape: tuple[int, ...], source: str) -> Guess:
    sizes = (2, *shape)
    what = f"random numbers of shape {'×'.join(map(str, sizes))}"
    return Guess(_named(model, _random(*sizes)), what, source, ",".join(map(str, sizes)))


def _named(model: nn.Module, tensor: Tensor) -> ExampleInputs:
    """The tensor as the model's only input, by name where it takes it by name alone."""
    first = next(iter(needed_parameters(model)), None)
    return {first.name: tensor} if first is not None and first.kind is first.KEYWORD_ONLY else tensor


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
