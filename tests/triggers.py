"""The smallest thing that raises each error of the library; see test_messages.py."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from sgdph_fx import (
    SGDPH,
    Config,
    Plan,
    Prepared,
    Report,
    analyze,
    audit,
    check_optimizer,
    prepare,
    register_norm,
)
from tests.curvature.triggers import CURVATURE
from tests.model_triggers import MODEL_TRIGGERS
from tests.optim.capture_triggers import OF_CAPTURED_STEPS
from tests.optim.checkpoint_triggers import OF_CHECKPOINTS
from tests.optim.triggers import OF_THE_OPTIMIZER
from tests.plan.triggers import PLAN_TRIGGERS

__all__ = ["TRIGGERS"]


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())


def parameter(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers or (1.0, 2.0)))


def second_order(*parameters: nn.Parameter, **more: Any) -> SGDPH:
    return SGDPH([{"params": list(parameters or [parameter()]), "order": 2, **more}], 0.1)


def backward(loss: Any) -> None:
    second_order().backward(loss)


def of_frozen() -> nn.Module:
    return net().requires_grad_(False)


def with_weight(value: float) -> nn.Module:
    model = net()
    nn.init.constant_(model[0].weight, value)  # type: ignore[index]
    return model


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lock = nn.Conv2d(3, 2, 1), threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class HasGain(nn.Conv2d):
    gain = 1.0


class ReadsTheParameter(nn.Module):
    """What it computes changes with the made-up direction of a zero filter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        nn.init.zeros_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + next(self.conv.parameters()).sum()


class FSDPModule(nn.Module):
    """Known by this name."""


