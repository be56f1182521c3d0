"""Several threads analyze, prepare, audit and train at once: each gets what it gets alone, and torch stays whole."""

from __future__ import annotations

import math
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, analyze, audit, param_groups, prepare, restore
from tests.trace.states import state_of

X, LABELS = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])


class Scaled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * math.sqrt(x.shape[1])


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        Scaled(),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def together(*jobs: Callable[[], Any]) -> list[Any]:
    """The results of all jobs, begun at once, each in a thread of its own."""
    results: list[Any] = [None] * len(jobs)
    gate = threading.Barrier(len(jobs))

    def work(place: int) -> None:
        gate.wait()
        try:
            results[place] = jobs[place]()
        except BaseException as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(jobs))]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def globals_of_torch() -> list[Any]:
    names = ("__call__", "__getattr__", "__setattr__", "_call_impl", "_wrapped_call_impl", "training")
    own = [nn.Module.__dict__.get(name) for name in names]
    return [
        *own,
        torch.conv2d,
        torch.nn.functional.conv2d,
        math.sqrt,
        vars(sys.modules[__name__])["math"].sqrt,
    ]


def trained(model: nn.Module, groups: list[dict[str, Any]], steps: int) -> list[Tensor]:
    """The parameters after some steps. Nothing in it is random."""
    optimizer = SGDPH(groups, lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        optimizer.backward(nn.functional.cross_entropy(model(X), LABELS))
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("count", [2, 8])
@pytest.mark.parametrize("inputs", [None, X], ids=["symbolic", "recorded"])
def test_different_models(count: int, inputs: Tensor | None) -> None:
    models = [net(seed) for seed in range(count)]
    before, own = [state_of(m) for m in models], globals_of_torch()
    expected = analyze(models[0], inputs).to_json()
    plans = together(*(lambda m=m: [analyze(m, inputs).to_json() for _ in range(3)] for m in models))
    assert {text for texts in plans for text in texts} == {expected}
    assert globals_of_torch() == own
    assert [state_of(m) for m in models] == before


def test_one_model() -> None:
    model = net()
    before, own = state_of(model), globals_of_torch()
    expected = analyze(model, X).to_json()
    # A look at the model's own attributes in a thread could come while another one traces with proxies in their place.
    known = dict(model.named_parameters())

    def prepared() -> str:
        found = prepare(model, X)
        assert torch.equal(restore(found.model)[0].weight, known["0.weight"])
        return found.report.plan.to_json()

    def groups() -> str:
        assert all(
            p is own for g in param_groups(model) for p, own in zip(g["params"], by_name(g), strict=True)
        )
        return expected

    def by_name(group: dict[str, Any]) -> list[nn.Parameter]:
        return [known[name] for name in group["param_names"]]

    def audited() -> str:
        audit(model, nn.functional.cross_entropy, (X, LABELS), channels=1, draws=1)
        return expected

    jobs = [lambda: analyze(model, X).to_json(), prepared, groups, audited] * 2
    assert set(together(*jobs)) == {expected}
    assert state_of(model) == before
    assert globals_of_torch() == own


def test_trainings_beside_looks_are_those_that_run_alone() -> None:
    expected = [trained(*prepare(net(seed), X)[:2], steps=6) for seed in range(2)]
    started = [prepare(net(seed), X)[:2] for seed in range(2)]
    own = globals_of_torch()

    def looking() -> None:
        for _ in range(4):
            analyze(net(7))
            analyze(net(7), X)

    jobs = [lambda s=s: trained(*s, steps=6) for s in started]
    found = together(*jobs, looking, looking, lambda: prepare(net(8), X))
    for mine, alone in zip(found, expected, strict=False):
        assert all(map(torch.equal, mine, alone))
    assert globals_of_torch() == own


def test_the_random_numbers_are_those_of_before() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    noisy = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout()) for _ in range(4)]
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    together(*(lambda m=m: analyze(m, X) for m in noisy))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]


def test_a_look_may_look_again() -> None:
    class Curious(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.plans = nn.Conv2d(3, 4, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.plans += len(analyze(nn.Sequential(nn.Conv2d(3, 4, 1)), x).convolutions)
            return self.conv(x)

    model = Curious()
    assert [row.name for row in analyze(model, X).convolutions] == ["conv"]
    assert model.plans == 0


def test_a_module_that_another_thread_calls_during_a_look_does_what_it_always_does() -> None:
    shared, found = nn.Conv2d(3, 4, 1), []

    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = shared

        def forward(self, x: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: found.append(shared(X)))
            thread.start()
            thread.join()
            return self.conv(x)

    (row,) = analyze(Waits(), X).convolutions
    assert row.name == "conv"
    assert all(torch.equal(y, shared(X)) for y in found)
    assert len(found) == 2
