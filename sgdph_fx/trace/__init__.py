"""Module → ``torch.fx.Graph``: recorded from a real run where inputs are given, else symbolic."""

from sgdph_fx.trace.eager import eagerly
from sgdph_fx.trace.graph import Trace
from sgdph_fx.trace.inputs import ExampleInputs, Run, runner
from sgdph_fx.trace.recorded import trace_by_recording
from sgdph_fx.trace.scripted import is_scripted
from sgdph_fx.trace.state import mode, untouched, without_collection
from sgdph_fx.trace.symbolic import trace_symbolically

__all__ = [
    "ExampleInputs",
    "Run",
    "Trace",
    "eagerly",
    "is_scripted",
    "mode",
    "runner",
    "trace_by_recording",
    "trace_symbolically",
    "untouched",
    "without_collection",
]
