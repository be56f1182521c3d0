"""Trainable parameters that a loss reaches and no optimizer holds: thawed later, or left out of the groups."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from sgdph_fx.curvature.autograd_graph import leaves, leaves_among
from sgdph_fx.curvature.reentrant import reentrant_checkpoints
from sgdph_fx.optim.hessian.loss_checks import no_such_parameter
from sgdph_fx.optim.members.layout import Layout
from sgdph_fx.optim.wording import listed, warn

__all__ = ["Unowned"]

_FIRST_LOOKS = 8
_NAMED = 3


class Unowned:
    """Watches the leaves of the losses, and warns once of each parameter that nobody steps.

    A look costs a walk over the graph, a tenth of a millisecond on ResNet-18. It is taken at the first few losses, and
    wherever a Hessian is due, where the graph has been walked anyway.
    """

    def __init__(self) -> None:
        self._seen: Any = WeakIdKeyDictionary()
        self._looks = 0

    def check(self, loss: Tensor, layout: Layout, among: Iterable[Node] | None = None) -> None:
        """Refuse a loss that reaches none of our parameters, and warn of those that nobody holds.

        Args:
            loss: The loss, with its graph.
            layout: The index over our parameters.
            among: All operations of the loss, where they are known: then it is looked at to its last leaf, though it
                is not among the first.

        Raises:
            StaleOptimizerError: if it reaches none.
        """
        self._looks += 1
        found: Iterable[Tensor] = leaves(loss)
        thoroughly = among is not None or self._looks <= _FIRST_LOOKS
        if thoroughly:
            found = list(leaves_among(among or ())) or list(found)
        # What reentrant checkpoints use inside does not show in the graph.
        if not any(layout.holds(leaf) for leaf in found) and not reentrant_checkpoints(loss):
            raise no_such_parameter(len(layout.places))
        if thoroughly:
            self._tell(found, layout)

    def _tell(self, found: Iterable[Tensor], layout: Layout) -> None:
        new = [
            leaf
            for leaf in found
            if isinstance(leaf, nn.Parameter) and not layout.holds(leaf) and leaf not in self._seen
        ]
        if not new:
            return
        for parameter in new:
            self._seen[parameter] = True
        modules, held = _survey()
        lost = [parameter for parameter in new if held.isdisjoint(_identities(parameter))]
        if lost:
            warn(_warning(lost, modules))


def _warning(lost: Sequence[Tensor], modules: Sequence[nn.Module]) -> str:
    names = listed(_names(lost, modules), _NAMED)
    return (
        f"The loss reaches trainable parameters that no optimizer holds, so they are never stepped: {names}. If "
        "they were thawed after `prepare`, call "
        "`optimizer.thaw(sgdph_fx.param_groups(model, example_inputs))`; if they are to stay as they are, "
        "freeze them with `requires_grad_(False)`."
    )


def _survey() -> tuple[list[nn.Module], set[object]]:
    """All modules that are alive, and the identities of the parameters that optimizers hold."""
    modules: list[nn.Module] = []
    held: set[object] = set()
    for found in gc.get_objects():
        # By type(): isinstance would ask proxies for their class, and so make them load what they stand for.
        if issubclass(type(found), nn.Module):
            modules.append(found)
        elif issubclass(type(found), Optimizer):
            for group in getattr(found, "param_groups", ()):
                held.update(identity for p in group["params"] for identity in _identities(p))
    return modules, held


def _identities(parameter: Tensor) -> tuple[object, ...]:
    """The object and its memory: an optimizer for matrices steps a kernel through a parameter of another shape."""
    if parameter.layout is not torch.strided or not parameter.numel():
        return (id(parameter),)
    try:
        # Asked for its address, a fake tensor of older versions warns.
        memory = parameter.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # a subclass without memory of its own
        return (id(parameter),)
    return id(parameter), (memory, parameter.storage_offset(), parameter.numel())


def _names(parameters: Sequence[Tensor], modules: Sequence[nn.Module]) -> list[str]:
    """What the outermost module calls each parameter; its shape, where no module knows it."""
    parents = {
        id(child): (module, name)
        for module in modules
        for name, child in module.__dict__.get("_modules", {}).items()
        if child is not None
    }
    owners = {
        id(parameter): (module, name)
        for module in modules
        for name, parameter in module.__dict__.get("_parameters", {}).items()
    }
    return [_path(parameter, owners, parents) for parameter in parameters]


def _path(
    parameter: Tensor, owners: dict[int, tuple[nn.Module, str]], parents: dict[int, tuple[nn.Module, str]]
) -> str:
    if id(parameter) not in owners:
        return f"of shape {tuple(parameter.shape)}, in no module"
    module, name = owners[id(parameter)]
    parts, passed = [name], {id(module)}
    while id(module) in parents:
        module, name = parents[id(module)]
        if id(module) in passed:
            break
        passed.add(id(module))
        parts.append(name)
    return ".".join(reversed(parts))
