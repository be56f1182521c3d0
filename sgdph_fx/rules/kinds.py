"""What an operation can be to a convolution's output, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sgdph_fx.rules.moves import Move, same

__all__ = ["Affine", "Conv", "Linear", "Mixing", "Norm", "Rule", "Statistics", "Transparent"]

Statistics = Literal["batch", "instance", "group", "layer", "rms", "frozen"]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution.

    Args:
        dims: Number of spatial dimensions.
        transposed: Whether it is a transposed one.
        weight: Name of its weight.
        bias: Name of its bias.
        gain: Name of a gain that it carries already.
        standardized: Whether it normalizes its weight itself, so that a gain on the weight would change nothing.
        twice_differentiable: Whether it has a second derivative, without which its own parameters get no Hessian.
    """

    dims: int
    transposed: bool = False
    weight: str = "weight"
    bias: str = "bias"
    gain: str | None = None
    standardized: bool = False
    twice_differentiable: bool = True


@dataclass(frozen=True, slots=True)
class Norm:
    """A normalization layer.

    Args:
        statistics: The numbers that share one mean and variance; ``"frozen"`` for a layer that takes no
            statistics of its own and therefore normalizes nothing.
        weight: Name of its scale.
        bias: Name of its shift.
        channels_first: For a layer norm that takes its statistics over dimension 1 (torchvision's
            ``LayerNorm2d``) rather than over the last ones.
        slopes: Names of further channel-wise parameters, such as the threshold of a filter response norm.
        centered: Whether it subtracts the mean, and with it any constant that a channel's numbers share.
        scale_free: Whether its output stays the same when the numbers behind a statistic are multiplied by
            one positive number. An activation inside, such as the sigmoid of an EvoNorm S0, breaks that.
    """

    statistics: Statistics
    weight: str = "weight"
    bias: str = "bias"
    channels_first: bool = False
    slopes: tuple[str, ...] = ()
    centered: bool = True
    scale_free: bool = True

    @property
    def absorbs_constants(self) -> bool:
        """Whether a constant added to all numbers behind a statistic changes nothing."""
        return self.centered and self.statistics not in ("rms", "frozen")


@dataclass(frozen=True, slots=True)
class Transparent:
    """An operation that leaves each channel its own and commutes with a positive gain on it.

    Args:
        move: Where it leaves the channels.
        shape_only: Whether it changes no number, only where numbers stand.
        weight: Name of a channel-wise parameter that it carries (PReLU's slope, a LayerScale's factor).
        role: What that parameter is.
    """

    move: Move = same
    shape_only: bool = False
    weight: str | None = None
    role: Literal["activation", "layer_scale"] = "activation"


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear or recurrent layer: it mixes channels. ``weights`` and ``biases`` name its parameters, or are globs.

    ``tokens`` names parameters that stand beside the layer's input as further elements of a sequence.
    """

    weights: tuple[str, ...] = ("weight",)
    biases: tuple[str, ...] = ("bias",)
    tokens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Affine:
    """A module that scales or shifts each channel by one number, and does more than that: ends the walk."""

    weights: tuple[str, ...] = ("weight",)
    biases: tuple[str, ...] = ("bias",)


@dataclass(frozen=True, slots=True)
class Mixing:
    """Any other operation: channels meet in it, or a gain does not commute with it."""


Rule = Conv | Norm | Transparent | Linear | Affine | Mixing
