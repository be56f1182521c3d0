"""CapturedStep on a CPU, and by recorded operations: a loop written out, whatever belongs to a training."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.functional import cross_entropy

from sgdph_fx import CapturedStep
from sgdph_fx.optim import SGDPH
from tests.once import Cut
from tests.optim.captured_loops import (
    LOOPS,
    Noisy,
    OnTape,
    noisy_groups,
    pieces,
    plainly,
    run,
    state_of,
    with_clipping_and_ema,
)

pytestmark = pytest.mark.usefixtures("fake_graphs")


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"weight_decay": 0.01},
    "paper": {"variant": "paper", "max_preconditioner": 0.9},
    "interval": {"hessian_interval": 3},
    "signs": {"probe": "rademacher", "seed": 5},
    "exact": {"probe": "exact"},
    "rademacher-4": {"probe": "rademacher-4"},
    "gradient": {"probe": "gradient"},
    "gauss-newton": {"curvature": "gauss-newton", "seed": 5},
    "gauss-newton, exact": {"curvature": "gauss-newton", "probe": "exact"},
    "all": {"curvature": "gauss-newton", "refresh": "all", "hessian_interval": 3},
    "pairs": {"blocks": "affine", "probe": "rademacher", "seed": 5},
    "pairs of all": {
        "blocks": "affine",
        "curvature": "gauss-newton",
        "refresh": "all",
        "hessian_interval": 3,
    },
    "averaged": {"negative_curvature": "average"},
    "clamped": {"negative_curvature": "zero", "max_preconditioner": 1.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_steps_on_tape_have_the_bits_of_steps_without_and_the_results_of_a_loop(
    small: Any, make_batches: Any, make_groups: Any, name: str
) -> None:
    data = make_batches(34)
    found = []
    for kind in (CapturedStep, OnTape):
        net = small()
        optimizer = SGDPH(make_groups(net), 0.05, **OPTIONS[name])
        step = kind(net, cross_entropy, optimizer)
        losses = [step(x, y) for x, y in data]
        found.append([*state_of(net, optimizer), *losses])
        assert optimizer.statistics()["step"] == 34
        assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    # Parameters that have been due twice have a graph of their own, and there is one for all other steps. With an
    # interval of 3 there were 12 refreshes: the five that followed the first round of seven were second ones.
    assert step.graphs == {"interval": 6, "all": 2, "pairs": 5, "pairs of all": 2}.get(name, 7)
    net = small()
    optimizer, losses = SGDPH(make_groups(net), 0.05, **OPTIONS[name]), []
    for batch in data:
        optimizer.zero_grad()
        losses.append(net.loss(batch))
        optimizer.backward(losses[-1])
        optimizer.step()
    expected = [*state_of(net, optimizer), *(loss.detach() for loss in losses)]
    for a, b in zip(found[0], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.filterwarnings("ignore:A gradient is not finite:RuntimeWarning")
def test_on_tape_and_without_the_bits_are_the_same(loop: Any) -> None:
    found = [run(kind, loop, weight_decay=0.01) for kind in (CapturedStep, OnTape)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_a_scaled_run_is_the_unscaled_one_and_skips_what_torch_skips() -> None:
    def scaled(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> list[Tensor]:
        scaler = GradScaler("cpu", init_scale=2.0**8, growth_interval=4)
        step = kind(net, cross_entropy, optimizer, scaler=scaler)
        for x, y in pieces(20):
            step(x, y)
        return [torch.tensor(scaler.get_scale())]

    plain, with_scale = run(OnTape, plainly), run(OnTape, scaled)
    assert with_scale.pop().item() == 2.0**13
    for a, b in zip(plain, with_scale, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-6)


def test_clipping_is_that_of_a_loop_written_out() -> None:
    net = Noisy()
    optimizer = SGDPH(noisy_groups(net), 0.05, weight_decay=0.01)
    torch.manual_seed(1)
    for x, y in pieces(20):
        optimizer.zero_grad()
        optimizer.backward(cross_entropy(net(x), y))
        nn.utils.clip_grad_norm_(net.parameters(), 0.05)
        optimizer.step()
    found = run(OnTape, with_clipping_and_ema, weight_decay=0.01)
    for a, b in zip(found, [p.detach() for p in net.parameters()], strict=False):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("stop", [3, 9, 17])
@pytest.mark.parametrize("same_object", [False, True])
def test_a_run_resumed_in_the_middle_of_a_cycle_has_the_same_bits(
    small: Any, make_batches: Any, make_groups: Any, stop: int, same_object: bool
) -> None:
    data = make_batches(30)
    whole = small()
    step = OnTape(whole, cross_entropy, SGDPH(make_groups(whole), 0.05))
    for x, y in data:
        step(x, y)

    net, other = small(), small(seed=7)
    optimizer = SGDPH(make_groups(net), 0.05)
    step = OnTape(net, cross_entropy, optimizer)
    for x, y in data[:stop]:
        step(x, y)
    file = io.BytesIO()
    torch.save((net.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    states = torch.load(file, weights_only=True)
    if same_object:  # trained on, and set back: the graphs of the old state are of no use
        for x, y in data[:4]:
            step(x, y)
        other = net
    else:
        optimizer = SGDPH(make_groups(other), 0.9)
        step = OnTape(other, cross_entropy, optimizer)
    other.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    for x, y in data[stop:]:
        step(x, y)
    for p, q in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_replays_allocate_no_state_and_run_no_python(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, called = small(), []
    optimizer = SGDPH(make_groups(net), 0.05)
    net.norm1.register_forward_hook(lambda *_: called.append(1))
    step = OnTape(net, cross_entropy, optimizer)
    for x, y in make_batches(16):
        step(x, y)
    before, times = [t.data_ptr() for t in state_of(net, optimizer)], len(called)
    for x, y in make_batches(21):
        step(x, y)
    assert [t.data_ptr() for t in state_of(net, optimizer)] == before
    assert len(called) == times
    recorder: Any = step._recorder
    assert recorder.replayed == 16 + 21 - recorder.warmed
    step.reset()
    assert step.graphs == 0
    for x, y in make_batches(2):
        step(x, y)


@pytest.mark.parametrize("fallback", ["first-order", "gradient"])
@pytest.mark.filterwarnings("ignore:Parameter.*has no Hessian:RuntimeWarning")
def test_where_there_is_no_second_derivative_it_goes_on_as_the_loop_does(fallback: Any) -> None:
    class WithCut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.below, self.above = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.above(Cut.apply(self.below(x)))
            return out

    found = []
    for kind in (CapturedStep, OnTape):
        net = WithCut().double()
        optimizer = SGDPH(noisy_groups(net), 0.05, variant="paper", without_curvature=fallback)
        step = kind(net, cross_entropy, optimizer)
        generator = torch.Generator().manual_seed(0)
        for _ in range(14):
            x = torch.randn(6, 4, dtype=torch.float64, generator=generator)
            step(x, torch.arange(6) % 3)
        found.append(state_of(net, optimizer))
        assert optimizer.curvature_missed == 7
        assert optimizer.parameters_without_curvature == ("param_groups[0]['params'][0]",)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_what_changes_at_every_step_ends_the_graphs_with_a_word_and_not_the_training() -> None:
    def cycling(net: Any, optimizer: SGDPH, kind: type[CapturedStep]) -> None:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=22)
        step = kind(net, cross_entropy, optimizer)
        for x, y in pieces(20):
            step(x, y)
            scheduler.step()

    plain = run(CapturedStep, cycling)
    with pytest.warns(RuntimeWarning, match="'momentum' changes at every step.*cycle_momentum=False") as told:
        taped = run(OnTape, cycling)
    assert sum("at every step" in str(w.message) for w in told) == 1
    assert all(torch.equal(a, b) for a, b in zip(plain, taped, strict=True))


def test_the_loss_that_was_returned_stays_what_it_was(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small()
    step = OnTape(net, cross_entropy, SGDPH(make_groups(net), 0.05))
    losses = [step(x, y) for x, y in make_batches(24)]
    values = [loss.item() for loss in losses]
    assert len(set(values)) == 24
    assert not any(loss.requires_grad for loss in losses)
    again = small()
    step = OnTape(again, cross_entropy, SGDPH(make_groups(again), 0.05))
    assert [step(x, y).item() for x, y in make_batches(24)] == values


def test_a_copy_of_the_optimizers_state_is_taken_at_any_time(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    step = OnTape(net, cross_entropy, optimizer)
    for number, (x, y) in enumerate(make_batches(20), start=1):
        step(x, y)
        saved = copy.deepcopy(optimizer.state_dict())
        assert {group["step"] for group in saved["param_groups"]} == {number}
