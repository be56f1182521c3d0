"""Flow + entries → hints about what is not an error but can spoil a training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from sgdph_fx.analysis.flow import Flow, walk
from sgdph_fx.analysis.norm_statistics import frozen_norms, norms_of
from sgdph_fx.analysis.shift_biases import shift_biases
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry
from sgdph_fx.plan.wording import counted, first_few
from sgdph_fx.rules.kinds import Conv, Linear, Transparent
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.transform.filters import Filters, decompose, dotted

__all__ = ["diagnose"]


def diagnose(
    flow: Flow,
    convolutions: Sequence[ConvolutionEntry],
    parameters: Sequence[ParameterEntry],
) -> tuple[Hint, ...]:
    """What is worth a hint.

    Args:
        flow: The flow of the unprepared model in training mode, or in evaluation if that is all there is.
        convolutions: The plan's entries.
        parameters: The plan's entries.
    """
    return (
        *_classifier_bias(flow, parameters),
        *shift_biases(flow, parameters),
        *_without_affine(flow),
        *_frozen_norms(flow, convolutions),
        *_zero_filters(flow, convolutions),
        *_hooked_weights(flow, convolutions),
        *(_never_reached(flow, parameters) if flow.training else ()),
    )


def _classifier_bias(flow: Flow, parameters: Sequence[ParameterEntry]) -> Iterator[Hint]:
    second = [entry.name for entry in parameters if entry.order == 2]
    # `variant="authors"`, the default, steps the last one by SGD.
    at_risk = {*second[:-1]}
    for name, attributes in flow.graph.nodes(data=True):
        node = attributes["node"]
        if node.op == "call_module" and isinstance(attributes["rule"], Linear) and _is_last(flow, name):
            bias = dotted(str(node.target), "bias")
            if bias in at_risk:
                message = "under cross-entropy its Hessian's rows sum to zero, which is all that the ones probe sees"
                yield Hint("classifier-bias", bias, message)


def _is_last(flow: Flow, name: str) -> bool:
    """Whether nothing but shapes changes between a result and the model's output."""
    followers = list(flow.graph[name])
    if len(followers) != 1:
        return False
    attributes = flow.graph.nodes[followers[0]]
    if attributes["node"].op == "output":
        return True
    rule = attributes["rule"]
    return isinstance(rule, Transparent) and rule.shape_only and _is_last(flow, followers[0])


def _without_affine(flow: Flow) -> Iterator[Hint]:
    bare = [
        path
        for path, rule in norms_of(flow).items()
        if rule.statistics != "frozen" and getattr(flow.modules[path], rule.weight, None) is None
    ]
    if bare:
        yield Hint("norm-without-affine", bare[0], f"no scale and no shift in {_listed(bare, 'norm')}")


def _frozen_norms(flow: Flow, convolutions: Sequence[ConvolutionEntry]) -> Iterator[Hint]:
    decoupled = {entry.name for entry in convolutions if entry.decouple}
    frozen = frozen_norms(flow)
    idle: dict[str, None] = {}
    for _, attributes in flow.graph.nodes(data=True):
        node = attributes["node"]
        if (
            node.op == "call_module"
            and isinstance(attributes["rule"], Conv)
            and str(node.target) not in decoupled
        ):
            reached = (str(e.node.target) for e in walk(flow, node) if e.node.op == "call_module")
            idle.update(dict.fromkeys(path for path in reached if path in frozen))
    if idle:
        some = _listed(list(idle), "norm")
        yield Hint(
            "frozen-norm", next(iter(idle)), f"nothing second-order in {some} and the convolution before"
        )


def _zero_filters(flow: Flow, convolutions: Sequence[ConvolutionEntry]) -> Iterator[Hint]:
    for entry in convolutions:
        weight = flow.parameter(entry.weight)
        if not entry.decouple or weight is None or weight.is_meta or _surely_no_zero_filter(weight, entry):
            continue
        _, gain = decompose(weight.detach(), Filters(entry.transposed, entry.groups))
        zeros = int((gain == 0).sum())
        if zeros:
            which = "all" if zeros == entry.out_channels else f"{zeros} of"
            yield Hint("zero-filter", entry.name, f"{which} {entry.out_channels} output filters are zero")


def _hooked_weights(flow: Flow, convolutions: Sequence[ConvolutionEntry]) -> Iterator[Hint]:
    hooked = [
        entry.weight
        for entry in convolutions
        if entry.decouple
        and (weight := flow.parameter(entry.weight)) is not None
        and (weight._backward_hooks or weight._post_accumulate_grad_hooks)
    ]
    if hooked:
        which = _listed(hooked, "weight")
        message = f"gradient hooks on {which} get the gradient by the direction, and the gain has none"
        yield Hint("hooked-weight", hooked[0], message)


def _surely_no_zero_filter(weight: nn.Parameter, entry: ConvolutionEntry) -> bool:
    """Looks at one number of each filter; reading all of them would take longer than the rest of the analysis."""
    return not entry.transposed and bool((weight.detach().flatten(1)[:, :1] != 0).all())


def _never_reached(flow: Flow, parameters: Sequence[ParameterEntry]) -> Iterator[Hint]:
    reached = set(_reached(flow))
    missing = [
        entry.name
        for entry in parameters
        if (parameter := flow.parameter(entry.name)) is not None
        and id(parameter) not in reached
        and not _in_convolution(flow, entry.name)
    ]
    if missing:
        yield Hint(
            "never-reached", missing[0], f"no gradient in training for {_listed(missing, 'parameter')}"
        )


def _reached(flow: Flow) -> Iterator[int]:
    for _, attributes in flow.graph.nodes(data=True):
        node = attributes["node"]
        if node.op == "call_module":
            yield from map(id, flow.modules[str(node.target)].parameters())
        elif node.op == "get_attr":
            yield id(flow.parameter(str(node.target)))


def _in_convolution(flow: Flow, name: str) -> bool:
    """A convolution that is never called has a hint of its own."""
    return isinstance(rule_of(flow.modules[name.rpartition(".")[0]]), Conv)


def _listed(names: Sequence[str], noun: str) -> str:
    return f"{counted(len(names), noun)} ({first_few(names)})"
