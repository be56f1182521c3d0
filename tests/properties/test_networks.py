"""Verdicts, function and round trip of random networks."""

from __future__ import annotations

import copy
import pickle

import torch
from hypothesis import assume, given
from torch import Tensor, nn

from sgdph_fx import Config, Plan, analyze, prepare, restore
from tests.properties.ledger import Ledger
from tests.properties.program import Network, Program
from tests.properties.strategies import networks
from tests.zoo.oracle import absorbs

POLICIES = ("direct", "see-through", "absorbing")
_network = given(networks())


def built(program: Program) -> Network:
    torch.manual_seed(0)
    return program.build()


def outputs(model: nn.Module, x: Tensor, training: bool) -> list[Tensor]:
    """What a copy computes, so that no buffer of ``model`` moves."""
    run = copy.deepcopy(model).train(training)
    torch.manual_seed(1)  # for dropout
    with torch.no_grad():
        return list(run(x))


def assert_same_function(one: nn.Module, other: nn.Module, x: Tensor) -> None:
    for training in (True, False):
        pairs = zip(outputs(one, x, training), outputs(other, x, training), strict=True)
        for a, b in pairs:
            assert float((a - b).abs().max()) <= 1e-12 * max(float(a.abs().max()), 1.0)


def shared(model: nn.Module) -> list[int]:
    """Which parameters are one, by the place where each is first met."""
    first: dict[int, int] = {}
    every = [p for _, p in model.named_parameters(remove_duplicate=False)]
    return [first.setdefault(id(p), place) for place, p in enumerate(every)]


@_network
def test_verdicts(program: Program) -> None:
    ledger = Ledger.of(program)
    model, x = built(program), program.input()
    for policy in POLICIES:
        config = Config(policy=policy)  # type: ignore[arg-type]
        symbolic, recorded = analyze(model, config=config), analyze(model, x, config=config)
        assert {row.name for row in recorded.convolutions} == set(ledger.calls())
        assert bare(recorded) == ledger.bare(policy)
        if policy == "absorbing" and ledger.hidden():
            continue  # a reshape before a norm: where the channels are, only shapes tell
        assert bare(symbolic) == ledger.bare(policy)
        assert rows(symbolic) == rows(recorded)
        assert symbolic.parameters == recorded.parameters


def bare(plan: Plan) -> set[str]:
    return {row.name for row in plan.bare}


def rows(plan: Plan) -> list[tuple[object, ...]]:
    """What is decided about each convolution, whatever its parts are called on the way."""
    return [(r.name, r.kind, r.weight, r.verdict, r.decouple) for r in plan.convolutions]


@_network
def test_prepared_model_is_the_same_function(program: Program) -> None:
    model, x = built(program), program.input()
    plain = copy.deepcopy(model)
    prepared = prepare(model, x)
    assert_same_function(plain, prepared.model, x)
    for copied in (copy.deepcopy(prepared.model), pickle.loads(pickle.dumps(prepared.model))):
        assert_same_function(prepared.model, copied, x)
        assert shared(copied) == shared(prepared.model)
    again = prepare(prepared.model, x)
    assert again.model.state_dict().keys() == prepared.model.state_dict().keys()
    assert_same_function(prepared.model, again.model, x)
    assert plain.state_dict().keys() == model.state_dict().keys()


@_network
def test_restored_model_is_the_plain_one(program: Program) -> None:
    model, x = built(program), program.input()
    restored = restore(prepare(model).model)
    assert type(restored) is type(model)
    assert [(k, v.shape, v.dtype) for k, v in restored.state_dict().items()] == [
        (k, v.shape, v.dtype) for k, v in model.state_dict().items()
    ]
    assert shared(restored) == shared(model)
    assert_same_function(model, restored, x)


@_network
def test_plain_checkpoint_loads(program: Program) -> None:
    prepared, other = prepare(built(program)).model, program.build()
    prepared.load_state_dict(other.state_dict())
    assert_same_function(other, prepared, program.input())


@_network
def test_groups_hold_every_parameter_once(program: Program) -> None:
    prepared = prepare(built(program))
    grouped = [id(p) for group in prepared.param_groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in prepared.model.parameters() if p.requires_grad}


@_network
def test_a_gain_for_each_output_channel(program: Program) -> None:
    """Also where groups or transposing make the weight's first dimension another number."""
    prepared, ledger = prepare(built(program)), Ledger.of(program)
    parameters = dict(prepared.model.named_parameters())
    gains = [row.name for row in prepared.report.plan.parameters if row.role == "gain"]
    assert len(gains) == len({frozenset(ledger.sharing(name)) for name in ledger.bare("see-through")})
    for name in gains:
        number = int(name.removesuffix("gain").rstrip("._").removeprefix("s"))
        assert parameters[name].shape == (program.steps[number].out,)


@_network
def test_verdicts_against_the_oracle(program: Program) -> None:
    """What absorbs a gain does so in numbers; what the network returns does not."""
    ledger = Ledger.of(program)
    model, x = built(program), program.input()
    assume(not has_constant_map(model, x))
    bare_ones = bare(analyze(model, x, config=Config(policy="absorbing")))
    for name in ledger.calls():
        if len(ledger.sharing(name)) > 1 or isinstance(getattr(model, name), nn.Parameter):
            continue  # the oracle scales the filters of one module, and its bias along
        if name not in bare_ones:
            assert absorbs(model, name, (x,), tolerance=1e-6)
        elif name in ledger.returned():
            assert not absorbs(model, name, (x,))


def has_constant_map(model: Network, x: Tensor) -> bool:
    """Whether max pooling spread one number over a whole map, which a norm then divides by no deviation at all.

    What comes out is rounding over rounding, of which no oracle can say whether a gain changed it.
    """
    with torch.no_grad():
        maps = [
            m for v in model.values(x) if v.dim() > 2 for m in (v.flatten(2), v.movedim(-1, 1).flatten(2))
        ]
    return any(bool(((m.amax(2) == m.amin(2)) & (m.amax(2) != 0)).any()) for m in maps)
