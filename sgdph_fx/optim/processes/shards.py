"""Parameters that ``fully_shard`` has cut into pieces, one on each rank, as ``DTensor``.

In between, from the forward pass to the backward, the module holds them whole, and it is those that the graph knows:
their Hessian is found there, on all of their numbers, and each rank keeps its piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sgdph_fx.curvature.data_parallel import sharded_modules
from sgdph_fx.errors import OptimizerError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["is_sharded", "local", "piece", "whole"]


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
def whole(
    parameters: Sequence[Tensor], names: Sequence[str], module: nn.Module | None
) -> Iterator[list[Tensor]]:
    """The parameters that the loss was computed with: themselves, or what their pieces were gathered to.

    All of the module is gathered again, where it was freed after the forward pass, and freed afterwards: the
    products read what the forward pass saved, and that is views of parameters, too.

    Args:
        parameters: As the optimizer has them.
        names: Of the parameters, in the optimizer and in ``module`` alike.
        module: The one that the loss was computed by.

    Raises:
        OptimizerError: if there is no such module or parameter, or one is sharded in another way too.
    """
    cut = [name for parameter, name in zip(parameters, names, strict=True) if is_sharded(parameter)]
    if not cut:
        yield list(parameters)
        return
    if module is None:
        raise OptimizerError(
            f"The Hessian of parameter {cut[0]!r} is due, which `fully_shard` has cut into pieces, and only its "
            "module knows it whole. Call `optimizer.backward(loss, module=model)`."
        )
    shards: list[Any] = [m for m in module.modules() if hasattr(m, "set_reshard_after_backward")]
    for shard in shards:
        shard.unshard()
        shard.set_reshard_after_backward(False, recurse=False)
    try:
        known = dict(module.named_parameters())
        rows = zip(parameters, names, strict=True)
        with sharded_modules(shards):
            yield [_gathered(name, known) if is_sharded(parameter) else parameter for parameter, name in rows]
    finally:
        for shard in shards:
            shard.set_reshard_after_backward(True, recurse=False)
            shard.reshard()


def _gathered(name: str, known: Mapping[str, Tensor]) -> Tensor:
    found = known.get(name)
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
