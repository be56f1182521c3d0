"""Endings → bare or normalized, with a sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import fx, nn

from sgdph_fx.analysis.flow import Ending, Flow
from sgdph_fx.plan.entries import Policy
from sgdph_fx.plan.wording import counted
from sgdph_fx.rules.calls import argument_reader, operation_name
from sgdph_fx.rules.kinds import Norm

__all__ = ["Judgement", "judge", "name_of"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one call of a convolution.

    ``absorbs_bias`` says whether the norm takes away whatever the convolution adds to a channel.
    """

    verdict: Literal["bare", "normalized"]
    norm: str | None
    via: tuple[str, ...]
    reason: str
    absorbs_bias: bool = False


def judge(flow: Flow, endings: Sequence[Ending], policy: Policy) -> Judgement:
    """The verdict on a convolution whose paths end at ``endings``, nearest first."""
    norms = [e for e in endings if _normalizes(flow, e, policy)]
    others = [e for e in endings if e not in norms]
    if not endings:
        return Judgement("bare", None, (), "bare: nothing uses its output")
    if not others:
        nearest = norms[0]
        more = f" and {counted(len(norms) - 1, 'more norm')}" if len(norms) > 1 else ""
        reason = f"normalized: output goes {_through(nearest.via)}to {_name(flow, nearest)}{more}"
        absorbs = all(e.direct and _per_channel(flow, e) for e in norms)
        return Judgement("normalized", _path(nearest.node), nearest.via, reason, absorbs)
    # What a person wants to see first is a norm that is there but does not count.
    stop = next((e for e in others if isinstance(e.rule, Norm)), others[0])
    return Judgement("bare", None, stop.via, _why_bare(flow, norms, others, stop, policy))


def _why_bare(
    flow: Flow, norms: Sequence[Ending], others: Sequence[Ending], stop: Ending, policy: Policy
) -> str:
    if isinstance(stop.rule, Norm):
        return f"bare: output goes {_through(stop.via)}to {_name(flow, stop)}, {_objection(stop, policy)}"
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
    return policy == "see-through" or _per_channel(flow, ending)


def _objection(stop: Ending, policy: Policy) -> str:
    """Why a norm that the output reaches does not count."""
    assert isinstance(stop.rule, Norm)
    if stop.rule.statistics == "frozen":
        return "which is frozen: it takes no statistics, so it normalizes nothing"
    if policy == "direct":
        return "which is not its only consumer, or not directly"
    return "whose statistics mix channels, so that a gain on one would change the others"


def _per_channel(flow: Flow, ending: Ending) -> bool:
    """Whether the norm takes its statistics over each channel by itself, so that a gain cancels exactly."""
    rule, layout = ending.rule, ending.layout
    assert isinstance(rule, Norm)
    if rule.statistics in ("batch", "instance"):
        return layout.channel in (1, None)
    if rule.statistics == "group":
        return _groups_are_channels(flow, ending.node)
    normalized = _normalized_dims(flow, ending.node)
    if rule.channels_first or normalized is None or not layout.known:
        return False
    assert layout.channel is not None
    return layout.channel < layout.dim(-normalized)


def _groups_are_channels(flow: Flow, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = flow.modules[str(node.target)]
        return isinstance(module, nn.GroupNorm) and module.num_groups == module.num_channels
    groups, shape = argument_reader(node)(1, "num_groups", None), node.meta.get("shape")
    return shape is not None and groups == shape[1]


def _normalized_dims(flow: Flow, node: fx.Node) -> int | None:
    if node.op == "call_module":
        module = flow.modules[str(node.target)]
        # Subclasses are known to permute before they normalize, so nothing is proved for them.
        shape = module.normalized_shape if type(module) in (nn.LayerNorm, nn.RMSNorm) else None
    else:
        shape = argument_reader(node)(1, "normalized_shape", None)
    return len(shape) if isinstance(shape, list | tuple) else None


def _path(node: fx.Node) -> str:
    return str(node.target) if node.op == "call_module" else node.name


def _name(flow: Flow, ending: Ending) -> str:
    node = ending.node
    if node.op == "output":
        return "the model's output"
    if node.op == "call_module":
        return f"{type(flow.modules[str(node.target)]).__name__} {node.target}".rstrip()
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
