"""Operations on the way of a product that torch's double backward cannot be trusted with, refused by name.

Most are functions written in Python, whose backward computes in NumPy, in a kernel of its own, under ``no_grad``, or by
what the forward pass has prepared. Torch takes such parts for constants, and the product would be silently wrong. A few
of torch's own operations are like that as well. :func:`watched` finds them by what :mod:`.backward_checks` looks for.

Reentrant checkpoints are Python functions as well; :mod:`sgdph_fx.curvature.reentrant` has a way for these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature import capturing
from sgdph_fx.curvature.backward_checks import (
    WRITTEN_OVER,
    has_constant_slope,
    is_cut,
    is_linear_in_gradient,
    is_symmetric,
)
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.transform.references import everything

__all__ = ["CHECKPOINT", "OF_LIBRARIES", "full_name", "kind_name", "leaves_grads_alone", "watched"]

CHECKPOINT = "torch.utils.checkpoint.CheckpointFunction"
"""The function that a reentrant checkpoint puts into the graph."""

OF_LIBRARIES = ("torch.", "sgdph_fx.")
"""How the full names of functions begin that are nobody's own."""


def full_name(node: Node) -> str:
    """Module and class of the Python function whose backward the node is; empty for an operation of torch's own."""
    return kind_name(type(node))


def kind_name(kind: type) -> str:
    """As :func:`full_name`, of the type of a node."""
    function = getattr(kind, "_forward_cls", None)
    return f"{function.__module__}.{function.__qualname__}" if function is not None else ""


@contextmanager
def watched(among: Sequence[Node]) -> Iterator[None]:
    """Refuse, at the end, operations whose backward autograd could not follow meanwhile.

    While a CUDA graph is captured nothing is looked at: the host must not read, and the step that warmed up was.

    Args:
        among: Nodes of a graph that is differentiated inside, with gradients that carry a graph.

    Raises:
        NoCurvatureError: naming the first such operation.
    """
    found: list[NoCurvatureError] = []
    with ExitStack() as stack:
        for node in () if capturing.is_capturing() else among:
            if full_name(node) != CHECKPOINT and type(node).__name__ != "AccumulateGrad":
                stack.callback(node.register_hook(_hook(node, found)).remove)
        yield
    if found:
        raise found[0]


def _hook(node: Node, found: list[NoCurvatureError]) -> Any:
    def check(by_inputs: tuple[Tensor | None, ...], g: tuple[Tensor | None, ...]) -> None:
        name = full_name(node)
        if is_cut(by_inputs, g):
            found.append(_cut(name or type(node).__name__))
        elif name and not found and torch.is_grad_enabled():
            found.extend(filter(None, [_refusal(node, name, by_inputs, g)]))

    return check


def _refusal(
    node: Node, name: str, by_inputs: tuple[Tensor | None, ...], g: tuple[Tensor | None, ...]
) -> NoCurvatureError | None:
    try:
        if not is_linear_in_gradient(by_inputs, g):
            return _cut(name)
        if has_constant_slope(node, by_inputs, g):
            return _constant(name)
        return None if is_symmetric(node, by_inputs, g) else _lopsided(name)
    except RuntimeError as error:
        # What the forward pass saved was intact, or the backward would not have come this far.
        if WRITTEN_OVER not in str(error):
            raise
        return _overwriting(name)


def _cut(name: str) -> NoCurvatureError:
    return NoCurvatureError(
        f"The backward of {name} returns gradients that do not depend on the gradient it was given, as far as "
        "autograd can see: it computes them outside of PyTorch, in a kernel of its own, or under torch.no_grad. So "
        "it has no second derivative. Write its backward with PyTorch operations, or put the parameters below it "
        "into a group with order=1."
    )


def _overwriting(name: str) -> NoCurvatureError:
    return NoCurvatureError(
        f"The backward of {name} writes into tensors that its own derivative needs, so it has no second derivative. "
        "Write its backward without in-place operations, or put the parameters below it into a group with order=1."
    )


def _constant(name: str) -> NoCurvatureError:
    return NoCurvatureError(
        f"The backward of {name} multiplies gradients by numbers that do not depend on its inputs, as far as autograd "
        "can see: they were computed in its forward pass, outside of PyTorch, or under torch.no_grad. So it has no "
        "second derivative. Compute them in the backward, from saved inputs and with PyTorch operations, or put the "
        "parameters below it into a group with order=1."
    )


def _lopsided(name: str) -> NoCurvatureError:
    return NoCurvatureError(
        f"The backward of {name} is not the derivative of any function, as far as autograd can see: its own derivative "
        "is not symmetric. Most often it uses numbers that its forward pass has computed from the inputs, such as a "
        "norm, and autograd takes these for constants. Compute them in the backward, from saved inputs and with "
        "PyTorch operations, or put the parameters below it into a group with order=1."
    )


@contextmanager
def leaves_grads_alone(leaves: Sequence[Tensor], among: Sequence[Node]) -> Iterator[None]:
    """Undo what functions written in Python write into ``.grad`` inside, and refuse them; not in a capture.

    Args:
        leaves: The parameters to look at, beside those that such functions hold and the graph does not show.
        among: The nodes that are run inside; without a Python function among them nothing is looked at.

    Raises:
        NoCurvatureError: naming such a function.
    """
    every = (name for name in map(full_name, among) if name not in ("", CHECKPOINT))
    names = [name for name in every if not name.startswith("sgdph_fx.")]  # ours write none
    if not names or capturing.is_capturing():
        yield
        return
    written = dict.fromkeys((*leaves, *_held_leaves(among)))
    before = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in written]
    changed = False
    try:
        yield
    finally:  # after an error as well: the gradients are about to be computed in another way
        for parameter, gradient, value in before:
            changed |= _put_back(parameter, gradient, value)
    if changed:
        raise NoCurvatureError(
            f"The backward of {' or '.join(dict.fromkeys(names))} runs autograd by itself and writes gradients, which "
            "cannot be differentiated again. Use a function whose backward returns its gradients, or put the "
            "parameters below and inside it into a group with order=1."
        )


def _held_leaves(among: Iterable[Node]) -> Iterator[Tensor]:
    """Parameters that functions written in Python hold, such as those of the block that a reversible one runs again."""
    named = ((full_name(node), node) for node in among)
    held = [vars(node) for name, node in named if name and not name.startswith(OF_LIBRARIES)]
    for value in everything(held):
        if isinstance(value, Tensor) and value.is_leaf and value.requires_grad:
            yield value


def _put_back(parameter: Tensor, gradient: Tensor | None, value: Tensor | None) -> bool:
    """Make ``parameter.grad`` the tensor and the numbers that it was; whether it was something else."""
    if parameter.grad is not gradient:
        parameter.grad = gradient
        return True
    if gradient is None or value is None or torch.equal(gradient, value):
        return False
    if torch.allclose(gradient, value, rtol=0, atol=0, equal_nan=True):  # NaN is not equal to itself
        return False
    with torch.no_grad():
        gradient.copy_(value)
    return True
