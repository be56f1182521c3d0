"""What is saved is all there is: runs resumed, copied and pickled go on with the same bits."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import _init_optim_state

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from tests.optim.training import same_bits, train


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("stop", [1, 3, 7, 10])
def test_a_run_resumed_from_a_file_goes_on_with_the_same_bits(
    small: Any, make_batches: Any, make_groups: Any, variant: Any, stop: int
) -> None:
    data = make_batches(18)
    whole = small()
    train(whole, SGDPH(make_groups(whole), 0.05, variant=variant, weight_decay=0.01), data)

    before = small()
    optimizer = SGDPH(make_groups(before), 0.05, variant=variant, weight_decay=0.01)
    train(before, optimizer, data[:stop])
    file = io.BytesIO()
    torch.save({"model": before.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    after = small(seed=5)
    after.load_state_dict(saved["model"])
    # Its numbers come from the file, as everything does.
    resumed = SGDPH(make_groups(after), 9.9, variant=variant)
    resumed.load_state_dict(saved["optimizer"])
    train(after, resumed, data[stop:])
    assert same_bits(whole, after)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_goes_on_as_the_original_and_apart_from_it(
    small: Any, make_batches: Any, make_groups: Any, way: str
) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    data = make_batches(14)
    train(net, optimizer, data[:4])
    # The conftest's class has no importable name for pickle, its parameters do.
    pair = (list(net.parameters()), optimizer)
    params, copied = copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair))
    assert isinstance(copied, SGDPH)
    assert not {id(p) for p in net.parameters()} & {id(p) for g in copied.param_groups for p in g["params"]}
    other = small()
    for (name, _), p in zip(list(other.named_parameters()), params, strict=True):
        owner, _, leaf = name.rpartition(".")
        setattr(other.get_submodule(owner), leaf, p)
    train(net, optimizer, data[4:])
    train(other, copied, data[4:])
    assert same_bits(net, other)


def test_what_backward_found_is_no_state(small: Any, make_batches: Any, make_groups: Any) -> None:
    net = small()
    (batch,) = make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05)
    optimizer.backward(net.loss(batch))
    saved = optimizer.state_dict()
    assert saved["state"] == {}
    optimizer.load_state_dict(saved)
    with pytest.raises(OptimizerError, match="no graph"):
        optimizer.step()


@pytest.mark.parametrize("change", ["variant", "order", "other optimizer"])
def test_a_state_of_something_else_is_refused(small: Any, make_groups: Any, change: str) -> None:
    net = small()
    others: dict[str, torch.optim.Optimizer] = {
        "variant": SGDPH(make_groups(net), 0.05, variant="paper"),
        "order": SGDPH([{**g, "order": 3 - g["order"]} for g in make_groups(net)], 0.05),
        "other optimizer": torch.optim.SGD(make_groups(net), 0.05),
    }
    saved = others[change].state_dict()
    if change == "other optimizer":
        saved["param_groups"] = [{k: v for k, v in g.items() if k != "order"} for g in saved["param_groups"]]
    optimizer = SGDPH(make_groups(net), 0.01)
    with pytest.raises(
        OptimizerError, match={"other optimizer": "another optimizer"}.get(change, f"saved with {change}")
    ):
        optimizer.load_state_dict(saved)
    assert {g["lr"] for g in optimizer.param_groups} == {0.01}


def test_a_group_added_later_joins_the_cycle_and_counts_the_same_steps(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small()
    second, first = make_groups(net)
    optimizer = SGDPH([second], 0.05)
    data = make_batches(9)
    train(net, optimizer, data[:3])
    before = net.conv1.weight.clone()
    extra = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer.add_param_group(first)
    optimizer.add_param_group({"params": [("extra", extra)], "order": 2})
    assert [g["step"] for g in optimizer.param_groups] == [3, 3, 3]
    train(net, optimizer, data[3:5])
    assert not torch.equal(net.conv1.weight, before)
    # 7 + 1 second-order parameters; the one that came last is spared, the former last is not any more.
    train(net, optimizer, data[5:6])
    former_last = optimizer.due
    assert former_last is net.linear.bias
    train(net, optimizer, data[6:7])
    assert "hessian_average" in optimizer.state[former_last]
    assert optimizer.due is None


def test_the_groups_that_were_passed_are_not_changed(small: Any, make_groups: Any) -> None:
    given = make_groups(small())
    keys = [set(group) for group in given]
    first = SGDPH(given, 0.05)
    second = SGDPH(given, 0.5)
    assert [set(group) for group in given] == keys
    assert {g["lr"] for g in first.param_groups} == {0.05}
    assert {g["lr"] for g in second.param_groups} == {0.5}


def test_other_keys_and_names_are_carried_along(small: Any) -> None:
    net = small()
    optimizer = SGDPH([{"params": list(net.named_parameters()), "role": "weight", "name": "all"}], 0.05)
    group = optimizer.state_dict()["param_groups"][0]
    assert group["role"] == "weight"
    assert group["name"] == "all"
    assert group["param_names"] == [name for name, _ in net.named_parameters()]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_first_step_of_nothing_makes_the_state_and_counts_as_none(
    small: Any, make_batches: Any, make_groups: Any, momentum: float
) -> None:
    """As torch.distributed.checkpoint has it before it loads: what is made there is what a real step makes."""
    nets, data = [small(), small()], make_batches(9)
    initialized, plain = (SGDPH(make_groups(n), 0.05, momentum=momentum) for n in nets)
    _init_optim_state(initialized)
    assert same_bits(*nets)
    assert initialized.param_groups[0]["step"] == 0
    made = {key: set(own) for key, own in initialized.state_dict()["state"].items()}
    for net, optimizer in zip(nets, (initialized, plain), strict=True):
        train(net, optimizer, data)
    assert made == {key: set(own) for key, own in plain.state_dict()["state"].items()}
    assert same_bits(*nets)
    assert initialized.param_groups[0]["step"] == 9


def test_a_warm_up_from_zero_is_no_such_step(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.0)
    train(net, optimizer, [batch])
    assert optimizer.param_groups[0]["step"] == 1
    other = SGDPH(make_groups(net), 0.0)
    net.loss(batch).backward()
    with pytest.raises(OptimizerError, match="no graph"):
        other.step()


@pytest.mark.parametrize("kind", [numpy.float64, numpy.float32])
def test_rates_of_numpys_are_saved_as_plain_numbers(
    small: Any, make_batches: Any, make_groups: Any, kind: Any
) -> None:
    """From a table of rates, as `numpy.linspace` makes it."""
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.05)
    for group in optimizer.param_groups:
        group["lr"] = kind(0.25)
    optimizer.backward(net.loss(batch))
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert {type(group["lr"]) for group in saved["param_groups"]} == {float}
    assert type(optimizer.param_groups[0]["lr"]) is kind


def test_what_is_none_in_a_file_is_absent(small: Any, make_batches: Any, make_groups: Any) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.03)
    train(net, optimizer, make_batches(4))
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["param_names"] = None
    place = next(key for key, own in saved["state"].items() if "hessian_average" in own)
    saved["state"][place]["hessian_average"] = None
    again = SGDPH(make_groups(net), 0.03)
    again.load_state_dict(saved)
    train(net, again, make_batches(8))
    assert again.param_groups[0]["step"] == 12
