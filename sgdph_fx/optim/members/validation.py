"""What may be in a parameter group; every refusal names the group or parameter, and what it needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.members.layout import parameter_name
from sgdph_fx.optim.wording import listed

__all__ = [
    "check_group",
    "check_is_group",
    "check_params",
    "refuse_sparse_gradients",
    "with_agreeing_names",
]


def check_params(params: object) -> None:
    """Refuse what is easily passed in place of parameter groups.

    Raises:
        OptimizerError: for a model, or for all that ``prepare`` returned; it says what to pass.
    """
    if isinstance(params, tuple) and hasattr(params, "param_groups"):
        raise OptimizerError(
            f"This {type(params).__name__} is all that `prepare` returned; pass its groups: "
            "`SGDPH(prepared.param_groups, lr=...)`."
        )
    if isinstance(params, nn.Module):
        raise OptimizerError(
            f"This {type(params).__name__} is a model; pass its parameter groups: "
            "`SGDPH(sgdph_fx.param_groups(model), lr=...)`, or those that `prepare` returns."
        )


def check_is_group(group: object, number: int) -> None:
    """Refuse what is no parameter group at all.

    Raises:
        OptimizerError: saying what it is, or that it lacks ``params``.
    """
    if not isinstance(group, dict):
        raise OptimizerError(
            f"param_groups[{number}] is a {type(group).__name__}; pass either parameters or "
            "dicts with 'params', not both."
        )
    if "params" not in group:
        raise OptimizerError(f"param_groups[{number}] has no 'params'; it has {listed(group)}.")


def with_agreeing_names(group: dict[str, Any], number: int, earlier: Sequence[dict[str, Any]]) -> None:
    """Give the new group names if the earlier groups have them, and take its names away if they have none.

    Groups without parameters have no say. torch refuses to mix the two, but those who add a group late, as fine-tuning
    does, often have no names.
    """
    params = group["params"]
    group["params"] = params = [params] if isinstance(params, Tensor) else list(params)
    named = "param_names" in group or any(isinstance(p, tuple) for p in params)
    if named and not any(other["params"] for other in earlier):
        for other in earlier:
            other["param_names"] = []
    if not earlier or ("param_names" in earlier[0]) == named:
        return
    if named:
        group["params"] = [p[1] if isinstance(p, tuple) else p for p in params]
        group.pop("param_names", None)
    else:
        group["param_names"] = [f"param_groups[{number}].{position}" for position in range(len(params))]


def check_group(group: Mapping[str, Any], number: int, taken: set[tuple[int, int]]) -> None:
    """Refuse parameters that cannot be stepped, and an ``index`` that gives no order.

    Args:
        group: The new group, whose parameters are tensors by now.
        number: Its number.
        taken: Order and place of the parameters of earlier groups.

    Raises:
        OptimizerError: naming the parameter or the group.
    """
    names = group.get("param_names")
    if names is not None and len(names) != len(group["params"]):
        raise OptimizerError(
            f"param_groups[{number}] has {len(names)} param_names for {len(group['params'])} parameters; "
            "each needs one."
        )
    for position, parameter in enumerate(group["params"]):
        _check_parameter(parameter, parameter_name(group, number, position), group["order"])
    if "index" in group:
        _check_index(group, number, taken)


def _check_parameter(parameter: Tensor, name: str, order: int) -> None:
    if parameter.is_complex() and order == 2:
        raise OptimizerError(
            f"Parameter {name} is complex ({parameter.dtype}), and its group has order=2; the absolute value of "
            "its Hessian is not defined here. Put it into a group with order=1, or store it as two real tensors "
            "(`torch.view_as_real`)."
        )
    if parameter.layout is not torch.strided:
        raise OptimizerError(
            f"Parameter {name} is sparse ({parameter.layout}); SGDPH steps dense tensors. "
            "Convert it with `.to_dense()`."
        )
    if parameter.is_inference():
        raise OptimizerError(
            f"Parameter {name} was made under `torch.inference_mode()`, so autograd cannot train it. Build the "
            "model outside of that mode; `torch.no_grad()` does no harm."
        )


def _check_index(group: Mapping[str, Any], number: int, taken: set[tuple[int, int]]) -> None:
    index = group["index"]
    count = len(group["params"])
    where = f"param_groups[{number}]"
    if not isinstance(index, (list, tuple)) or any(type(i) is not int for i in index) or len(index) != count:
        raise OptimizerError(
            f"{where}['index'] is {index!r}; it must list one int for each of the group's {count} "
            "parameters: their places in registration order over the whole model."
        )
    uses = Counter(index)
    twice = min((i for i in uses if uses[i] > 1 or (group["order"], i) in taken), default=None)
    if twice is not None:
        raise OptimizerError(
            f"{where}['index'] gives place {twice} that another parameter of order {group['order']} has; "
            "registration order needs a place of its own for each."
        )


def refuse_sparse_gradients(groups: Iterable[Mapping[str, Any]]) -> None:
    """Refuse gradients that momentum cannot be taken of, before any parameter is moved.

    Raises:
        OptimizerError: naming the parameter.
    """
    for number, group in enumerate(groups):
        for position, parameter in enumerate(group["params"]):
            if parameter.grad is not None and parameter.grad.layout is not torch.strided:
                raise OptimizerError(
                    f"The gradient of {parameter_name(group, number, position)} is sparse; SGDPH takes "
                    "dense ones. Build the embedding with `sparse=False`."
                )
