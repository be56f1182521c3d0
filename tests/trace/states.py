"""What a model is, to the bit, read by other means than the program's own."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["state_of"]


def state_of(model: nn.Module) -> dict[str, Any]:
    """Everything that a look at ``model`` may not change, as values that can be compared."""
    parts: dict[str, Any] = {}
    for path, module in model.named_modules():
        parts[f"{path}: class"] = type(module)
        for name, value in module.__dict__.items():
            parts[f"{path}.{name}"] = _value(value)
    parts["names"] = (
        [name for name, _ in model.named_parameters()],
        [name for name, _ in model.named_buffers()],
    )
    return parts


def _value(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _tensor(value)
    if isinstance(value, dict):
        return type(value), [(key, _value(held)) for key, held in value.items()]
    if isinstance(value, list | tuple | deque | set):
        return type(value), [_value(held) for held in value]
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    if isinstance(value, nn.Module) or not hasattr(value, "__dict__") or callable(value):
        return id(value) if not isinstance(value, int | float | str) else value
    return id(value), _value(vars(value))


def _tensor(tensor: Tensor) -> Any:
    return (
        id(tensor),
        type(tensor),
        None if tensor.is_nested else tensor.shape,
        tensor.dtype,
        tensor.layout,
        tensor.requires_grad,
        tensor.grad_fn,
        _numbers(tensor.detach()),
        None if tensor.grad is None else (id(tensor.grad), _numbers(tensor.grad)),
        len(tensor._backward_hooks or ()),
        len(tensor._post_accumulate_grad_hooks or ()),
    )


def _numbers(tensor: Tensor) -> Any:
    """The numbers as bytes: a NaN is a NaN, and -0 is not 0."""
    if tensor.is_quantized:
        return tensor.int_repr().numpy().tobytes(), tensor.qscheme()
    if tensor.is_nested:
        return [_numbers(part) for part in tensor.unbind()]
    if tensor.layout is torch.strided:
        return tensor.stride(), bytes(tensor.resolve_conj().contiguous().flatten().view(torch.uint8).tolist())
    if tensor.layout is torch.sparse_coo:
        return _numbers(tensor._indices()), _numbers(tensor._values())
    if tensor.layout is torch.sparse_csr:
        return _numbers(tensor.crow_indices()), _numbers(tensor.col_indices()), _numbers(tensor.values())
    return _numbers(tensor.to_dense())
