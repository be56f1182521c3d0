"""Example inputs from shapes: ``1,3,224,224`` or ``1,16:int64``."""

from __future__ import annotations

import math
import re

import click
import torch
from torch import Tensor

__all__ = ["Shape", "example_input", "parse_shape"]

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
LARGEST = 2**40
SYNTAX = re.compile(r"(?P<sizes>\d+(,\d+)*)(:(?P<dtype>\w+))?", re.ASCII)

Shape = tuple[tuple[int, ...], torch.dtype]


def parse_shape(text: str) -> Shape:
    """Read sizes with an optional dtype."""
    match = SYNTAX.fullmatch("".join(text.split()))
    if match is None:
        raise click.BadParameter(f"{text!r} is no shape; write sizes, as in 1,3,224,224 or 1,16:int64.")
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES:
        raise click.BadParameter(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    sizes = tuple(map(int, match["sizes"].split(",")))
    if math.prod(sizes) > LARGEST:
        raise click.BadParameter(
            f"{text!r} is an input of {math.prod(sizes):,} numbers, too many for any memory."
        )
    return sizes, DTYPES[dtype]


def example_input(shape: Shape, generator: torch.Generator) -> Tensor:
    """A CPU tensor of random values: standard normal, or integers 0 and 1, which any embedding looks up."""
    sizes, dtype = shape
    if dtype.is_floating_point:
        return torch.randn(sizes, generator=generator).to(dtype)
    return torch.randint(0, 2, sizes, generator=generator).to(dtype)
