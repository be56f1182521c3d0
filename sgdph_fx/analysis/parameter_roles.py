"""Parameters → order, role and reason: which of them are channel-wise.

Being one-dimensional is not the criterion: a gain may be four-dimensional, a class token one-dimensional. What
counts is the module that owns the parameter, or else the operation that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from sgdph_fx.analysis.conv_candidates import Names
from sgdph_fx.analysis.flow import Flow
from sgdph_fx.analysis.found_roles import FoundRole, channel_wise, norm_role, weight_norm_role
from sgdph_fx.analysis.parameter_uses import uses_of_parameters
from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry
from sgdph_fx.plan.wording import counted
from sgdph_fx.rules.kinds import Affine, Conv, Linear, Norm, Rule, Transparent
from sgdph_fx.rules.modules import rule_of
from sgdph_fx.trace import is_scripted
from sgdph_fx.transform.decouple import Decoupled, plain_class_of
from sgdph_fx.transform.filters import decoupled_names

__all__ = ["parameter_entries"]


def parameter_entries(
    names: Names, convolutions: Sequence[ConvolutionEntry], flows: Sequence[Flow]
) -> tuple[ParameterEntry, ...]:
    """An entry for each trainable parameter of the prepared model, in the order of its ``named_parameters()``.

    Args:
        names: The names of the parameters of the model as it is, not yet prepared.
        convolutions: What was decided about its convolutions.
        flows: Its flow graphs, which show how parameters without a known owner are used.
    """
    by_weight = {planned.weight: planned for planned in reversed(convolutions)}
    uses, modules = uses_of_parameters(flows), flows[0].modules
    entries: list[ParameterEntry] = []
    for name, parameter in names.distinct():
        if not parameter.requires_grad:
            continue
        owner = modules[name.rpartition(".")[0]]
        kind = plain_class_of(owner).__name__
        planned = by_weight.get(name)
        if planned is not None and planned.decouple:
            entries.extend(_decoupled_entries(planned, kind))
            continue
        found = _real_only(parameter, kind, _found_role(name, parameter, owner, uses.get(name, []), planned))
        entries.append(
            ParameterEntry(name, tuple(parameter.shape), found.order, found.role, kind, found.reason)
        )
    return tuple(entries)


def _decoupled_entries(planned: ConvolutionEntry, kind: str) -> Iterator[ParameterEntry]:
    direction, gain = decoupled_names(planned.weight)
    what = f"{planned.verdict} {planned.kind} {planned.name}".rstrip()
    yield ParameterEntry(
        direction, planned.shape, 1, "direction", kind, f"first-order: direction of the {what}"
    )
    filters = counted(planned.out_channels, "output filter")
    reason = f"second-order: gain of the {what}, one number for each of its {filters}"
    yield ParameterEntry(gain, (planned.out_channels,), 2, "gain", kind, reason)


def _found_role(
    name: str,
    parameter: nn.Parameter,
    owner: nn.Module,
    uses: Sequence[FoundRole],
    planned: ConvolutionEntry | None,
) -> FoundRole:
    leaf = name.rpartition(".")[2]
    own = _own_gain(owner, leaf) if isinstance(owner, Decoupled) else _weight_norm(owner, leaf)
    if own is not None:
        return own
    known = _by_owner(rule_of(owner), leaf, parameter, type(owner).__name__, planned)
    if known is not None:
        return known
    if planned is not None:
        return FoundRole(1, "weight", f"first-order: weight of {planned.kind}, {_why_kept(planned)}")
    if uses:
        # Used in several ways, it is what the least channel-wise of them says. A scale is no shift where its logarithm
        # is added to data, as a log-determinant is.
        return min(uses, key=lambda use: (use.order, use.role == "bias"))
    if is_scripted(owner):
        return FoundRole(1, "other", "first-order: inside TorchScript, where its use cannot be seen")
    return FoundRole(1, "other", f"first-order: {type(owner).__name__}.{leaf} is no channel-wise parameter")


def _real_only(parameter: nn.Parameter, kind: str, found: FoundRole) -> FoundRole:
    """``found``, made first-order where the parameter is complex: the absolute value of its Hessian is not defined."""
    if found.order == 1 or not parameter.is_complex():
        return found
    return FoundRole(
        1, found.role, f"first-order: this {found.role} of {kind} is complex, and Newton-type steps are real"
    )


def _own_gain(owner: Decoupled, leaf: str) -> FoundRole | None:
    for weight in owner._filters:
        direction, gain = decoupled_names(weight)
        if leaf == direction:
            return FoundRole(
                1, "direction", "first-order: direction of a convolution that is decoupled already"
            )
        if leaf == gain:
            return FoundRole(2, "gain", "second-order: gain of a convolution that is decoupled already")
    return None


def _weight_norm(owner: nn.Module, leaf: str) -> FoundRole | None:
    """The parts of torch's weight normalization: original0 and original1, or weight_g and weight_v by a hook."""
    gains, directions = {"original0"}, {"original1"}
    if not (isinstance(owner, ParametrizationList) and isinstance(owner[0], _WeightNorm)):
        stems = [hook.name for hook in owner._forward_pre_hooks.values() if isinstance(hook, WeightNorm)]
        gains, directions = {f"{stem}_g" for stem in stems}, {f"{stem}_v" for stem in stems}
    return weight_norm_role(leaf in gains) if leaf in gains | directions else None