class Once(torch.autograd.Function):
    """Has a derivative, but not a second one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 3 * g * ctx.saved_tensors[0] ** 2


def distributed() -> nn.Module:
    model = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(model)
    model.module = net()
    return model


def once() -> None:
    p = parameter()
    second_order(p, parameter(), without_curvature="raise").backward(Once.apply(p).sum())


def step_without_graph() -> None:
    p = parameter()
    optimizer = second_order(p, parameter())  # of one alone, the authors' variant takes no Hessian
    (p**2).sum().backward()
    optimizer.step()


def sparse_gradient() -> None:
    layer = nn.Embedding(3, 2, sparse=True)
    optimizer = SGDPH([{"params": [layer.weight], "order": 1}], 0.1)
    layer(torch.tensor([0])).sum().backward()
    optimizer.step()


def other_state(**change: Any) -> None:
    optimizer = second_order()
    state = optimizer.state_dict()
    state["param_groups"][0].update(change)
    optimizer.load_state_dict(state)


def state_of_sgd() -> None:
    optimizer = second_order()
    optimizer.load_state_dict(torch.optim.SGD([parameter()], 0.1).state_dict())


def cross_entropy_of(net: nn.Module | Prepared, **more: Any) -> Any:
    batch = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    return audit(net, more.pop("loss", nn.functional.cross_entropy), more.pop("batch", batch), **more)


def frozen_after_prepare() -> None:
    prepared = prepare(nn.Linear(2, 2))
    prepared.model.get_parameter("bias").requires_grad_(False)
    cross_entropy_of(prepared)


def complex_after_prepare() -> None:
    prepared = prepare(nn.Linear(2, 2))
    prepared.model.bias = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    cross_entropy_of(prepared)


def plot_without_matplotlib() -> None:
    found = cross_entropy_of(nn.Linear(2, 2))
    with mock.patch.dict(sys.modules, {"matplotlib": None}):
        found.plot()


TRIGGERS: tuple[Callable[[], Any], ...] = (
    *MODEL_TRIGGERS,
    lambda: register_norm(int, statistics="batch"),  # type: ignore[arg-type]
    lambda: register_norm(nn.Module, statistics="batchnorm"),  # type: ignore[arg-type]
    lambda: analyze(net(), config=Config(rules={"nowhere": "keep"})),
    lambda: Config("loose"),  # type: ignore[arg-type]
    lambda: Config(rules={"0": "drop"}),  # type: ignore[dict-item]
    lambda: Config(silence=["nothing"]),
    lambda: prepare(FSDPModule()),
    lambda: prepare(distributed(), inplace=True),
    lambda: prepare(nn.Sequential(HasGain(3, 2, 1))),
    step_without_graph,
    once,
    lambda: prepare(with_weight(torch.nan)),
    lambda: prepare(3),  # type: ignore[arg-type]
    lambda: prepare(nn.Conv2d),  # type: ignore[arg-type]
    lambda: prepare(of_frozen()),
    lambda: prepare(nn.ReLU()),
    lambda: second_order(nn.Parameter(torch.ones(2, dtype=torch.complex64))),
    lambda: second_order(nn.Parameter(torch.eye(2).to_sparse())),
    sparse_gradient,
    lambda: backward(torch.tensor(1.0)),
    state_of_sgd,
    lambda: backward(parameter() * 2),
    lambda: backward(parameter(1.0).sum() * 1j),
    lambda: backward(1.0),
    lambda: SGDPH([{"order": 2}], 0.1),
    lambda: SGDPH([{"params": [parameter()]}, parameter()], 0.1),
    lambda: other_state(probe="rademacher"),
    lambda: second_order(variant="paper"),
    lambda: second_order(lr=-1.0),
    lambda: second_order(probe="twos"),
    lambda: second_order(parameter(), parameter(), index=[0, 0]),
    lambda: second_order(index=[0, 1]),
    lambda: Report(analyze(net())).to_dot(),
    lambda: Plan.from_json('{"version": 0}'),
    lambda: Plan.from_json("no"),
    lambda: Plan.from_json('{"version": 1}'),
    lambda: analyze(net()).apply(nn.Linear(2, 2)),
    lambda: prepare(ReadsTheParameter(), torch.rand(1, 3, 4, 4)),
    lambda: prepare(with_weight(3e38)),
    lambda: prepare(torch.jit.script(net())),
    lambda: backward(parameter().sum()),
    lambda: check_optimizer(net(), torch.optim.SGD(net().parameters(), 0.1)),
    lambda: check_optimizer(torch.optim.SGD(net().parameters(), 0.1), net()),  # type: ignore[arg-type]
    lambda: analyze(net(), 3),  # type: ignore[arg-type]
    lambda: analyze(Branches()),
    lambda: analyze(nn.ModuleDict({"net": nn.Linear(2, 2)})),
    lambda: analyze(net(), torch.zeros(1, 5, 4, 4)),
    lambda: prepare(Locked()),
    lambda: prepare(nn.Sequential(nn.LazyConv2d(2, 1))),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: (out - out).abs().pow(1.5).sum()),
    lambda: cross_entropy_of(nn.Linear(2, 2).requires_grad_(False)),
    frozen_after_prepare,
    complex_after_prepare,
    lambda: cross_entropy_of(prepare(nn.Linear(3, 2))),
    lambda: cross_entropy_of(nn.Linear(2, 1)),
    lambda: cross_entropy_of(nn.Linear(2, 2, device="meta"), batch=(torch.zeros(4, 2, device="meta"), None)),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: out),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: out.sum() / 0),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: out.detach().sum()),
    lambda: cross_entropy_of(nn.Linear(2, 2), batch=torch.zeros(4, 2)),
    lambda: cross_entropy_of(nn.Linear(2, 2), draws=0),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: Once.apply(out).exp().sum()),
    lambda: cross_entropy_of(nn.Linear(2, 2), loss=lambda out, y: 0 * out.sum()).plot(),
    plot_without_matplotlib,
    lambda: cross_entropy_of(nn.Linear(2, 2)).plot("audit.xyz"),
    *CURVATURE,
    *PLAN_TRIGGERS,
    *OF_THE_OPTIMIZER,
    *OF_CAPTURED_STEPS,
    *OF_CHECKPOINTS,
)
