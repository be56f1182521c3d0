"""Who belongs: groups without names or orders, plain SGD by mistake, parameters that no optimizer holds."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import check_optimizer, prepare
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH


@contextmanager
def silence() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def vector(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers or (1.0, 2.0)))


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.ones(2, 2))


SPLITS: dict[str, Any] = {
    "parameters": lambda net: net.parameters(),
    "named parameters": lambda net: net.named_parameters(),
    "decay split": lambda net: [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": 0.1},
        {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ],
    "head and backbone": lambda net: [{"params": net[0].parameters()}, {"params": net[2].parameters()}],
}


@pytest.mark.parametrize("split", SPLITS)
def test_an_optimizer_that_would_train_plain_sgd_says_so_and_names_the_remedy(split: str) -> None:
    model, _, _ = prepare(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
    with pytest.warns(RuntimeWarning, match=r"plain SGD.*`sgdph_fx\.param_groups\(model\)`") as told:
        optimizer = SGDPH(SPLITS[split](model), 0.1)
    assert len(told) == 1
    assert told[0].filename == __file__
    with pytest.raises(OptimizerError, match=r"no parameter of order 2.*param_groups"):
        check_optimizer(model, optimizer)


def test_where_nothing_looks_channel_wise_or_something_is_second_order_it_is_silent() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False))
    with silence():
        optimizer = SGDPH(net.parameters(), 0.1)
        check_optimizer(net, optimizer)
        prepared = prepare(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
        check_optimizer(prepared.model, SGDPH(prepared.param_groups, 0.1))
        plain = nn.Linear(2, 3)
        check_optimizer(plain, torch.optim.SGD(plain.parameters(), 0.1))


def test_a_group_without_names_gets_some_where_others_have_them() -> None:
    optimizer = SGDPH([{"params": [("a", matrix()), ("b", matrix())]}], 0.1)
    optimizer.add_param_group({"params": matrix()})
    optimizer.add_param_group({"params": (p for p in [matrix(), matrix()])})
    assert [group["param_names"] for group in optimizer.param_groups] == [
        ["a", "b"],
        ["param_groups[1].0"],
        ["param_groups[2].0", "param_groups[2].1"],
    ]
    again = SGDPH([{"params": [("a", matrix()), ("b", matrix())]}], 0.1)
    again.add_param_group({"params": matrix()})
    again.add_param_group({"params": [matrix(), matrix()]})
    again.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("form", ["pairs", "list of names"])
def test_names_of_a_late_group_are_left_out_where_others_have_none(form: str) -> None:
    optimizer = SGDPH([{"params": [matrix()]}], 0.1)
    late = {"params": [("c", matrix())]} if form == "pairs" else {"params": [matrix()], "param_names": ["c"]}
    optimizer.add_param_group(late)
    assert "param_names" not in optimizer.param_groups[1]
    optimizer.backward(sum(p.square().sum() for g in optimizer.param_groups for p in g["params"]))  # type: ignore[arg-type]
    optimizer.step()


def test_a_late_group_that_looks_channel_wise_and_does_not_say_its_order_warns() -> None:
    optimizer = SGDPH([{"params": [("a", vector()), ("z", vector())], "order": 2}], 0.1)
    with pytest.warns(
        RuntimeWarning, match=r"does not say its order.*'norm\.weight' look channel-wise.*thaw"
    ):
        optimizer.add_param_group({"params": [("norm.weight", vector()), ("conv.weight", matrix())]})
    with silence():
        optimizer.add_param_group({"params": [("norm2.weight", vector())], "order": 1})
        optimizer.add_param_group({"params": [("conv2.weight", matrix())]})


def test_a_refused_group_leaves_the_optimizer_as_it_was() -> None:
    optimizer = SGDPH([{"params": [("a", vector()), ("z", vector())], "order": 2, "index": [0, 1]}], 0.1)
    for bad in ({"index": [1]}, {"lr": -1.0}, {"param_names": ["x", "y"]}, {"probe": "twos"}):
        with pytest.raises(OptimizerError):
            optimizer.add_param_group({"params": [vector()], "order": 2, **bad})
        assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": [vector()], "order": 2, "index": [2]})


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
        self.head = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


def test_what_no_optimizer_holds_is_told_once_by_name() -> None:
    net = TwoParts()
    optimizer = SGDPH([{"params": net.head.parameters(), "order": 2}], 0.1)
    x = torch.randn(4, 2)

    def train() -> None:
        for _ in range(4):
            optimizer.zero_grad()
            optimizer.backward(net(x).square().mean())
            optimizer.step()

    with pytest.warns(RuntimeWarning, match=r"'body\.0\.weight', 'body\.0\.bias'.*thaw") as told:
        train()
    assert len(told) == 1
    assert told[0].filename == __file__


@pytest.mark.parametrize("steps", [0, 40])
def test_what_thaws_later_is_told_at_the_next_hessian(steps: int) -> None:
    net = TwoParts()
    net.body.requires_grad_(False)
    optimizer = SGDPH([{"params": net.head.parameters(), "order": 2}], 0.1)
    x = torch.randn(4, 2)

    def train(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            optimizer.backward(net(x).square().mean())
            optimizer.step()

    with silence():
        train(steps)
    net.body.requires_grad_(True)
    with pytest.warns(RuntimeWarning, match=r"'body\.0\.weight'"):
        train(2)


def test_parameters_of_another_optimizer_frozen_ones_and_inputs_are_no_news() -> None:
    """As in a GAN, whose generator learns through a discriminator that another optimizer trains."""
    generator, critic = TwoParts(), TwoParts()
    groups = [{"params": list(generator.parameters()), "order": 2}]
    ours, theirs = SGDPH(groups, 0.1), torch.optim.Adam(critic.parameters())
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    noise = torch.randn(4, 2, requires_grad=True)
    with silence():
        ours.backward(critic(generator(noise * frozen).repeat(1, 2)).mean())
        ours.step()
    assert theirs.param_groups[0]["params"][0].grad is not None


def test_an_optimizer_that_steps_the_same_memory_holds_the_parameter() -> None:
    """As Muon steps a convolution's kernel: as a matrix, a parameter of its own on the kernel's memory."""
    kernel = nn.Parameter(torch.ones(2, 3, 1, 1))
    scale = vector()
    ours = SGDPH([{"params": [scale], "order": 2}], 0.1)
    theirs = torch.optim.SGD([nn.Parameter(kernel.detach().view(2, 3))], 0.1)
    with silence():
        ours.backward(scale.square().sum() * kernel.sum())
    elsewhere = nn.Parameter(torch.ones(2, 3, 1, 1))
    with pytest.warns(RuntimeWarning, match=r"of shape \(2, 3, 1, 1\)"):
        ours.backward(scale.square().sum() * elsewhere.sum())
    assert theirs.param_groups[0]["params"][0].grad is None


def test_a_parameter_of_no_module_is_told_by_its_shape() -> None:
    loose = nn.Parameter(torch.ones(5, 7))
    optimizer = SGDPH([{"params": [vector(), vector()], "order": 2}], 0.1)
    p = optimizer.param_groups[0]["params"][0]
    with pytest.warns(RuntimeWarning, match=r"of shape \(5, 7\), in no module"):
        optimizer.backward((p**2).sum() * loose.sum())


def test_groups_whose_tensors_were_exchanged_are_indexed_anew() -> None:
    """As wrappers do it that put sharded parameters into the groups."""
    p, q, last = vector(), vector(), vector()
    optimizer = SGDPH([{"params": [p, q, last], "order": 2}], 0.1)
    assert optimizer.due is p
    new = vector(3.0)
    optimizer.param_groups[0]["params"][0] = new
    assert optimizer.due is new
    optimizer.param_groups[0]["params"] = [q, new, last]
    assert optimizer.due is q


def test_a_parameter_taken_out_without_its_place_is_told() -> None:
    rows = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = SGDPH([{"params": rows, "order": 2, "index": [0, 1, 2]}], 0.1)
    group = optimizer.param_groups[0]
    group["params"] = group["params"][:2]
    with pytest.raises(OptimizerError, match=r"param_groups\[0\] has 2 parameters, and 3 entries in 'index'"):
        optimizer.backward(rows[0].square().sum())
    assert rows[0].grad is None
    group["index"] = [0, 1]
    optimizer.backward(rows[0].square().sum())


def test_names_and_missed_cycles_are_taken_out_with_a_parameter() -> None:
    """Else each would be another parameter's: a state would be loaded for the wrong one."""
    p, q, late = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = SGDPH([{"params": [("p", p), ("q", q)], "order": 2}], 0.1)
    optimizer.backward((p * q).square().sum())
    optimizer.step()
    optimizer.thaw([{"params": [late], "param_names": ["late"], "order": 2, "index": [2]}])
    group = optimizer.param_groups[0]
    for key in ("params", "index"):
        del group[key][0]
    for key in ("param_names", "cycles_missed"):
        with pytest.raises(OptimizerError, match=rf"has 2 parameters, and 3 entries in '{key}'"):
            optimizer.backward((q * late).square().sum())
        del group[key][0]
    optimizer.backward((q * late).square().sum())


