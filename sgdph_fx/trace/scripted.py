"""TorchScript inside a model: what runs in it passes by torch functions, and so by every trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["ConvolutionCounter", "is_scripted"]

_CONVOLUTIONS = frozenset(
    {
        torch.ops.aten.convolution.default,
        torch.ops.aten._convolution.default,
        torch.ops.aten.convolution_overrideable.default,
        torch.ops.aten.cudnn_convolution.default,
        torch.ops.aten.mkldnn_convolution.default,
    }
)


def is_scripted(module: nn.Module) -> bool:
    """Whether ``module`` was scripted or traced by ``torch.jit``."""
    return isinstance(module, torch.jit.ScriptModule)


class ConvolutionCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the convolutions that run in a module, but not those by one of its buffers, a fixed kernel.

    The dispatcher, below TorchScript, sees them. It costs some microseconds for each operation.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self._fixed = {buffer.untyped_storage().data_ptr() for buffer in module.buffers()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _CONVOLUTIONS:
            self.count += args[1].untyped_storage().data_ptr() not in self._fixed
        return func(*args, **(kwargs or {}))
