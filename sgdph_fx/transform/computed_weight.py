"""The weight of a decoupled convolution as you read it: a tensor that hands on what is written into it.

``module.weight`` is computed anew each time, so a change in place would be lost with it: ``nn.init``, ``clamp_``,
``copy_``, ``weight.data = ...``. The tensor belongs to a subclass that notices such changes and passes them to gain and
direction. It carries the graph of the computation as any tensor does, and what is computed from it is plain.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.errors import ModelError

__all__ = ["ComputedWeight", "Source", "linked", "require_shape"]

# Calls of PyTorch's C++ code, as opposed to Python functions such as those of torch.nn.init.
_NATIVE = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
# What layers do with their weight at each step: it is read alone, and the result lies in memory of its own.
_LAYERS = frozenset(
    {
        torch.conv1d,
        torch.conv2d,
        torch.conv3d,
        torch.conv_transpose1d,
        torch.conv_transpose2d,
        torch.conv_transpose3d,
    }
    | {torch.nn.functional.linear}
)


@dataclass(slots=True)
class Source:
    """Where a computed weight comes from, and where its changes go.

    Args:
        name: What messages call the weight.
        memory: The weight as it was computed, without its graph; what you read and views of it share its memory.
        parts: Direction and gain.
        compute: Computes the weight from them.
        assign: Makes them give another weight. The second argument says whether to do so behind autograd's back, as
            ``.data`` does.
    """

    name: str
    memory: Tensor
    parts: tuple[Tensor, Tensor]
    compute: Callable[[], Tensor]
    assign: Callable[[Tensor, bool], None]
    versions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.versions = self._versions()

    def refresh(self) -> None:
        """Compute the weight anew if its parts have changed since."""
        if self.versions != self._versions():
            with torch.no_grad():
                self.memory.data.copy_(self.compute())
            self.versions = self._versions()

    def hand_on(self, value: Tensor, silently: bool) -> None:
        """Make the parts give ``value``.

        Raises:
            ModelError: if that has another shape than the weight.
        """
        require_shape(self.name, value, self.parts[0])
        self.assign(value, silently)
        self.versions = self._versions()

    def _versions(self) -> tuple[int, ...]:
        return tuple(-1 if part.is_inference() else part._version for part in self.parts)


def require_shape(name: str, value: Tensor, direction: Tensor) -> None:
    """Refuse a new weight of another shape than ``direction``; raises :class:`ModelError`."""
    if value.shape != direction.shape:
        raise ModelError(
            f"{name} was given the shape {tuple(value.shape)}, and its gain and direction are for "
            f"{tuple(direction.shape)}. Call `restore(model)` first, change the plain model, prepare it again."
        )


class ComputedWeight(Tensor):
    """A weight that is computed from gain and direction, or a view of one."""

    _source: Source
    _silent: bool

    def set_(self, *source: Any, **kwargs: Any) -> ComputedWeight:
        """As any tensor's, which PyTorch does not pass to ``__torch_function__``."""
        plain = self.detach().clone().as_subclass(Tensor)
        plain.set_(*source, **kwargs)
        _set_data(self, plain)
        return self

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _LAYERS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        written = [w for w in _written(func, args, kwargs) if isinstance(w, ComputedWeight)]
        if func is Tensor.requires_grad_ or func == Tensor.requires_grad.__set__:  # type: ignore[attr-defined]
            return _require_grad(*args, **kwargs)
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            return _set_data(*args)
        if func is Tensor.__dlpack__:
            raise ModelError(
                f"{args[0]._source.name} is computed from gain and direction, so what another library writes into its "
                "memory would be lost. Hand over a copy, `module.weight.detach().clone()`."
            )
        if not written:
            with torch._C.DisableTorchFunctionSubclass():
                return _as_views(func, args, _call(func, args, kwargs))
        shapes = [weight.shape for weight in written]
        for weight in written:
            _require_writable(func, weight)
            weight._source.refresh()
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            for weight, shape in zip(written, shapes, strict=True):
                source = weight._source
                source.hand_on(source.memory if weight.shape == shape else weight.detach(), weight._silent)
        return result


def linked(weight: Tensor, source: Source, silent: bool = False) -> Tensor:
    """``weight`` itself, from now on with a source."""
    weight.__class__ = ComputedWeight
    assert isinstance(weight, ComputedWeight)
    weight._source, weight._silent = source, silent
    return weight


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """What a function writes into, as its name and its arguments say."""
    name = getattr(func, "__name__", "")
    out = kwargs.get("out")
    if out is not None:
        yield from out if isinstance(out, tuple | list) else (out,)
    is_assignment = name == "__setitem__" or (
        name.startswith("__i") and name.endswith("__") and name not in _QUESTIONS
    )
    if is_assignment or (name.endswith("_") and not name.endswith("__")):
        first = args[0] if args else next(iter(kwargs.values()), None)
        yield from first if isinstance(first, tuple | list) else (first,)


# Their names begin like those of operators that work in place.
_QUESTIONS = frozenset({"__init__", "__invert__", "__int__", "__index__", "__iter__"})


def _require_writable(func: Any, weight: ComputedWeight) -> None:
    if isinstance(func, _NATIVE) and torch.is_grad_enabled() and weight.requires_grad:
        raise ModelError(
            f"{weight._source.name} is computed from gain and direction, so it cannot be changed in place while "
            "gradients are recorded; neither can a plain weight that is trained. Do it under `torch.no_grad()`."
        )


def _require_grad(weight: ComputedWeight, flag: bool = True, **kwargs: bool) -> ComputedWeight:
    """Freezing or thawing the weight means gain and direction."""
    for part in weight._source.parts:
        part.requires_grad_(kwargs.get("requires_grad", flag))
    return weight


def _set_data(weight: ComputedWeight, value: Tensor) -> None:
    """``weight.data = value``, which may bring another dtype and device."""
    weight._source.hand_on(value.detach(), silently=True)
    with torch._C.DisableTorchFunctionSubclass():
        weight.data = weight._source.memory = value.detach().clone()


def _call(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func in (Tensor.__deepcopy__, Tensor.__reduce_ex__):  # a copy is nobody's weight
        return func(args[0].detach().clone(), *args[1:], **kwargs)
    result = func(*args, **kwargs)
    if func in (Tensor.numpy, Tensor.__array__):
        result.setflags(write=False)  # PyTorch would not see what is written there
    return result


def _as_views(func: Any, args: tuple[Any, ...], result: Any) -> Any:
    """``result``, whose tensors are linked too if they share the memory of a weight among ``args``."""
    results = result if isinstance(result, tuple | list) else (result,)
    plain = [r for r in results if type(r) is Tensor]
    if plain:
        for weight in args:
            if isinstance(weight, ComputedWeight):
                memory = weight.untyped_storage()._cdata
                silent = weight._silent or func == Tensor.data.__get__  # type: ignore[attr-defined]
                for view in plain:
                    if view.layout is torch.strided and view.untyped_storage()._cdata == memory:
                        linked(view, weight._source, silent)
    return result
