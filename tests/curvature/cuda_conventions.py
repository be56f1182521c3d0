"""CUDA's conventions, imposed on calls that run on a CPU: what its kernels refuse, leave undefined, and keep.

A CPU takes an epsilon of zero, computes gradients that nobody asked for, keeps statistics in halves and lets the host
read a number at no price. A GPU does none of that. Under :class:`CudaConventions` the CPU's kernels do not either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["CudaConventions", "CudaRefuses"]

Call = Callable[..., Any]

_HOST_READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "item"}

# Where each operation takes epsilon, the weight, and which outputs are asked for.
_EPSILON = {"native_batch_norm": 7, "_native_batch_norm_legit": 7, "native_batch_norm_backward": 8}
_WEIGHT = {"native_batch_norm_backward": 2, "native_layer_norm_backward": 5, "native_group_norm_backward": 4}
_ASKED = {
    "native_batch_norm_backward": 9,
    "native_layer_norm_backward": 7,
    "native_group_norm_backward": 9,
    "convolution_backward": 10,
}
_KEEP_CHANNELS_LAST = {
    "convolution",
    "native_batch_norm",
    "native_batch_norm_backward",
    "convolution_backward",
}


class CudaRefuses(RuntimeError):
    """What CUDA would not do."""


class CudaConventions(TorchDispatchMode):
    """Runs operations on the CPU as they would run on a GPU.

    Attributes:
        calls: How often each operation was called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        _refuse(name, args)
        call = _precise.get(name, lambda func, *args, **kwargs: func(*args, **kwargs))
        out = call(func, *args, **(kwargs or {}))
        if name in _ASKED:
            out = _undefined_where_not_asked(name, args, out)
        if name in _KEEP_CHANNELS_LAST and any(_is_channels_last(t) for t in args):
            out = _channels_last(out)
        return out


def _refuse(name: str, args: Any) -> None:
    if name in _HOST_READS or (name == "index" and _by_mask(args[1])):
        raise CudaRefuses(f"the host reads what {name} found, and waits for the device")
    if name in _EPSILON and args[_EPSILON[name]] <= 0:
        raise CudaRefuses(f"{name} with an epsilon of {args[_EPSILON[name]]}")
    if name.startswith("native_layer_norm") and name.endswith("norm"):
        x, _, weight = args[:3]
        if weight is not None and weight.dtype != x.dtype:
            raise CudaRefuses(f"layer norm of {x.dtype} with a weight of {weight.dtype}")


def _by_mask(indices: Any) -> bool:
    return any(t is not None and t.dtype is torch.bool for t in indices)


def _undefined_where_not_asked(name: str, args: Any, out: Any) -> tuple[Any, ...]:
    asked = list(args[_ASKED[name]])
    if name in _WEIGHT and args[_WEIGHT[name]] is None:
        asked[1] = False
    return tuple(t if wanted else None for t, wanted in zip(out, asked, strict=True))


def _is_channels_last(t: Any) -> bool:
    dense = isinstance(t, Tensor) and t.dim() == 4 and not t.is_contiguous()
    return dense and t.is_contiguous(memory_format=torch.channels_last)


def _channels_last(out: Any) -> Any:
    if isinstance(out, tuple):
        return tuple(map(_channels_last, out))
    if isinstance(out, Tensor) and out.dim() == 4:
        return out.contiguous(memory_format=torch.channels_last)
    return out


def _norm(statistics: slice) -> Call:
    """A norm of halves, computed and its statistics kept in single precision."""

    def call(func: Any, x: Tensor, *args: Any) -> Any:
        if x.dtype not in (torch.float16, torch.bfloat16):
            return func(x, *args)
        made = func(x.float(), *map(_single, args))
        return tuple(t if n in range(3)[statistics] else t.to(x.dtype) for n, t in enumerate(made))

    return call


def _norm_backward(func: Any, g: Tensor, x: Tensor, *args: Any) -> Any:
    halves = (torch.float16, torch.bfloat16)
    if x.dtype not in halves:
        return func(g, x, *args)
    if any(isinstance(t, Tensor) and t.numel() and t.dtype in halves for t in args[1:3]):
        raise CudaRefuses(f"statistics of {x.dtype}: they are in single precision")
    made = func(g.float(), x.float(), *map(_single, args))
    return tuple(None if t is None else t.to(x.dtype) if t.shape == x.shape else t for t in made)


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value


_precise: dict[str, Call] = {
    "native_layer_norm": _norm(slice(1, 3)),
    "native_layer_norm_backward": _norm_backward,
}
