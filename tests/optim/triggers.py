"""The smallest thing that raises each error of the optimizer; see test_messages.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint

from sgdph_fx import SGDPH, attach, check_optimizer, prepare
from tests.optim.test_hidden_parameters import loss_of, problem

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


def lost_a_parameter() -> None:
    optimizer = second_order(index=[0, 1])
    del optimizer.param_groups[0]["params"][0]
    optimizer.step()


def hides_a_parameter() -> None:
    hidden, shown, optimizer = problem(without_curvature="raise")
    optimizer.backward(loss_of(hidden, shown))


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


def lopsided() -> None:
    """A gradient whose derivative is [[0, 1], [0, 0]]."""
    p = parameter()
    optimizer = second_order(p, parameter(), without_curvature="raise")
    p.grad = torch.stack([p[1], torch.zeros(())]) * 1.0
    optimizer.step()


def lost_graph() -> None:
    p, last = parameter(), parameter()
    optimizer = second_order(p, last, without_curvature="raise")
    (checkpoint(torch.square, p * 1, use_reentrant=True) * last).square().sum().backward(create_graph=True)
    optimizer.step()


def bias_of_a_norm_without_weight() -> None:
    p, last = parameter(), parameter()
    optimizer = second_order(p, last, without_curvature="raise")
    x = torch.tensor([[1.0, 3.0]]) * last
    nn.functional.layer_norm(x, (2,), None, p).exp().sum().backward(create_graph=True)
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


def signs_in_a_capture() -> None:
    optimizer = SGDPH(
        [{"params": [p := parameter(), parameter()], "order": 2}], 0.1, probe="rademacher", capturable=True
    )
    with (
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.is_current_stream_capturing", return_value=True),
    ):
        optimizer.backward((p**2).sum())


def on_two_devices() -> None:
    p, far = parameter(), nn.Parameter(torch.ones(1, device="meta"))
    optimizer = SGDPH([{"params": [p, far], "order": 1}], 0.1, capturable=True)
    p.grad, far.grad = torch.ones(2), torch.ones(1, device="meta")
    optimizer.step()


def step_of_gauss_newton_without_the_loss() -> None:
    p = parameter()
    optimizer = SGDPH([{"params": [p, parameter()], "order": 2}], 0.1, curvature="gauss-newton")
    torch.autograd.backward((p**2).sum())
    optimizer.step()


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())


OF_THE_OPTIMIZER: tuple[Callable[[], Any], ...] = (
    used_twice,
    changed_in_place,
    lopsided,
    lost_graph,
    bias_of_a_norm_without_weight,
    moved,
    still_scaled,
    under_inference_mode,
    made_under_inference_mode,
    signs_in_a_capture,
    on_two_devices,
    lambda: SGDPH([parameter()], 0.1, probe="ones", curvature="gauss-newton"),
    lambda: SGDPH([parameter()], 0.1, probe="gradient", negative_curvature="zero"),
    lambda: SGDPH([parameter()], 0.1, refresh="all"),
    lambda: SGDPH([parameter()], 0.1, probe="gradient", blocks="affine"),
    lambda: SGDPH([{"params": [parameter()], "order": 2}], 0.1, blocks="affine"),
    lambda: SGDPH(
        [
            {"params": [(name, parameter())], "order": 2, "eps": eps}
            for name, eps in (("weight", 0.1), ("bias", 0.2))
        ],
        0.1,
        variant="paper",
        blocks="affine",
    ),
    step_of_gauss_newton_without_the_loss,
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
    lambda: with_state(in_state(lacks_curvature="no")),
    hides_a_parameter,
    lost_a_parameter,
    lambda: named(["a"]).load_state_dict(named(["b"]).state_dict()),
    lambda: named(["a", "b"]).load_state_dict(named(["a"], ["b"]).state_dict()),
)
