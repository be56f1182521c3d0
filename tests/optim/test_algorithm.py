"""SGDPH for 50 steps against the algorithm written out line by line, with another way to its derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

STEPS = 50
ABSORBED = ("conv1.bias", "conv2.bias")
HYPER: dict[str, Any] = {
    "lr": 0.05,
    "second_order_lr": 2e-3,
    "momentum": 0.8,
    "hessian_momentum": 0.7,
    "eps": 1e-3,
}


def derivatives(
    net: Any, weights: dict[str, Tensor], batch: Any, name: str
) -> tuple[dict[str, Tensor], Tensor]:
    """All gradients, and the row sums of one parameter's Hessian by forward mode over reverse mode."""

    def loss_of(values: dict[str, Tensor]) -> Tensor:
        out = torch.func.functional_call(net, values, (batch[0],))
        loss: Tensor = torch.nn.functional.cross_entropy(out, batch[1])
        return loss

    def gradient_of(own: Tensor) -> Tensor:
        gradient: Tensor = torch.func.grad(lambda value: loss_of({**weights, name: value}))(own)
        return gradient

    row_sums: Tensor = torch.func.jvp(gradient_of, (weights[name],), (torch.ones_like(weights[name]),))[1]
    return torch.func.grad(loss_of)(weights), row_sums


def authors(
    net: Any,
    data: list[Any],
    tau: float,
    tau_so: float,
    beta: float,
    alpha: float,
    eta: float,
    eps: float,
    k: int = 1,
) -> dict[str, Tensor]:
    W = {name: p.detach().clone() for name, p in net.named_parameters()}
    channel_wise = [name for name, p in W.items() if p.dim() == 1]
    M = len(channel_wise)
    H = {name: torch.zeros_like(W[name]) for name in channel_wise}
    b: dict[str, Tensor] = {}
    for steps, batch in enumerate(data):
        current = channel_wise[steps // k % M]
        g, row_sums = derivatives(net, W, batch, current)
        t = steps + 1
        if steps % k == 0:
            H[current] = alpha * H[current] + (1 - alpha) * abs(row_sums)
        for name in W:
            second = name in channel_wise and name != channel_wise[-1]
            total = g[name] if second else g[name] + eta * W[name]
            b[name] = beta * b[name] + total if name in b else total
            if second:
                D = 1 / (H[name] + eps) * b[name] * (1 - alpha ** (t // (k * M) + 1)) * tau_so + eta * W[name]
            else:
                D = b[name]
            W[name] = W[name] - tau * D
    return W


def paper(
    net: Any,
    data: list[Any],
    tau: float,
    tau_so: float,
    beta: float,
    alpha: float,
    eta: float,
    eps: float,
    k: int = 1,
) -> dict[str, Tensor]:
    W = {name: p.detach().clone() for name, p in net.named_parameters()}
    channel_wise = [name for name, p in W.items() if p.dim() == 1]
    M_H = {name: torch.full_like(W[name], math.sqrt(eps)) for name in channel_wise}
    M_G = {name: torch.zeros_like(p) for name, p in W.items()}
    for t, batch in enumerate(data, start=1):
        current = channel_wise[(t - 1) // k % len(channel_wise)]
        G, H_SO = derivatives(net, W, batch, current)
        if (t - 1) % k == 0:
            H_tilde = torch.sqrt(H_SO**2 + eps)  # (4)
            M_H[current] = (1 - alpha) * M_H[current] + alpha * H_tilde  # (5)
        for name in W:
            M_G[name] = (1 - beta) * M_G[name] + beta * G[name]  # (6)
            D_G = tau_so * (1 / M_H[name]) * M_G[name] if name in channel_wise else M_G[name]
            W[name] = W[name] - tau * (D_G + eta * W[name])  # (7), line 13
    return W


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("decay", [0.0, 0.02])
@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_fifty_steps_follow_the_algorithm(
    small: Any, make_batches: Any, make_groups: Any, make_optimizer: Any, variant: str, decay: float, k: int
) -> None:
    data = make_batches(STEPS)
    transcription = authors if variant == "authors" else paper
    hyper = {**HYPER, "momentum": 0.8 if variant == "authors" else 0.3}
    expected = transcription(
        small(),
        data,
        tau=hyper["lr"],
        tau_so=hyper["second_order_lr"],
        beta=hyper["momentum"],
        alpha=hyper["hessian_momentum"],
        eta=decay,
        eps=hyper["eps"],
        k=k,
    )
    net = small()
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    # Reversed groups: only `index` can tell the order of registration.
    hyper |= {"weight_decay": decay, "hessian_interval": k}
    optimizer = make_optimizer(make_groups(net, reverse=True), variant=variant, **hyper)
    for batch in data:
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        optimizer.step()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-10, atol=1e-10)
        # Batch norm absorbs the bias before it: only decay moves that.
        assert (p.detach() - start[name]).abs().max() > 1e-5 or (name in ABSORBED and decay == 0)


def test_the_variants_differ_and_the_defaults_are_the_papers(
    small: Any, make_batches: Any, make_groups: Any, make_optimizer: Any
) -> None:
    net = small()
    data = make_batches(10)
    optimizer = make_optimizer(make_groups(net), lr=0.01)
    for batch in data:
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        optimizer.step()
    expected = authors(small(), data, tau=0.01, tau_so=1e-3, beta=0.9, alpha=0.9, eta=0.0, eps=1e-4)
    other = paper(small(), data, tau=0.01, tau_so=1e-3, beta=0.9, alpha=0.9, eta=0.0, eps=1e-4)
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-10, atol=1e-10)
        assert (p.detach() - other[name]).abs().max() > 1e-6 or name in ABSORBED


def test_every_group_keeps_to_its_own_numbers(
    small: Any, make_batches: Any, make_groups: Any, make_optimizer: Any
) -> None:
    """In one step groups meet only in the loss, so each follows a run that has its numbers everywhere."""
    data = make_batches(1)
    net = small()
    second, first = make_groups(net)
    optimizer = make_optimizer(
        [{**second, "lr": 0.3, "second_order_lr": 1e-2, "eps": 1e-2}, {**first, "weight_decay": 0.5}], lr=0.05
    )
    optimizer.backward(net.loss(data[0]))
    optimizer.step()
    fast = authors(small(), data, tau=0.3, tau_so=1e-2, beta=0.9, alpha=0.9, eta=0.0, eps=1e-2)
    decayed = authors(small(), data, tau=0.05, tau_so=1e-3, beta=0.9, alpha=0.9, eta=0.5, eps=1e-4)
    for name, p in net.named_parameters():
        expected = fast if p.dim() == 1 else decayed
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-10, atol=1e-10)


def test_maximizing_a_loss_is_minimizing_its_negative(
    small: Any, make_batches: Any, make_groups: Any, make_optimizer: Any
) -> None:
    for variant in ("authors", "paper"):
        nets = [small(), small()]
        up = make_optimizer(make_groups(nets[0]), lr=0.01, maximize=True, variant=variant, weight_decay=0.1)
        down = make_optimizer(make_groups(nets[1]), lr=0.01, variant=variant, weight_decay=0.1)
        for batch in make_batches(9):
            for net, optimizer, sign in ((nets[0], up, -1), (nets[1], down, 1)):
                optimizer.zero_grad()
                optimizer.backward(sign * net.loss(batch))
                optimizer.step()
        for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
