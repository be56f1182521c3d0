"""The whole decision about one model, as data: JSON in, JSON out.

A :class:`Plan` is what :func:`sgdph_fx.analyze` returns and what everything after it reads: the
rewriting, the parameter groups, the report. It holds no tensor and no module, so it can be reviewed,
kept beside the code, and applied to a fresh instance of the same model without tracing again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from sgdph_fx.errors import PlanFormatError, PlanMismatchError
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry, Policy, Role, Verdict, Way
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters, compose, decoupled_names, dotted

__all__ = ["Plan"]

VERSION = 1


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
        hints: What is not wrong, but worth knowing.
    """

    model: str
    policy: Policy
    way: Way
    convolutions: tuple[ConvolutionEntry, ...]
    parameters: tuple[ParameterEntry, ...]
    frozen: tuple[str, ...] = ()
    hints: tuple[Hint, ...] = field(default=())

    @property
    def bare(self) -> tuple[ConvolutionEntry, ...]:
        """The convolutions that no norm follows."""
        return tuple(c for c in self.convolutions if c.verdict == "bare")

    @property
    def decoupled(self) -> tuple[ConvolutionEntry, ...]:
        """The convolutions that are rewritten into direction and gain."""
        return tuple(c for c in self.convolutions if c.decouple)

    @property
    def second_order(self) -> tuple[ParameterEntry, ...]:
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
            PlanMismatchError: if the model's class, or the names, shapes or trainability of its parameters, are
                not those of the plan; the message lists the differences, and the model is left as it was.
        """
        differences = list(_differences(self, model))
        if differences:
            raise PlanMismatchError(
                f"This plan was made for another model than this {type(model).__name__}: "
                f"{'; '.join(differences[:5])}{'; …' if len(differences) > 5 else ''}. "
                "Make a new plan with `analyze(model)`; the model is as it was."
            )
        return decouple(model, self.filters, inplace=inplace)

    @property
    def filters(self) -> dict[str, Filters]:
        """How the filters lie in each weight that is decoupled, by its name."""
        return {row.weight: Filters(row.transposed, row.groups) for row in self.decoupled}

    def restore_state_dict(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint of the prepared model as one of the plain model.

        Args:
            state_dict: ``state_dict()`` of the prepared model, whole.

        Returns:
            The same tensors in the same order, but with each direction and gain made one weight again.
        """
        filters = self.filters
        # A weight that modules share has a key for each of them, and one for each name of a module.
        every_name = filters | _other_names(state_dict, filters, {row.name for row in self.parameters})
        weights, gains = _parts(every_name)
        plain: dict[str, Tensor] = {}
        for key, value in state_dict.items():
            if key in weights:
                weight = weights[key]
                plain[weight] = compose(value, state_dict[decoupled_names(weight)[1]], every_name[weight])
            elif key not in gains:
                plain[key] = value
        return plain

    def without_rewriting(self) -> Plan:
        """The plan for the model as it stands: each weight that would be decoupled is first-order instead."""
        weights, gains = _parts(self.filters)
        parameters = tuple(
            replace(row, name=weights[row.name], role="weight", reason="first-order: not decoupled")
            if row.name in weights
            else row
            for row in self.parameters
            if row.name not in gains
        )
        convolutions = tuple(replace(row, decouple=False) for row in self.convolutions)
        return replace(self, convolutions=convolutions, parameters=parameters)


def _other_names(
    state_dict: Mapping[str, Tensor], filters: Mapping[str, Filters], known: Collection[str]
) -> dict[str, Filters]:
    """Further names under which the decoupled weights stand in ``state_dict``: keys with the same numbers."""
    found: dict[str, Filters] = {}
    for key in state_dict:
        path, _, leaf = key.rpartition(".")
        if key in known or not (leaf == "direction" or leaf.endswith("_direction")):
            continue
        weight = dotted(path, leaf.removesuffix("direction").removesuffix("_") or "weight")
        if decoupled_names(weight)[1] not in state_dict:
            continue
        for name, its_filters in filters.items():
            if _same(state_dict[key], state_dict.get(decoupled_names(name)[0])):
                found[weight] = its_filters
    return found


def _same(one: Tensor, other: Tensor | None) -> bool:
    if other is None or one.shape != other.shape:
        return False
    return one.is_meta or torch.equal(one, other.to(one.device))


def _differences(plan: Plan, model: nn.Module) -> Iterator[str]:
    """What tells ``model`` from the one that the plan was made for; nothing if it fits."""
    decoupled = plan.filters
    for row in plan.decoupled:
        if decoupled[row.weight] != Filters(row.transposed, row.groups):
            yield f"{row.weight} is decoupled for convolutions whose filters lie in different ways"
    weights, gains = _parts(decoupled)
    trainable = {
        weights.get(row.name, row.name): row.shape for row in plan.parameters if row.name not in gains
    }
    found = dict(model.named_parameters())
    for name, shape in trainable.items():
        if name not in found:
            yield f"{name} is missing{' (is the model prepared already?)' if name in decoupled else ''}"
        elif tuple(found[name].shape) != shape:
            yield f"{name} has shape {tuple(found[name].shape)}, planned {shape}"
        elif not found[name].requires_grad:
            yield f"{name} is frozen, but was trainable"
    for name, parameter in found.items():
        if name in trainable:
            continue
        if name not in plan.frozen:
            yield f"{name} is not in the plan"
        elif parameter.requires_grad:
            yield f"{name} is trainable, but was frozen"
    yield from (f"{name} is missing" for name in plan.frozen if name not in found)


def _parts(weights: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """The weight that each direction stands for, and the names of the gains."""
    names = {weight: decoupled_names(weight) for weight in weights}
    return {direction: weight for weight, (direction, _) in names.items()}, {
        gain for _, gain in names.values()
    }


def _plan_from_dict(data: dict[str, Any]) -> Plan:
    convolutions = tuple(
        ConvolutionEntry(**{**row, "shape": tuple(row["shape"]), "via": tuple(row["via"])})
        for row in data.pop("convolutions")
    )
    parameters = tuple(
        ParameterEntry(**{**row, "shape": tuple(row["shape"])}) for row in data.pop("parameters")
    )
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
