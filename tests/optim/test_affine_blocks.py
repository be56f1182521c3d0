"""blocks="affine": steps against dense matrices and eigenvalues, with every matrix, probe and meaning of signs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.curvature.pair_blocks import BlockEntries
from sgdph_fx.curvature.probes import PROBES, generator_at
from sgdph_fx.optim import SGDPH
from sgdph_fx.optim.affine_blocks.matrix import function_of
from tests.optim.affine_oracle import NAMES, Norms, batch, blocks, gradients, groups, of_eigenvalues

TAU, TAU_SO, EPS, ETA, CAP = 0.05, 2e-3, 1e-3, 0.1, 1.5
PAPER: Any = {"variant": "paper"}
GN: Any = {"curvature": "gauss-newton"}
OPTIONS: dict[str, dict[str, Any]] = {
    "hessian, ones": {},
    "hessian, ones, paper": PAPER,
    "hessian, rademacher": {"probe": "rademacher", "seed": 3},
    "hessian, exact": {"probe": "exact"},
    "hessian, exact, paper, bounded": {"probe": "exact", "max_preconditioner": CAP, **PAPER},
    "hessian, signs averaged": {"negative_curvature": "average"},
    "hessian, signs averaged, paper": {"negative_curvature": "average", "probe": "exact", **PAPER},
    "hessian, negative is none": {"negative_curvature": "zero", "max_preconditioner": CAP},
    "hessian, maximized": {"maximize": True, "probe": "exact"},
    "gauss-newton": {"probe": "exact", **GN},
    "gauss-newton, paper, all": {"probe": "exact", "refresh": "all", **GN, **PAPER},
    "gauss-newton, bounded, all, interval": {
        "probe": "exact", "refresh": "all", "hessian_interval": 2, "max_preconditioner": CAP, **GN
    },
}  # fmt: skip


class ByHand:
    """Algorithm 1 for the norm, with a matrix of each channel in the place of M^H."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.authors = options.get("variant") != "paper"
        self.raw = (
            "curvature" in options or "negative_curvature" in options or options.get("probe") == "rademacher"
        )
        start = 0.0 if self.raw or self.authors else EPS**0.5
        self.matrix = start * torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
        self.momentum = torch.zeros(4, 2, dtype=torch.float64)

    def rectify(self, values: Tensor) -> Tensor:
        return values.abs() if self.authors else (values.square() + EPS).sqrt()

    def average(self, estimate: Tensor) -> None:
        new = estimate if self.raw else of_eigenvalues(estimate, self.rectify)
        self.matrix = 0.9 * self.matrix + 0.1 * new if self.authors else 0.1 * self.matrix + 0.9 * new

    def direction(self, gradient: Tensor, n: int) -> Tensor:
        """D, the n-th cycle of the Hessian being under way."""
        g = -gradient if self.options.get("maximize") else gradient
        self.momentum = 0.9 * self.momentum + g if self.authors else 0.1 * self.momentum + 0.9 * g
        scale = TAU_SO * ((1 - 0.9**n) if self.authors else 1)
        floor = scale / CAP if "max_preconditioner" in self.options else 0.0

        def h(values: Tensor) -> Tensor:
            if self.options.get("negative_curvature") == "zero":
                values = values.clamp_min(0)
            values = self.rectify(values) if self.raw else values
            return 1 / (values + (EPS if self.authors else 0)).clamp_min(floor)

        return scale * (of_eigenvalues(self.matrix, h) @ self.momentum[:, :, None])[:, :, 0]


