"""Compare outputs, plans, parameter groups, and calls of convolutions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, fx, nn

from benchmarks.coverage.sample import Sample, leaves_of
from sgdph_fx import Plan, Prepared
from sgdph_fx.analysis.flow import flow_of
from sgdph_fx.rules.kinds import Conv
from sgdph_fx.trace import trace_by_recording
from sgdph_fx.trace.scripted import ConvolutionCounter

__all__ = [
    "convolution_calls",
    "differences",
    "distance",
    "ill_grouped",
    "outputs_of",
    "overlooked",
    "says_nothing",
]


def outputs_of(model: nn.Module, sample: Sample) -> list[Tensor]:
    """Give all tensors that ``model`` returns in evaluation mode, with the same random numbers at each call."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return [leaf.detach().clone() for leaf in leaves_of(sample(model.eval()))]


def distance(after: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Give the largest max |y' - y| / max |y| over all outputs; infinity if their number or shapes differ."""
    if [a.shape for a in after] != [b.shape for b in before]:
        return float("inf")
    return max(map(_distance, after, before), default=0.0)


def _distance(after: Tensor, before: Tensor) -> float:
    if not before.numel():
        return 0.0
    after, before = after.double(), before.double()
    if not torch.equal(after.isfinite(), before.isfinite()):
        return float("inf")
    after, before = after.nan_to_num(0, 0, 0), before.nan_to_num(0, 0, 0)
    return float((after - before).abs().max() / before.abs().max().clamp_min(1e-30))


def says_nothing(outputs: Sequence[Tensor]) -> bool:
    """Tell whether no output has two different finite numbers."""
    return not any(len(set(leaf[leaf.isfinite()].flatten()[:1000].tolist())) > 1 for leaf in outputs)


def differences(symbolic: Plan, recorded: Plan) -> Iterator[str]:
    """List where two plans of one model decide differently."""
    yield from _unequal(
        {c.name: c.verdict for c in symbolic.convolutions}, {c.name: c.verdict for c in recorded.convolutions}
    )
    yield from _unequal(
        {p.name: f"{p.order} {p.role}" for p in symbolic.parameters},
        {p.name: f"{p.order} {p.role}" for p in recorded.parameters},
    )


def _unequal(symbolic: dict[str, str], recorded: dict[str, str]) -> Iterator[str]:
    for name in {**symbolic, **recorded}:
        pair = symbolic.get(name, "missing"), recorded.get(name, "missing")
        if pair[0] != pair[1]:
            yield f"{name}: {pair[0]} / {pair[1]}"


def ill_grouped(prepared: Prepared) -> Iterator[str]:
    """List trainable parameters that are not in exactly one group, and others that are in any."""
    counts = Counter(id(p) for group in prepared.param_groups for p in group["params"])
    for name, parameter in prepared.model.named_parameters():
        if counts.pop(id(parameter), 0) != int(parameter.requires_grad):
            yield name
    if counts:
        yield f"{len(counts)} that do not belong to the model"


def convolution_calls(model: nn.Module, sample: Sample) -> tuple[int, int]:
    """Count the convolutions that one run in training mode dispatches, and those that the trace of that run shows.

    Convolutions whose kernel is a buffer (blur pooling) count on neither side: nothing in them is trained.
    """
    counter = ConvolutionCounter(model)
    with counter:
        trace = trace_by_recording(model, sample, training=True)
    flow = flow_of(trace, model)
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    seen = [
        attributes["node"]
        for _, attributes in flow.graph.nodes(data=True)
        if isinstance(attributes["rule"], Conv)
    ]
    return counter.count, sum(not _has_fixed_kernel(node, buffers) for node in seen)


def _has_fixed_kernel(node: fx.Node, buffers: set[str]) -> bool:
    """Tell whether a functional convolution's weight is a buffer, or a view of one."""
    if node.op == "call_module":
        return False
    weight = node.args[1] if len(node.args) > 1 else node.kwargs.get("weight")
    while isinstance(weight, fx.Node) and weight.op != "get_attr":
        weight = next(iter(weight.args), None)
    return isinstance(weight, fx.Node) and str(weight.target) in buffers


def overlooked(plan: Plan, model: nn.Module, sample: Sample) -> Iterator[str]:
    """List convolutions that the plan says training never calls, although their parameters get a gradient.

    Autograd's graph tells which parameters a training run uses, independently of the trace.
    """
    model.train()
    with torch.enable_grad():
        reached = _reached(leaves_of(sample.run(model)))
    for hint in plan.hints:
        if hint.code in ("never-called", "not-in-training"):
            owner = model.get_submodule(hint.where)
            if any(id(p) in reached for p in owner.parameters()):
                yield hint.where


def _reached(outputs: Sequence[Tensor]) -> set[int]:
    """Give the identities of the leaf tensors that ``outputs`` were computed from."""
    waiting = [output.grad_fn for output in outputs]
    seen = set(waiting)
    leaves = set()
    while waiting:
        function = waiting.pop()
        if function is None:
            continue
        leaves.add(id(getattr(function, "variable", None)))
        fresh = {before for before, _ in function.next_functions} - seen
        seen |= fresh
        waiting.extend(fresh)
    return leaves