def _by_owner(
    rule: Rule | None, leaf: str, parameter: nn.Parameter, kind: str, planned: ConvolutionEntry | None
) -> FoundRole | None:
    if isinstance(rule, Norm) and leaf in (rule.weight, rule.bias):
        return norm_role("norm.weight" if leaf == rule.weight else "norm.bias", parameter, kind)
    if isinstance(rule, Conv) and leaf == rule.weight:
        return FoundRole(1, "weight", f"first-order: weight of {kind}, {_why_kept(planned)}")
    if isinstance(rule, Conv) and leaf == rule.bias and not rule.twice_differentiable:
        return FoundRole(1, "bias", f"first-order: bias of {kind}, through which no second derivative goes")
    if isinstance(rule, Conv) and leaf == rule.bias:
        return FoundRole(2, "bias", f"second-order: bias of {kind}, one number for each output channel")
    if isinstance(rule, Linear) and _is_any(leaf, rule.weights):
        return FoundRole(1, "weight", f"first-order: weight of {kind}")
    if isinstance(rule, Linear) and _is_any(leaf, rule.biases):
        return FoundRole(2, "bias", f"second-order: bias of {kind}, one number for each output feature")
    if isinstance(rule, Linear) and leaf in rule.tokens:
        return FoundRole(
            1, "other", f"first-order: {leaf} of {kind} is one more element of its sequence, not a bias"
        )
    if isinstance(rule, Norm) and leaf in rule.slopes:
        return _slope_role(parameter, kind, leaf)
    if isinstance(rule, Conv) and leaf == rule.gain:
        return FoundRole(
            2, "gain", f"second-order: gain that {kind} carries, one number for each output channel"
        )
    if isinstance(rule, Affine) and leaf in (*rule.weights, *rule.biases):
        return _affine_role("layer_scale" if leaf in rule.weights else "bias", kind)
    if isinstance(rule, Transparent) and leaf == rule.weight and rule.role == "layer_scale":
        return _affine_role("layer_scale", kind)
    if isinstance(rule, Transparent) and leaf == rule.weight:
        return FoundRole(
            2, "activation", f"second-order: slope of {kind}, one number for each channel it is given for"
        )
    return None


def _is_any(leaf: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(leaf, pattern) for pattern in patterns)


def _slope_role(parameter: nn.Parameter, kind: str, leaf: str) -> FoundRole:
    if not channel_wise(parameter.shape):
        return FoundRole(1, "activation", f"first-order: {leaf} of {kind} is not one number for each channel")
    return FoundRole(2, "activation", f"second-order: {leaf} of {kind}, one number for each channel")


def _affine_role(role: Literal["layer_scale", "bias"], kind: str) -> FoundRole:
    does = "multiplies" if role == "layer_scale" else "shifts"
    return FoundRole(2, role, f"second-order: {kind} {does} each channel by one number")


def _why_kept(planned: ConvolutionEntry | None) -> str:
    if planned is None:
        return "as it is"
    return f"which {planned.norm} normalizes" if planned.verdict == "normalized" else "bare but left as it is"
