"""Traces → a row for each convolution: all its calls, in training and evaluation, make one verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from sgdph_fx.analysis.conv_candidates import (
    ConvolutionCandidate,
    Names,
    functional_candidate,
    module_candidates,
    names_of,
)
from sgdph_fx.analysis.flow import Flow, walk
from sgdph_fx.analysis.verdicts import Judgement, judge, name_of
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, Policy
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.transform.filters import dotted

__all__ = ["convolution_entries"]


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a convolution: what it is, where, what became of its output, and its trainable bias's name."""

    candidate: ConvolutionCandidate
    source: str | None
    judgement: Judgement
    training: bool
    bias: str | None


def convolution_entries(
    model: nn.Module, flows: Sequence[Flow], policy: Policy
) -> tuple[tuple[ConvolutionEntry, ...], tuple[Hint, ...]]:
    """The rows of all convolutions of ``model``, in the order of ``named_modules()``, and hints.

    Args:
        model: The model.
        flows: Its flow graphs in training and in evaluation mode. Training decides; evaluation stands in
            for a convolution that training never calls, and a difference becomes a hint.
        policy: When a convolution counts as normalized.
    """
    names = names_of(model)
    registered = {c.name: c for c in module_candidates(flows[0].modules, names)}
    calls: dict[str, list[_Call]] = {name: [] for name in registered}
    for flow in flows:
        for call in _calls(flow, names, policy, registered):
            calls.setdefault(call.candidate.name, []).append(call)
    order = _in_module_order(flows[0].modules, calls)
    used = _uses(flows)
    decided = [
        _decide(name, calls[name]) if calls[name] else _uncalled(registered[name], used) for name in order
    ]
    entries = _share([entry for entry, _ in decided])
    return tuple(entries), tuple(hint for _, hints in decided for hint in hints)


def _calls(
    flow: Flow, names: Names, policy: Policy, registered: Mapping[str, ConvolutionCandidate]
) -> Iterator[_Call]:
    for _, attributes in flow.graph.nodes(data=True):
        node, rule = attributes["node"], attributes["rule"]
        if not isinstance(rule, Conv):
            continue
        candidate = (
            registered[str(node.target)]
            if node.op == "call_module"
            else functional_candidate(node, rule, names)
        )
        if candidate is not None:
            judgement = judge(flow, walk(flow, node), policy)
            yield _Call(candidate, node.meta.get("source"), judgement, flow.training, _bias(flow, node, rule))


def _bias(flow: Flow, node: fx.Node, rule: Conv) -> str | None:
    if node.op != "call_module":
        return None
    bias = flow.modules[str(node.target)]._parameters.get(rule.bias)
    if bias is None or not bias.requires_grad:
        return None
    return dotted(str(node.target), rule.bias)


def _in_module_order(modules: Mapping[str, nn.Module], calls: dict[str, list[_Call]]) -> list[str]:
    rank = {name: position for position, name in enumerate(modules)}

    def place(name: str) -> int:
        while name not in rank:
            name = name.rpartition(".")[0]
        return rank[name]

    return sorted(calls, key=place)


def _uses(flows: Sequence[Flow]) -> dict[str, str]:
    """The operation that uses each parameter which the trace shows by itself, and not inside its module."""
    reads = (attributes["node"] for flow in flows for _, attributes in flow.graph.nodes(data=True))
    return {str(node.target): name_of(user) for node in reads if node.op == "get_attr" for user in node.users}


def _uncalled(
    candidate: ConvolutionCandidate, uses: Mapping[str, str]
) -> tuple[ConvolutionEntry, list[Hint]]:
    """A convolution module of which no call as a convolution was seen."""
    inside = dotted(candidate.name, "")
    used = next((n for n in uses if n.startswith(inside) and not n.endswith("bias")), None)
    if used is None:
        reason = "bare: never called, so no gradient ever reaches it; left as it is"
        hint = Hint("never-called", candidate.name, "neither training nor evaluation calls this convolution")
    else:
        what = (
            f"its {used.removeprefix(inside)} goes into {uses[used]}, and on to no convolution that is seen"
        )
        reason = f"bare: {what}; {candidate.obstacle or 'left as it is'}"
        hint = Hint("used-otherwise", candidate.name, what)
    return candidate.decided("bare", reason, decouple=False), [hint]


def _decide(name: str, calls: Sequence[_Call]) -> tuple[ConvolutionEntry, list[Hint]]:
    training = [c for c in calls if c.training]
    evaluation = [c for c in calls if not c.training]
    chosen = training or evaluation
    call = next((c for c in chosen if c.judgement.verdict == "bare"), chosen[0])
    judgement = call.judgement
    bare, obstacle = judgement.verdict == "bare", call.candidate.obstacle
    entry = call.candidate.decided(
        judgement.verdict,
        _reason(call, chosen) + (f"; {obstacle}" if bare and obstacle else ""),
        decouple=bare and not obstacle and bool(training),
        norm=judgement.norm,
        via=judgement.via,
        source=call.source,
    )
    return entry, [*_mode_hints(name, call, training, evaluation), *_bias_hints(call, training)]


def _reason(call: _Call, calls: Sequence[_Call]) -> str:
    reason = call.judgement.reason
    if len({c.judgement.verdict for c in calls}) > 1:
        place = f" at {call.source}" if call.source else ""
        return f"{reason} (decided by the call{place}; of its {len(calls)} calls others are normalized)"
    return reason


def _mode_hints(name: str, call: _Call, training: Sequence[_Call], evaluation: Sequence[_Call]) -> list[Hint]:
    if not training:
        return [Hint("not-in-training", name, "only evaluation calls this convolution; left as it is")]
    other = next((c for c in evaluation if c.judgement.verdict == "bare"), None) or next(
        iter(evaluation), None
    )
    if other is None or other.judgement.verdict == call.judgement.verdict:
        return []
    message = f"{call.judgement.verdict} in training, which counts, but not in evaluation ({other.judgement.reason})"
    return [Hint("train-eval-difference", name, message)]


def _bias_hints(call: _Call, training: Sequence[_Call]) -> list[Hint]:
    if call.bias is None or not training or not all(c.judgement.absorbs_bias for c in training):
        return []
    message = (
        f"{call.judgement.norm} subtracts the mean, and with it this bias: it changes nothing, and its Hessian is "
        "rounding noise, which makes for the largest step of all; build the convolution with bias=False"
    )
    return [Hint("absorbed-bias", call.bias, message)]


def _share(entries: Sequence[ConvolutionEntry]) -> list[ConvolutionEntry]:
    """Convolutions that share a weight share a verdict: bare, if one of them is."""
    decoupled = {entry.weight: entry for entry in reversed(entries) if entry.decouple}
    result = []
    for entry in entries:
        leader = decoupled.get(entry.weight)
        if leader is not None and entry.verdict == "normalized":
            reason = (
                f"bare: shares its weight with {leader.name}, whose {leader.reason.removeprefix('bare: ')}"
            )
            entry = replace(entry, verdict="bare", norm=None, via=leader.via, reason=reason)
        result.append(entry if leader is None else replace(entry, decouple=True))
    return result
