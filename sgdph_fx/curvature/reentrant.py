"""Reentrant checkpoints, ``torch.utils.checkpoint(..., use_reentrant=True)``, differentiated twice.

The backward of such a checkpoint computes its block again and runs autograd by itself, which keeps no graph. And the
parameters that are used inside do not show in the graph of the loss. So the nodes of checkpoints get another backward
while a product is taken: it computes the block again as well, and returns gradients that are functions of the graph.
What flows to the due parameter inside a block is collected beside what autograd finds outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from sgdph_fx.curvature.autograd_graph import leaves_among, nodes, nodes_below
from sgdph_fx.curvature.custom_functions import CHECKPOINT, full_name, leaves_grads_alone, watched
from sgdph_fx.curvature.norm_gradients import norms_followed
from sgdph_fx.curvature.wrong_derivatives import require_right_derivatives

__all__ = ["OpenCheckpoints", "reentrant_checkpoints"]


def reentrant_checkpoints(*outputs: Tensor) -> list[Any]:
    """Find the nodes of reentrant checkpoints that ``outputs`` were made by, each once."""
    found = (node for node in nodes(*outputs) if full_name(node) == CHECKPOINT)
    return list(dict.fromkeys(found))


class OpenCheckpoints:
    """Lets checkpoints be differentiated twice while it is entered, and collects what flows to one leaf inside.

    A node of a Python function looks up its backward in its own attribute ``_forward_cls``. So one node can have
    another backward, and no class is touched.

    Args:
        checkpoints: The nodes.
        leaf: The parameter that is differentiated by.
    """

    def __init__(self, checkpoints: Sequence[Any], leaf: Tensor) -> None:
        self._leaf = leaf
        self._opened: list[Any] = []
        self._inputs: dict[Any, GradientEdge] = {}
        self._inside: list[Tensor] = []
        self._checkpoints = checkpoints

    def __enter__(self) -> OpenCheckpoints:
        self._open(self._checkpoints)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self._opened:
            del node._forward_cls

    def gradient(self, outputs: Tensor, along: Tensor, *, create_graph: bool) -> Tensor | None:
        """The gradient by the leaf, inside and outside of checkpoints; None where there is no way to it."""
        # Autograd runs only what leads to what it is asked for: so it is asked for the inputs of each checkpoint.
        wanted: Any = [self._leaf, *self._inputs.values()]
        (outside, *_) = torch.autograd.grad(
            outputs, wanted, along, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
        terms = [t for t in (outside, *self._inside) if t is not None]
        self._inside.clear()
        return sum(terms[1:], start=terms[0]) if terms else None

    def _open(self, checkpoints: Sequence[Any]) -> list[GradientEdge]:
        """Open those that are not open yet, and say where the gradients by their inputs arrive."""
        new = [node for node in checkpoints if "_forward_cls" not in vars(node)]
        for node in new:
            node._forward_cls = self._stand_in()
        self._opened.extend(new)
        edges = {
            edge: GradientEdge(*edge) for node in new for edge in node.next_functions if edge[0] is not None
        }
        self._inputs.update(edges)
        return list(edges.values())

    def _stand_in(self) -> type[torch.autograd.Function]:
        collect = self._backward

        class Checkpoint(torch.autograd.Function):
            @staticmethod
            def backward(ctx: Any, *g: Tensor) -> Any:
                return collect(ctx, g)

        return Checkpoint

    def _backward(self, ctx: Any, g: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        gate = _Gate()
        inputs = _inputs(ctx, gate)
        with torch.enable_grad(), _state_of_the_forward_pass(ctx):
            made = ctx.run_function(*inputs)
        made = made if isinstance(made, tuple) else (made,)
        pairs = [(y, along) for y, along in zip(made, g, strict=True) if _differentiable(y)]
        for y, _ in pairs:
            require_right_derivatives(nodes(y), self._leaf)
        wanted = [t for t in inputs if _differentiable(t)]
        nested = self._open(reentrant_checkpoints(*(y for y, _ in pairs)))
        targets = [*wanted, *([self._leaf] if _is_used(self._leaf, pairs, wanted) else [])]
        inside = list(nodes(*(y for y, _ in pairs)))
        alone = leaves_grads_alone([*leaves_among(inside)], inside)
        with gate, watched(inside), alone, norms_followed(inside):
            found = torch.autograd.grad(
                [y for y, _ in pairs],
                [*targets, *nested],
                [along for _, along in pairs],
                create_graph=torch.is_grad_enabled(),
                retain_graph=True,  # of what is outside, where the leaf is used as well
                allow_unused=True,
            )
        if len(targets) > len(wanted) and found[len(wanted)] is not None:
            self._inside.append(found[len(wanted)])
        passed = iter(found)
        return None, None, *(next(passed) if _differentiable(t) else None for t in inputs)


class _Gate:
    """Shut while it is entered: gradients stop at the inputs of a block, and do not flow on to what made these."""

    shut = False

    def __enter__(self) -> None:
        self.shut = True

    def __exit__(self, *_: object) -> None:
        self.shut = False


class _Through(torch.autograd.Function):
    """The identity, with a gate in its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: _Gate) -> Tensor:
        ctx.gate = gate
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return None if ctx.gate.shut else g, None


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _inputs(ctx: Any, gate: _Gate) -> list[Any]:
    """The arguments of the checkpointed function, still attached to what made them."""
    inputs = list(ctx.inputs)
    with torch.enable_grad():
        for place, tensor in zip(ctx.tensor_indices, ctx.saved_tensors, strict=True):
            inputs[place] = _Through.apply(tensor, gate) if tensor.requires_grad else tensor
    return inputs


def _is_used(leaf: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]) -> bool:
    """Whether the block uses the leaf inside, and not only what was made of it before."""
    inside = nodes_below(*(y.grad_fn for y, _ in pairs), ends=[t.grad_fn for t in inputs])
    return any(getattr(node, "variable", None) is leaf or full_name(node) == CHECKPOINT for node in inside)


@contextmanager
def _state_of_the_forward_pass(ctx: Any) -> Iterator[None]:
    """The random numbers and the autocast of the forward pass, as the checkpoint's own backward sets them."""
    devices: Sequence[int] = ctx.fwd_devices if getattr(ctx, "had_device_in_fwd", False) else ()
    modes: list[Mapping[str, Any]] = [{"device_type": "cpu", **ctx.cpu_autocast_kwargs}]
    if ctx.device_autocast_kwargs is not None and ctx.device_type != "cpu":
        modes.append({"device_type": ctx.device_type, **ctx.device_autocast_kwargs})
    with ExitStack() as stack:
        fork = torch.random.fork_rng(devices, ctx.preserve_rng_state, device_type=ctx.device_type)
        stack.enter_context(fork)
        if ctx.preserve_rng_state:
            torch.set_rng_state(ctx.fwd_cpu_state)
            if devices:
                torch.utils.checkpoint.set_device_states(
                    devices, ctx.fwd_device_states, device_type=ctx.device_type
                )
        for mode in modes:
            stack.enter_context(torch.autocast(**mode))
        yield
