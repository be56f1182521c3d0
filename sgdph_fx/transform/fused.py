"""Whether a formula can run as one Triton kernel, and its launch.

On NVIDIA GPUs kernels stand in for chains of torch's calls, here and in the second derivatives. If Triton is missing or
cannot compile a kernel here, torch's calls take its place for good. The results agree up to rounding.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["LONGEST_ROW", "failure", "is_fusible", "launch", "launch_on_rows"]

LONGEST_ROW = 2048
_ROW_TILE = 2048
_HOMES = {
    "batch_norm_backward": "sgdph_fx.curvature.forward_over_reverse.triton_batch_norm",
    "batch_norm_sums": "sgdph_fx.curvature.forward_over_reverse.triton_batch_norm",
    **dict.fromkeys(
        ("attention_tangent", "attention_tangent_by_keys", "attention_tangent_by_queries"),
        "sgdph_fx.curvature.forward_over_reverse.triton_attention",
    ),
    "weight_norm_backward": "sgdph_fx.transform.triton_weight",
    "weight_norm_forward": "sgdph_fx.transform.triton_weight",
}
_failures: dict[str, str] = {}


def failure() -> str:
    """Say which kernels do not run here, and why; empty as long as all do, or none has been tried."""
    return "; ".join(f"{name}: {why}" for name, why in _failures.items())


def is_fusible(*tensors: Tensor | None) -> bool:
    """Whether a kernel takes these tensors: plain ones in single or half precision, on an NVIDIA GPU."""
    for t in tensors:  # noqa: SIM110 - plainly, as each step asks for each weight
        if t is not None and not _fits(t):
            return False
    return True


def _fits(t: Tensor) -> bool:
    single = t.is_cuda and t.dtype in (torch.float32, torch.float16, torch.bfloat16)
    # A tensor of a subclass or in a transform of torch.func, and zeros that torch did not write, have no memory.
    has_memory = type(t) in (Tensor, nn.Parameter) and not t._is_zerotensor() and t.numel() > 0
    return single and has_memory and torch.version.hip is None


def launch_on_rows(name: str, rows: int, length: int, *arguments: Any, **constants: Any) -> bool:
    """Launch a row kernel.

    Args:
        name: The kernel's.
        rows: How many rows there are.
        length: Numbers in a row, at most :data:`LONGEST_ROW`.
        arguments: Tensors (None where the kernel does not look), then numbers.
        constants: Its constants, but for the tile.

    Returns:
        Whether it ran. If not, nothing has been written that anybody reads.
    """
    cols = max(16, 1 << (length - 1).bit_length())
    tile = {"ROWS": max(1, _ROW_TILE // cols), "COLS": cols}
    blocks = -(-rows // tile["ROWS"])
    return launch(name, blocks, arguments, {**constants, **tile})


def launch(name: str, blocks: int, arguments: Sequence[Any], constants: dict[str, Any]) -> bool:
    """Launch a kernel on the device and the stream of its first argument; see :func:`launch_on_rows`."""
    if name in _failures:
        return False
    try:
        _launch(name, blocks, arguments, constants)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # no compiler, an old driver: torch's calls need none of it
        _failures[name] = f"{type(error).__name__}: {error}"
    return name not in _failures


def _launch(name: str, blocks: int, arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    kernel: Callable[..., Any] = _kernel(name)[(blocks,)]
    first: Tensor = arguments[0]
    if not first.is_cuda:  # Triton's interpreter, in tests
        kernel(*arguments, **constants)
        return
    with torch.cuda.device(first.device):
        kernel(*arguments, **constants)


@functools.cache
def _kernel(name: str) -> Any:
    module = _HOMES.get(name, "sgdph_fx.curvature.forward_over_reverse.triton_kernels")
    return getattr(importlib.import_module(module), name)
