"""The convolutions of a model before any verdict: what each one is, and what stands in the way of decoupling it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from sgdph_fx.analysis.filter_tracking import filters_preserved
from sgdph_fx.analysis.weight_provenance import Provenance, provenance
from sgdph_fx.plan.entries import ConvolutionEntry, Verdict
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import Operands, operands_of
from sgdph_fx.transform.decouple import Decoupled, plain_class_of
from sgdph_fx.transform.filters import Filters, dotted

__all__ = [
    "ConvolutionCandidate",
    "Names",
    "functional_candidate",
    "groups_of",
    "module_candidates",
    "names_of",
    "obstacle_of",
]

_OTHER_FILTERS = "it convolves by a view of its weight with other filters, so it is left as it is"


@dataclass(frozen=True, slots=True)
class ConvolutionCandidate:
    """A convolution that has no verdict yet.

    Args:
        name: Path of the module; for a functional convolution, the path of its weight without ``.weight``.
        kind: The module's class, or the function's name.
        weight: Name of its weight: the first name that ``named_parameters()`` gives it.
        shape: Shape of the weight.
        out_channels: Number of output filters.
        transposed: Whether output channels are dimension 1 of the weight.
        groups: Number of groups.
        obstacle: Why it cannot be decoupled, as a clause; empty if it can.
    """

    name: str
    kind: str
    weight: str
    shape: tuple[int, ...]
    out_channels: int
    transposed: bool
    groups: int
    obstacle: str

    def decided(
        self,
        verdict: Verdict,
        reason: str,
        *,
        decouple: bool,
        norm: str | None = None,
        via: tuple[str, ...] = (),
        source: str | None = None,
    ) -> ConvolutionEntry:
        """The plan's entry for this convolution, once its verdict is known."""
        return ConvolutionEntry(
            name=self.name,
            kind=self.kind,
            weight=self.weight,
            shape=self.shape,
            out_channels=self.out_channels,
            transposed=self.transposed,
            groups=self.groups,
            verdict=verdict,
            norm=norm,
            via=via,
            reason=reason,
            decouple=decouple,
            source=source,
        )


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters by each of their names, and the first name of each by its id."""

    parameters: dict[str, nn.Parameter]
    first: dict[int, str]

    def distinct(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Each parameter once, as ``named_parameters()`` gives them."""
        return ((name, self.parameters[name]) for name in self.first.values())


def names_of(model: nn.Module) -> Names:
    """The names of the parameters of ``model``."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        first.setdefault(id(parameter), name)
    return Names(parameters, first)


def module_candidates(modules: Mapping[str, nn.Module], names: Names) -> Iterator[ConvolutionCandidate]:
    """Every convolution among ``modules``."""
    for name, module in modules.items():
        rule = rule_of(module)
        if isinstance(rule, Conv):
            yield _module_candidate(name, module, rule, names)


def _module_candidate(name: str, module: nn.Module, rule: Conv, names: Names) -> ConvolutionCandidate:
    weight = module._parameters.get(rule.weight)
    shape = getattr(module, rule.weight).shape if weight is None else weight.shape
    obstacle = _obstacle(module, rule) or obstacle_of(weight)
    return ConvolutionCandidate(
        name=name,
        kind=plain_class_of(module).__name__,
        weight=names.first.get(id(weight), dotted(name, rule.weight)),
        shape=tuple(shape),
        out_channels=int(getattr(module, "out_channels", _outputs(shape, rule, 1))),
        transposed=rule.transposed,
        groups=int(getattr(module, "groups", 1)),
        obstacle=obstacle,
    )


def _obstacle(module: nn.Module, rule: Conv) -> str:
    """Why a convolution module is left as it is, bare or not; empty if it can be decoupled."""
    if isinstance(module, Decoupled):
        return "decoupled already"
    if rule.gain is not None:
        return f"it carries a gain of its own, {rule.gain}"
    if rule.standardized:
        return "it normalizes its weight itself, so a gain on that would change nothing"
    if module._parameters.get(rule.weight) is None:
        return "its weight is computed by a reparameterization, which is left as it is"
    return _no_second_derivative(rule)


def _no_second_derivative(rule: Conv) -> str:
    return "" if rule.twice_differentiable else "it has no second derivative, so a gain would get no Hessian"


def obstacle_of(weight: nn.Parameter | None) -> str:
    """Why a weight has no gain and direction to train, as a clause; empty if it has."""
    if weight is not None and (weight.is_complex() or weight.layout is not torch.strided):
        what = "complex" if weight.is_complex() else "sparse"
        return f"its weight is {what}, and gain and direction are for dense real numbers"
    trains = weight is not None and weight.requires_grad and weight.is_floating_point()
    return "" if trains else "its weight is frozen, so it is left as it is"


def functional_candidate(
    node: fx.Node, rule: Conv, modules: Mapping[str, nn.Module], names: Names
) -> ConvolutionCandidate | None:
    """What a call of a convolution function uses; None for a fixed kernel, in which nothing is trained."""
    operands = operands_of(node)
    assert operands is not None
    weight = argument_reader(node)(*operands.weight, None)
    scope = node.meta.get("scope") or ""
    made = provenance(weight, scope, modules)
    if made is None:
        return None
    parameter = names.parameters.get(made.name)
    filters = Filters(rule.transposed, groups_of(node, operands))
    shape = tuple(weight.meta.get("shape", ()) if parameter is None else parameter.shape)
    obstacle = made.obstacle or _no_second_derivative(rule) or obstacle_of(parameter)
    if not obstacle and not filters_preserved(weight, made, shape, filters, modules):
        obstacle = _OTHER_FILTERS
    return ConvolutionCandidate(
        name=_functional_name(made, dotted(scope, operation_name(node)), modules),
        kind=operation_name(node),
        weight=made.name if parameter is None else names.first[id(parameter)],
        shape=shape,
        out_channels=_outputs(shape, rule, filters.groups),
        transposed=filters.transposed,
        groups=filters.groups,
        obstacle=obstacle,
    )


def groups_of(node: fx.Node, operands: Operands) -> int:
    """The groups of a call of a layer; 1 where the trace does not know, and for a layer that has none."""
    groups = argument_reader(node)(*operands.groups, 1)
    return groups if isinstance(groups, int) else 1


def _functional_name(made: Provenance, otherwise: str, modules: Mapping[str, nn.Module]) -> str:
    """The path of the weight without ``.weight``; without a weight, the function's name in the module that calls it."""
    if made.name:
        return made.name.removesuffix("weight").removesuffix(".") or made.name
    while otherwise in modules:
        otherwise += "_"
    return otherwise


def _outputs(shape: Sequence[int], rule: Conv, groups: int) -> int:
    # A parameter that is viewed as a weight may have any shape itself.
    first, second, *_ = (*shape, 1, 1)
    return second * groups if rule.transposed else first
