"""Traces of a model that is prepared already → its plan: the convolutions that are decoupled stay decoupled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from sgdph_fx.analysis.decide import Analysis, decide
from sgdph_fx.errors import ModelError
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.entries import Action, ConvolutionEntry, Hint
from sgdph_fx.plan.plan import Plan
from sgdph_fx.plan.wording import counted, first_few
from sgdph_fx.trace import Reading
from sgdph_fx.transform.filters import Filters, decoupled_names, dotted

__all__ = ["decide_as_it_stands", "require_whole"]


def decide_as_it_stands(
    model: nn.Module, reading: Reading, config: Config, standing: Mapping[str, Filters]
) -> Analysis:
    """Decide as :func:`decide` does, but decouple exactly the weights that are decoupled already.

    Args:
        model: The model, with plain weights for now.
        reading: Its traces.
        config: The policy and the rules. Where they would decouple other convolutions, a hint says so.
        standing: The weights that are decoupled in the model.

    Raises:
        ModelError: if a decoupled weight belongs to no convolution that these traces show.
        ConfigError: as :func:`decide`.
    """
    # What came decoupled stays so while it is frozen, too. Nothing else could decouple a frozen weight.
    with _trained(model, standing) as frozen:
        wanted = decide(model, reading, config)
        found = wanted
        if wanted.plan.filters.keys() != standing.keys():
            found = _forced(model, reading, config, standing, wanted)
    found = replace(found, plan=_with_frozen(found.plan, model, frozen))
    if "already-prepared" in config.silence:
        return found
    others = sorted(wanted.plan.filters.keys() ^ standing.keys())
    differs = f"; these choices would treat {first_few(others)} otherwise" if others else ""
    message = (
        f"{counted(len(standing), 'weight')} came decoupled and {'stays' if len(standing) == 1 else 'stay'} as it was "
        f"made{differs}; to decide anew, prepare restore(model)"
    )
    hint = Hint("already-prepared", "", message)
    return replace(found, plan=replace(found.plan, hints=(hint, *found.plan.hints)))


@contextmanager
def _trained(model: nn.Module, weights: Iterable[str]) -> Iterator[frozenset[str]]:
    """Let frozen weights train for as long as it is decided on them; which ones that are."""
    own = dict(model.named_parameters())
    frozen = frozenset(name for name in weights if name in own and not own[name].requires_grad)
    for name in frozen:
        own[name].requires_grad_(True)
    try:
        yield frozen
    finally:
        for name in frozen:
            own[name].requires_grad_(False)


def _with_frozen(plan: Plan, model: nn.Module, frozen: Collection[str]) -> Plan:
    """The plan, in which nothing of these weights trains."""
    parts = {part for weight in frozen for part in decoupled_names(weight)}
    return replace(
        plan,
        parameters=tuple(entry for entry in plan.parameters if entry.name not in parts),
        frozen=tuple(name for name, p in model.named_parameters() if not p.requires_grad),
    )


def require_whole(model: nn.Module, standing: Iterable[str]) -> None:
    """Refuse a decoupled weight of which the gain trains and the direction does not: a plan knows it as a whole.

    Args:
        model: The prepared model.
        standing: Its decoupled weights, by the names that they have in the plain model.

    Raises:
        ModelError: naming the first one.
    """
    own = dict(model.named_parameters())
    for direction, gain in map(decoupled_names, standing):
        if direction in own and gain in own and own[gain].requires_grad and not own[direction].requires_grad:
            raise ModelError(
                f"{gain} trains, but {direction} is frozen, and a plan knows the two as one weight. Let both train, or "
                "none; to train gains alone, freeze the directions once the optimizer is made."
            )


def _forced(
    model: nn.Module, reading: Reading, config: Config, standing: Mapping[str, Filters], wanted: Analysis
) -> Analysis:
    seen = {row.weight for row in wanted.plan.convolutions}
    linear = {dotted(path, "weight") for path, m in model.named_modules() if isinstance(m, nn.Linear)}
    unseen = sorted(standing.keys() - seen - linear)
    if unseen:
        raise ModelError(
            f"{first_few(unseen)} came decoupled, and no convolution uses it on these example inputs. Pass the inputs "
            "that the model was prepared with, or prepare `restore(model)`."
        )
    rules: dict[str, Action] = {
        _pattern(name): "decouple" if name in standing else "keep"
        for name in sorted(seen | (standing.keys() & linear))
    }
    forced = decide(model, reading, replace(config, rules={**config.rules, **rules}))
    convolutions = tuple(map(_reworded, forced.plan.convolutions))
    return replace(forced, plan=replace(forced.plan, convolutions=convolutions))


def _reworded(row: ConvolutionEntry) -> ConvolutionEntry:
    """Not by a rule of the person's own."""
    reason = row.reason
    for done, instead in (("decoupled", "decoupled already"), ("left as it is", "left as it came")):
        reason = reason.replace(f"; {done} by the rule {_pattern(row.weight)!r}", f"; {instead}")
    return replace(row, reason=reason)


def _pattern(weight: str) -> str:
    """Matches that weight, and is no pattern of the person's own, whose options it would take the place of."""
    return f"re:(?:{re.escape(weight)})"
