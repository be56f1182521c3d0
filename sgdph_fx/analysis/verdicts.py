"""Endings → bare or normalized, with a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx

from sgdph_fx.analysis.flow import Ending, Flow
from sgdph_fx.analysis.norm_statistics import absorbs_bias, absorbs_gain, why_not
from sgdph_fx.plan.entries import Policy
from sgdph_fx.plan.wording import counted
from sgdph_fx.rules.calls import operation_name
from sgdph_fx.rules.kinds import Norm
from sgdph_fx.rules.modules import rule_of

__all__ = ["Judgement", "judge", "name_of"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one call of a convolution.

    ``absorbs_bias`` says whether the norm removes any constant that the convolution adds to a channel.
    """

    verdict: Literal["bare", "normalized"]
    norm: str | None
    via: tuple[str, ...]
    reason: str
    absorbs_bias: bool = False


def judge(flow: Flow, endings: Sequence[Ending], policy: Policy) -> Judgement:
    """The verdict on a convolution whose paths end at ``endings``, nearest first."""
    if not endings:
        return Judgement("bare", None, (), "bare: nothing uses its output")
    norms: list[Ending] = []
    others: list[Ending] = []
    for ending in endings:
        (norms if _normalizes(flow, ending, policy) else others).append(ending)
    if not others:
        nearest = norms[0]
        more = f" and {counted(len(norms) - 1, 'more norm')}" if len(norms) > 1 else ""
        reason = f"normalized: output goes {_through(nearest.via)}to {_name(flow, nearest)}{more}"
        absorbs = all(absorbs_bias(flow, ending) for ending in norms)
        return Judgement("normalized", _path(flow, nearest.node), nearest.via, reason, absorbs)
    # A norm that is there but does not count is the first thing that you want to see.
    stop = next((e for e in others if isinstance(e.rule, Norm)), others[0])
    return Judgement("bare", None, stop.via, _why_bare(flow, norms, others, stop, policy))


def _why_bare(
    flow: Flow, norms: Sequence[Ending], others: Sequence[Ending], stop: Ending, policy: Policy
) -> str:
    if isinstance(stop.rule, Norm):
        return (
            f"bare: output goes {_through(stop.via)}to {_name(flow, stop)}, {_objection(flow, stop, policy)}"
        )
    if norms:
        return (
            f"bare: one path reaches {_name(flow, norms[0])}, but another goes "
            f"{_through(stop.via)}to {_name(flow, stop)} before any norm"
        )
    together = [e for e in others if e.via == stop.via]
    names = list(dict.fromkeys(_name(flow, e) for e in together))
    rest = len({_name(flow, e) for e in others}) - len(names)
    shown = names[:3] + ([counted(len(names) - 3, "more operation")] if len(names) > 3 else [])
    elsewhere = f" (and, by other ways, to {counted(rest, 'more operation')})" if rest > 0 else ""
    return f"bare: output goes {_through(stop.via)}to {_list(shown)}{elsewhere}; no norm on any path"


def _normalizes(flow: Flow, ending: Ending, policy: Policy) -> bool:
    if not isinstance(ending.rule, Norm) or ending.rule.statistics == "frozen":
        return False
    if policy == "direct":
        return ending.direct
    return policy == "see-through" or absorbs_gain(flow, ending)


def _objection(flow: Flow, stop: Ending, policy: Policy) -> str:
    """Why a norm that the output reaches does not count."""
    assert isinstance(stop.rule, Norm)
    if stop.rule.statistics == "frozen":
        return "which is frozen: it takes no statistics, so it normalizes nothing"
    if policy == "direct":
        return "which is not its only consumer, or not directly"
    return why_not(flow, stop)


def _path(flow: Flow, node: fx.Node) -> str:
    path = _module_path(flow, node)
    return node.name if path is None else path


def _module_path(flow: Flow, node: fx.Node) -> str | None:
    """The path of the module that an operation is: its own, or that of the norm whose ``forward`` calls it."""
    if node.op == "call_module":
        return str(node.target)
    scope = node.meta.get("scope")
    inside = None if scope is None else flow.modules.get(scope)
    if inside is None or not isinstance(flow.graph.nodes[node.name]["rule"], Norm):
        return None
    return scope if isinstance(rule_of(inside), Norm) else None


def _name(flow: Flow, ending: Ending) -> str:
    node = ending.node
    if node.op == "output":
        return "the model's output"
    path = _module_path(flow, node)
    if path is not None:
        return f"{type(flow.modules[path]).__name__} {path}".rstrip()
    name = name_of(node)
    return f"{name} ({node.meta['source']})" if node.meta.get("source") else name


def name_of(node: fx.Node) -> str:
    """A function's or method's name as a person would write it."""
    return operation_name(node) or getattr(node.target, "__name__", type(node.target).__name__)


def _through(via: Sequence[str]) -> str:
    shown = [*via[:3], "…", via[-1]] if len(via) > 5 else list(via)
    return f"through {_list(shown)} " if via else ""


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
