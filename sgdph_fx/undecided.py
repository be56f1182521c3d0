"""A convolution's row before its verdict: what it is, and whether it could be decoupled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from sgdph_fx.decouple import Decoupled, plain_class_of
from sgdph_fx.filters import Filters, dotted
from sgdph_fx.rows import ConvolutionRow
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import OPERANDS
from sgdph_fx.views import filters_seen_through, source_of

__all__ = ["Names", "functional_row", "module_rows", "names_of"]

_OTHER_FILTERS = "it convolves by a view of its weight with other filters, so it is left as it is"


@dataclass(frozen=True, slots=True)
class Names:
    """The parameters by each of their names, and the first name of each by its id."""

    parameters: dict[str, nn.Parameter]
    first: dict[int, str]


def names_of(model: nn.Module) -> Names:
    """The names of the parameters of ``model``."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        first.setdefault(id(parameter), name)
    return Names(parameters, first)


def module_rows(modules: Mapping[str, nn.Module], names: Names) -> Iterator[ConvolutionRow]:
    """A row for each convolution among ``modules``; its reason says only why it cannot be decoupled, if so."""
    for name, module in modules.items():
        rule = rule_of(module)
        if isinstance(rule, Conv):
            yield _module_row(name, module, rule, names)


def _module_row(name: str, module: nn.Module, rule: Conv, names: Names) -> ConvolutionRow:
    weight = module._parameters.get(rule.weight)
    shape = getattr(module, rule.weight).shape if weight is None else weight.shape
    obstacle = _obstacle(module, rule) or _frozen(weight)
    return ConvolutionRow(
        name=name,
        kind=plain_class_of(module).__name__,
        weight=names.first.get(id(weight), dotted(name, rule.weight)),
        shape=tuple(shape),
        out_channels=int(getattr(module, "out_channels", _outputs(shape, rule, 1))),
        transposed=rule.transposed,
        groups=int(getattr(module, "groups", 1)),
        verdict="bare",
        norm=None,
        via=(),
        reason=obstacle,
        decouple=not obstacle,
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
    return ""


def _frozen(weight: nn.Parameter | None) -> str:
    trains = weight is not None and weight.requires_grad and weight.is_floating_point()
    return "" if trains else "its weight is frozen, so it is left as it is"


def functional_row(node: fx.Node, rule: Conv, names: Names) -> ConvolutionRow | None:
    """None for a fixed kernel (a buffer, or one that is computed): it is no convolution of ours."""
    arg = argument_reader(node)
    weight = arg(*OPERANDS[operation_name(node)].weight, None)
    source = source_of(weight)
    if source is None or str(source.target) not in names.parameters:
        return None
    parameter = names.parameters[str(source.target)]
    groups = arg(6, "groups", 1)
    groups = groups if isinstance(groups, int) else 1
    filters = Filters(rule.transposed, groups)
    seen = filters_seen_through(weight, source, parameter.shape, filters)
    obstacle = _frozen(parameter) or ("" if seen else _OTHER_FILTERS)
    return ConvolutionRow(
        name=str(source.target).removesuffix("weight").removesuffix(".") or str(source.target),
        kind=operation_name(node),
        weight=names.first[id(parameter)],
        shape=tuple(parameter.shape),
        out_channels=_outputs(parameter.shape, rule, groups),
        transposed=rule.transposed,
        groups=groups,
        verdict="bare",
        norm=None,
        via=(),
        reason=obstacle,
        decouple=not obstacle,
    )


def _outputs(shape: Sequence[int], rule: Conv, groups: int) -> int:
    # A parameter that is viewed as a weight may have any shape itself.
    first, second, *_ = (*shape, 1, 1)
    return second * groups if rule.transposed else first
