"""Module → ``torch.fx.Graph``: recorded from a real run where you give inputs, else traced symbolically."""

from sgdph_fx.trace.eager import eagerly
from sgdph_fx.trace.graph import Trace
from sgdph_fx.trace.inputs import ExampleInputs, Run, runner
from sgdph_fx.trace.outputs import tensors_in
from sgdph_fx.trace.read import Reading, read_model
from sgdph_fx.trace.recorded import trace_by_recording
from sgdph_fx.trace.scripted import is_scripted
from sgdph_fx.trace.state import mode, undone_on_error, untouched, without_collection
from sgdph_fx.trace.symbolic import trace_symbolically

__all__ = [
    "ExampleInputs",
    "Reading",
    "Run",
    "Trace",
    "eagerly",
    "is_scripted",
    "mode",
    "read_model",
    "runner",
    "tensors_in",
    "trace_by_recording",
    "trace_symbolically",
    "undone_on_error",
    "untouched",
    "without_collection",
]
