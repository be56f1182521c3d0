"""What trains or takes part beside the model: modules out of its sight, other optimizers, functions that are copied."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from sgdph_fx.errors import CaptureError
from sgdph_fx.optim import SGDPH
from tests.optim.captured_loops import KINDS, Noisy, noisy_groups, pieces, state_of
from tests.optim.test_captured_changes import held

pytestmark = pytest.mark.usefixtures("fake_graphs")


class Hiding(nn.Module):
    """Keeps its layers where torch does not find them, as teachers are kept out of checkpoints."""

    def __init__(self, holder: type) -> None:
        super().__init__()
        layers = (nn.Linear(3, 3).requires_grad_(False), nn.LayerNorm(3).requires_grad_(False))
        self.layers = (
            layers if holder is tuple else list(layers) if holder is list else dict(enumerate(layers))
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values() if isinstance(self.layers, dict) else self.layers:
            x = layer(x)
        return x


@pytest.mark.parametrize("holder", [list, tuple, dict])
def test_of_modules_in_lists_of_modules(holder: type) -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        torch.manual_seed(2)
        net.hiding = Hiding(holder)
        net.linear.register_forward_hook(lambda module, args, out: net.hiding(out))
        return cross_entropy, None, lambda: setattr(net.hiding.layers[1], "eps", 1.0)

    held(make)


def test_of_a_teacher_in_a_dict() -> None:
    def make(net: Any, optimizer: SGDPH) -> Any:
        torch.manual_seed(2)
        first, second = (nn.Linear(3, 3).requires_grad_(False) for _ in range(2))
        teachers = {"one": first}
        loss_fn = lambda out, y: (  # noqa: E731
            cross_entropy(out, y) + sum((out - t(out.detach())).square().mean() for t in teachers.values())
        )
        return loss_fn, None, lambda: teachers.update(one=second)

    held(make)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [None, 256.0])
def test_a_second_optimizer_gets_fresh_gradients_without_the_scale(kind: Any, scale: float | None) -> None:
    """Of a parameter in no module: each step takes it by the gradient of that step alone."""
    net, heat = Noisy().eval(), nn.Parameter(torch.tensor(1.0))
    optimizer, second = SGDPH(noisy_groups(net), 0.0), torch.optim.SGD([heat], 0.1)
    scaler = None if scale is None else GradScaler("cpu", init_scale=scale)
    loss_fn = lambda out, y: cross_entropy(out * heat, y)  # noqa: E731
    step = kind(net, loss_fn, optimizer, before_step=second.step, scaler=scaler)
    expected = heat.detach().clone().requires_grad_()
    for x, y in pieces(14):
        (slope,) = torch.autograd.grad(cross_entropy(net(x).detach() * expected, y), expected)
        expected = (expected - 0.1 * slope).detach().requires_grad_()
        step(x, y)
        assert heat.grad is None
    torch.testing.assert_close(heat.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("how", ["unscale_", "step"])
def test_a_second_optimizer_may_be_stepped_by_the_scaler_itself(how: str) -> None:
    found = []
    for scaled in (False, True):
        net, heat = Noisy().eval(), nn.Parameter(torch.tensor(1.0))
        second = torch.optim.SGD([heat], 0.1, fused=True)
        scaler = GradScaler("cpu", init_scale=64.0)

        def before_step(second: Any = second, scaler: Any = scaler, scaled: bool = scaled) -> None:
            if scaled and how == "unscale_":
                scaler.unscale_(second)
            if scaled and how == "step":
                scaler.step(second)
            else:
                second.step()

        loss_fn = lambda out, y, heat=heat: cross_entropy(out * heat, y)  # noqa: E731
        step = CapturedStep(
            net,
            loss_fn,
            SGDPH(noisy_groups(net), 0.05),
            before_step=before_step,
            scaler=scaler if scaled else None,
        )
        for x, y in pieces(5):
            step(x, y)
        found.append([heat.detach(), *state_of(net, step._optimizer)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_a_copy_whose_functions_go_on_with_the_old_model_is_refused() -> None:
    """It would clip the old model's gradients, of which there are none."""
    net = Noisy()
    step = CapturedStep(
        net,
        cross_entropy,
        SGDPH(noisy_groups(net), 0.05),
        before_step=lambda: nn.utils.clip_grad_norm_(net.parameters(), 0.01),
    )
    with pytest.raises(CaptureError, match=r"'.*<lambda>' would go on with the old one"):
        copy.deepcopy(step)


def test_a_copy_clips_by_what_is_copied_along() -> None:
    net = Noisy().eval()
    clip = functools.partial(nn.utils.clip_grad_norm_, list(net.parameters()), 0.01)
    step = CapturedStep(net, cross_entropy, SGDPH(noisy_groups(net), 0.05), before_step=clip)
    copied = copy.deepcopy(step)
    for x, y in pieces(4):
        step(x, y)
        copied(x, y)
    torch.testing.assert_close(copied._model.state_dict(), net.state_dict(), rtol=0, atol=0)
