"""Where an operation has no second derivative, training goes on in the way that was asked for."""

from __future__ import annotations

import copy
import io
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import NoCurvatureError, OptimizerError
from sgdph_fx.optim import SGDPH
from tests.once import Cut

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


class Problem:
    """L = ½ Σ sin² p + Σ q⁴ + Σ last², where the sine is cut: its derivative is a constant to torch."""

    def __init__(self, **options: Any) -> None:
        self.p = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
        self.q = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
        self.last = nn.Parameter(torch.ones(1, dtype=torch.float64))
        named = [("p", self.p), ("q", self.q), ("last", self.last)]
        options = {"momentum": 0.5, "second_order_lr": 0.01, "eps": 0.1, **options}
        self.optimizer = SGDPH([{"params": named, "order": 2}], 0.1, **options)

    def loss(self) -> Tensor:
        return Cut.apply(self.p).square().sum() / 2 + (self.q**4).sum() + (self.last**2).sum()

    def train(self, steps: int, own_graph: bool = False) -> list[str]:
        """The warnings."""
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(steps):
                self.optimizer.zero_grad()
                loss = self.loss()
                torch.autograd.backward(loss, create_graph=True) if own_graph else self.optimizer.backward(
                    loss
                )
                self.optimizer.step()
        return [str(w.message) for w in told if issubclass(w.category, RuntimeWarning)]


@pytest.mark.parametrize("own_graph", [False, True])
def test_first_order_is_torchs_sgd_for_that_parameter_and_nothing_else_for_the_others(
    own_graph: bool,
) -> None:
    problem, sgd = (
        Problem(without_curvature="first-order"),
        nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)),
    )
    told = problem.train(7, own_graph)
    reference = torch.optim.SGD([sgd], 0.1, momentum=0.5)
    for _ in range(7):
        reference.zero_grad()
        torch.autograd.backward(sgd.sin().square().sum() / 2)
        reference.step()
    torch.testing.assert_close(problem.p, sgd, rtol=1e-14, atol=0)
    assert len(told) == 1
    assert "Parameter 'p' has no Hessian, so it steps as a first-order parameter" in told[0]
    assert "once_differentiable" in told[0]
    assert problem.optimizer.parameters_without_curvature == ("p",)
    # Due at steps 1, 4 and 7.
    assert problem.optimizer.curvature_missed == 3
    # ∂²q⁴ = 12 q², first at step 2.
    assert "hessian_average" in problem.optimizer.state[problem.q]


def test_the_others_are_refreshed_as_if_it_were_not_there() -> None:
    with_cut, without = Problem(without_curvature="first-order"), Problem()
    without.loss = lambda: without.p.sum() + (without.q**4).sum() + (without.last**2).sum()  # type: ignore[method-assign]
    with_cut.train(9)
    without.train(9)
    assert torch.equal(with_cut.q, without.q)
    assert torch.equal(with_cut.last, without.last)


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_the_gradient_stands_in_for_the_product(variant: Any, own_graph: bool) -> None:
    """By hand: M^H of the first refresh, and the step that it gives."""
    problem = Problem(without_curvature="gradient", variant=variant)
    (told,) = problem.train(1, own_graph)
    assert "has no Hessian, so |g| stands in for it" in told
    start = torch.tensor([0.5, -1.0], dtype=torch.float64)
    g = start.sin() * start.cos()
    if variant == "authors":
        average = 0.1 * g.abs()
        factor, momentum = 0.01 * (1 - 0.9) / (average + 0.1), g
    else:
        average = 0.1 * 0.1**0.5 + 0.9 * (g**2 + 0.1).sqrt()
        factor, momentum = 0.01 / average, 0.5 * g
    torch.testing.assert_close(
        problem.optimizer.state[problem.p]["hessian_average"], average, rtol=1e-12, atol=0
    )
    torch.testing.assert_close(problem.p.detach(), start - 0.1 * factor * momentum, rtol=1e-12, atol=0)
    assert problem.train(8, own_graph) == []
    assert problem.optimizer.curvature_missed == 3


@pytest.mark.parametrize("own_graph", [False, True])
def test_raise_raises_and_leaves_everything_as_it_was(own_graph: bool) -> None:
    problem = Problem(without_curvature="raise")
    with pytest.raises(NoCurvatureError, match="no second derivative"):
        problem.train(1, own_graph)
    assert problem.p.tolist() == [0.5, -1.0]
    assert not problem.optimizer.state
    assert problem.optimizer.curvature_missed == 0
    if not own_graph:
        assert problem.q.grad is None


@pytest.mark.parametrize("fallback", ["first-order", "gradient"])
@pytest.mark.parametrize("stop", [1, 2, 5])
def test_what_was_found_is_state_and_a_run_resumes_with_the_same_bits(fallback: Any, stop: int) -> None:
    whole, before, after = (Problem(without_curvature=fallback) for _ in range(3))
    whole.train(9)
    before.train(stop)
    file = io.BytesIO()
    torch.save(before.optimizer.state_dict(), file)
    file.seek(0)
    for name in ("p", "q", "last"):
        getattr(after, name).data.copy_(getattr(before, name).data)
    after.optimizer.load_state_dict(torch.load(file, weights_only=True))
    assert after.optimizer.parameters_without_curvature == ("p",)
    after.train(9 - stop)
    for name in ("p", "q", "last"):
        assert torch.equal(getattr(whole, name), getattr(after, name))
    assert after.optimizer.curvature_missed == whole.optimizer.curvature_missed


