"""Traces → plan: follow the flow, judge each convolution, give each parameter its role, apply your rules."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sgdph_fx.analysis.convolutions import convolution_entries
from sgdph_fx.analysis.diagnostics import diagnose
from sgdph_fx.analysis.flow import Flow, flow_of
from sgdph_fx.analysis.parameter_roles import parameter_entries
from sgdph_fx.analysis.shared_weights import keep_where_filters_differ
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.overrides import override_convolutions, override_parameters
from sgdph_fx.plan.plan import Plan
from sgdph_fx.trace import Reading

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
    convolutions, hints = convolution_entries(model, flows, config.policy)
    convolutions = keep_where_filters_differ(override_convolutions(convolutions, config.rules))
    parameters = override_parameters(parameter_entries(model, convolutions, flows), config.rules)
    hints = (*reading.hints, *hints, *diagnose(model, flows[0], convolutions, parameters))
    plan = Plan(
        model=f"{type(model).__module__}.{type(model).__qualname__}",
        policy=config.policy,
        way=reading.traces[0].way,
        convolutions=convolutions,
        parameters=parameters,
        frozen=tuple(name for name, p in model.named_parameters() if not p.requires_grad),
        hints=tuple(hint for hint in hints if hint.code not in config.silence),
    )
    return Analysis(flows, plan)
