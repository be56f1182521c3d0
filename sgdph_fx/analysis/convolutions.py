"""Traces → an entry for each convolution: all its calls, in training and evaluation, make one verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from sgdph_fx.analysis.absorbed_biases import absorbed_biases
from sgdph_fx.analysis.conv_candidates import (
    ConvolutionCandidate,
    Names,
    functional_candidate,
    module_candidates,
)
from sgdph_fx.analysis.flow import Flow, walk
from sgdph_fx.analysis.norm_statistics import frozen_norms
from sgdph_fx.analysis.sharing import Decision, decided_together, filters_of
from sgdph_fx.analysis.verdicts import Judgement, judge, name_of
from sgdph_fx.plan.entries import Hint, Policy
from sgdph_fx.rules.calls import argument_reader
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.operations import operands_of
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


@dataclass(frozen=True, slots=True)
class _Registered:
    """The convolutions that are modules: by their own name, and by their weight's."""

    by_name: dict[str, ConvolutionCandidate]
    by_weight: dict[str, list[ConvolutionCandidate]]

    @classmethod
    def of(cls, candidates: Iterable[ConvolutionCandidate]) -> _Registered:
        found = cls({}, {})
        for candidate in candidates:
            found.by_name[candidate.name] = candidate
            found.by_weight.setdefault(candidate.weight, []).append(candidate)
        return found


def convolution_entries(
    names: Names, flows: Sequence[Flow], policy: Policy
) -> tuple[tuple[Decision, ...], tuple[Hint, ...]]:
    """The entries of all convolutions of a model, in the order of ``named_modules()``, and hints.

    Args:
        names: The names of its parameters.
        flows: Its flow graphs in training and in evaluation mode. Training decides; evaluation stands in
            for a convolution that training never calls, and a difference becomes a hint.
        policy: When a convolution counts as normalized.
    """
    registered = _Registered.of(module_candidates(flows[0].modules, names))
    calls: dict[str, list[_Call]] = {name: [] for name in registered.by_name}
    for flow in flows:
        for call in _calls(flow, names, policy, registered):
            calls.setdefault(call.candidate.name, []).append(call)
    used, frozen = _uses(flows), frozen_norms(flows[0])
    decided = [
        _decide(name, calls[name], frozen) if calls[name] else _uncalled(registered.by_name[name], used)
        for name in _in_module_order(flows[0].modules, calls)
    ]
    entries = decided_together([decision for decision, _ in decided])
    hints = (hint for _, found in decided for hint in found)
    every_call = (call for found in calls.values() for call in found if call.training)
    biases = absorbed_biases(flows[0], ((call.bias, call.judgement) for call in every_call))
    return tuple(entries), (*hints, *biases)


def _calls(flow: Flow, names: Names, policy: Policy, registered: _Registered) -> Iterator[_Call]:
    for _, attributes in flow.graph.nodes(data=True):
        node, rule = attributes["node"], attributes["rule"]
        if isinstance(rule, Conv):
            candidate = _candidate(flow, node, rule, names, registered)
            if candidate is not None:
                judgement = judge(flow, walk(flow, node), policy)
                bias = _bias(flow, node, rule, names)
                yield _Call(candidate, node.meta.get("source"), judgement, flow.training, bias)


def _candidate(
    flow: Flow, node: fx.Node, rule: Conv, names: Names, registered: _Registered
) -> ConvolutionCandidate | None:
    if node.op == "call_module":
        return registered.by_name[str(node.target)]
    caller = registered.by_name.get(node.meta.get("scope") or "")
    if caller is not None and caller.weight not in names.parameters:
        return caller  # a property of its class, or a parametrization, computes its weight
    called = functional_candidate(node, rule, flow.modules, names)
    owners = [] if called is None else registered.by_weight.get(called.weight, [])
    if called is None or not owners:
        return called
    # A convolution module whose forward is its own, or whose weight another module convolves by.
    module = next((owner for owner in owners if owner.name == node.meta.get("scope")), owners[0])
    obstacle = module.obstacle or called.obstacle
    if not obstacle and filters_of(module) != filters_of(called):
        obstacle = (
            f"{called.kind} takes other numbers of its weight as an output filter than {module.kind}, so it is left as "
            "it is"
        )
    return replace(module, obstacle=obstacle)


