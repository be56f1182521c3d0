"""Parameters that were frozen at `prepare` join later: with their order and turn, and resumable."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, check_optimizer, param_groups, prepare
from sgdph_fx.errors import OptimizerError

EXAMPLE = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    """A stem of convolution and norm, then a bare convolution and a classifier."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()),
        *(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2)),
    )
    return net.double()


def prepared(frozen: int = 2) -> tuple[nn.Module, list[dict[str, Any]]]:
    """With the first modules frozen."""
    net = network()
    for module in net[:frozen]:
        module.requires_grad_(False)
    model, groups, _ = prepare(net, EXAMPLE.double())
    return model, groups


def thawed(model: nn.Module, optimizer: SGDPH, **options: Any) -> tuple[str, ...]:
    model.requires_grad_(True)
    return optimizer.thaw(param_groups(model, EXAMPLE.double()), **options)


def data(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(6, 3, 8, 8, dtype=torch.float64, generator=generator),
            torch.randint(2, (6,), generator=generator),
        )
        for _ in range(count)
    ]


def train(model: nn.Module, optimizer: SGDPH, batches: list[Any]) -> list[str | None]:
    """The names that were due."""
    due = []
    for x, y in batches:
        due.append(optimizer.due_name)
        optimizer.zero_grad()
        optimizer.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    return due


CYCLE = [
    "0.bias",
    "1.weight",
    "1.bias",
    "3.gain",
    "3.bias",
]  # and 6.bias, which the authors' variant leaves out


def test_what_thaws_joins_with_its_order_and_takes_its_turn_in_registration_order() -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.05)
    train(model, optimizer, data(4))
    joined = thawed(model, optimizer)
    assert sorted(joined) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    check_optimizer(model, optimizer)
    orders = {name: g["order"] for g in optimizer.param_groups for name in g["param_names"]}
    assert {name for name, order in orders.items() if order == 2} == {*CYCLE, "6.bias"}
    due = train(model, optimizer, data(12))
    assert due[2:8] == [*CYCLE, None]  # step 7 is the first of a cycle of 6
    assert all("hessian_average" in optimizer.state[model.get_parameter(name)] for name in CYCLE)


def test_it_is_as_if_they_had_been_there_where_no_step_was_taken_before() -> None:
    models = [prepared(frozen=0), prepared()]
    whole, late = (SGDPH(groups, 0.05, weight_decay=0.01) for _, groups in models)
    thawed(models[1][0], late)
    for (model, _), optimizer in zip(models, (whole, late), strict=True):
        train(model, optimizer, data(14))
    for p, q in zip(models[0][0].parameters(), models[1][0].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_a_newcomer_steps_by_the_factor_of_a_cycle_that_has_just_begun() -> None:
    """Authors: τ τ_SO (1 - αⁿ) g / (M^H + ε) with n = 1 for it, though the others are at n = 4 by then."""
    p, last, late = (nn.Parameter(torch.tensor([1.0], dtype=torch.float64)) for _ in range(3))
    options: dict[str, Any] = {"second_order_lr": 1e-3, "eps": 1e-4, "momentum": 0.0}
    groups = [
        {"params": [p, last], "param_names": ["p", "last"], "order": 2, "index": [0, 1], "role": "gain"}
    ]
    optimizer = SGDPH(groups, 0.5, **options)
    for _ in range(6):
        optimizer.zero_grad()
        optimizer.backward((p**2 + last**2).sum())
        optimizer.step()
    now = [
        {"params": [p, late, last], "param_names": ["p", "late", "last"], "order": 2, "index": [0, 1, 2]}
        | {"role": "gain"}
    ]
    assert optimizer.thaw(now) == ("late",)
    optimizer.zero_grad()
    assert optimizer.due is p
    average, before = optimizer.state[p]["hessian_average"].item(), p.item()
    optimizer.backward((p**2 + last**2 + 3 * late).sum())
    optimizer.step()
    assert 1 - late.item() == pytest.approx(0.5 * 1e-3 * 0.1 / 1e-4 * 3, rel=1e-9)
    # Steps 1 to 6 begin cycles 1 to 4 (n = ⌊t/2⌋ + 1); the new cycle of three is the fourth to be begun.
    average = 0.9 * average + 0.1 * 2
    expected = 0.5 * 1e-3 * (1 - 0.9**4) / (average + 1e-4) * 2 * before
    assert before - p.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stop", [1, 3, 7, 9])
def test_a_run_saved_after_a_thaw_resumes_with_the_same_bits(stop: int) -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.05)
    train(model, optimizer, data(5))
    thawed(model, optimizer)
    train(model, optimizer, data(20)[:stop])
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    train(model, optimizer, data(20)[stop:])

    other, groups = prepared()
    resumed = SGDPH(groups, 0.9)
    thawed(other, resumed)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    train(other, resumed, data(20)[stop:])
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_state_from_before_the_thaw_is_loaded_before_it() -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.05)
    train(model, optimizer, data(4))
    saved = copy.deepcopy(optimizer.state_dict())
    thawed(model, optimizer)
    with pytest.raises(OptimizerError, match=r"lacks .*'0\.(weight|bias)'.*load it first"):
        optimizer.load_state_dict(saved)


