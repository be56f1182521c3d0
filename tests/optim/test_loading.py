"""A state is loaded whole, in the right order, or refused by name before anything changes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from tests.growth import grows_in_proportion
from tests.optim.training import train


def named_groups(net: nn.Module, *, backwards: bool = False) -> list[dict[str, Any]]:
    """Second-order and first-order groups with names; ``backwards``, the parameters run the other way."""
    rows = list(enumerate(net.named_parameters()))
    made = []
    for order in (2, 1):
        chosen = [(i, n, p) for i, (n, p) in rows if (p.dim() == 1) == (order == 2)]
        chosen = chosen[::-1] if backwards else chosen
        names, params = [n for _, n, _ in chosen], [p for *_, p in chosen]
        made.append(
            {"params": params, "param_names": names, "index": [i for i, *_ in chosen], "order": order}
        )
    return made[::-1] if backwards else made


@pytest.fixture
def saved(small: Any, make_batches: Any) -> dict[str, Any]:
    net = small()
    optimizer = SGDPH(named_groups(net), 0.05)
    train(net, optimizer, make_batches(4))
    return copy.deepcopy(optimizer.state_dict())


def test_another_order_of_groups_and_parameters_is_mapped_by_names(small: Any, make_batches: Any) -> None:
    data = make_batches(12)
    whole = small()
    train(whole, SGDPH(named_groups(whole), 0.05), data)
    half, other = small(), small(seed=3)
    optimizer = SGDPH(named_groups(half), 0.05)
    train(half, optimizer, data[:5])
    other.load_state_dict(half.state_dict())
    resumed = SGDPH(named_groups(other, backwards=True), 0.9)
    resumed.load_state_dict(optimizer.state_dict())
    names = {p: n for n, p in other.named_parameters()}
    for p, own in resumed.state.items():
        assert torch.equal(
            own["momentum_buffer"], optimizer.state[half.get_parameter(names[p])]["momentum_buffer"]
        )
    train(other, resumed, data[5:])
    for p, q in zip(whole.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_without_names_another_order_is_refused_where_shapes_tell(small: Any, make_groups: Any) -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = SGDPH([p, q], 0.1)
    optimizer.backward((p.sum() * q.sum()).exp())
    optimizer.step()
    other = SGDPH([q, p], 0.1)
    with pytest.raises(
        OptimizerError, match=r"momentum_buffer of parameter param_groups.*\(2,\).*parameter is \(3,\)"
    ):
        other.load_state_dict(optimizer.state_dict())
    assert not other.state


KEYS = ("hessian_interval", "seed", "probe", "max_preconditioner", "steps_skipped", "variant", "cycle_start")
KEYS += (
    "without_curvature",
    "capturable",
    "second_order_lr",
    "momentum",
    "hessian_momentum",
    "eps",
    "foreach",
)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_an_earlier_version_did_not_have_is_filled(
    small: Any, make_batches: Any, saved: dict[str, Any], key: str
) -> None:
    """The defaults were used to train, so the run goes on with the same bits."""
    for group in saved["param_groups"]:
        del group[key]
    nets, data = [small(), small()], make_batches(9)
    whole = SGDPH(named_groups(nets[0]), 0.05)
    train(nets[0], whole, data[:4])
    nets[1].load_state_dict(nets[0].state_dict())
    resumed = SGDPH(named_groups(nets[1]), 0.05)
    resumed.load_state_dict(saved)
    for net, optimizer in zip(nets, (whole, resumed), strict=True):
        train(net, optimizer, data[4:])
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(p, q)


def change(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda s: s["param_groups"][0].update({key: value})


def change_state(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda s: s["state"][0].update({key: value})


BAD: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "empty": (lambda s: s.clear(), "no optimizer state.*is empty"),
    "no state": (lambda s: s.pop("state"), "needs 'state' and 'param_groups', and is 'param_groups'"),
    "groups are text": (lambda s: s.update(param_groups="two"), "damaged: 'param_groups' must be a list"),
    "state is a list": (lambda s: s.update(state=[]), "damaged"),
    "no step": (lambda s: s["param_groups"][0].pop("step"), "another optimizer"),
    "one group less": (lambda s: s["param_groups"].pop(), "lacks 'conv1.weight'"),
    "another name": (
        lambda s: s["param_groups"][0]["param_names"].__setitem__(0, "stem.bias"),
        "lacks 'conv1.bias' and holds 'stem.bias'",
    ),
    "an id twice": (lambda s: s["param_groups"][0]["params"].__setitem__(1, 0), "9 parameters in 10 places"),
    "a state of nobody": (lambda s: s["state"].update({77: {}}), "1 that are in no group"),
    "step is text": (change("step", "four"), "step='four' must be a whole number"),
    "step is negative": (change("step", -1), "step=-1 must be"),
    "step of one group differs": (change("step", 9), "the same in all groups"),
    "counter is negative": (change("steps_skipped", -2), "steps_skipped=-2"),
    "lr is NaN": (change("lr", float("nan")), r"saved param_groups\[0\]: lr=nan"),
    "lr is negative": (change("lr", -0.1), "lr=-0.1"),
    "momentum is 1": (change("momentum", 1.0), r"momentum=1.0 \(β\)"),
    "weight decay is infinite": (change("weight_decay", float("inf")), "weight_decay=inf"),
    "interval is 0": (change("hessian_interval", 0), "hessian_interval=0"),
    "index is short": (change("index", [1]), "index must list one int"),
    "missed is text": (change("cycles_missed", "x" * 7), "cycles_missed must list one int"),
    "a cycle from the future": (change("cycle_start", 5), "the same in all|do not fit its step 4"),
    "missed more than there were": (change("cycles_missed", [1] * 7), "do not fit its step 4"),
    "an id is a list": (lambda s: s["param_groups"][0]["params"].__setitem__(0, []), "damaged"),
    "momentum of another shape": (
        change_state("momentum_buffer", torch.zeros(5, dtype=torch.float64)),
        r"momentum_buffer of parameter 'conv1.bias' is \(5,\)",
    ),
    "momentum of another dtype": (change_state("momentum_buffer", torch.zeros(4)), "float32; the parameter"),
    "momentum is no tensor": (change_state("momentum_buffer", [0.0] * 4), "is list; the parameter"),
    "momentum is NaN": (
        change_state("momentum_buffer", torch.full((4,), float("nan"), dtype=torch.float64)),
        "momentum_buffer of parameter 'conv1.bias' is not finite",
    ),
    "average of another dtype": (
        change_state("hessian_average", torch.zeros(4, dtype=torch.int64)),
        "hessian_average of parameter 'conv1.bias' is .*int64",
    ),
    "average is sparse": (
        change_state("hessian_average", torch.ones(4, dtype=torch.float64).to_sparse()),
        "float64, torch.sparse_coo; the parameter is",
    ),
    "average has no numbers": (
        change_state("hessian_average", torch.ones(4, dtype=torch.float64, device="meta")),
        "on the meta device; the parameter is",
    ),
    "mark is text": (
        change_state("lacks_curvature", "no"),
        "lacks_curvature of parameter 'conv1.bias' is 'no'",
    ),
    "a place twice": (
        lambda s: s["param_groups"][0]["index"].__setitem__(1, 1),
        "index must list one int of its own",
    ),
    "average is negative": (
        change_state("hessian_average", -torch.ones(4, dtype=torch.float64)),
        "negative numbers",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_state_that_cannot_be_is_refused_and_nothing_changes(
    small: Any, make_batches: Any, saved: dict[str, Any], case: str
) -> None:
    net, data = small(), make_batches(3)
    optimizer = SGDPH(named_groups(net), 0.03)
    train(net, optimizer, data[:2])
    before = copy.deepcopy(optimizer.state_dict())
    damage, says = BAD[case]
    damage(saved)
    with pytest.raises(OptimizerError, match=says):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"]
    torch.testing.assert_close(after["state"], before["state"], rtol=0, atol=0)
    train(net, optimizer, data[2:])
    assert optimizer.param_groups[0]["step"] == 3


def test_the_saved_state_is_copied_and_hooks_run_around_its_loading(
    small: Any, saved: dict[str, Any]
) -> None:
    optimizer = SGDPH(named_groups(small()), 0.03)
    before, ran = copy.deepcopy(saved), []

    def rename(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        ran.append("before")
        return {"state": state["state"], "param_groups": state["groups"]}

    optimizer.register_load_state_dict_pre_hook(rename)  # type: ignore[arg-type]
    optimizer.register_load_state_dict_post_hook(lambda _: ran.append("after"))  # type: ignore[arg-type, return-value]
    optimizer.load_state_dict({"state": saved["state"], "groups": saved["param_groups"]})
    assert ran == ["before", "after"]
    for own in optimizer.state.values():
        own["momentum_buffer"].add_(1)
    torch.testing.assert_close(saved["state"], before["state"], rtol=0, atol=0)


def test_time_to_build_to_load_and_to_ask_grows_in_proportion() -> None:
    def seconds(count: int) -> float:
        params = [nn.Parameter(torch.zeros(1)) for _ in range(count)]
        start = time.process_time()
        names = [f"p{i}" for i in range(count)]
        group = {"params": params, "param_names": names, "order": 2, "index": list(range(count))}
        optimizer = SGDPH([group], 0.1)
        for p in params:
            optimizer.state[p]["momentum_buffer"] = torch.zeros(1)
        optimizer.load_state_dict(optimizer.state_dict())
        assert [optimizer.due_name for _ in range(20)] == ["p0"] * 20
        return time.process_time() - start

    assert grows_in_proportion(seconds, 2000, 8000)


def test_tensors_are_moved_to_their_parameter(small: Any, saved: dict[str, Any]) -> None:
    """The meta device stands for another one."""
    net = small().to("meta")
    optimizer = SGDPH(named_groups(net), 0.03)
    optimizer.load_state_dict(saved)
    held: list[Tensor] = [own["momentum_buffer"] for own in optimizer.state.values()]
    assert {t.device.type for t in held} == {"meta"}


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_group_without_parameters_may_stand_anywhere(named: bool, place: int) -> None:
    def optimizer(place: int) -> SGDPH:
        p, q, r = (nn.Parameter(torch.ones(2)) for _ in range(3))
        groups: list[dict[str, Any]] = [
            {"params": [("p", p), ("q", q)] if named else [p, q], "order": 2},
            {"params": [("r", r)] if named else [r], "order": 2},
        ]
        return SGDPH([*groups[:place], {"params": [], "order": 2}, *groups[place:]], 0.1)

    saved = optimizer(place if not named else 2).state_dict()
    loaded = optimizer(place)
    loaded.load_state_dict(saved)
    loaded.load_state_dict(loaded.state_dict())
    assert [len(group["params"]) for group in loaded.param_groups].index(0) == place


def test_no_parameters_at_all_are_a_state_too() -> None:
    optimizer = SGDPH([{"params": []}], 0.1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state_dict()["state"] == {}
