"""Random signs that every device computes alike, from a key that may lie on the device.

A generator of torch gives other numbers on a GPU than on a CPU, and a CUDA graph would repeat what the host drew. A
hash of the sign's number and a key has neither fault.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["random_signs", "sign_key"]

_KEYS = 2
_FACTOR = 0x45D9F3B  # Mueller's: two rounds flip each bit of 32 with a chance near one half


def sign_key(seed: int, step: int, process: int = 0, batch: int = 0) -> Tensor:
    """The key of one step's signs: int32, ``(2,)``, on the CPU, the same in every resumed run.

    Args:
        seed: The run's.
        step: The step.
        process: The number of the process among those that train together.
        batch: The number of the micro-batch within the step.
    """
    of = f"{seed} {step}" if process == batch == 0 else f"{seed} {step} {process} {batch}"
    digest = hashlib.blake2b(f"signs {of}".encode(), digest_size=4 * _KEYS).digest()
    words = [int.from_bytes(digest[4 * i : 4 * i + 4], "little", signed=True) for i in range(_KEYS)]
    return torch.tensor(words, dtype=torch.int32)


def random_signs(key: Tensor, start: int, count: int, dtype: torch.dtype) -> Tensor:
    """The signs numbered from ``start``, ±1 with equal chances and independent for all practical purposes.

    Args:
        key: As :func:`sign_key` gives it, on the device that computes.
        start: The number of the first sign.
        count: How many.
        dtype: Of the result.

    Returns:
        ``(count,)``, on the key's device.

    Example:
        >>> random_signs(sign_key(0, 1), 0, 1000, torch.float32).abs().sum().item()
        1000.0
    """
    x = torch.arange(count, dtype=torch.int32, device=key.device)
    x += _wrapped(start)
    for word in key.unbind():
        x ^= word
        for _ in range(2):
            x ^= (x >> 16) & 0xFFFF  # a shift of a negative number would bring ones in
            x *= _FACTOR
        x ^= (x >> 16) & 0xFFFF
    return (x & 1).to(dtype).mul_(2).sub_(1)


def _wrapped(number: int) -> int:
    """The number as an int32 that has gone round."""
    return (number + 2**31) % 2**32 - 2**31
