"""Plans changed at random: each is refused, or can be applied, shown, compared and saved. Five thousand of them::

python -m tests.plan.mutated --plans 5000
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import Config, Plan, Report, analyze
from sgdph_fx.errors import PlanError
from sgdph_fx.plan.diff import plan_changes
from sgdph_fx.plan.param_groups import build_param_groups
from sgdph_fx.report import plan_diff

__all__ = ["BASES", "mutated", "outcome"]


class Functional(nn.Module):
    """Convolves by parameters of its own, one of them through a view, and shares a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(4, 3))
        self.kernel = nn.Parameter(torch.randn(4, 2, 3))
        self.one, self.other = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv1d(x, self.taps.unsqueeze(1), groups=4)
        return self.other(self.one(F.conv_transpose1d(x, self.kernel * 0.5, groups=2)).relu())


def _plain() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(100, 2))


def _varied() -> nn.Module:
    layers = nn.ConvTranspose2d(4, 6, 3, groups=2), nn.GELU(), nn.Conv2d(6, 4, 1), nn.LayerNorm(7)
    model = nn.Sequential(*layers, nn.PReLU(4), nn.Conv2d(4, 4, 1))
    model[2].weight.requires_grad_(False)
    return model


_RULES: dict[str, Any] = {
    "5": "keep",
    "0.gain": "first-order",
    "role:bias": {"lr": 0.1, "betas": [0.9, 0.99], "nesterov": False},
}
BASES: tuple[tuple[Callable[[], nn.Module], tuple[int, ...], Config], ...] = (
    (_plain, (2, 3, 9, 9), Config()),
    (_varied, (2, 4, 5, 5), Config("absorbing", _RULES)),
    (Functional, (2, 4, 9), Config(rules={"*": "decouple"})),
)

_STRANGE: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 7, 1.5, float("inf"), float("nan"), 10**30, 2**63, "", "x", "\x00", "\x1b[31m",
    "\u202e", "\ud800", "weight", "0.weight", "direction", "bare", "normalized", "params", [], [[]], [1, 2],
    ["a"], {}, {"a": 1}, "a" * 5000, "<script>", "[bold]", "|", "a\nb",
)  # fmt: skip


@cache
def _base(number: int) -> tuple[nn.Module, str]:
    build, shape, config = BASES[number]
    torch.manual_seed(0)
    model = build()
    return model, analyze(model, torch.randn(shape), config=config).to_json()


def mutated(seed: int) -> tuple[nn.Module, str]:
    """A model and the text of its plan with one to three changes; the same for the same seed."""
    choose = random.Random(seed)
    model, text = _base(seed % len(BASES))
    if choose.random() < 0.1:
        return model, _changed_text(text, choose)
    data = json.loads(text)
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        _change(data, choose)
    return model, json.dumps(data)


def _changed_text(text: str, choose: random.Random) -> str:
    at = choose.randrange(len(text))
    return choose.choice(
        (
            text[:at],
            text[:at] + choose.choice('{}[]",:0e-\\') + text[at:],
            text[:at] + text[at + 1 :],
            "[" * 100_000,
            '{"a":' * 50_000,
            text.replace('"version": 1', f'"version": {"9" * 5000}'),
            text.replace("3", "9" * 5000, 1),
        )
    )


def _change(data: dict[str, Any], choose: random.Random) -> None:
    holder, key = choose.choice(list(_places(data)))
    value = holder[key]
    kind = choose.randrange(12)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(value, list):
        value.append(copy.deepcopy(choose.choice(value)) if value else None)
    elif kind == 2 and isinstance(value, list):
        choose.shuffle(value)
    elif kind == 3 and isinstance(value, dict):
        value[choose.choice(("extra", "", "name", "options"))] = choose.choice(_STRANGE)
    elif kind == 4:
        other, place = choose.choice(list(_places(data)))
        holder[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(value)
    elif kind > 7:
        alike = [item[place] for item, place in _places(data) if type(item[place]) is type(value)]
        holder[key] = copy.deepcopy(choose.choice(alike))
    elif kind == 5 and isinstance(value, bool):
        holder[key] = not value
    elif kind == 5 and isinstance(value, int):
        holder[key] = value + choose.choice((-1, 1, 10))
    elif kind == 6 and isinstance(value, str):
        holder[key] = value[1:] + choose.choice(("", ".", "0", " ", "é"))
    else:
        holder[key] = choose.choice(_STRANGE)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def outcome(model: nn.Module, text: str) -> str:
    """``refused``, ``misfit`` or ``usable``.

    Raises:
        Exception: whatever goes wrong with a plan that was accepted.
    """
    try:
        plan = Plan.from_json(text)
    except PlanError:
        return "refused"
    assert Plan.from_json(plan.to_json()) == plan
    _show(plan, Report(plan))
    subject = copy.deepcopy(model)
    before = {name: value.clone() for name, value in subject.state_dict().items()}
    kinds = [type(module) for module in subject.modules()]
    try:
        prepared = plan.apply(subject, inplace=True)
    except PlanError:
        assert kinds == [type(module) for module in subject.modules()]
        assert before.keys() == subject.state_dict().keys()
        assert all(torch.equal(value, subject.state_dict()[name]) for name, value in before.items())
        return "misfit"
    _train(plan, prepared)
    plain = plan.restore_state_dict(prepared.state_dict())
    for name, value in before.items():
        torch.testing.assert_close(plain[name], value, rtol=1e-5, atol=1e-6)
    return "usable"


def _show(plan: Plan, report: Report) -> None:
    report.to_markdown()
    report.to_html()
    json.loads(report.to_json())
    repr(report)
    str(report)
    plan.without_rewriting().to_json().encode()
    for base in range(len(BASES)):
        other = Plan.from_json(_base(base)[1])
        for before, after in ((plan, other), (other, plan)):
            changes = plan_changes(before, after)
            for written in (plan_diff.as_text, plan_diff.as_markdown, plan_diff.as_json):
                written(changes).encode()


def _train(plan: Plan, prepared: nn.Module) -> None:
    groups = build_param_groups(plan, prepared)
    together = [id(p) for group in groups for p in group["params"]]
    assert len(together) == len(set(together))
    torch.optim.SGD(groups, lr=0.1)


def main() -> None:
    """Count what becomes of mutated plans; print each that breaks something."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--plans", type=int, default=5000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    for seed in range(options.first_seed, options.first_seed + options.plans):
        try:
            counts[outcome(*mutated(seed))] += 1
        except Exception as error:
            counts["broken"] += 1
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    print(dict(counts))


if __name__ == "__main__":
    main()
