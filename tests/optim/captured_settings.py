"""A file that a training reads its settings from, by whatever way."""

from __future__ import annotations

from torch import Tensor

RATE = 0.0


class Settings:
    rate = 0.0

    @classmethod
    def penalty(cls, out: Tensor) -> Tensor:
        return cls.rate * out.square().mean()


def penalty(out: Tensor) -> Tensor:
    return RATE * out.square().mean()


def reset() -> None:
    global RATE
    RATE = Settings.rate = 0.0


def grow() -> None:
    global RATE
    RATE = Settings.rate = 1.0
