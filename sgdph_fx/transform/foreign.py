"""Other tools that take a module's weight apart: each gets one clear error, before it changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from torch import nn
from torch.ao.quantization import fuser_method_mappings

from sgdph_fx.errors import ModelError
from sgdph_fx.transform.computed_weight import ComputedWeight

__all__ = ["DecoupledParameters", "NeedsPlainWeight", "refuse_fusing"]


class DecoupledParameters(dict[str, "nn.Parameter | None"]):
    """The parameters of a decoupled module; whoever looks for its weight among them is told where it went.

    Args:
        parameters: The parameters by name.
        computed: The names of those that are computed.
    """

    # Unpickling sets items before attributes.
    computed: tuple[str, ...] = ()

    def __init__(
        self, parameters: Mapping[str, nn.Parameter | None] = {}, computed: Iterable[str] = ()
    ) -> None:
        super().__init__(parameters)
        self.computed = tuple(computed)

    def __contains__(self, name: object) -> bool:
        if name in self.computed:
            refuse(str(name), "a tool that replaces it")
        return super().__contains__(name)

    def __missing__(self, name: str) -> None:
        if name in self.computed:
            refuse(name, "a tool that replaces it")
        raise KeyError(name)

    def __delitem__(self, name: str) -> None:
        if name in self.computed:
            refuse(name, "a tool that replaces it")
        super().__delitem__(name)


class NeedsPlainWeight:
    """Refuses what cannot treat a computed weight: TorchScript, pruning, quantization, reparameterizations."""

    _filters: Mapping[str, Any]

    def __prepare_scriptable__(self) -> NoReturn:
        refuse(next(iter(self._filters)), "torch.jit.script")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "qconfig" and value is not None:
            refuse(next(iter(self._filters)), "quantization")
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: Any) -> None:
        """As ``nn.Module`` does, but no computed weight becomes a parameter."""
        if name in self._filters or isinstance(param, ComputedWeight):
            refuse(next(iter(self._filters)), "a tool that replaces it")
        super().register_parameter(name, param)  # type: ignore[misc]

    def __delattr__(self, name: str) -> None:
        if name in self._filters:
            refuse(name, "a tool that replaces it")
        super().__delattr__(name)


def refuse_fusing(plain_class: type[nn.Module], made: type[nn.Module]) -> None:
    """Let quantization, which looks up by classes how to fuse modules, find for ``made`` that it has to be restored."""
    table = getattr(fuser_method_mappings, "_DEFAULT_OP_LIST_TO_FUSER_METHOD", {})
    for kinds in [kinds for kinds in table if plain_class in kinds]:
        table[tuple(made if kind is plain_class else kind for kind in kinds)] = _refuse_to_fuse


def _refuse_to_fuse(is_qat: bool, *modules: nn.Module) -> NoReturn:
    refuse("weight", "torch.ao.quantization.fuse_modules")


def refuse(name: str, tool: str) -> NoReturn:
    """Raises :class:`ModelError`, which says that the model has to be restored first."""
    raise ModelError(
        f"The {name} of this module is computed from gain and direction, and {tool} needs a plain one. Call "
        "`restore(model)` first."
    )