def test_where_no_hessian_is_left_at_all_that_is_told_too() -> None:
    p, last = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.1, without_curvature="first-order")
    optimizer.backward(Cut.apply(p).sum() + (last**2).sum())
    with pytest.warns(RuntimeWarning) as told:
        optimizer.step()
    assert [("trains plain SGD" in str(w.message)) for w in told] == [False, True]


def test_the_hessian_of_part_of_the_batch_may_be_what_is_missing() -> None:
    """The gradients are those of the loss, once."""
    problem = Problem()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem.optimizer.backward(problem.p.sin().sum() + problem.last.sum(), hessian_loss=problem.loss)
        assert problem.p.grad is not None
        torch.testing.assert_close(problem.p.grad, problem.p.detach().cos(), rtol=1e-14, atol=0)
        problem.optimizer.step()
    assert problem.optimizer.parameters_without_curvature == ("p",)


class Late(torch.autograd.Function):
    """x³, whose second derivative fails only when the backward pass gets there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        if g.requires_grad and bool((g != 0).any()):
            raise RuntimeError("Late is not implemented for double backward")
        return 3 * g * x**2


class Inner(torch.autograd.Function):
    """x³ by a graph of its own, made in the forward pass and used up by the first backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y = ctx.x**3
        result: Tensor = ctx.y.detach()
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return torch.autograd.grad(ctx.y, ctx.x, g)[0]


@pytest.mark.parametrize(("cube", "lost"), [(Late, 0), (Inner, 1)])
def test_if_the_attempt_uses_the_graph_up_the_step_is_lost_but_the_next_one_goes_on(
    cube: Any, lost: int
) -> None:
    p, q, last = (nn.Parameter(torch.tensor([0.5], dtype=torch.float64)) for _ in range(3))
    optimizer = SGDPH([{"params": [p, q, last], "order": 2}], 0.1, momentum=0.0)
    for attempt in range(lost + 1):
        optimizer.zero_grad()
        loss = (cube.apply(p) * q).sum().exp()
        if attempt < lost:
            with pytest.raises(NoCurvatureError, match="Inner returns gradients that do not depend"):
                optimizer.backward(loss)
            continue
        optimizer.backward(loss)
        with pytest.warns(RuntimeWarning, match="has no Hessian, so"):
            optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1
    assert optimizer.parameters_without_curvature == ("param_groups[0]['params'][0]",)
    # exp(p³ q) at 0.5, 0.5 has the gradient p³ exp(p³ q) by q, whose average is still zero: the factor is
    # τ τ_SO (1 - α) / ε = 0.1 · 1e-3 · 0.1 / 1e-4 = 0.1.
    assert q.item() == pytest.approx(0.5 - 0.1 * 0.125 * math.exp(0.0625), rel=1e-12)


@pytest.mark.parametrize("own_graph", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_probe_gradient_takes_no_product_at_all(own_graph: bool, accumulate: int) -> None:
    """A plain backward pass will do, and the average is of the gradient of the whole step."""
    problem = Problem(probe="gradient")
    assert problem.optimizer.due is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3):
            problem.optimizer.zero_grad()
            gradients = []
            for _ in range(accumulate):
                loss = problem.loss() / accumulate
                torch.autograd.backward(loss) if own_graph else problem.optimizer.backward(loss)
            gradients = [problem.p.grad, problem.q.grad]
            problem.optimizer.step()
            if step < 2:
                parameter, gradient = (problem.p, problem.q)[step], gradients[step]
                assert gradient is not None
                torch.testing.assert_close(
                    problem.optimizer.state[parameter]["hessian_average"],
                    0.1 * gradient.abs(),
                    rtol=1e-12,
                    atol=0,
                )
    assert problem.optimizer.curvature_missed == 0
    assert problem.optimizer.parameters_without_curvature == ()


def test_under_a_scaler_and_clipping_the_gradient_is_taken_as_the_step_takes_it() -> None:
    problem = Problem(probe="gradient")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    problem.optimizer.backward(scaler.scale(problem.loss()))
    scaler.unscale_(problem.optimizer)
    nn.utils.clip_grad_norm_([problem.p], 0.1)
    clipped = copy.deepcopy(problem.p.grad)
    scaler.step(problem.optimizer)
    assert clipped is not None
    torch.testing.assert_close(
        problem.optimizer.state[problem.p]["hessian_average"], 0.1 * clipped.abs(), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("key", ["without_curvature", "probe"])
def test_unknown_names_are_refused(key: str) -> None:
    with pytest.raises(OptimizerError, match=f"{key}='hope' is not known.*'gradient'"):
        SGDPH([nn.Parameter(torch.ones(1))], 0.1, **{key: "hope"})  # type: ignore[arg-type]
