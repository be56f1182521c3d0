"""Gradients of layer and batch norm inside a loss, as gradient penalties and meta-learning have them.

Torch's formula for the second derivative of these norms takes their saved mean and 1/σ for constants. So a third
derivative, which the product needs of a loss that holds a first one, is silently wrong for layer norm, and for batch
norm wrong or refused, depending on torch's version. While such a loss is differentiated, the backward of the norm's
gradient is replaced by one that computes mean and 1/σ again from the input.

Norms with a bias and no weight are a case of their own. Torch takes the gradient by that bias, which is the sum of the
gradients by the norm's output, for a constant, in any loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from sgdph_fx.curvature.autograd_graph import nodes

__all__ = ["loses_bias", "norms_followed"]

_LAYER = "NativeLayerNormBackwardBackward0"
_BATCH = tuple(f"{name}BatchNormBackwardBackward0" for name in ("Native", "Cudnn", "Miopen"))
_WITH_BIAS = ("NativeLayerNormBackward0", "NativeBatchNormBackward0")
_WEIGHT, _BIAS = 1, 2  # their places among the inputs


@contextmanager
def norms_followed(among: Sequence[Node]) -> Iterator[None]:
    """Differentiate norms by a bias without a weight, and their gradients with statistics that depend on the input.

    Args:
        among: Nodes of a graph that is differentiated inside, with ``create_graph=True``.
    """
    with ExitStack() as stack:
        for node in among:
            name = type(node).__name__
            if name == _LAYER or (name in _BATCH and _in_training(node)):
                stack.callback(node.register_hook(_hook(node)).remove)
            elif name in _WITH_BIAS and _has_bias_alone(node):
                stack.callback(node.register_hook(_bias_hook(node)).remove)
        yield


def loses_bias(gradient: Tensor) -> bool:
    """Whether a gradient with a graph of torch's own is that by a bias which torch takes it for a constant of."""
    edges = [(gradient.grad_fn, gradient.output_nr)]
    edges.extend(edge for node in nodes(gradient) for edge in node.next_functions)
    return any(number == _BIAS and _is_gradient_without_weight(node) for node, number in edges)


def _is_gradient_without_weight(node: Any) -> bool:
    return type(node).__name__ in (_LAYER, *_BATCH) and node._saved_weight is None


def _has_bias_alone(node: Node) -> bool:
    """Whether it is differentiated by a bias, and by no weight; what it saved is not read."""
    children = [child for child, _ in node.next_functions]
    return children[_WEIGHT] is None and children[_BIAS] is not None


def _bias_hook(node: Any) -> Any:
    def instead(by_inputs: tuple[Tensor | None, ...], g: tuple[Tensor | None, ...]) -> Any:
        by_bias, by_output = by_inputs[_BIAS], g[0]
        if by_bias is None or by_output is None or not torch.is_grad_enabled():
            return None
        is_layer, rank = type(node).__name__ == _WITH_BIAS[0], by_output.dim()
        over = [d for d in range(rank) if (d < rank - by_bias.dim() if is_layer else d != 1)]
        return (*by_inputs[:_BIAS], _summed(by_output, over).to(by_bias.dtype), *by_inputs[_BIAS + 1 :])

    return instead


def _in_training(node: Any) -> bool:
    return bool(getattr(node, "_saved_train", getattr(node, "_saved_training", True)))


def _hook(node: Node) -> Any:
    def instead(by_inputs: tuple[Tensor | None, ...], g: tuple[Tensor | None, ...]) -> Any:
        if not torch.is_grad_enabled():
            return None
        given, outputs = _gradient_again(node)
        pairs = [(out, t.to(out.dtype)) for out, t in zip(outputs, g, strict=False) if t is not None]
        places = [place for place, t in given.items() if t.requires_grad]
        wanted = [given[place] for place in places]
        found = torch.autograd.grad(
            [out for out, _ in pairs], wanted, [t for _, t in pairs], create_graph=True, allow_unused=True
        )
        replaced = dict(zip(places, found, strict=True))
        return tuple(None if t is None else replaced.get(i, t) for i, t in enumerate(by_inputs))

    return instead


def _gradient_again(node: Any) -> tuple[dict[int, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """The norm's gradient of g by x, γ and β, once more, and what it was computed of by its place among the inputs."""
    g, x, gain = node._saved_grad_out, node._saved_input, node._saved_weight
    layer = type(node).__name__ == _LAYER
    # Values of their own: what is differentiated by them must not flow on into what made them.
    given = {0: g.view_as(g), 1: x.view_as(x)}
    if gain is not None:
        given[4 if layer else 2] = gain = gain.view_as(gain)
    saved = node._saved_rstd if layer else _saved_scale(node)
    precise = torch.promote_types(x.dtype, torch.float32)
    g, x = given[0].to(precise), given[1].to(precise)
    if layer:
        over = [d for d in range(x.dim()) if d >= x.dim() - len(node._saved_normalized_shape)]
        return given, _gradients(g, x, gain, over, [d for d in range(x.dim()) if d not in over], saved)
    over = [d for d in range(x.dim()) if d != 1]
    scale = saved.view(1, -1, *[1] * (x.dim() - 2))
    column = None if gain is None else gain.view(scale.shape)
    by_x, by_gain, by_bias = _gradients(g, x, column, over, over, scale)
    return given, (by_x, by_gain, by_bias)


def _saved_scale(node: Any) -> Tensor:
    scale: Tensor = node._saved_save_invstd if hasattr(node, "_saved_save_invstd") else node._saved_save_var
    return scale


def _gradients(
    g: Tensor, x: Tensor, gain: Tensor | None, over: list[int], summed: list[int], scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """r (h - mean(h) - x̂ mean(h x̂)) with h = γ g, and Σ g x̂ and Σ g.

    Args:
        g: The gradient by the norm's output.
        x: Its input.
        gain: γ, to broadcast against x.
        over: The dimensions that the statistics are taken over.
        summed: Those that the gradients by γ and β are summed over.
        scale: 1/σ as it was saved, which tells ε.
    """
    centred = x - x.mean(over, keepdim=True)
    variance = centred.square().mean(over, keepdim=True)
    eps = (scale.to(x.dtype).pow(-2) - variance).detach()
    r = (variance + eps).rsqrt()
    normalized = centred * r
    h = g if gain is None else g * gain.to(g.dtype)
    inner = h - h.mean(over, keepdim=True) - normalized * (h * normalized).mean(over, keepdim=True)
    return r * inner, _summed(g * normalized, summed), _summed(g, summed)


def _summed(t: Tensor, dims: list[int]) -> Tensor:
    return t.sum(dims) if dims else t
