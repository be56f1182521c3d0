"""Example inputs as they are typed: ``1,3,224,224``, ``1,16:int64`` or ``pixel_values=2,3,32,32``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import click

__all__ = ["Input", "parse_input"]

DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "uint8", "int32", "int64", "bool")
LARGEST = 2**40
SIZE = "[0-9]{1,15}"
SYNTAX = re.compile(rf"((?P<name>[^\W\d]\w*)=)?(?P<sizes>{SIZE}(,{SIZE})*|scalar)(:(?P<dtype>\w+))?")


@dataclass(frozen=True, slots=True)
class Input:
    """One example input to be made up.

    Args:
        sizes: Its shape; empty for a scalar.
        dtype: Name of its dtype in torch.
        name: The argument of the model that it is for, or None for the next positional one.
    """

    sizes: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None


def parse_input(text: str) -> Input:
    """Read sizes with an optional name and dtype.

    >>> parse_input("ids=2,16:int64")
    Input(sizes=(2, 16), dtype='int64', name='ids')
    """
    match = SYNTAX.fullmatch("".join(text.split()))
    if match is None:
        raise click.BadParameter(
            f"{text!r} is no shape; write sizes, as in 1,3,224,224, 1,16:int64 or pixel_values=1,3,224,224."
        )
    dtype = match["dtype"] or "float32"
    if dtype not in DTYPES:
        raise click.BadParameter(f"dtype {dtype!r} is not known; choose one of {', '.join(DTYPES)}.")
    sizes = () if match["sizes"] == "scalar" else tuple(map(int, match["sizes"].split(",")))
    if math.prod(sizes) > LARGEST:
        raise click.BadParameter(
            f"{text!r} is an input of {math.prod(sizes):,} numbers, too many for any memory."
        )
    return Input(sizes, dtype, match["name"])
