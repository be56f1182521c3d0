"""What a recorded step needs, and what it has fixed: if any of that changes, the recording is of another step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.joint_groups import PLAIN, sharing
from sgdph_fx.optim.processes.all_reduce import is_alone
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["alike", "refuse_several_processes", "signature"]

# Rates are read on the device, counts too; everything else of a group is in the recorded kernels.
_FIXED: tuple[str, ...] = (
    *(
        "order",
        "momentum",
        "hessian_momentum",
        "weight_decay",
        "eps",
        "variant",
        "curvature",
        "probe",
        "negative_curvature",
        "refresh",
        "max_preconditioner",
    ),
    *("maximize", "hessian_interval", "cycle_start", "cycles_before", "without_curvature"),
)


def signature(model: nn.Module, optimizer: SGDPH) -> Mapping[str, object]:
    """Everything that a recording of this step depends on, by names for messages."""
    groups = optimizer.param_groups
    options = {key: tuple(group[key] for group in groups) for key in _FIXED}
    tensors = [*model.parameters(), *model.buffers(), *_state(optimizer)]
    return {
        **options,
        "which groups have the same rates": (sharing(groups), sharing(groups, PLAIN)),
        "the parameters of its groups": tuple(id(p) for group in groups for p in group["params"]),
        "requires_grad of a parameter": tuple(p.requires_grad for p in model.parameters()),
        "the training mode of a module": tuple(module.training for module in model.modules()),
        "the parameters without curvature": optimizer.parameters_without_curvature,
        "where a tensor lies in memory": tuple(map(_address, tensors)),
    }


def _state(optimizer: SGDPH) -> Iterable[Tensor]:
    for own in optimizer.state.values():
        yield from (value for value in own.values() if isinstance(value, Tensor))
    yield from optimizer._device_tensors()


def _address(tensor: Any) -> int:
    address: int = tensor.data_ptr()
    return address


def alike(leaf: Any, place: Any) -> bool:
    """Whether a part of a batch can be copied into the place of the first one's."""
    if not isinstance(leaf, Tensor) or not isinstance(place, Tensor):
        return bool(type(leaf) is type(place) and leaf == place)
    return leaf.shape == place.shape and leaf.dtype == place.dtype


def refuse_several_processes(model: nn.Module, optimizer: SGDPH) -> None:
    """Refuse what steps together with others.

    Raises:
        CaptureError: if the model is wrapped or sharded, or there are several processes.
    """
    wrapped = isinstance(model, (DataParallel, DistributedDataParallel)) or optimizer._layout().is_sharded
    if wrapped or not is_alone(optimizer._process_group):
        raise CaptureError(
            f"CapturedStep works in one process and on one GPU; this {type(model).__name__} is wrapped, sharded, or "
            "trained by several processes, which agree on each step by what their hosts read. Write the loop out with "
            "`optimizer.backward` and `optimizer.step`."
        )
