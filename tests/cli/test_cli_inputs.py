"""Example inputs as they are typed, and as the model takes them."""

import ast

import click
import pytest
import torch
from torch import Tensor, nn

from sgdph_fx.cli.forward import example_inputs, needed_parameters, signature_of
from sgdph_fx.cli.inputs import Input, parse_input
from sgdph_fx.cli.options import parse_rule
from sgdph_fx.cli.target import parse_argument, parse_target


class Two(nn.Module):
    def forward(self, images: Tensor, times: Tensor, *, mask: Tensor | None = None) -> Tensor:
        return images


class KeywordOnly(nn.Module):
    def forward(self, *, pixel_values: Tensor) -> Tensor:
        return pixel_values


@pytest.mark.parametrize(
    ("text", "sizes", "dtype", "name"),
    [
        ("1,3,224,224", (1, 3, 224, 224), "float32", None),
        ("7", (7,), "float32", None),
        ("1, 16:int64", (1, 16), "int64", None),
        ("2,2:bool", (2, 2), "bool", None),
        ("scalar:float64", (), "float64", None),
        ("pixel_values=2,3,32,32", (2, 3, 32, 32), "float32", "pixel_values"),
        ("ids=2,16:int64", (2, 16), "int64", "ids"),
    ],
)
def test_name_sizes_and_dtype_are_read(
    text: str, sizes: tuple[int, ...], dtype: str, name: str | None
) -> None:
    assert parse_input(text) == Input(sizes, dtype, name)
    (tensor,) = example_inputs([Input(sizes, dtype)], nn.Identity(), 0)
    assert (tuple(tensor.shape), tensor.dtype) == (sizes, getattr(torch, dtype))


@pytest.mark.parametrize(
    "text",
    [
        *("", "1,,2", "1x3", "-1,3", "1,3:", "1,3:float99", "a", "²", "1,3,9999999,9999999", "9" * 5000),
        *("=1,3", "a-b=1,3", "1a=1,3", "x=", "x=y=1"),
    ],
)
def test_what_is_no_shape_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_input(text)


def test_values_are_random_and_integers_stay_in_any_embedding() -> None:
    given = [Input((1000,)), Input((1000,), "int64")]
    floats, integers = example_inputs(given, nn.Identity(), 0)
    assert isinstance(floats, Tensor)
    assert isinstance(integers, Tensor)
    assert floats.mean().abs() < 0.2
    assert 0.8 < floats.std() < 1.2
    assert set(integers.tolist()) == {0, 1}


def test_inputs_with_a_name_are_keyword_arguments_and_the_others_take_their_places() -> None:
    given = example_inputs([Input((2, 3)), Input((2,), name="mask"), Input((4,))], Two(), 0)
    assert isinstance(given, dict)
    assert {name: tuple(value.shape) for name, value in given.items()} == {
        "images": (2, 3),
        "mask": (2,),
        "times": (4,),
    }


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (KeywordOnly(), [Input((1,)), Input((1,), name="pixel_values")]),
        (Two(), [Input((1,), name="times"), Input((1,), name="times")]),
    ],
)
def test_inputs_that_cannot_all_have_a_place_are_a_usage_error(model: nn.Module, given: list[Input]) -> None:
    with pytest.raises(click.UsageError, match=r"forward takes \(.*\): give each --input the name"):
        example_inputs(given, model, 0)


def test_what_a_forward_needs_is_what_has_no_default() -> None:
    assert [p.name for p in needed_parameters(Two())] == ["images", "times"]
    assert signature_of(Two()) == "(images, times, *, mask=None)"
    assert signature_of(KeywordOnly()) == "(*, pixel_values)"


def test_a_rule_may_hold_an_equals_sign_in_its_name() -> None:
    assert parse_rule("a=b*=keep") == ("a=b*", "keep")


@pytest.mark.parametrize("text", ["keep", "=keep", "a=", "a=drop"])
def test_what_is_no_rule_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_rule(text)


@pytest.mark.parametrize(
    ("text", "place", "name", "positional", "keywords"),
    [
        ("model.py", "model.py", None, (), {}),
        ("a.b:net", "a.b", "net", (), {}),
        ("a.b:Zoo.net", "a.b", "Zoo.net", (), {}),
        ("a.py:build(3, norm='batch')", "a.py", "build", (3,), {"norm": "batch"}),
        (
            "a.py:build(sizes=[1, (2, -3.5)], deep=None)",
            "a.py",
            "build",
            (),
            {"sizes": [1, (2, -3.5)], "deep": None},
        ),
        ("a.py:build()", "a.py", "build", (), {}),
        ("a (1).py", "a (1).py", None, (), {}),
        ("timm:resnet18.a1_in1k", "timm", "resnet18.a1_in1k", (), {}),
        ("hf:./folder/config.json", "hf", "./folder/config.json", (), {}),
        ("hf:ResNetConfig(depths=[1])", "hf", "ResNetConfig", (), {"depths": [1]}),
    ],
)
def test_a_model_is_a_place_a_name_and_literal_arguments(
    text: str, place: str, name: str | None, positional: tuple[object, ...], keywords: dict[str, object]
) -> None:
    target = parse_target(text, {})
    assert (target.place, target.name, target.positional, target.keywords) == (
        place,
        name,
        positional,
        keywords,
    )


@pytest.mark.parametrize(
    "call",
    ["(", "(width=WIDTH)", "(open('called', 'w'))", "(__import__('os').getpid())", "(**{'a': 1})", "(*[1])", "(1)(2)",
     "(" * 5000 + ")" * 5000, "(width=)", "(1, 2"],
)  # fmt: skip
def test_arguments_that_are_no_literals_are_refused_and_never_run(call: str) -> None:
    if not call.endswith(")"):  # it is not even a call, but a part of a name
        assert parse_target(f"a.py:build{call}", {}).name is None
        return
    with pytest.raises(click.UsageError, match="cannot be read"):
        parse_target(f"a.py:build{call}", {})


def test_an_argument_is_a_literal_or_else_text() -> None:
    for text in ("width=32", "sizes=[1, 2]", "deep=None", "name='32'"):
        name, _, value = text.partition("=")
        assert parse_argument(text) == (name, ast.literal_eval(value))
    assert parse_argument("norm=batch") == ("norm", "batch")
    assert parse_argument("path=a=b") == ("path", "a=b")
    assert parse_target("a.py:build(width=1)", {"width": 2}).keywords == {"width": 2}


@pytest.mark.parametrize("text", ["width", "=3", "a b=3", "a.b=3"])
def test_an_argument_without_a_name_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_argument(text)