def test_a_scheduler_goes_on_for_those_that_joined() -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    train(model, optimizer, data(1))
    scheduler.step()
    thawed(model, optimizer)
    train(model, optimizer, data(1))
    scheduler.step()
    assert {group["lr"] for group in optimizer.param_groups} == {0.025}
    together = {tuple(group["param_names"]) for group in optimizer.param_groups}
    # Norm scales and shifts had no group of their role, so they are with the first of their order.
    assert together == {
        ("3.direction",),
        ("3.gain", "1.weight", "1.bias"),
        ("3.bias", "6.bias", "0.bias"),
        ("6.weight", "0.weight"),
    }


def test_options_put_them_into_groups_of_their_own() -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.1, weight_decay=0.01)
    count = len(optimizer.param_groups)
    thawed(model, optimizer, lr=0.001)
    late = optimizer.param_groups[count:]
    assert sorted(name for g in late for name in g["param_names"]) == [
        "0.bias",
        "0.weight",
        "1.bias",
        "1.weight",
    ]
    assert {(g["lr"], g["weight_decay"]) for g in late} == {(0.001, 0.01)}
    assert thawed(model, optimizer) == ()


@pytest.mark.parametrize("wrong", ["no names", "a bad rate", "not a leaf"])
def test_a_refused_thaw_changes_nothing(wrong: str) -> None:
    model, groups = prepared()
    optimizer = SGDPH(groups, 0.1)
    before = copy.deepcopy(optimizer.state_dict())
    model.requires_grad_(True)
    now = param_groups(model, EXAMPLE.double())
    options: dict[str, Any] = {}
    if wrong == "no names":
        del now[-1]["param_names"]
    elif wrong == "a bad rate":
        options["lr"] = -1.0
    else:
        now[-1]["params"] = [p * 2 for p in now[-1]["params"]]
    with pytest.raises(ValueError, match=r"param_names|lr=-1|non-leaf"):
        optimizer.thaw(now, **options)
    assert optimizer.state_dict() == before
    train(model, optimizer, data(1))


def test_groups_made_by_hand_without_places_keep_their_order() -> None:
    p, q, late = (nn.Parameter(torch.ones(1)) for _ in range(3))
    optimizer = SGDPH([{"params": [("q", q), ("p", p)], "order": 2}], 0.1, variant="paper")
    optimizer.thaw([{"params": [late], "param_names": ["late"], "order": 2, "index": [0]}])
    due = []
    for _ in range(3):
        due.append(optimizer.due_name)
        optimizer.zero_grad()
        optimizer.backward((p**2 + q**2 + late**2).sum())
        optimizer.step()
    assert due == ["late", "q", "p"]


def test_a_new_optimizer_of_the_same_groups_begins_anew() -> None:
    model, groups = prepared()
    old = SGDPH(groups, 0.05)
    train(model, old, data(12))
    thawed(model, old)
    train(model, old, data(1))
    other = copy.deepcopy(model)
    train(model, SGDPH(old.param_groups, 0.05), data(3))
    train(other, SGDPH(param_groups(other, EXAMPLE.double()), 0.05), data(3))
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_parameters_thaw_one_after_the_other_whatever_places_the_first_ones_had() -> None:
    """As by hand, where the places count frozen parameters, too."""
    named = [(f"{i}.bias", nn.Parameter(torch.ones(1))) for i in range(6)]
    last = {"params": named[4:], "order": 2, "index": [4, 5]}
    optimizer = SGDPH([last], 0.1, variant="paper")
    for first in (3, 2, 1, 0):
        names, params = zip(*named[first:], strict=True)
        index = list(range(6 - first))
        optimizer.thaw([{"params": [*params], "param_names": [*names], "order": 2, "index": index}])
    assert [named[i][1] is p for i, p in enumerate(optimizer._layout().schedule.cycle)] == [True] * 6


def test_a_state_with_late_groups_is_loaded_by_an_optimizer_that_has_them_in_one() -> None:
    net = network()
    net[3].requires_grad_(False)
    model, groups, _ = prepare(net, EXAMPLE.double())
    optimizer = SGDPH(groups, 0.05)
    train(model, optimizer, data(12))
    thawed(model, optimizer, lr=0.05)
    train(model, optimizer, data(2))
    other = copy.deepcopy(model)
    resumed = SGDPH(param_groups(other, EXAMPLE.double()), 0.05)
    resumed.load_state_dict(optimizer.state_dict())
    for net, its in ((model, optimizer), (other, resumed)):
        train(net, its, data(9)[2:])
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
