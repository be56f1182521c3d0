"""What two plans treat otherwise, worked out by hand."""

from dataclasses import replace

from torch import nn

from sgdph_fx import Config, analyze
from sgdph_fx.plan.diff import Change, plan_changes


def net(norm: bool = True, frozen: bool = False) -> nn.Module:
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4) if norm else nn.Identity()]
    return nn.Sequential(*layers, nn.ReLU()).requires_grad_(not frozen)


def test_a_plan_does_not_differ_from_itself_whatever_lines_and_words_do() -> None:
    plan = analyze(net())
    moved = tuple(replace(row, source="net.py:7", reason="other words") for row in plan.convolutions)
    assert plan_changes(plan, replace(plan, convolutions=moved, hints=())) == ()


def test_a_norm_that_was_taken_out_changes_its_convolution_and_its_parameters() -> None:
    found = {change.name: change for change in plan_changes(analyze(net()), analyze(net(norm=False)))}
    assert found.keys() == {"0", "0.weight", "0.direction", "0.gain", "1.weight", "1.bias"}
    assert (found["0"].before, found["0"].after) == ("normalized by 1, kept", "bare, decoupled")
    assert (found["0.gain"].before, found["0.gain"].after) == ("absent", "second-order gain of shape 4")
    assert (found["1.bias"].before, found["1.bias"].after) == ("second-order norm.bias of shape 4", "absent")
    assert found["0"].reason.startswith("bare: ")


def test_rules_policy_and_freezing_show() -> None:
    plan = analyze(net())
    ruled = plan_changes(plan, analyze(net(), config=Config("direct", {"1.weight": "first-order"})))
    assert ruled[0] == Change("policy", "", "see-through", "direct")
    assert [(c.name, c.after) for c in ruled[1:]] == [("1.weight", "first-order norm.weight of shape 4")]
    partly = net()
    partly[1].requires_grad_(False)  # type: ignore[index]
    assert {(c.name, c.after) for c in plan_changes(plan, analyze(partly))} == {
        ("1.weight", "absent"),
        ("1.bias", "absent"),
        ("1.weight", "frozen"),
        ("1.bias", "frozen"),
    }
