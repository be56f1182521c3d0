"""A plain GAN: two networks, two optimizers, and the penalty R1 on the critic's gradient by real samples.

The generator's loss runs through the critic: detach nothing, but let each optimizer reset its own gradients before its
own backward pass. Run it by `python -m examples.with_two_optimizers`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from sgdph_fx import SGDPH, prepare

__all__ = ["r1", "real", "train"]

NOISE, SAMPLES, PENALTY = 2, 64, 0.1


def network(inputs: int, outputs: int) -> nn.Module:
    """Smooth, as a penalty on gradients wants it."""
    return nn.Sequential(
        *(nn.Linear(inputs, 32), nn.Softplus(), nn.Linear(32, 32), nn.Softplus(), nn.Linear(32, outputs))
    )


def real(generator: torch.Generator) -> Tensor:
    """Points around (2, -1)."""
    return torch.randn(SAMPLES, 2, generator=generator) * 0.3 + torch.tensor([2.0, -1.0])


def r1(critic: nn.Module, samples: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's scores of real samples, and the mean squared norm of their gradient by the samples."""
    samples = samples.requires_grad_()
    scores = critic(samples)
    (slope,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
    return scores, slope.square().sum(1).mean()


def train(steps: int = 600) -> tuple[nn.Module, float]:
    """The generator, and how far the mean of its samples is from that of the real ones."""
    torch.manual_seed(0)
    draws = torch.Generator().manual_seed(1)
    generator, generator_groups, _ = prepare(network(NOISE, 2))
    critic, critic_groups, _ = prepare(network(2, 1))
    of_generator = SGDPH(generator_groups, lr=0.02, momentum=0.5)
    of_critic = SGDPH(critic_groups, lr=0.05, momentum=0.5)
    for _ in range(steps):
        fake = generator(torch.randn(SAMPLES, NOISE, generator=draws))
        of_critic.zero_grad()
        scores, penalty = r1(critic, real(draws))
        of_critic.backward(
            softplus(-scores).mean() + softplus(critic(fake.detach())).mean() + PENALTY * penalty
        )
        of_critic.step()

        of_generator.zero_grad()
        of_generator.backward(softplus(-critic(fake)).mean())
        of_generator.step()
    with torch.no_grad():
        samples = generator(torch.randn(1000, NOISE, generator=draws))
    return generator, (samples.mean(0) - torch.tensor([2.0, -1.0])).norm().item()


if __name__ == "__main__":
    print(f"off by {train()[1]:.4f}")
