"""The whole decision about one model, as data: JSON in, JSON out.

A :class:`Plan` is what :func:`sgdph_fx.analyze` returns and what everything after it reads: the
rewriting, the parameter groups, the report. It holds no tensor and no module, so it can be reviewed,
kept beside the code, and applied to a fresh instance of the same model without tracing again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from sgdph_fx.config import Policy
from sgdph_fx.errors import PlanFormatError

__all__ = ["ConvolutionRow", "Hint", "ParameterRow", "Plan", "Role", "Verdict", "Way", "decoupled_names"]

Verdict = Literal["bare", "normalized"]
Way = Literal["symbolic", "recorded"]
Role = Literal[
    "norm.weight", "norm.bias", "gain", "direction", "bias", "layer_scale", "activation", "weight", "other"
]

VERSION = 1


def decoupled_names(weight: str) -> tuple[str, str]:
    """Names of the direction and the gain that replace the parameter ``weight``.

    >>> decoupled_names("features.0.weight")
    ('features.0.direction', 'features.0.gain')
    >>> decoupled_names("stem.kernel")
    ('stem.kernel_direction', 'stem.kernel_gain')
    """
    owner, dot, leaf = weight.rpartition(".")
    stem = owner + dot + ("" if leaf == "weight" else f"{leaf}_")
    return f"{stem}direction", f"{stem}gain"


@dataclass(frozen=True, slots=True)
class ConvolutionRow:
    """What was decided about one convolution, and why.

    Args:
        name: Path of the module; of a functional convolution, that of its weight without ``.weight``.
        kind: The module's class, or the function's name.
        weight: Name of its weight, under the first name that ``named_parameters()`` gives it, so
            that convolutions which share one parameter name the same weight.
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
class ParameterRow:
    """How one trainable parameter of the *prepared* model is treated, and why.

    Args:
        name: Its name in the prepared model; decoupled weights appear as ``direction`` and ``gain``.
        shape: Its shape.
        order: 2, Newton-type steps (4)-(5), or 1, the plain momentum step (6).
        role: What it is.
        module: Class of the module that owns it.
        reason: A sentence that says why it has this order.
    """

    name: str
    shape: tuple[int, ...]
    order: Literal[1, 2]
    role: Role
    module: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Something worth knowing that is not an error: a code to look up or silence, a place, a sentence."""

    code: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole decision about one model.

    Args:
        model: Qualified name of the model's class.
        policy: The policy that it was decided under.
        way: How the model was read: ``"symbolic"`` tracing or a ``"recorded"`` run.
        convolutions: A row for each convolution, in the order of ``named_modules()``.
        parameters: A row for each trainable parameter of the prepared model, in the order of its
            ``named_parameters()``; this is the order in which Hessians are refreshed.
        frozen: Names of the parameters that require no gradient; they are in no group.
        hints: What else was noticed.
    """

    model: str
    policy: Policy
    way: Way
    convolutions: tuple[ConvolutionRow, ...]
    parameters: tuple[ParameterRow, ...]
    frozen: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = field(default=())

    @property
    def bare(self) -> tuple[ConvolutionRow, ...]:
        """The convolutions that no norm follows."""
        return tuple(c for c in self.convolutions if c.verdict == "bare")

    @property
    def decoupled(self) -> tuple[ConvolutionRow, ...]:
        """The convolutions that are rewritten into direction and gain."""
        return tuple(c for c in self.convolutions if c.decouple)

    @property
    def second_order(self) -> tuple[ParameterRow, ...]:
        """The parameters that get Hessian treatment; their number is M, the steps of one Hessian cycle."""
        return tuple(p for p in self.parameters if p.order == 2)

    def to_json(self) -> str:
        """The plan as indented JSON text, stable from run to run, fit for review."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote.

        Raises:
            PlanFormatError: if the text is no JSON, no plan, or of another version.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise PlanFormatError(f"This is no plan: not valid JSON ({error}).") from error
        if not isinstance(data, dict) or data.pop("version", None) != VERSION:
            raise PlanFormatError(
                f"This is no plan of version {VERSION}, the one that this sgdph-fx reads; make it again "
                "with `analyze(model).to_json()` or `sgdph-convert --output`."
            )
        try:
            return _plan_from_dict(data)
        except (TypeError, KeyError, ValueError) as error:
            raise PlanFormatError(f"This plan is damaged: {error}. Make it again.") from error

    def apply(self, model: nn.Module, inplace: bool = False) -> nn.Module:
        """Rewrite ``model`` as planned, without tracing it.

        Args:
            model: An unprepared instance of the model that the plan was made for.
            inplace: Rewrite ``model`` itself instead of a deep copy.

        Returns:
            The prepared model, of the same class as ``model``.

        Raises:
            PlanMismatchError: if the model's parameters or convolutions are not those of the plan;
                the message lists the differences, and the model is left as it was.
        """
        from sgdph_fx.decouple import decouple

        return decouple(model, self, inplace=inplace)


def _plan_from_dict(data: dict[str, Any]) -> Plan:
    convolutions = tuple(
        ConvolutionRow(**{**row, "shape": tuple(row["shape"]), "via": tuple(row["via"])})
        for row in data.pop("convolutions")
    )
    parameters = tuple(ParameterRow(**{**row, "shape": tuple(row["shape"])}) for row in data.pop("parameters"))
    hints = tuple(Hint(**row) for row in data.pop("hints"))
    frozen = tuple(data.pop("frozen"))
    _require(data["policy"], Policy, "policy")
    for convolution in convolutions:
        _require(convolution.verdict, Verdict, f"verdict of {convolution.name}")
    for parameter in parameters:
        _require(parameter.role, Role, f"role of {parameter.name}")
        if parameter.order not in (1, 2):
            raise ValueError(f"order of {parameter.name} is {parameter.order!r}, neither 1 nor 2")
    return Plan(convolutions=convolutions, parameters=parameters, hints=hints, frozen=frozen, **data)


def _require(value: Any, allowed: Any, what: str) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{what} is {value!r}, none of {', '.join(map(repr, get_args(allowed)))}")
