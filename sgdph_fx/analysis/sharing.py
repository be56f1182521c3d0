"""Convolutions that share one weight are treated alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sgdph_fx.analysis.conv_candidates import ConvolutionCandidate
from sgdph_fx.plan.entries import ConvolutionEntry

__all__ = ["Decision", "decided_together", "filters_of"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one convolution.

    Args:
        entry: Its entry.
        obstacle: Why it cannot be decoupled, as a clause; empty if it can.
        trained: Whether training calls it, so that its verdict counts for others with the same weight.
    """

    entry: ConvolutionEntry
    obstacle: str = ""
    trained: bool = True


def decided_together(decisions: Sequence[Decision]) -> list[Decision]:
    """Make the decisions on convolutions with one weight agree.

    All are bare if one of them is. None is decoupled if one of them cannot be, or if they take other numbers of the
    weight as an output filter: a convolution and the transposed one with the same weight.
    """
    by_weight: dict[str, list[int]] = {}
    for place, decision in enumerate(decisions):
        if decision.entry.weight:
            by_weight.setdefault(decision.entry.weight, []).append(place)
    result = list(decisions)
    for places in by_weight.values():
        if len(places) > 1:
            for place, agreed in zip(places, _agreed([decisions[p] for p in places]), strict=True):
                result[place] = agreed
    return result


def _agreed(decisions: Sequence[Decision]) -> list[Decision]:
    obstacle = next((_of_another(d) for d in decisions if d.obstacle), "") or _other_filters(decisions)
    leader = next((d.entry for d in decisions if d.trained and d.entry.verdict == "bare"), None)
    decouple = not obstacle and any(d.entry.decouple for d in decisions)
    return [_follow(decision, leader, obstacle, decouple) for decision in decisions]


def _of_another(decision: Decision) -> str:
    return f"{decision.entry.name or 'the model'}, which has the same weight, cannot be decoupled: {decision.obstacle}"


def _other_filters(decisions: Sequence[Decision]) -> str:
    if len({filters_of(d.entry) for d in decisions}) == 1:
        return ""
    names = " and ".join(d.entry.name for d in decisions[:2])
    return f"{names} share a weight, but each takes other numbers of it as an output filter, so it is left as it is"


def filters_of(convolution: ConvolutionEntry | ConvolutionCandidate) -> tuple[object, ...]:
    """Which numbers of its weight make an output filter; the groups of a plain convolution do not matter."""
    return convolution.transposed, convolution.transposed and convolution.groups


def _follow(decision: Decision, leader: ConvolutionEntry | None, obstacle: str, decouple: bool) -> Decision:
    entry = decision.entry
    if leader is not None and entry.verdict == "normalized":
        reason = f"bare: shares its weight with {leader.name}, whose {leader.reason.removeprefix('bare: ')}"
        entry = replace(entry, verdict="bare", norm=None, via=leader.via, reason=reason)
    if entry.verdict == "bare" and obstacle and not decision.obstacle:
        entry = replace(entry, reason=f"{entry.reason}; {obstacle}")
    return replace(decision, entry=replace(entry, decouple=decouple), obstacle=decision.obstacle or obstacle)
