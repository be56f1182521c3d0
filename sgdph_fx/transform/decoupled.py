"""Modules whose weight is computed: each is a subclass of what it was.

A module whose weight is decoupled only changes its class, to one in which ``weight`` is a property that computes
γ V / ‖V‖. It stays an instance of its own class, with its attributes, hooks and methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.errors import ModelError
from sgdph_fx.transform.computed_weight import ComputedWeight, Source, linked, require_shape
from sgdph_fx.transform.filters import Filters, compose, decompose, decoupled_names
from sgdph_fx.transform.foreign import NeedsPlainWeight, refuse_fusing

__all__ = ["Decoupled", "decoupled_class", "plain_class_of"]


class Decoupled(NeedsPlainWeight):
    """What every class made by :func:`decoupled_class` is, beside being the person's own class.

    ``weight`` (or whatever its name) is computed from the parameters ``direction`` and ``gain`` whenever
    it is read; assigning a tensor to it sets both. A checkpoint of the plain module loads: its weight is
    decomposed on the way in.
    """

    plain_class: type[nn.Module]
    _filters: Mapping[str, Filters] = MappingProxyType({})

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._filters:
            _assign(self, name, _new_weight(self, name, value))
        else:
            super().__setattr__(name, value)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time, so it is pickled as what it is made from.
        _, _, *rest = tuple(super().__reduce_ex__(protocol))
        return (_new, (self.plain_class, tuple(self._filters)), *rest)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        assigns = local_metadata.get("assign_to_params_buffers", False)
        for name, filters in self._filters.items():
            if prefix + name in state_dict:
                value: Any = state_dict.pop(prefix + name)
                if isinstance(value, Tensor):
                    parts = decompose(value if assigns else _cast(self, name, value), filters)
                else:
                    parts = value, value  # PyTorch refuses it in its own words
                state_dict.update(zip((prefix + n for n in decoupled_names(name)), parts, strict=True))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)  # type: ignore[misc]


def decoupled_class(plain_class: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of ``plain_class`` in which the parameters ``names`` are computed; always the same one."""
    made = _CLASSES.get((plain_class, names))
    # Two threads may make it at once; the first one's is kept.
    return made or _CLASSES.setdefault((plain_class, names), _make_class(plain_class, names))


_CLASSES: dict[tuple[type[nn.Module], tuple[str, ...]], type[nn.Module]] = {}


def _make_class(plain_class: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    properties = {name: property(_getter(name)) for name in names}
    body: dict[str, Any] = {"plain_class": plain_class, "__module__": plain_class.__module__, **properties}
    if names == ("weight",):
        body.update(_direct_forward(plain_class))
    made = type(f"Decoupled{plain_class.__name__}", (Decoupled, plain_class), body)
    refuse_fusing(plain_class, made)
    return made


def _direct_forward(plain_class: Any) -> dict[str, Callable[..., Tensor]]:
    """Find a forward that convolves with γ V / ‖V‖ at once, where the class convolves as torch's does.

    torch's forward reads the weight as anyone may, who could then write into it. That link costs the host more than
    the computation of the weight.
    """
    torchs = next((kind for kind in _CONVOLUTIONS if issubclass(plain_class, kind)), None)
    if torchs is None:
        return {}
    theirs, convolve = torchs.forward, torchs._conv_forward
    if plain_class.forward is not theirs or plain_class._conv_forward is not convolve:
        return {}

    def forward(self: Any, input: Tensor) -> Tensor:
        if plain_class.forward is not theirs or plain_class._conv_forward is not convolve:  # patched since
            return plain_class.forward(self, input)  # type: ignore[no-any-return]
        direction = self.direction
        weight = compose(direction, self.gain, self._filters["weight"], _autocast_dtype(direction))
        return self._conv_forward(input, weight, self.bias)  # type: ignore[no-any-return]

    return {"forward": forward}


def _autocast_dtype(direction: Tensor) -> torch.dtype | None:
    """The dtype that autocast is about to round the weight to; None where it does not, or a compiler looks on."""
    if direction.dtype != torch.float32 or _is_followed():
        return None
    kind = direction.device.type
    # The meta device has none, and does not answer the next question.
    if not torch.amp.is_autocast_available(kind):
        return None
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


_CONVOLUTIONS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _getter(name: str) -> Callable[[Any], Tensor]:
    direction, gain = decoupled_names(name)

    # A function, and not one that is partially applied: a compiler reads only functions.
    def computed(module: Any) -> Tensor:
        parts = getattr(module, direction), getattr(module, gain)
        weight = compose(*parts, module._filters[name])
        # A compiler, an exporter and a tracer follow a plain tensor, and so does a transform of torch.func.
        if type(weight) is not Tensor or _is_followed():
            return weight
        return _linked(module, name, weight, parts)

    return computed


def _is_followed() -> bool:
    followed: bool = (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or torch._C._functorch.maybe_current_level() is not None
    )
    return followed


def _linked(module: Any, name: str, weight: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    source = Source(
        name=f"The {name} of a {type(module).__name__}",
        memory=weight.detach(),
        parts=parts,
        compute=lambda: compose(*parts, module._filters[name]),
        assign=lambda value, silently: _assign(module, name, value, silently),
    )
    return linked(weight, source)


@torch.no_grad()
def _assign(module: Any, name: str, value: Tensor, silently: bool = False) -> None:
    """Make direction and gain give ``value``; ``silently`` does what ``.data`` does, which autograd does not see."""
    parts = decompose(value, module._filters[name])
    for own, new in zip(decoupled_names(name), parts, strict=True):
        part = getattr(module, own)
        if not silently:
            part.copy_(new)
        elif (part.dtype, part.device) == (new.dtype, new.device):
            part.data.copy_(new)
        else:
            part.data = new.clone()


def _new_weight(module: Any, name: str, value: Any) -> Tensor:
    """``value``, if it can be assigned to a decoupled weight."""
    what, direction = f"The {name} of a {type(module).__name__}", getattr(module, decoupled_names(name)[0])
    if not isinstance(value, Tensor):
        raise ModelError(
            f"{what} was given a {type(value).__name__}, and gain and direction need a tensor. Call `restore(model)` "
            "first to take the weight away."
        )
    if isinstance(value, ComputedWeight) and value._source.parts[0] is not direction:
        raise ModelError(
            f"{what} was given that of another module, and both would not be one weight. Tie them in the plain model, "
            "`restore(model)`, then prepare it; or assign a copy, `.detach().clone()`."
        )
    require_shape(what, value, direction)
    return value.detach()


def _cast(module: Any, name: str, value: Tensor) -> Tensor:
    """A weight of a checkpoint in the dtype of the module: norms that are taken of halves would be rounded."""
    direction: Tensor = getattr(module, decoupled_names(name)[0])
    return value.to(direction.dtype)


def plain_class_of(module: nn.Module) -> type[nn.Module]:
    """The class that ``module`` has, or had before it was decoupled."""
    return module.plain_class if isinstance(module, Decoupled) else type(module)


def _new(plain_class: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    made = decoupled_class(plain_class, names)
    return made.__new__(made)
