"""The convolutions of a model before any verdict: what each one is, and what stands in the way of decoupling it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import fx, nn

from sgdph_fx.analysis.weight_provenance import filters_preserved, parameter_behind
from sgdph_fx.plan.entries import ConvolutionEntry, Verdict
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.rules.operations import OPERANDS
from sgdph_fx.transform.decouple import Decoupled, plain_class_of
from sgdph_fx.transform.filters import Filters, dotted

__all__ = ["ConvolutionCandidate", "Names", "functional_candidate", "module_candidates", "names_of"]

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
    obstacle = _obstacle(module, rule) or _frozen(weight)
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
    return ""


def _frozen(weight: nn.Parameter | None) -> str:
    trains = weight is not None and weight.requires_grad and weight.is_floating_point()
    return "" if trains else "its weight is frozen, so it is left as it is"


def functional_candidate(node: fx.Node, rule: Conv, names: Names) -> ConvolutionCandidate | None:
    """None for a fixed kernel (a buffer, or one that is computed): it is no convolution of ours."""
    arg = argument_reader(node)
    weight = arg(*OPERANDS[operation_name(node)].weight, None)
    source = parameter_behind(weight)
    if source is None or str(source.target) not in names.parameters:
        return None
    parameter = names.parameters[str(source.target)]
    groups = arg(6, "groups", 1)
    groups = groups if isinstance(groups, int) else 1
    filters = Filters(rule.transposed, groups)
    seen = filters_preserved(weight, source, parameter.shape, filters)
    obstacle = _frozen(parameter) or ("" if seen else _OTHER_FILTERS)
    return ConvolutionCandidate(
        name=str(source.target).removesuffix("weight").removesuffix(".") or str(source.target),
        kind=operation_name(node),
        weight=names.first[id(parameter)],
        shape=tuple(parameter.shape),
        out_channels=_outputs(parameter.shape, rule, groups),
        transposed=rule.transposed,
        groups=groups,
        obstacle=obstacle,
    )


def _outputs(shape: Sequence[int], rule: Conv, groups: int) -> int:
    # A parameter that is viewed as a weight may have any shape itself.
    first, second, *_ = (*shape, 1, 1)
    return second * groups if rule.transposed else first
