"""Attention's tangents as Triton kernels, where there is a GPU: scores stay in registers, as in torch's own kernels.

They take halves without a mask, with as many heads of K and V as of Q. What is in single precision, masked, or wider
than 128 goes by :mod:`.attention_by_scores`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.transform.fused import is_fusible, launch

__all__ = ["Applied", "Rows", "tile_of"]

_WIDEST = 128
_HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the backward pass needs of each row of scores, ``(N, H, L)``, in single precision.

    Args:
        logs: log Σ exp S.
        means: Σ P ∘ Ṡ.
    """

    logs: Tensor
    means: Tensor


@dataclass(frozen=True, slots=True)
class _Pair:
    """A tensor ``(N, H, L, E)`` and its tangent in the same places of memory; a tangent of None is zero."""

    value: Tensor
    tangent: Tensor | None

    @classmethod
    def of(cls, value: Tensor, tangent: Tensor | None) -> _Pair:
        if value.stride(-1) == 1 and (tangent is None or tangent.stride() == value.stride()):
            return cls(value, tangent)
        return cls(value.contiguous(), None if tangent is None else tangent.contiguous())


@dataclass(frozen=True, slots=True)
class Applied:
    """One application of attention without a mask.

    Args:
        q: Q and Q̇.
        k: K and K̇.
        v: V and V̇.
        causal: Whether a query sees only the keys up to its own place.
        scale: What S = Q Kᵀ is multiplied by.
    """

    q: _Pair
    k: _Pair
    v: _Pair
    causal: bool
    scale: float

    @classmethod
    def of(
        cls,
        inputs: tuple[Tensor, Tensor, Tensor],
        tangents: tuple[Tensor | None, ...],
        causal: bool,
        scale: float,
    ) -> Applied | None:
        """Take inputs ``(N, H, L, E)`` and their tangents; None where no kernel does."""
        q, k, v = inputs
        dtype, (n, h, _, width) = q.dtype, q.shape
        alike = (k.shape[:2], k.shape[3], v.shape) == ((n, h), width, k.shape)
        given = [t for t in (*inputs, *tangents) if t is not None]
        if not alike or width > _WIDEST or dtype not in _HALVES or any(t.dtype is not dtype for t in given):
            return None
        if not is_fusible(*given) or not _has_tensor_cores(q):
            return None
        dq, dk, dv = tangents
        return cls(_Pair.of(q, dq), _Pair.of(k, dk), _Pair.of(v, dv), causal, scale)

    def output_tangent(self, output: Tensor) -> tuple[Tensor, Rows] | None:
        """Compute Ȯ, laid out as O, and what the backward pass needs; None where the kernel does not run."""
        out = torch.empty_like(output)
        if out.stride(-1) != 1:
            out = torch.empty_like(output, memory_format=torch.contiguous_format)
        rows = Rows(self._row_numbers(), self._row_numbers())
        given = (*self._inputs(), out, rows.logs, rows.means)
        ran = self._launch("attention_tangent", self.q.value, given, _strides(*self._values(), out))
        return (out, rows) if ran else None

    def gradient_tangents(
        self, g: Tensor, dg: Tensor | None, rows: Rows
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Compute the tangents of the gradients by Q, K and V, laid out as these; None where no kernel runs.

        Args:
            g: G, the gradient by O.
            dg: Its tangent; None is zero.
            rows: What :meth:`output_tangent` gave.
        """
        dtype = self.q.value.dtype
        if any(t is not None and t.dtype is not dtype for t in (g, dg)) or not is_fusible(g, dg):
            return None
        passed = _Pair.of(g, dg)
        by_q, by_k, by_v = (torch.empty_like(t) for t in self._values())
        dots, turns = self._row_numbers(), self._row_numbers()
        given = (*self._inputs(), passed.value, passed.tangent)
        stats = (rows.logs, rows.means, dots, turns)
        strides = _strides(*self._values(), passed.value)
        flag = {"HAS_DG": dg is not None}
        ran = self._launch(
            "attention_tangent_by_queries", by_q, (*given, by_q, *stats), [*strides, *_strides(by_q)], flag
        ) and self._launch(
            "attention_tangent_by_keys",
            by_k,
            (*given, by_k, by_v, *stats),
            [*strides, *_strides(by_k, by_v)],
            flag,
        )
        return (by_q, by_k, by_v) if ran else None

    def _values(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.q.value, self.k.value, self.v.value

    def _inputs(self) -> list[Tensor | None]:
        return [t for pair in (self.q, self.k, self.v) for t in (pair.value, pair.tangent)]

    def _row_numbers(self) -> Tensor:
        return self.q.value.new_empty(self.q.value.shape[:3], dtype=torch.float32)

    def _launch(
        self,
        name: str,
        kept: Tensor,
        tensors: tuple[Tensor | None, ...],
        strides: list[int],
        flags: Mapping[str, bool] | None = None,
    ) -> bool:
        """Launch a kernel whose programs keep a block of rows of ``kept``."""
        n, h, length, width = kept.shape
        tile: dict[str, Any] = tile_of(width)
        numbers = (h, self.q.value.shape[2], self.k.value.shape[2], width, self.scale)
        flags = {
            "CAUSAL": self.causal,
            "HAS_DQ": self.q.tangent is not None,
            "HAS_DK": self.k.tangent is not None,
            "HAS_DV": self.v.tangent is not None,
            **(flags or {}),
        }
        blocks = n * h * -(-length // tile["ROWS"])
        return launch(name, blocks, (*tensors, *strides, *numbers), {**flags, **tile})


def tile_of(width: int) -> dict[str, int]:
    """Choose what a program holds of one head: as much as the registers and 99 KiB of shared memory take."""
    padded = max(16, 1 << (width - 1).bit_length())
    narrow = padded <= 64
    return {
        "ROWS": 64 if narrow else 32,
        "COLS": 32,
        "WIDTH": padded,
        "num_warps": 4,
        "num_stages": 2 if narrow else 1,
    }


def _has_tensor_cores(t: Tensor) -> bool:
    """Whether Triton multiplies on tensor cores there; on a CPU its interpreter does, in tests."""
    return not t.is_cuda or torch.cuda.get_device_capability(t.device) >= (8, 0)


def _strides(*tensors: Tensor) -> list[int]:
    return [stride for t in tensors for stride in t.stride()[:3]]
