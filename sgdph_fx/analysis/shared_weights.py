"""Convolutions that share a weight but not the way its filters lie, as a convolution and its transpose do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sgdph_fx.plan.entries import ConvolutionEntry

__all__ = ["keep_where_filters_differ"]


def keep_where_filters_differ(entries: Sequence[ConvolutionEntry]) -> tuple[ConvolutionEntry, ...]:
    """The entries, in which such convolutions stay as they are: one gain for each filter would fit only one of them."""
    kinds: dict[str, dict[tuple[bool, int], str]] = {}
    for entry in entries:
        kinds.setdefault(entry.weight, {}).setdefault((entry.transposed, entry.groups), entry.name)
    return tuple(_kept(entry, kinds[entry.weight]) if entry.decouple else entry for entry in entries)


def _kept(entry: ConvolutionEntry, kinds: dict[tuple[bool, int], str]) -> ConvolutionEntry:
    others = [name for kind, name in kinds.items() if kind != (entry.transposed, entry.groups)]
    if not others:
        return entry
    shared = f"it shares its weight with {others[0]}, whose filters lie otherwise, so it is left as it is"
    return replace(entry, decouple=False, reason=f"{entry.reason}; {shared}")
