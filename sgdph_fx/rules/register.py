"""Functions that add your own modules to the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from sgdph_fx.errors import ConfigError
from sgdph_fx.rules.kinds import Conv, Norm, Rule, Statistics, Transparent
from sgdph_fx.rules.modules import MODULES

__all__ = ["register_conv", "register_norm", "register_transparent"]


def register_norm(
    kind: type[nn.Module],
    *,
    statistics: Statistics,
    weight: str = "weight",
    bias: str = "bias",
    channels_first: bool = False,
    centered: bool = True,
) -> None:
    """Make ``kind`` and its subclasses known as a normalization layer.

    Args:
        kind: The class.
        statistics: What one mean and variance are taken over: ``"batch"``, ``"instance"``, ``"group"``,
            ``"layer"``, ``"rms"``, or ``"frozen"`` if it has none of its own.
        weight: Name of its scale, one number for each channel; it need not exist.
        bias: Name of its shift.
        channels_first: For a layer norm over dimension 1 rather than over the last ones.
        centered: Whether it subtracts the mean. A bias before one that does changes nothing.

    Raises:
        ConfigError: if ``kind`` is not a subclass of ``torch.nn.Module``, or a choice does not exist.

    Example:
        >>> class MyNorm(nn.Module): ...
        >>> register_norm(MyNorm, statistics="layer", weight="scale", bias="shift")
    """
    _require_choice("statistics", statistics, get_args(Statistics))
    _register(kind, Norm(statistics, weight, bias, channels_first, centered=centered))


def register_conv(
    kind: type[nn.Module],
    *,
    dims: Literal[1, 2, 3],
    transposed: bool = False,
    weight: str = "weight",
    bias: str = "bias",
    gain: str | None = None,
    standardized: bool = False,
) -> None:
    """Make ``kind`` and its subclasses known as a convolution.

    Args:
        kind: The class. Its weight has the layout of torch's convolutions.
        dims: Number of spatial dimensions.
        transposed: Whether output channels are dimension 1 of the weight.
        weight: Name of its weight.
        bias: Name of its bias.
        gain: Name of a gain that it carries already; such a convolution is tagged, not decoupled again.
        standardized: Whether it normalizes its weight itself; a gain on the weight would change nothing.

    Raises:
        ConfigError: if ``kind`` is not a subclass of ``torch.nn.Module``, or a choice does not exist.
    """
    _require_choice("dims", dims, (1, 2, 3))
    _register(kind, Conv(dims, transposed, weight, bias, gain, standardized))


def register_transparent(
    kind: type[nn.Module],
    *,
    shape_only: bool = False,
    weight: str | None = None,
    role: Literal["activation", "layer_scale"] = "activation",
) -> None:
    """Make ``kind`` and its subclasses known as gain-transparent: f(a x) = a f(x), channel by channel, for a > 0.

    Args:
        kind: The class; it leaves the channels in the dimension where they are.
        shape_only: Whether it changes no number, only where numbers stand.
        weight: Name of a channel-wise parameter that it carries.
        role: What that parameter is.

    Raises:
        ConfigError: if ``kind`` is not a subclass of ``torch.nn.Module``, or a choice does not exist.
    """
    _require_choice("role", role, ("activation", "layer_scale"))
    _register(kind, Transparent(shape_only=shape_only, weight=weight, role=role))


def _require_choice(what: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise ConfigError(f"{what}={value!r} is not known; choose one of {', '.join(map(repr, choices))}.")


def _register(kind: type[nn.Module], rule: Rule) -> None:
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"A class of torch.nn.Module is registered; {kind!r} is none.")
    MODULES[kind] = rule
