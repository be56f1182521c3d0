"""The smallest thing that raises each error of saved trainings; see test_messages.py."""

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

from sgdph_fx import SGDPH, load, prepare, save

__all__ = ["OF_CHECKPOINTS"]


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


OF_CHECKPOINTS: tuple[Callable[[], Any], ...] = (
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
