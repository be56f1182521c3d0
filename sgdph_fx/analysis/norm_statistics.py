"""Which numbers a norm takes together, and whether they are all of one channel of a convolution."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx, nn

from sgdph_fx.analysis.flow import Ending, Flow
from sgdph_fx.rules.calls import argument_reader
from sgdph_fx.rules.kinds import Norm
from sgdph_fx.rules.layout import Layout, one_channel
from sgdph_fx.rules.modules import computes_as_known, forward_of
from sgdph_fx.rules.regroup import split_in_front

__all__ = ["absorbs_bias", "absorbs_gain", "frozen_norms", "norms_of", "why_not"]


def norms_of(flow: Flow) -> dict[str, Norm]:
    """The norms that are modules, by path."""
    nodes = ((a["node"], a["rule"]) for _, a in flow.graph.nodes(data=True))
    return {str(n.target): rule for n, rule in nodes if n.op == "call_module" and isinstance(rule, Norm)}


def frozen_norms(flow: Flow) -> frozenset[str]:
    """Those of them that are kept in evaluation mode, or always take trained statistics, by path."""
    return frozenset(path for path, rule in norms_of(flow).items() if rule.statistics == "frozen")


def absorbs_gain(flow: Flow, ending: Ending) -> bool:
    """Whether a gain on a channel provably cancels in the norm that a path ends at."""
    return not why_not(flow, ending)


def absorbs_bias(flow: Flow, ending: Ending) -> bool:
    """Whether a constant added to a channel provably cancels in the norm, which the output reaches unchanged."""
    rule = ending.rule
    return isinstance(rule, Norm) and ending.direct and rule.absorbs_constants and absorbs_gain(flow, ending)


def why_not(flow: Flow, ending: Ending) -> str:
    """Why a gain on a channel would change more than that channel, as a clause; empty if it would not."""
    rule = ending.rule
    assert isinstance(rule, Norm)
    if not rule.scale_free:
        return "which does more than normalize, so that a gain does not cancel in it"
    if not _is_known(flow, ending.node, rule):
        return "whose forward is its own, so that nothing proves that a gain cancels in it"
    if ending.layout.dims is None:
        return (
            "where the place of the channels is not known, so that nothing proves that a gain cancels in it"
        )
    layout, kept = _kept_apart(flow, ending, rule)
    if kept is None or not one_channel(layout, kept):
        return "whose statistics mix channels, so that a gain on one would change the others"
    return ""


def _is_known(flow: Flow, node: fx.Node, rule: Norm) -> bool:
    """Subclasses of layer and RMS norms, those of libraries included, are known to permute before they normalize."""
    if node.op != "call_module":
        return True
    module = flow.modules[str(node.target)]
    if rule.statistics in ("layer", "rms") and not rule.channels_first:
        return forward_of(module) in (nn.LayerNorm.forward, nn.RMSNorm.forward)
    return computes_as_known(module)


def _kept_apart(flow: Flow, ending: Ending, rule: Norm) -> tuple[Layout, Iterable[int] | None]:
    """The dimensions along which each place has statistics of its own, and the layout that they count in."""
    layout, node = ending.layout, ending.node
    assert layout.dims is not None
    rank = len(layout.dims)
    if rule.statistics == "batch":
        return layout, (1,)
    if rule.statistics == "instance":
        return layout, (0,) if _is_unbatched(flow, node, rank) else (0, 1)
    if rule.statistics == "group":
        return _by_groups(layout, _groups(flow, node))
    if rule.channels_first:
        return layout, (at for at in range(rank) if at != 1)
    normalized = _normalized_dims(flow, node)
    return layout, None if normalized is None else range(rank - normalized)


def _is_unbatched(flow: Flow, node: fx.Node, rank: int) -> bool:
    """Whether an instance norm was given a map without a batch, which torch allows."""
    module = flow.modules[str(node.target)] if node.op == "call_module" else None
    dims = {nn.InstanceNorm1d: 1, nn.InstanceNorm2d: 2, nn.InstanceNorm3d: 3}
    return any(isinstance(module, kind) and rank == number + 1 for kind, number in dims.items())


def _by_groups(layout: Layout, groups: object) -> tuple[Layout, Iterable[int] | None]:
    assert layout.dims is not None
    batch, *rest = layout.dims
    parts = split_in_front(rest[0], groups) if rest and isinstance(groups, int) else None
    if parts is None:
        # Where the blocks lie is not known, but if all the dimension is of one channel, it does not matter.
        return layout, (0,)
    return Layout((batch, *parts, *rest[1:])), (0, 1)


def _groups(flow: Flow, node: fx.Node) -> object:
    if node.op != "call_module":
        return argument_reader(node)(1, "num_groups", None)
    module = flow.modules[str(node.target)]
    return module.num_groups if isinstance(module, nn.GroupNorm) else None


def _normalized_dims(flow: Flow, node: fx.Node) -> int | None:
    if node.op == "call_module":
        shape = getattr(flow.modules[str(node.target)], "normalized_shape", None)
    else:
        shape = argument_reader(node)(1, "normalized_shape", None)
    return len(shape) if isinstance(shape, list | tuple) else 1 if isinstance(shape, int) else None