def test_the_state_of_a_parameter_that_was_taken_out_is_not_saved() -> None:
    """As when a head is exchanged, or channels are cut off; torch's own optimizers cannot save then."""
    kept, gone, new = vector(), vector(), vector(3.0, 4.0)
    optimizer = SGDPH([{"params": [kept, gone], "order": 2}, {"params": [matrix()]}], 0.1)
    optimizer.backward((kept**2 * gone**2).sum())
    optimizer.step()
    optimizer.param_groups[0]["params"][1] = new
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [0]
    optimizer.load_state_dict(saved)
    assert kept in optimizer.state
    optimizer.param_groups[0]["params"][1] = gone  # whoever puts it back begins with a new state
    optimizer.backward((kept**2 * gone**2).sum())
    optimizer.step()
    assert list(optimizer.state_dict()["state"]) == [0, 1]


def test_the_place_of_a_parameter_that_was_taken_out_is_free_for_another() -> None:
    gone, kept, new = vector(), vector(), vector(3.0, 4.0)
    optimizer = SGDPH([{"params": [gone, kept], "order": 2, "index": [0, 1]}, {"params": [matrix()]}], 0.1)
    group = optimizer.param_groups[0]
    group["params"], group["index"] = [kept], [1]
    optimizer.add_param_group({"params": [new], "order": 2, "index": [0]})
    assert optimizer.due is new
    with pytest.raises(OptimizerError, match="gives place 1 that another parameter of order 2 has"):
        optimizer.add_param_group({"params": [vector()], "order": 2, "index": [1]})
