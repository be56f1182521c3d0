"""Your rules, applied to the entries of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.config import Override
from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry
from sgdph_fx.plan.rule_messages import what_is_there
from sgdph_fx.plan.selectors import Candidate

__all__ = ["Named", "override_convolutions", "override_parameters"]


@dataclass(frozen=True, slots=True)
class Named:
    """What has a name in the model.

    Args:
        types: The class of each module and the classes that it derives from, by path.
        weights: The weight that each direction and gain stands for, so that a rule on the weight reaches them.
        frozen: Names of the parameters that require no gradient.
    """

    types: Mapping[str, Sequence[str]]
    weights: Mapping[str, str]
    frozen: Sequence[str] = ()


def override_convolutions(
    entries: Sequence[ConvolutionEntry],
    overrides: Iterable[Override],
    obstacles: Mapping[str, str],
    named: Named,
    linears: Sequence[ConvolutionEntry] = (),
) -> tuple[ConvolutionEntry, ...]:
    """Apply the actions ``keep`` and ``decouple``.

    Convolutions that share a weight are overridden together: a rule for one of them holds for all. A rule to decouple
    what holds no convolution is for the linear layers that it matches; these join the entries.

    Args:
        entries: The convolutions as they were decided.
        overrides: Your rules in order.
        obstacles: Why a convolution cannot be decoupled, by its name; empty where it can.
        named: What has a name in the model.
        linears: Its linear layers, as entries that are not decoupled.

    Raises:
        ConfigError: if a rule matches no convolution, or asks to decouple only what cannot be.
    """
    chosen = [override for override in overrides if override.action in ("keep", "decouple")]
    candidates = [Candidate((entry.name, entry.weight)) for entry in entries]
    others = [Candidate((entry.name, entry.weight)) for entry in linears]
    decided: dict[str, Override] = {}
    for override in chosen:
        matched = [entries[place] for place in _hits(override, candidates, named)]
        if not matched and override.action == "decouple":
            matched = [linears[place] for place in _hits(override, others, named)]
        if not matched:
            raise _matches_nothing(override, "convolution", candidates, named)
        possible = _possible(override, matched, obstacles)
        decided.update(dict.fromkeys((_key(entry) for entry in possible), override))
    joined = [*entries, *(entry for entry in linears if _key(entry) in decided)]
    return tuple(
        _convolution(entry, decided[_key(entry)]) if _key(entry) in decided else entry for entry in joined
    )


def override_parameters(
    entries: Sequence[ParameterEntry], overrides: Iterable[Override], named: Named
) -> tuple[ParameterEntry, ...]:
    """Apply the actions ``first-order`` and ``second-order``, and options of parameter groups.

    Raises:
        ConfigError: if a rule matches no trainable parameter.
    """
    candidates = [_candidate(entry, named.weights) for entry in entries]
    result = list(entries)
    for override in overrides:
        orders = override.action in ("first-order", "second-order")
        if not orders and not override.options:
            continue
        hits = _hits(override, candidates, named)
        if not hits:
            raise _matches_nothing(override, "trainable parameter", candidates, named)
        for place in hits:
            result[place] = _parameter(result[place], override, orders)
    return tuple(result)


def _candidate(entry: ParameterEntry, weights: Mapping[str, str]) -> Candidate:
    names = (entry.name, weights[entry.name]) if entry.name in weights else (entry.name,)
    return Candidate(names, entry.role, entry.kind)


def _hits(override: Override, candidates: Sequence[Candidate], named: Named) -> list[int]:
    matches = override.selector.matches
    return [place for place, candidate in enumerate(candidates) if matches(candidate, named.types)]


def _matches_nothing(
    override: Override, what: str, candidates: Sequence[Candidate], named: Named
) -> ConfigError:
    value = override.action or dict(override.options)
    instead = what_is_there(override, what, candidates, named.types, named.frozen)
    return ConfigError(f"The rule {override.pattern!r}: {value!r} matches no {what} of the model; {instead}.")


def _possible(
    override: Override, entries: Sequence[ConvolutionEntry], obstacles: Mapping[str, str]
) -> list[ConvolutionEntry]:
    """Those that can be treated as the rule says; a glob passes over the others."""
    if override.action == "keep":
        return list(entries)
    possible = [entry for entry in entries if not obstacles.get(entry.name)]
    if not possible:
        first = entries[0]
        raise ConfigError(
            f"The rule {override.pattern!r}: 'decouple' cannot be followed: {first.name or 'the model'} "
            f"({first.kind}) cannot be decoupled: {obstacles[first.name]}. Take the rule out."
        )
    return possible


def _key(entry: ConvolutionEntry) -> str:
    """What convolutions with one weight have in common; without a weight, none has anything."""
    return f"weight {entry.weight}" if entry.weight else f"name {entry.name}"


def _convolution(entry: ConvolutionEntry, override: Override) -> ConvolutionEntry:
    decouple = override.action == "decouple"
    done = "decoupled" if decouple else "left as it is"
    reason = f"{entry.reason}; {done} by the rule {override.pattern!r}"
    return replace(entry, decouple=decouple, reason=reason)


def _parameter(entry: ParameterEntry, override: Override, orders: bool) -> ParameterEntry:
    if override.options:
        options = {name: tuple(o) if isinstance(o, list) else o for name, o in override.options.items()}
        entry = replace(entry, options={**entry.options, **options})
    if not orders:
        return entry
    reason = f"{override.action}: by the rule {override.pattern!r}"
    return replace(entry, order=1 if override.action == "first-order" else 2, reason=reason)
