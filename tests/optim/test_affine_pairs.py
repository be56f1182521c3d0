"""Which parameters are a pair, and what becomes of one whose partner is missing, frozen or joins late."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import param_groups
from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.affine_blocks.pairs import affine_pairs
from sgdph_fx.pipeline import prepare
from tests.optim.affine_oracle import Norms, batch, groups
from tests.optim.test_affine_around import AFFINE, GN, coupling, require_same, train


def pairs_of(*rows: tuple[Any, ...]) -> set[tuple[str, str]]:
    """Pairs by name, of rows of a name, a role, a size and an order."""
    made, names = [], {}
    for name, role, size, order in rows:
        p = nn.Parameter(torch.ones(size))
        names[id(p)] = name
        options = dict.fromkeys(
            (
                "hessian_momentum",
                "eps",
                "maximize",
                "probe",
                "negative_curvature",
                "without_curvature",
                "seed",
            )
        )
        made.append({"params": [p], "param_names": [name], "role": role, "order": order, **options})
    return {(names[id(pair.scale)], names[id(pair.shift)]) for pair in affine_pairs(made, None)}


def test_names_decide_and_roles_where_a_name_is_not_known() -> None:
    found = pairs_of(
        ("a.weight", "norm.weight", 3, 2), ("a.bias", "norm.bias", 3, 2),
        ("b.gain", "gain", 4, 2), ("b.bias", "bias", 4, 2),
        ("c.alpha", "layer_scale", 5, 2), ("c.delta", "bias", 5, 2),
        ("weight", None, 6, 2), ("bias", None, 6, 2),
        # A bias that was folded into another group, as thaw() does, is a shift by its name.
        ("d.bias", "norm.weight", 3, 2), ("d.weight", "norm.weight", 3, 2),
        ("e.norm.gamma", None, 2, 2), ("e.norm.beta", None, 2, 2),
        # Another module, another shape, another order, no name and no role: no pair.
        ("f.weight", "norm.weight", 3, 2), ("f.g.bias", "norm.bias", 3, 2),
        ("h.weight", "norm.weight", 3, 2), ("h.bias", "norm.bias", 4, 2),
        ("i.weight", "weight", 3, 1), ("i.bias", "bias", 3, 2),
        ("j.u", None, 3, 2), ("j.v", None, 3, 2),
        # Two shifts and no name that chooses.
        ("k.g", "norm.weight", 3, 2), ("k.p", "norm.bias", 3, 2), ("k.q", "bias", 3, 2),
    )  # fmt: skip
    assert found == {
        ("a.weight", "a.bias"), ("b.gain", "b.bias"), ("c.alpha", "c.delta"), ("weight", "bias"),
        ("d.weight", "d.bias"), ("e.norm.gamma", "e.norm.beta"),
    }  # fmt: skip


def test_a_prepared_model_has_its_norms_and_decoupled_convolutions_as_pairs() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3)),
        *(nn.PReLU(5), nn.Flatten(), nn.Linear(80, 3)),
    )
    x, y = torch.randn(4, 3, 8, 8), torch.randint(3, (4,))
    model, rows, _ = prepare(net, x)
    optimizer = SGDPH(rows, 0.05, **AFFINE)
    names = {id(p): name for name, p in model.named_parameters()}
    pairs = optimizer._layout().schedule.pairs
    assert {tuple(names[id(p)] for p in pair.both) for pair in pairs} == {
        ("1.weight", "1.bias"),
        ("3.gain", "3.bias"),
    }
    for _ in range(optimizer.statistics()["cycle_length"]):
        optimizer.zero_grad()
        optimizer.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    for pair in pairs:
        assert bool(optimizer.state[pair.shift]["hessian_coupling"].any())


def test_the_authors_last_parameter_is_in_no_pair() -> None:
    """It takes first-order steps, so the norm's scale steps by its diagonal."""
    net = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 3), nn.LayerNorm(3))
    for variant, count in (("authors", 1), ("paper", 2)):
        optimizer = SGDPH(param_groups(net), 0.05, variant=variant, **AFFINE)  # type: ignore[arg-type]
        assert len(optimizer._layout().schedule.pairs) == count


@pytest.mark.parametrize("options", [{}, {"curvature": "gauss-newton", "refresh": "all"}])
def test_groups_without_names_have_no_pairs_and_are_refused(options: Any) -> None:
    with pytest.raises(
        OptimizerError, match=r"by the parameters' names, and the groups of order 2 have none"
    ):
        SGDPH([{"params": list(Norms().norm.parameters()), "order": 2}], 0.05, **AFFINE, **options)
    SGDPH([nn.Parameter(torch.ones(2, 2))], 0.05, **AFFINE)  # nothing of order 2 yet


def test_where_no_pair_is_found_it_says_so() -> None:
    p = ("0.bias", nn.Parameter(torch.ones(2)))
    with pytest.warns(RuntimeWarning, match="found no scale and shift of the same channels"):
        SGDPH([{"params": [p], "order": 2}], 0.05, **AFFINE)


