"""Traces → plan: follow the flow, judge each convolution, give each parameter its role, apply your rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from sgdph_fx.analysis.conv_candidates import names_of
from sgdph_fx.analysis.convolutions import convolution_entries
from sgdph_fx.analysis.details import with_details
from sgdph_fx.analysis.diagnostics import diagnose
from sgdph_fx.analysis.flow import Flow, flow_of
from sgdph_fx.analysis.linear_candidates import linear_decisions
from sgdph_fx.analysis.parameter_roles import parameter_entries
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.entries import ConvolutionEntry
from sgdph_fx.plan.overrides import Named, override_convolutions, override_parameters
from sgdph_fx.plan.plan import Plan
from sgdph_fx.trace import Reading
from sgdph_fx.transform.decouple import plain_class_of
from sgdph_fx.transform.filters import decoupled_names

__all__ = ["Analysis", "decide"]


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found out about one model, and what was decided.

    Args:
        flows: The model's flow graphs. The first one decides.
        plan: The decision.
    """

    flows: tuple[Flow, ...]
    plan: Plan


def decide(model: nn.Module, reading: Reading, config: Config) -> Analysis:
    """Decide how each convolution and each parameter of ``model`` is treated; nothing is changed.

    Args:
        model: The model, not yet prepared.
        reading: Its traces.
        config: The policy, your rules, and the hints that you do not want.

    Raises:
        ConfigError: if a rule matches nothing.
    """
    flows = tuple(flow_of(trace, model) for trace in reading.traces)
    names = names_of(model)
    decisions, hints = convolution_entries(names, flows, config.policy)
    own = {decision.entry.name for decision in decisions}
    every_linear = linear_decisions(flows[0].modules, names)
    linears = [decision for decision in every_linear if decision.entry.name not in own]
    obstacles = {decision.entry.name: decision.obstacle for decision in (*decisions, *linears)}
    frozen = tuple(name for name, parameter in names.distinct() if not parameter.requires_grad)
    named = Named(_types(flows[0]), {}, frozen)
    convolutions = override_convolutions(
        [d.entry for d in decisions], config.overrides, obstacles, named, [d.entry for d in linears]
    )
    named = replace(named, weights=_weights(convolutions))
    parameters = parameter_entries(names, convolutions, flows)
    parameters, layers = with_details(model, parameters, flows, named.weights)
    parameters = override_parameters(parameters, config.overrides, named)
    hints = (*reading.hints, *hints, *diagnose(flows[0], convolutions, parameters))
    plan = Plan(
        model=f"{type(model).__module__}.{type(model).__qualname__}",
        policy=config.policy,
        way=reading.traces[0].way,
        convolutions=convolutions,
        parameters=parameters,
        frozen=frozen,
        hints=tuple(hint for hint in hints if hint.code not in config.silence),
        layers=layers,
    )
    return Analysis(flows, plan)


def _types(flow: Flow) -> dict[str, tuple[str, ...]]:
    """The class of each module by its path, and the classes that it derives from, up to ``nn.Module``."""
    kinds = {plain_class_of(module) for module in flow.modules.values()}
    names = {kind: tuple(a.__name__ for a in kind.__mro__ if a not in nn.Module.__mro__) for kind in kinds}
    return {path: names[plain_class_of(module)] for path, module in flow.modules.items()}


def _weights(convolutions: Sequence[ConvolutionEntry]) -> dict[str, str]:
    """The weight that each direction and gain is going to stand for."""
    return {part: e.weight for e in convolutions if e.decouple for part in decoupled_names(e.weight)}
