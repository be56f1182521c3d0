"""The entries of a plan: one for each convolution, each parameter, each hint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "RESERVED_OPTIONS",
    "Action",
    "ConvolutionEntry",
    "Hint",
    "Kind",
    "Option",
    "ParameterEntry",
    "Place",
    "Policy",
    "Role",
    "Verdict",
    "Way",
]

Policy = Literal["direct", "see-through", "absorbing"]
Action = Literal["keep", "decouple", "first-order", "second-order"]

# A value of an option of a parameter group, as JSON can hold it.
Option = bool | int | float | str | tuple[float, ...] | None

# What a parameter group says about itself; an option of this name would hide it.
RESERVED_OPTIONS = ("params", "param_names", "order", "role", "name", "index")

Verdict = Literal["bare", "normalized"]
Way = Literal["symbolic", "recorded"]
Role = Literal[
    "norm.weight", "norm.bias", "gain", "direction", "bias", "layer_scale", "activation", "weight", "other"
]
# What a parameter is, more finely than its role; docs/schemes.md explains each.
Kind = Literal[
    "convolution",
    "linear",
    "attention-qkv",
    "recurrent",
    "router",
    "experts",
    "head",
    "embedding",
    "tied-embedding",
    "position",
    "token",
    "direction",
    "gain",
    "norm-scale",
    "norm-shift",
    "bias",
    "layer-scale",
    "slope",
    "temperature",
    "state-space",
    "other",
    "",
]
# Whether a weight is next to the model's input or output; empty in between.
Place = Literal["first", "last", ""]


@dataclass(frozen=True, slots=True)
class ConvolutionEntry:
    """What was decided about one convolution, or about one linear layer that a rule decouples, and why.

    Args:
        name: Path of the module; of a functional convolution, that of its weight without ``.weight``, or of the
            function where no parameter is its weight.
        kind: The module's class, or the function's name.
        weight: Name of its weight, under the first name that ``named_parameters()`` gives it, so
            that convolutions which share one parameter name the same weight. If the weight is computed, the
            parameter behind it, or empty.
        shape: Shape of the weight.
        out_channels: Number of output filters, which is the number of gains.
        transposed: Whether output channels are dimension 1 of the weight.
        groups: Number of groups.
        verdict: ``"bare"`` or ``"normalized"``.
        norm: Path of the norm that its output reaches first, or None.
        via: The operations passed on the way to that norm, or to what made the convolution bare.
        reason: A sentence that can be checked in the model's source.
        decouple: Whether it is rewritten into direction and gain.
        source: ``file.py:line`` of the call, where known.
    """

    name: str
    kind: str
    weight: str
    shape: tuple[int, ...]
    out_channels: int
    transposed: bool
    groups: int
    verdict: Verdict
    norm: str | None
    via: tuple[str, ...]
    reason: str
    decouple: bool
    source: str | None = None


@dataclass(frozen=True, slots=True)
class ParameterEntry:
    """How one trainable parameter of the *prepared* model is treated, and why.

    Args:
        name: Its name in the prepared model; decoupled weights appear as ``direction`` and ``gain``.
        shape: Its shape.
        order: 2, Newton-type steps (4)-(5), or 1, the plain momentum step (6).
        role: What it is.
        module: Class of the module that owns it.
        reason: A sentence that says why it has this order.
        options: Options of the parameter group that it goes to, by a rule of yours.
        kind: What it is, more finely than its role; empty in a plan of an earlier release.
        place: ``"first"`` for what belongs to a layer next to the input, ``"last"`` for one next to the output.
        fan_in: Of a weight, how many numbers each output is a sum of.
        fan_out: Of a weight, how many outputs each input goes to.
        layer: Its layer, counted from the input; None where no operation that was seen reads it.
    """

    name: str
    shape: tuple[int, ...]
    order: Literal[1, 2]
    role: Role
    module: str
    reason: str
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    kind: Kind = ""
    place: Place = ""
    fan_in: int | None = None
    fan_out: int | None = None
    layer: int | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """Something worth knowing that is not an error: a code to look up or silence, a place, a sentence."""

    code: str
    where: str
    message: str
