"""Which modules are read as one operation, and which are looked into."""

from __future__ import annotations

import inspect

from torch import nn

from sgdph_fx.rules.calls import operation_name
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.modules import computes_as_known, rule_of
from sgdph_fx.rules.operations import rule_of_operation
from sgdph_fx.trace.proxies import ProxyTracer

__all__ = ["leaves_of"]


def leaves_of(model: nn.Module) -> frozenset[nn.Module]:
    """The modules of ``model`` that are one operation each.

    A convolution that owns further modules (detectron2's carries its norm and its activation) or has a ``forward``
    of its own is looked into: its own ``F.conv2d`` call shows, what makes its weight, and what it does next.
    """
    return frozenset(filter(_is_leaf, model.modules()))


def _is_leaf(module: nn.Module) -> bool:
    rule = rule_of(module)
    if rule is None or not isinstance(rule, Conv):
        return rule is not None
    if any(name != "parametrizations" for name, _ in module.named_children()):
        return False
    return computes_as_known(module) or not _shows_its_convolution(module)


def _shows_its_convolution(module: nn.Module) -> bool:
    """Whether ``module.forward`` runs alone on placeholders, and meets a functional convolution there.

    A forward that computes its padding from the input's size in Python cannot be run so. Such a module counts as
    the convolution that it derives from.
    """
    if not _takes_tensors_alone(module):
        return False
    try:
        graph = ProxyTracer(module, ()).run()
    except Exception:
        return False
    return any(
        node.op in ("call_function", "call_method")
        and operation_name(node)
        and isinstance(rule_of_operation(node), Conv)
        for node in graph.nodes
    )


def _takes_tensors_alone(module: nn.Module) -> bool:
    """Variable arguments become placeholders of their own, which says nothing about a call."""
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    return not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
