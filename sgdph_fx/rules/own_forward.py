"""Convolution classes with a ``forward`` of their own: whether it can be read operation by operation."""

from __future__ import annotations

import inspect

from torch import fx, nn

from sgdph_fx.rules.calls import operation_name
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.rules.operations import rule_of_operation

__all__ = ["shows_its_convolution"]


def shows_its_convolution(module: nn.Module) -> bool:
    """Whether torch.fx can run ``module.forward`` alone, and meets a functional convolution there.

    A forward that computes its padding from the input's size in Python cannot be run so. Such a module counts as
    the convolution that it derives from.
    """
    if not _takes_tensors_alone(module):
        return False
    try:
        graph = fx.Tracer().trace(module)
    except Exception:
        return False
    return any(
        node.op in ("call_function", "call_method")
        and operation_name(node)
        and isinstance(rule_of_operation(node), Conv)
        for node in graph.nodes
    )


def _takes_tensors_alone(module: nn.Module) -> bool:
    """Variable arguments become placeholders of their own in torch.fx, which says nothing about a call."""
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    return not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
