"""Tracing without inputs, by torch.fx."""

from __future__ import annotations

from torch import nn

from sgdph_fx.errors import TraceError, first_line
from sgdph_fx.trace.graph import Trace
from sgdph_fx.trace.leaves import leaves_of
from sgdph_fx.trace.proxies import ProxyTracer
from sgdph_fx.trace.source import failing_line, require_forward, signature
from sgdph_fx.trace.state import mode

__all__ = ["trace_symbolically"]


def trace_symbolically(model: nn.Module, training: bool) -> Trace:
    """Trace ``model`` as torch.fx does, with every module that the rules know as one node.

    Only arguments without a default become placeholders; the others keep their default, so that an
    ``if targets is not None`` takes the path that a plain call takes. Where every argument has a default, the first of
    those that are None by default becomes one: nothing can be computed from none.

    Raises:
        TraceError: if the model's control flow depends on data; the message names the line.
    """
    try:
        with mode(model, training):
            graph = ProxyTracer(model, leaves_of(model)).run()
    except Exception as error:
        require_forward(model, error)
        raise TraceError(_explain(model, error)) from error
    return Trace(graph, "symbolic", training)


def _explain(model: nn.Module, error: Exception) -> str:
    return (
        f"{type(model).__name__} cannot be traced without inputs: {type(error).__name__}{failing_line(error)} "
        f"({first_line(error)}). torch.fx runs the model on placeholders, which have no values to branch or loop on. "
        f"Pass example_inputs for `{signature(model)}` (on the command line: --input), and one real run is recorded "
        "instead."
    )
