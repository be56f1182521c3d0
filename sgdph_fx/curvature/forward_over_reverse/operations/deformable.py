"""torchvision's deformable convolution: run again as samples at the points of a grid, and products of matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse.operations.recomputation import Recomputed, recomputed
from sgdph_fx.curvature.forward_over_reverse.rule import ForwardNode, Rule

__all__ = ["RULES"]


def _again(fwd: ForwardNode) -> Recomputed:
    node: Any = fwd.node
    return Recomputed.of(node.saved_tensors, fwd.active, lambda leaves: [_convolve(node, leaves)])


def _convolve(node: Any, leaves: Sequence[Tensor]) -> Tensor:
    """Compute the convolution.

    Args:
        node: The operation's node, which keeps its geometry.
        leaves: The image ``(N, C, H, W)``; the weight ``(D, C / groups, h, w)``; for each of G groups of channels,
            point of the kernel and pixel an offset ``(N, 2 G h w, H', W')`` and a factor ``(N, G h w, H', W')``;
            the bias ``(D,)``.
    """
    x, weight, offset, mask, bias = leaves
    (n, channels, _, _), (height, width) = x.shape, offset.shape[-2:]
    points, groups = weight.shape[2] * weight.shape[3], node.offset_groups
    sampled = _sampled(node, x.reshape(n * groups, -1, *x.shape[2:]), offset, weight.shape[2:])
    if node.use_mask:
        sampled = sampled * mask.reshape(n * groups, 1, points, height * width)
    columns = sampled.reshape(n, node.groups, channels // node.groups * points, height * width)
    filters = weight.reshape(node.groups, weight.shape[0] // node.groups, -1)
    out = torch.matmul(filters, columns).reshape(n, weight.shape[0], height, width)
    return out + bias.view(-1, 1, 1)


def _sampled(node: Any, x: Tensor, offset: Tensor, kernel: Sequence[int]) -> Tensor:
    """Sample the image at each point of the kernel, ``(N G, C / G, h w, H' W')``."""
    height, width = offset.shape[-2:]
    points = kernel[0] * kernel[1]
    moved = offset.reshape(x.shape[0], points, 2, height, width)
    kernel_y, kernel_x = torch.meshgrid(*(torch.arange(k, device=x.device) for k in kernel), indexing="ij")
    y = _positions(height, node.stride_h, node.pad_h, kernel_y.flatten() * node.dilation_h)
    across = _positions(width, node.stride_w, node.pad_w, kernel_x.flatten() * node.dilation_w)
    y, across = y[:, :, None] + moved[:, :, 0], across[:, None] + moved[:, :, 1]
    grid = torch.stack([_normalized(across, x.shape[3]), _normalized(y, x.shape[2])], -1)
    return F.grid_sample(x, grid.reshape(x.shape[0], points, -1, 2), align_corners=False)


def _positions(length: int, stride: int, padding: int, kernel: Tensor) -> Tensor:
    """Where each point of the kernel lies for each output pixel along one dimension, ``(h w, length)``."""
    start = torch.arange(length, device=kernel.device) * stride - padding
    return start + kernel[:, None]


def _normalized(position: Tensor, size: int) -> Tensor:
    """Scale positions in pixels: the edges of the image are at -1 and 1."""
    return (2 * position + 1) / size - 1


RULES: Mapping[str, Rule] = {
    "torch._library.autograd.GeneratedBackwardFor_torchvision_deform_conv2d_default": recomputed(_again)
}
"""By module and class of the Python function."""
