"""What Python holds beside tensors on the device, and a recording would keep: attributes, hooks, and variables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.optim.capture.called_code import HOOKS, is_of_torch
from sgdph_fx.optim.capture.code_words import Words
from sgdph_fx.optim.capture.reached_values import reach
from sgdph_fx.optim.capture.seen_values import PLAIN, drawn_from, seen
from sgdph_fx.optim.capture.step_code import Part, StepCode

__all__ = ["Attributes", "settings_of_torch", "variables"]

_LEFT_OUT = frozenset(nn.Module().__dict__) - HOOKS  # told apart, or of no use in a step


class Attributes:
    """What modules hold themselves, their hooks too; parameters, buffers, submodules and the mode are told apart.

    Args:
        names: Those that any code of the step reads; what else a class of yours holds takes no part in it.
        on_gpu: As of :func:`seen`.
    """

    def __init__(self, names: Words, *, on_gpu: bool) -> None:
        self._names, self._on_gpu = names, on_gpu
        self._known: dict[int, tuple[object, object]] = {}  # modules share their settings

    def of(self, module: nn.Module) -> dict[str, object]:
        """Names and what tells the values apart."""
        every = is_of_torch(type(module)) or self._names.finds_by_name
        return {
            key: value
            if type(value) in PLAIN
            else self._seen(value)  # a call for each would take its time at each step
            for key, value in module.__dict__.items()
            if key not in _LEFT_OUT
            and (every or key in self._names.attributes or key in HOOKS)
            and not (type(value) is OrderedDict and not value)
        }

    def _seen(self, value: Any) -> object:
        if type(value) is tuple and PLAIN.issuperset(map(type, value)):
            return value
        if isinstance(value, Tensor) or type(value) is OrderedDict:
            return seen(value, on_gpu=self._on_gpu)
        if id(value) not in self._known:
            found = [
                f for f in reach("", value, self._names) if f.is_last and not isinstance(f.value, nn.Module)
            ]
            told = tuple((f.name, seen(f.value, on_gpu=self._on_gpu)) for f in found)
            self._known[id(value)] = value, told
        return self._known[id(value)][1]


def variables(code: StepCode, *, on_gpu: bool) -> list[tuple[str, object]]:
    """What the code of a step reads from outside of itself, with the names that it has there: ``config.rate``."""
    kinds: dict[Any, None] = dict.fromkeys(map(type, code.modules))
    found: list[tuple[str, object]] = [(f"{kind.__name__}.forward", kind.forward) for kind in kinds]
    return found + _seen(code.parts, on_gpu)


def _seen(parts: Iterable[Part], on_gpu: bool) -> list[tuple[str, object]]:
    pairs = [
        (found.name, seen(found.value, on_gpu=on_gpu))
        for part in parts
        for found in part.found
        if found.is_last and not isinstance(found.value, nn.Module)
    ]
    draws = (f for part in parts if not part.is_tried for f in part.found if callable(f.value))
    return pairs + [(f.name, state) for f in draws if (state := drawn_from(f.value)) is not None]


def settings_of_torch() -> tuple[object, ...]:
    """What decides for the whole process which kernels torch takes."""
    matmul, attention = torch.backends.cuda.matmul, torch._C
    cudnn: Any = torch.backends.cudnn
    return (
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        # `torch.get_float32_matmul_precision` raises where the newer settings were used.
        (matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision),
        (matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction),
        (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        (attention._get_flash_sdp_enabled(), attention._get_mem_efficient_sdp_enabled()),
        (attention._get_math_sdp_enabled(), attention._get_cudnn_sdp_enabled()),
    )