def due_and_n(options: dict[str, Any], t: int) -> tuple[bool, int]:
    """Whether the norm is refreshed at step t, and n. The turns: convolution's bias, norm, linear's bias."""
    interval = options.get("hessian_interval", 1)
    if options.get("refresh") == "all":
        return (t - 1) % interval == 0, (t - 1) // interval + 1
    return t % 3 == 2, t // 3 + 1


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_steps_are_those_of_the_dense_matrices(name: str, capturable: bool) -> None:
    options, net = OPTIONS[name], Norms()
    optimizer = SGDPH(
        groups(net), TAU, blocks="affine", second_order_lr=TAU_SO, eps=EPS, weight_decay=ETA,
        capturable=capturable, **options,
    )  # fmt: skip
    hand = ByHand(options)
    for t in range(1, 9):
        data = batch(t)
        theirs = torch.stack([net.get_parameter(n).detach() for n in NAMES], 1)
        due, n = due_and_n(options, t)
        if due:
            z = None
            if options.get("probe", "ones") != "exact":
                probe, place = PROBES[options.get("probe", "ones")], generator_at(options.get("seed", 0), t)
                z = next(probe.vectors(net.norm.weight, place))
            hand.average(blocks(net, data, options.get("curvature", "hessian"), z))
        theirs = theirs - TAU * (hand.direction(gradients(net, data), n) + ETA * theirs)
        optimizer.zero_grad()
        optimizer.backward(net.loss(data))
        optimizer.step()
        for place, own in enumerate(NAMES):
            torch.testing.assert_close(
                net.get_parameter(own).detach(), theirs[:, place], rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize(
    "kind", ["random", "positive", "diagonal", "singular", "zero", "equal", "tiny", "huge"]
)
def test_the_closed_form_is_the_function_of_the_eigenvalues(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(50, 2, 2, dtype=torch.float64, generator=generator)
    matrix = roots + roots.mT if kind == "random" else roots @ roots.mT
    if kind == "diagonal":
        matrix = torch.diag_embed(roots.diagonal(dim1=1, dim2=2))
    if kind == "singular":
        matrix = roots[:, :, :1] @ roots[:, :, :1].mT
    if kind in ("zero", "equal"):
        matrix = torch.eye(2, dtype=torch.float64).expand(50, 2, 2) * (kind == "equal")
    matrix = matrix * {"tiny": 1e-200, "huge": 1e150}.get(kind, 1.0)
    for h in (lambda v: 1 / (v.abs() + 1e-3), lambda v: (v.square() + 1e-2).sqrt().clamp_min(0.5)):
        found = function_of(BlockEntries(matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 1]), h)
        expected = of_eigenvalues(matrix, h)
        for entry, (i, j) in zip(found, ((0, 0), (0, 1), (1, 1)), strict=True):
            torch.testing.assert_close(entry, expected[:, i, j], rtol=1e-9, atol=1e-9)


def test_in_single_precision_the_small_eigenvalue_is_not_lost() -> None:
    """[[1e6, 0.1], [0.1, 1e-4]] has λ₂ = 1e-4 - 1e-8 to 14 digits; m - r would be rounding of 1e6."""
    block = BlockEntries(*(torch.tensor([x]) for x in (1e6, 0.1, 1e-4)))
    inverse = function_of(block, torch.reciprocal)
    assert inverse.d.item() == pytest.approx(1 / (1e-4 - 1e-8), rel=1e-5)


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("cap", [None, CAP])
def test_where_nothing_couples_the_two_it_is_the_diagonal_step(variant: Any, cap: Any) -> None:
    """½ Σ (c γ² + e β²), of which c = e and c = 0 among others, with an α for which the averages are no rounding."""
    c, e = (
        torch.tensor(values, dtype=torch.float64) for values in ([3.0, 1e-5, 2.0, 0.0], [0.1, 4.0, 2.0, 5.0])
    )
    found = []
    for kind in ("diagonal", "affine"):
        gamma, beta, last = (
            torch.nn.Parameter(torch.full((4,), x, dtype=torch.float64)) for x in (0.5, -2, 1)
        )
        optimizer = SGDPH(
            [{"params": [("x.gamma", gamma), ("x.beta", beta), ("last", last)], "order": 2}], TAU, blocks=kind,
            refresh="all", probe="exact", variant=variant, max_preconditioner=cap, hessian_momentum=0.4, **GN,
        )  # fmt: skip
        for _ in range(3):
            optimizer.zero_grad()
            squares = ((c / 2).sqrt() * gamma).square() + ((e / 2).sqrt() * beta).square()
            optimizer.backward((squares + last).sum())
            optimizer.step()
        found.append([gamma.detach(), beta.detach()])
    torch.testing.assert_close(*found, rtol=1e-13, atol=0)
