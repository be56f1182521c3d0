"""Plans that contradict themselves, or a model, are refused before anything is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from sgdph_fx import Plan, analyze
from sgdph_fx.errors import PlanFormatError, PlanMismatchError
from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry

Change = Callable[[Plan], Plan]


def net() -> nn.Module:
    """Two convolutions that are decoupled, one that is not, and a grouped transposed one that is."""
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 6, 3, groups=2), nn.GELU()
    return nn.Sequential(*layers, nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))


def convolution(where: str, /, **changes: object) -> Change:
    def change(plan: Plan) -> Plan:
        entries: list[ConvolutionEntry] = []
        for entry in plan.convolutions:
            entries.append(replace(entry, **changes) if entry.name == where else entry)  # type: ignore[arg-type]
        return replace(plan, convolutions=tuple(entries))

    return change


def parameter(where: str, /, **changes: object) -> Change:
    def change(plan: Plan) -> Plan:
        entries: list[ParameterEntry] = []
        for entry in plan.parameters:
            entries.append(replace(entry, **changes) if entry.name == where else entry)  # type: ignore[arg-type]
        return replace(plan, parameters=tuple(entries))

    return change


def without(name: str) -> Change:
    return lambda plan: replace(plan, parameters=tuple(p for p in plan.parameters if p.name != name))


# Of the transposed one: (4, 3, 3, 3) in 2 groups, so 2 × 3 output filters.
CONTRADICTIONS: list[tuple[Change, str]] = [
    (convolution("0", out_channels=5), "'0' has 5 output filters, but its weight of shape 4×3×3×3"),
    (convolution("0", groups=3), "'0' has 4 output filters, but its weight of shape 4×3×3×3 in 3 groups"),
    (convolution("0", groups=0), "in 0 groups"),
    (convolution("0", shape=()), "but its weight of shape"),
    (convolution("0", transposed=True), "in 1 groups, transposed, does not"),
    (convolution("2", transposed=False), "'2' has 6 output filters"),
    (convolution("2", groups=1), "'2' has 6 output filters"),
    # Of 4 rows there are no 3 groups, though 3 times 3 columns would make 9 filters.
    (
        convolution("2", groups=3, out_channels=9),
        "'2' has 9 output filters, but its weight of shape 4×3×3×3 in 3 groups",
    ),
    (convolution("0", weight=""), "names no weight"),
    (convolution("0", verdict="normalized"), "'0' is normalized, but its norm is None"),
    (convolution("4", norm=None), "'4' is normalized, but its norm is None"),
    (convolution("4", verdict="bare"), "'4' is bare, but its norm is '5'"),
    (convolution("4", name="0"), "two convolutions are named '0'"),
    (convolution("4", decouple=True), "'4.weight' is decoupled, but also planned as it is"),
    (convolution("4", weight="0.weight"), "share '0.weight', but only one of them is decoupled"),
    (convolution("6", weight="0.weight"), "share '0.weight', but not its output filters"),
    (
        convolution(
            "6",
            weight="2.weight",
            shape=(4, 3, 3, 3),
            transposed=True,
            groups=1,
            out_channels=3,
            verdict="bare",
        ),
        "share '2.weight', but not its output filters",
    ),
    (without("0.gain"), "there is no parameter '0.gain'"),
    (without("0.direction"), "there is no parameter '0.direction'"),
    (parameter("0.gain", shape=(5,)), "'0.gain' has shape (5,), where (4,) is needed"),
    (parameter("0.direction", shape=(4, 3, 3)), "'0.direction' has shape (4, 3, 3)"),
    (parameter("0.gain", role="bias"), "'0.gain' has the role 'bias', where 'gain' is needed"),
    (parameter("0.bias", name="0.gain"), "'0.gain' is named twice"),
    (parameter("0.bias", name=""), "a parameter has no name"),
    (parameter("0.bias", options={"params": 1}), "an option 'params'"),
    (lambda plan: replace(plan, frozen=("0.bias",)), "'0.bias' is named twice"),
]


@pytest.mark.parametrize(("change", "message"), CONTRADICTIONS, ids=[m for _, m in CONTRADICTIONS])
def test_a_plan_that_contradicts_itself_is_refused_at_every_door(change: Change, message: str) -> None:
    plan, model = change(analyze(net())), net()
    with pytest.raises(PlanFormatError) as read:
        Plan.from_json(plan.to_json())
    before = list(model.state_dict())
    with pytest.raises(PlanFormatError) as applied:
        plan.apply(model, inplace=True)
    assert message in str(read.value)
    assert message in str(applied.value)
    assert list(model.state_dict()) == before


def test_filters_that_are_not_the_model_s_leave_every_convolution_as_it_was() -> None:
    """Square weights fit both ways, so that only the module tells which dimension holds the filters."""
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1, groups=1), nn.ReLU())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for change, message in (
        (convolution("2", transposed=True), "the convolution 2 has transposed = False, planned True"),
        (convolution("2", groups=2), "the convolution 2 has groups = 1, planned 2"),
    ):
        plan = change(analyze(model))
        with pytest.raises(PlanMismatchError) as error:
            Plan.from_json(plan.to_json()).apply(model, inplace=True)
        assert message in str(error.value)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_what_was_frozen_when_the_plan_was_made_has_to_be_so_still() -> None:
    model = net()
    model[0].bias.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    plan = analyze(model)
    plan.apply(model)
    model[0].bias.requires_grad_(True)  # type: ignore[index, union-attr, operator]
    with pytest.raises(PlanMismatchError, match=r"0\.bias is trainable, but was frozen"):
        plan.apply(model)
    for layer in (model[0], model[2]):  # type: ignore[index]
        layer.bias.requires_grad_(False)
    with pytest.raises(PlanMismatchError, match=r"2\.bias is frozen, but was trainable"):
        plan.apply(model)


def test_a_weight_of_complex_numbers_has_no_direction() -> None:
    plan, other = analyze(net()), net()
    other[6].weight = nn.Parameter(torch.randn(2, 6, 1, 1, dtype=torch.cfloat))  # type: ignore[index, union-attr, operator]
    with pytest.raises(PlanMismatchError, match=r"6\.weight is torch\.complex64.*for dense real numbers"):
        plan.apply(other, inplace=True)
    assert type(other[0]) is nn.Conv2d  # type: ignore[index]
    (entry,) = analyze(nn.Sequential(nn.Conv2d(3, 4, 3, dtype=torch.cfloat))).convolutions
    assert not entry.decouple
    assert "its weight is complex" in entry.reason


def test_a_plan_is_applied_to_a_module_only() -> None:
    with pytest.raises(PlanMismatchError, match=r"applied to a torch\.nn\.Module; this is int"):
        analyze(net()).apply(3)  # type: ignore[arg-type]


def test_a_checkpoint_that_is_not_the_plan_s() -> None:
    plan = analyze(net())
    prepared = plan.apply(net()).state_dict()
    with pytest.raises(PlanMismatchError, match=r"it lacks 0\.direction, 0\.gain"):
        plan.restore_state_dict(net().state_dict())
    with pytest.raises(PlanMismatchError, match=r"it lacks 0\.gain"):
        plan.restore_state_dict({k: v for k, v in prepared.items() if k != "0.gain"})
    with pytest.raises(PlanMismatchError, match=r"0\.gain has shape \(3,\), planned \(4,\)"):
        plan.restore_state_dict({**prepared, "0.gain": torch.ones(3)})
    for value in (
        None,
        "text",
        torch.ones(2).long(),
        torch.ones(2, dtype=torch.cfloat),
        torch.ones(2).to_sparse(),
    ):
        with pytest.raises(
            PlanMismatchError, match=r"0\.gain is .*a dense tensor of floating point is needed"
        ):
            plan.restore_state_dict({**prepared, "0.gain": value})
    for other in ([prepared], None, {**prepared, 3: torch.ones(1)}):
        with pytest.raises(
            PlanMismatchError, match=r"`state_dict\(\)` is needed|the key 3, which is no name"
        ):
            plan.restore_state_dict(other)


def test_a_checkpoint_of_a_model_that_was_prepared_before_its_plan_was_made() -> None:
    model = net()
    prepared = analyze(model).apply(model)
    plain = analyze(prepared).restore_state_dict(prepared.state_dict())
    assert plain.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(plain[name], value, rtol=0, atol=1e-6)