def _bias(flow: Flow, node: fx.Node, rule: Conv, names: Names) -> str | None:
    """The trainable parameter that a call adds to each output channel."""
    if node.op == "call_module":
        name = dotted(str(node.target), rule.bias)
    else:
        operands = operands_of(node)
        where = None if operands is None else operands.bias
        bias = None if where is None else argument_reader(node)(*where, None)
        name = str(bias.target) if isinstance(bias, fx.Node) and bias.op == "get_attr" else ""
    parameter = names.parameters.get(name)
    return name if parameter is not None and parameter.requires_grad else None


def _in_module_order(modules: Mapping[str, nn.Module], calls: dict[str, list[_Call]]) -> list[str]:
    rank = {name: position for position, name in enumerate(modules)}

    def place(name: str) -> int:
        while name not in rank:
            name = name.rpartition(".")[0]
        return rank[name]

    return sorted(calls, key=place)


def _uses(flows: Sequence[Flow]) -> dict[str, tuple[str, str]]:
    """By its owner's path, a parameter that the trace shows outside of its module, and the operation that uses it."""
    found: dict[str, tuple[str, str]] = {}
    for flow in flows:
        for _, attributes in flow.graph.nodes(data=True):
            node = attributes["node"]
            if node.op != "get_attr" or str(node.target).endswith("bias"):
                continue
            for user in node.users:
                _note(found, str(node.target), name_of(user))
    return found


def _note(found: dict[str, tuple[str, str]], name: str, user: str) -> None:
    """Write a use down for each module that the parameter lies in; the first one stays."""
    owner = name
    while owner:
        owner = owner.rpartition(".")[0]
        found.setdefault(owner, (name, user))


def _uncalled(
    candidate: ConvolutionCandidate, uses: Mapping[str, tuple[str, str]]
) -> tuple[Decision, list[Hint]]:
    """The decision on a convolution module that the traces never call."""
    if candidate.name not in uses:
        reason = "bare: never called, so no gradient ever reaches it; left as it is"
        hint = Hint("never-called", candidate.name, "neither training nor evaluation calls this convolution")
    else:
        name, user = uses[candidate.name]
        own = name.removeprefix(f"{candidate.name}.")
        what = f"its {own} goes into {user}, and on to no convolution that is seen"
        reason = f"bare: {what}; {candidate.obstacle or 'left as it is'}"
        hint = Hint("used-otherwise", candidate.name, what)
    entry = candidate.decided("bare", reason, decouple=False)
    return Decision(entry, candidate.obstacle, trained=False), [hint]


def _decide(name: str, calls: Sequence[_Call], frozen: frozenset[str]) -> tuple[Decision, list[Hint]]:
    training = [c for c in calls if c.training]
    evaluation = [c for c in calls if not c.training]
    chosen = training or evaluation
    call = next((c for c in chosen if c.judgement.verdict == "bare"), chosen[0])
    judgement = call.judgement
    bare = judgement.verdict == "bare"
    obstacle = next((c.candidate.obstacle for c in chosen if c.candidate.obstacle), "")
    entry = call.candidate.decided(
        judgement.verdict,
        _reason(call, chosen) + (f"; {obstacle}" if bare and obstacle else ""),
        decouple=bare and not obstacle and bool(training),
        norm=judgement.norm,
        via=judgement.via,
        source=call.source,
    )
    hints = _mode_hints(name, call, training, evaluation, frozen)
    return Decision(entry, obstacle, trained=bool(training)), hints


def _reason(call: _Call, calls: Sequence[_Call]) -> str:
    reason = call.judgement.reason
    if len({c.judgement.verdict for c in calls}) > 1:
        place = f" at {call.source}" if call.source else ""
        return f"{reason} (decided by the call{place}; of its {len(calls)} calls others are normalized)"
    return reason


def _mode_hints(
    name: str,
    call: _Call,
    training: Sequence[_Call],
    evaluation: Sequence[_Call],
    frozen: frozenset[str],
) -> list[Hint]:
    if not training:
        return [Hint("not-in-training", name, "only evaluation calls this convolution; left as it is")]
    other = next((c for c in evaluation if c.judgement.verdict == "bare"), None) or next(
        iter(evaluation), None
    )
    if other is None or other.judgement.verdict == call.judgement.verdict:
        return []
    # In evaluation all norms look alike; this one is the same in both modes.
    if other.judgement.norm in frozen:
        return []
    message = f"{call.judgement.verdict} in training, which counts, but not in evaluation ({other.judgement.reason})"
    return [Hint("train-eval-difference", name, message)]
