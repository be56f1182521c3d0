import click
import pytest
import torch

from sgdph_fx.cli.inputs import example_input, parse_shape
from sgdph_fx.cli.options import parse_rule


@pytest.mark.parametrize(
    ("text", "sizes", "dtype"),
    [
        ("1,3,224,224", (1, 3, 224, 224), torch.float32),
        ("7", (7,), torch.float32),
        ("1, 16:int64", (1, 16), torch.int64),
        ("2,2:bool", (2, 2), torch.bool),
        ("2,2:float64", (2, 2), torch.float64),
    ],
)
def test_sizes_and_dtype_are_read(text: str, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    assert parse_shape(text) == (sizes, dtype)
    tensor = example_input(parse_shape(text), torch.Generator().manual_seed(0))
    assert (tensor.shape, tensor.dtype) == (sizes, dtype)


@pytest.mark.parametrize(
    "text", ["", "1,,2", "1x3", "-1,3", "1,3:", "1,3:float99", "a", "²", "1,3,9999999,9999999"]
)
def test_what_is_no_shape_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_shape(text)


def test_values_are_random_and_integers_stay_in_any_embedding() -> None:
    floats = example_input(((1000,), torch.float32), torch.Generator().manual_seed(0))
    assert floats.mean().abs() < 0.2
    assert 0.8 < floats.std() < 1.2
    integers = example_input(((1000,), torch.int64), torch.Generator().manual_seed(0))
    assert set(integers.tolist()) == {0, 1}


def test_a_rule_may_hold_an_equals_sign_in_its_name() -> None:
    assert parse_rule("a=b*=keep") == ("a=b*", "keep")


@pytest.mark.parametrize("text", ["keep", "=keep", "a=", "a=drop"])
def test_what_is_no_rule_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_rule(text)
