"""A network as data, and the module that executes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.properties.operation import Operation
from tests.properties.operations import OPERATIONS

__all__ = ["Network", "Program", "Step"]

BATCH = 3
CHANNELS = 4
SPATIAL = {1: (6,), 2: (3, 5), 3: (3, 3, 3)}


@dataclass(frozen=True)
class Step:
    """One operation on earlier values.

    Args:
        operation: Its name in the table.
        inputs: Numbers of the values that it takes; 0 is the network's input.
        channels: Channels of its first input, which what it is built of is made for.
        out: Output channels, of a convolution or a linear layer.
        bias: Whether a convolution has one.
        of: The earlier step whose module or parameter it uses instead of one of its own, or, if ``shared``,
            whose weight its own module has.
        frozen: Whether the parameters of its module require no gradient.
    """

    operation: str
    inputs: tuple[int, ...]
    channels: int
    out: int = 0
    bias: bool = True
    of: int | None = None
    frozen: bool = False

    @property
    def what(self) -> Operation:
        return OPERATIONS[self.operation]


@dataclass(frozen=True)
class Program:
    """Steps in order, and the values that the network returns: all that no step takes."""

    dims: int
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @property
    def spatial(self) -> tuple[int, ...]:
        return SPATIAL[self.dims]

    def input(self) -> Tensor:
        return torch.randn(BATCH, CHANNELS, *self.spatial, dtype=torch.float64)

    def build(self) -> Network:
        return Network(self).double()


class Network(nn.Module):
    """Executes a program. Modules and parameters are called after the number of their step."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.dims = program.dims
        self.eps = 1e-5  # of the functional norms; the oracle makes it negligible, as it does the modules'
        for number, step in enumerate(program.steps):
            self._build(number, step)

    def _build(self, number: int, step: Step) -> None:
        if step.operation == "shared":
            module = self._sharing(step)
        elif step.what.make is None or step.of is not None:
            return
        else:
            module = step.what.make(self, step)
        setattr(self, f"s{number}", module.requires_grad_(not step.frozen))

    def _sharing(self, step: Step) -> Any:
        """A module like that of an earlier step, with its weight but a bias of its own."""
        assert step.of is not None
        earlier = self.program.steps[step.of]
        assert earlier.what.make is not None
        module = earlier.what.make(self, earlier)
        module.weight = getattr(self, f"s{step.of}").weight
        return module

    def forward(self, x: Tensor) -> list[Tensor]:
        values = self.values(x)
        return [values[i] for i in self.program.outputs]

    def values(self, x: Tensor) -> list[Tensor]:
        """The input, and what each step makes."""
        values = [x]
        for number, step in enumerate(self.program.steps):
            of = number if step.of is None or step.operation == "shared" else step.of
            own = getattr(self, f"s{of}", None)
            result = step.what.run(self, own, *[values[i] for i in step.inputs])
            values += result if step.what.results > 1 else [result]
        return values
