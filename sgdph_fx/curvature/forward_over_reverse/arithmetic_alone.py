"""Where rules compute: no graph is recorded, and autocast changes no dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

__all__ = ["arithmetic_alone"]

_AS_IT_IS = nullcontext()


def arithmetic_alone(device_type: str) -> AbstractContextManager[None]:
    """Switch off what is on of the two; a backward pass has mostly neither, and asking costs a tenth of switching."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(device_type):
        return _switched_off(device_type)
    return _AS_IT_IS


@contextmanager
def _switched_off(device_type: str) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device_type, enabled=False):
        yield
