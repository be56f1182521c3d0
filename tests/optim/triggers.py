"""The smallest thing that raises each error of the optimizer and of saved trainings; see test_messages.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx import SGDPH, attach, check_optimizer, load, prepare, save

__all__ = ["OF_THE_OPTIMIZER"]


def parameter(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers or (1.0, 2.0)))


def second_order(*parameters: nn.Parameter, **more: Any) -> SGDPH:
    return SGDPH([{"params": list(parameters or [parameter(), parameter()]), "order": 2, **more}], 0.1)


def stepped() -> tuple[nn.Parameter, SGDPH]:
    p = parameter()
    optimizer = second_order(p, parameter())
    optimizer.backward((p**2).sum())
    optimizer.step()
    return p, optimizer


def with_state(change: Callable[[dict[str, Any]], Any]) -> None:
    """Load a state that was changed."""
    _, optimizer = stepped()
    state = optimizer.state_dict()
    state["param_groups"] = [dict(group) for group in state["param_groups"]]
    change(state)
    second_order().load_state_dict(state)


def in_group(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state["param_groups"][0].update(values)


def in_state(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state["state"][0].update(values)


def named(*groups: list[str], **more: Any) -> SGDPH:
    return SGDPH(
        [{"params": [(n, parameter()) for n in names], "lr": 0.1 + i} for i, names in enumerate(groups)], 0.1
    )


def used_twice() -> None:
    p = parameter()
    loss = (p**2).sum()
    optimizer = second_order(p, parameter())
    optimizer.backward(loss)
    optimizer.backward(loss)


def changed_in_place() -> None:
    p = parameter()
    optimizer = second_order(p, parameter())
    torch.autograd.backward((p**3).sum(), create_graph=True)
    p.detach().add_(1)
    optimizer.step()


def moved() -> None:
    p = parameter()
    optimizer = SGDPH([{"params": [p], "order": 2}], 0.1, variant="paper")
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward((p**3).sum(), create_graph=True)
        optimizer.step()
        p.data = p.data.clone()


def still_scaled() -> None:
    p = parameter()
    optimizer = second_order(p, parameter())
    scaler = GradScaler("cpu")
    optimizer.backward(scaler.scale((p**2).sum()))
    optimizer.step()


def under_inference_mode() -> None:
    optimizer = second_order()
    with torch.inference_mode():
        optimizer.step()


def made_under_inference_mode() -> SGDPH:
    with torch.inference_mode():
        p = parameter()
    return second_order(p)


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())


class Extra(nn.Linear):
    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


def file() -> str:
    return str(Path(tempfile.mkdtemp()) / "run.safetensors")


def saved(*, named_groups: bool = True, with_optimizer: bool = True) -> str:
    prepared = prepare(net())
    groups = prepared.param_groups
    if not named_groups:
        groups = [{k: v for k, v in g.items() if k != "param_names"} for g in groups]
    where = file()
    save(where, prepared, SGDPH(groups, 0.1) if with_optimizer else None)
    return where


def loaded(change: Callable[[dict[str, Tensor], dict[str, str]], Any], **how: Any) -> None:
    where = saved(**how)
    with safe_open(where, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        metadata = dict(opened.metadata())
    change(tensors, metadata)
    save_file(tensors, where, metadata)
    load(where, net())


def sparse() -> None:
    prepared = prepare(net())
    prepared.model.register_buffer("odd", torch.eye(2).to_sparse())
    save(file(), prepared)


def with_own_optimizer(where: str) -> None:
    prepared = prepare(net())
    load(where, prepared.model, SGDPH(prepared.param_groups, 0.1))


OF_THE_OPTIMIZER: tuple[Callable[[], Any], ...] = (
    used_twice,
    changed_in_place,
    moved,
    still_scaled,
    under_inference_mode,
    made_under_inference_mode,
    lambda: SGDPH(prepare(net()), 0.1),  # type: ignore[arg-type]
    lambda: SGDPH(net(), 0.1),  # type: ignore[arg-type]
    lambda: attach(parameter().sum(), torch.optim.SGD([parameter()], 0.1)),
    lambda: second_order(param_names=["a"]),
    lambda: second_order().thaw([{"params": []}]),
    lambda: check_optimizer(model := nn.Linear(2, 2), SGDPH(model.parameters(), 0.1)),
    lambda: second_order().load_state_dict({}),
    lambda: with_state(lambda s: s.update(state=[])),
    lambda: with_state(lambda s: s["state"].update({7: {}})),
    lambda: with_state(in_group(step=-1)),
    lambda: with_state(in_group(index=[1])),
    lambda: with_state(in_group(cycles_missed=[1, 1])),
    lambda: with_state(in_group(params=[0])),
    lambda: with_state(in_state(momentum_buffer=torch.ones(5))),
    lambda: with_state(in_state(momentum_buffer=torch.full((2,), torch.nan))),
    lambda: with_state(in_state(hessian_average=-torch.ones(2))),
    lambda: named(["a"]).load_state_dict(named(["b"]).state_dict()),
    lambda: named(["a", "b"]).load_state_dict(named(["a"], ["b"]).state_dict()),
    lambda: save(file(), net()),
    lambda: save(file(), prepare(net()), extra={"a": torch.ones(1)}),
    lambda: save(file(), prepare(nn.Sequential(Extra(2, 2)))),
    sparse,
    lambda: load(file(), net()),
    lambda: loaded(lambda t, m: m.update(format="pt")),
    lambda: loaded(lambda t, m: m.update(extra="{")),
    lambda: loaded(lambda t, m: t.pop("model.0.gain")),
    lambda: loaded(
        lambda t, m: m.update(optimizer=json.dumps(json.loads(m["optimizer"]))), named_groups=False
    ),
    lambda: with_own_optimizer(saved(with_optimizer=False)),
    lambda: load(saved(), prepare(net()).model, SGDPH(prepare(net()).param_groups, 0.1)),
)
