"""Which modules are read as one operation, and which are looked into."""

from __future__ import annotations

import inspect
from contextlib import suppress

from torch import fx, nn
from torch.nn.utils import parametrize

from sgdph_fx.rules.calls import operation_name
from sgdph_fx.rules.kinds import Conv, Linear, Norm, Rule, Transparent
from sgdph_fx.rules.modules import computes_as_known, has_own_forward, rule_of
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.trace.proxies import ProxyTracer
from sgdph_fx.transform.decoupled import Decoupled

__all__ = ["leaves_of"]


def leaves_of(model: nn.Module) -> frozenset[nn.Module]:
    """The modules of ``model`` that are one operation each.

    A convolution that owns further modules (detectron2's carries its norm and its activation) or has a ``forward``
    of its own is looked into: its own ``F.conv2d`` call shows, what makes its weight, and what it does next. So are a
    norm and an activation that derive from a known one and have a ``forward`` of their own, and a layer whose class
    computes its weight or bias in a property: noisy and equalized layers do.
    """
    return frozenset(filter(_is_leaf, model.modules()))


def _is_leaf(module: nn.Module) -> bool:
    rule = rule_of(module)
    if rule is not None and _computes_its_parameters(module, rule):
        return False
    if isinstance(rule, Norm | Transparent) and has_own_forward(module):
        return isinstance(rule, Norm) and _takes_statistics_unseen(module)
    if rule is None or not isinstance(rule, Conv):
        return rule is not None
    if any(name != "parametrizations" for name, _ in module.named_children()):
        return False
    return computes_as_known(module) or not _shows_its_convolution(module)


def _computes_its_parameters(module: nn.Module, rule: Rule) -> bool:
    """Whether a property of the person's own class stands where the rule expects a parameter."""
    if isinstance(module, Decoupled) or parametrize.is_parametrized(module):
        return False
    if isinstance(rule, Linear):
        names: tuple[str | None, ...] = (*rule.weights, *rule.biases)
    else:
        names = (getattr(rule, "weight", None), getattr(rule, "bias", None))
    return any(isinstance(getattr(type(module), name, None), property) for name in names if name)


def _shows_its_convolution(module: nn.Module) -> bool:
    """Whether ``module.forward`` runs alone on placeholders, and meets a functional convolution there.

    A forward that computes its padding from the input's size in Python cannot be run so. Such a module counts as
    the convolution that it derives from.
    """
    return any(
        operation_name(node) and isinstance(rule_of_operation(node), Conv)
        for node in _operations(module) or ()
    )


def _takes_statistics_unseen(module: nn.Module) -> bool:
    """Whether a norm's own ``forward`` takes statistics by arithmetic, or cannot be run alone on placeholders.

    Such a module counts as the norm that it derives from, as its arithmetic looks like any other. One that calls a
    norm's function is looked into, and so is one that takes no statistics at all.
    """
    operations = _operations(module)
    if operations is None:
        return True
    if any(isinstance(rule_of_operation(node), Norm) for node in operations):
        return False
    return any(operation_name(node) in _STATISTICS for node in operations)


_STATISTICS = {"mean", "var", "std", "var_mean", "std_mean", "sum", "norm", "vector_norm", "einsum"}


def _operations(module: nn.Module) -> list[fx.Node] | None:
    """The calls of functions and methods that ``module.forward`` makes on placeholders; None if it cannot be run so."""
    if not _takes_tensors_alone(module):
        return None
    with suppress(Exception):
        graph = ProxyTracer(module, ()).run()
        return [node for node in graph.nodes if node.op in ("call_function", "call_method")]
    return None


def _takes_tensors_alone(module: nn.Module) -> bool:
    """Variable arguments become placeholders of their own, which says nothing about a call."""
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    return not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
