"""Parameters that ``fully_shard`` has cut into pieces, one on each rank, as ``DTensor``.

In between, from the forward pass to the backward, the module holds them whole, and it is those that the graph knows:
their Hessian is found there, on all of their numbers, and each rank keeps its piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sgdph_fx.errors import OptimizerError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["is_sharded", "local", "piece", "several_sharded", "whole"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether it is a ``DTensor``; asked without importing what most jobs do not need."""
    kind = type(tensor)
    return kind is not nn.Parameter and kind is not Tensor and hasattr(kind, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """This rank's numbers, in the same storage; a tensor that is not sharded is as it is."""
    own: Any = tensor
    result: Tensor = own.to_local() if is_sharded(tensor) else tensor
    return result


def piece(full: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of what all ranks know, cut as the parameter is; nothing is sent."""
    if not is_sharded(parameter):
        return full
    from torch.distributed.tensor import DTensor, Replicate

    sharded: DTensor = parameter  # type: ignore[assignment]
    mesh = sharded.device_mesh
    spread = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return spread.redistribute(mesh, sharded.placements).to_local()


@contextmanager
def whole(parameter: Tensor, name: str, module: nn.Module | None) -> Iterator[Tensor]:
    """The parameter that the loss was computed with: itself, or what its pieces were gathered to.

    All of the module is gathered again, where it was freed after the forward pass, and freed afterwards: the
    products read what the forward pass saved, and that is views of parameters, too.

    Args:
        parameter: As the optimizer has it.
        name: Of the parameter, in the optimizer and in ``module`` alike.
        module: The one that the loss was computed by.

    Raises:
        OptimizerError: if there is no such module or parameter, or it is sharded in another way too.
    """
    if not is_sharded(parameter):
        yield parameter
        return
    if module is None:
        raise OptimizerError(
            f"The Hessian of parameter {name!r} is due, which `fully_shard` has cut into pieces, and only its "
            "module knows it whole. Call `optimizer.backward(loss, module=model)`."
        )
    shards: list[Any] = [m for m in module.modules() if hasattr(m, "set_reshard_after_backward")]
    for shard in shards:
        shard.unshard()
        shard.set_reshard_after_backward(False, recurse=False)
    try:
        yield _gathered(name, module)
    finally:
        for shard in shards:
            shard.set_reshard_after_backward(True, recurse=False)
            shard.reshard()


def several_sharded() -> OptimizerError:
    """The error for a refresh of several sharded parameters, each of which would gather the whole module."""
    return OptimizerError(
        'refresh="all" does not know parameters that `fully_shard` has cut into pieces. Use refresh="cycle", which '
        "gathers for one at a time, or `DistributedDataParallel`."
    )


def _gathered(name: str, module: nn.Module) -> Tensor:
    found = dict(module.named_parameters()).get(name)
    if found is None:
        raise OptimizerError(
            f"The Hessian of parameter {name!r} is due, and the module has no parameter of that name. Build the "
            "optimizer from the sharded module's named parameters: `SGDPH(model.named_parameters(), ...)`, or "
            "groups with `param_names`, as `sgdph_fx.param_groups` makes them."
        )
    if is_sharded(found):
        raise OptimizerError(
            f"The Hessian of parameter {name!r} is due, which stays cut into pieces during the forward pass. Only "
            "`fully_shard` is known here, no tensor parallelism: put the parameter into a group with order=1."
        )
    return found