@pytest.mark.parametrize(
    "more",
    [
        {"eps": 1e-2},
        {"probe": "exact"},
        {"without_curvature": "raise"},
        {"hessian_momentum": 0.5},
        {"maximize": True},
    ],
)
def test_what_decides_a_matrix_is_one_for_both(more: Any) -> None:
    rows = groups(Norms())
    rows[1] |= more
    with pytest.raises(
        OptimizerError, match=f"of 'norm.weight' and its shift, .* differ in {next(iter(more))}"
    ):
        SGDPH(rows, 0.05, **AFFINE)


def test_options_that_do_not_go_together_are_refused() -> None:
    for options, message in (
        ({"probe": "gradient", **AFFINE}, "probe='gradient' takes none"),
        ({"blocks": "full"}, "blocks='full' is not known; choose one of 'diagonal', 'affine'"),
    ):
        with pytest.raises(OptimizerError, match=message):
            SGDPH(groups(Norms()), 0.05, **options)
    with pytest.raises(
        OptimizerError, match="asks for blocks='affine', the optimizer is of blocks 'diagonal'"
    ):
        SGDPH([{**group, **AFFINE} for group in groups(Norms())], 0.05)


@pytest.mark.parametrize("how", [AFFINE, {"probe": "exact", "refresh": "all", **GN}])
def test_a_partner_that_joins_late_makes_a_pair(how: Any) -> None:
    """The shift thaws after six steps, and nothing moves until both are due: an α of 1 forgets what was before."""
    nets = [Norms(), Norms()]
    found = []
    for net, late in zip(nets, (True, False), strict=True):
        net.norm.bias.requires_grad_(not late)
        rows = [group for group in groups(net) if not late or net.norm.bias is not group["params"][0][1]]
        optimizer = SGDPH(rows, 0.0, variant="paper", hessian_momentum=1.0, momentum=1.0, **how)
        train(net, optimizer, 0, 6)
        if late:
            assert not optimizer._layout().schedule.pairs
            net.norm.bias.requires_grad_(True)
            named = [{**g, "param_names": [n for n, _ in g["params"]]} for g in groups(net)]
            shared = [{**g, "params": [p for _, p in g["params"]], "role": None} for g in named]
            assert optimizer.thaw(shared) == ("norm.bias",)
        train(net, optimizer, 6, 8)
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        train(net, optimizer, 8, 14)
        assert len(optimizer._layout().schedule.pairs) == 1
        found.append(coupling(net, optimizer))
    torch.testing.assert_close(*found)
    require_same(*nets, rtol=1e-9, atol=1e-12)


def test_a_group_that_does_not_go_with_its_partner_is_not_added() -> None:
    net = Norms()
    rows = groups(net)
    other = nn.LayerNorm(2)
    optimizer = SGDPH(rows, 0.05, variant="paper", **AFFINE)
    optimizer.add_param_group(
        {"params": [("9.gamma", other.weight)], "order": 2, "index": [40], "hessian_momentum": 0.5}
    )
    before = len(optimizer.param_groups)
    with pytest.raises(OptimizerError, match="differ in hessian_momentum"):
        optimizer.add_param_group({"params": [("9.beta", other.bias)], "order": 2, "index": [41]})
    assert len(optimizer.param_groups) == before
    train(net, optimizer, 0, 5)
    assert len(optimizer._layout().schedule.pairs) == 1


@pytest.mark.parametrize("how", [AFFINE, {"probe": "exact", **GN}])
@pytest.mark.parametrize("missing", ["frozen", "no gradient"])
def test_without_its_partner_a_parameter_steps_by_its_diagonal(how: Any, missing: str) -> None:
    """After one refresh of both at step 2, step 3 has the scale alone; its diagonal is a of [[a, c], [c, d]]."""
    net = Norms()
    optimizer = SGDPH(groups(net), 0.05, second_order_lr=0.1, momentum=0.0, eps=1e-3, **how)
    train(net, optimizer, 0, 2)
    average = optimizer.state[net.norm.weight]["hessian_average"].clone()
    before, shift = net.norm.weight.detach().clone(), net.norm.bias.detach().clone()
    if missing == "frozen":
        net.norm.bias.requires_grad_(False)
    optimizer.zero_grad()
    optimizer.backward(net.loss(batch(2)))
    if missing == "no gradient":
        net.norm.bias.grad = None
    assert net.norm.weight.grad is not None
    moved = 0.05 * 0.1 * (1 - 0.9**2) * net.norm.weight.grad / (average + 1e-3)
    optimizer.step()
    torch.testing.assert_close(net.norm.weight.detach(), before - moved, rtol=1e-10, atol=1e-14)
    assert torch.equal(net.norm.bias, shift)


@pytest.mark.parametrize("how", [AFFINE, {"probe": "exact", **GN}])
def test_what_an_estimate_lacks_counts_as_zero_so_that_no_average_turns_negative(how: Any) -> None:
    net = Norms()
    optimizer = SGDPH(groups(net), 0.0, hessian_momentum=0.5, **how)
    train(net, optimizer, 0, 2)
    c, d = coupling(net, optimizer).clone(), optimizer.state[net.norm.bias]["hessian_average"].clone()
    net.norm.bias.requires_grad_(False)
    train(net, optimizer, 2, 5)  # the pair is due at step 5
    torch.testing.assert_close(coupling(net, optimizer), c / 2)
    assert torch.equal(optimizer.state[net.norm.bias]["hessian_average"], d)
