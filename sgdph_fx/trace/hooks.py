"""What hooks change around a module that is read as one operation: its inputs, or its result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sgdph_fx.trace.outputs import tensors_in

__all__ = ["Around", "forward_hook", "forward_pre_hook", "has_hooks", "may_change", "watched"]


def forward_pre_hook(*inputs: Any, **named: Any) -> Any:
    """Stands in a graph for the pre-hooks of a module, which nobody looks into."""
    raise NotImplementedError


def forward_hook(result: Any) -> Any:
    """Stands in a graph for the forward hooks of a module, which nobody looks into."""
    raise NotImplementedError


@dataclass(slots=True)
class Around:
    """What the hooks of one call did.

    Args:
        inputs_changed: Whether the module itself got other tensors than its caller passed, or other numbers in them.
        result_changed: The same of what it returned and what its caller got.
        result: What the module itself returned.
    """

    inputs_changed: bool = False
    result_changed: bool = False
    result: Any = None


def has_hooks(module: nn.Module) -> bool:
    """Whether anything runs before or after the ``forward`` of ``module``."""
    return bool(module._forward_pre_hooks or module._forward_hooks)


def may_change(module: nn.Module) -> Around:
    """What the hooks of ``module`` may change, where they cannot be run.

    Those of PyTorch's own weight normalization, spectral normalization and pruning make the weight, and no more.
    """
    pre = any(
        not type(hook).__module__.startswith("torch.nn.utils.") for hook in module._forward_pre_hooks.values()
    )
    return Around(inputs_changed=pre, result_changed=bool(module._forward_hooks))


@contextmanager
def watched(module: nn.Module, args: Any, kwargs: Any) -> Iterator[Around]:
    """Compares what goes into a call of ``module`` and what comes out of it, inside and outside of its hooks."""
    around = Around()
    passed = _seen((args, kwargs))
    returned: list[tuple[Tensor, int]] = []

    def before(_: nn.Module, args: Any, kwargs: Any) -> None:
        around.inputs_changed = _differ(passed, _seen((args, kwargs)))

    def raw(_: nn.Module, args: Any, result: Any) -> None:
        around.result = result
        returned.extend(_seen(result))

    def final(_: nn.Module, args: Any, result: Any) -> None:
        around.result_changed = _differ(returned, _seen(result))

    handles = [
        module.register_forward_pre_hook(before, with_kwargs=True),
        module.register_forward_hook(raw, prepend=True),
        module.register_forward_hook(final),
    ]
    try:
        yield around
    finally:
        for handle in handles:
            handle.remove()


def _seen(value: Any) -> list[tuple[Tensor, int]]:
    return [
        (tensor, -1 if tensor.is_inference() else tensor._version) for tensor in tensors_in(value).values()
    ]


def _differ(before: list[tuple[Tensor, int]], after: list[tuple[Tensor, int]]) -> bool:
    same = (a is b and earlier == later for (a, earlier), (b, later) in zip(before, after, strict=False))
    return len(before) != len(after) or not all(same)
