"""Arguments for what makes the model, and models of collections by their names."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
import torchvision
import transformers
from click.testing import Result
from torch import nn

from sgdph_fx.cli.errors import ModelNotLoadedError
from sgdph_fx.cli.load import load_model

Write = Callable[..., Path]
Convert = Callable[..., Result]

FACTORY = """
from torch import nn

def conv3x3(inner, outer):
    return nn.Conv2d(inner, outer, 3)

def build(width: int, depth: int = 1, *, norm: bool) -> nn.Module:
    layers = [nn.Conv2d(3, width, 1) for _ in range(depth)]
    return nn.Sequential(*layers, *([nn.BatchNorm2d(width)] if norm else []))
"""


def refused(target: str, **arguments: object) -> str:
    with pytest.raises(ModelNotLoadedError) as caught:
        load_model(target, arguments)
    return str(caught.value.message)


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("", {"width": 5, "norm": True}),
        ("(width=5, norm=True)", {}),
        ("(5, norm=True)", {}),
        ("(5, 1)", {"norm": True}),
        ("(9, norm=False)", {"norm": True, "width": 5}),
    ],
)
def test_a_factory_gets_its_arguments(call: str, arguments: dict[str, object], write: Write) -> None:
    if call.startswith("(9"):
        assert "multiple values for argument 'width'" in refused(f"{write(FACTORY)}:build{call}", **arguments)
        return
    model = load_model(f"{write(FACTORY)}:build{call}", arguments)
    assert [type(part).__name__ for part in model.children()] == ["Conv2d", "BatchNorm2d"]
    assert model[0].out_channels == 5


def test_arguments_pick_what_takes_them_where_no_name_does(write: Write) -> None:
    assert load_model(str(write(FACTORY)), {"inner": 2, "outer": 7}).out_channels == 7


def test_what_lacks_arguments_is_named_with_a_command_line(write: Write) -> None:
    path = write(FACTORY)
    message = refused(str(path))
    assert "conv3x3 (function) needs inner, outer; build (function) needs width, norm." in message
    assert f"For example: sgdph-convert {path}:conv3x3 --arg inner=VALUE --arg outer=VALUE" in message
    message = refused(f"{path}:build", width=3)
    assert message.endswith(f"For example: sgdph-convert {path}:build --arg width=3 --arg norm=VALUE")


def test_arguments_that_are_not_taken_are_told_with_the_signature(write: Write) -> None:
    message = refused(f"{write(FACTORY)}:build", width=3, norm=True, dept=2)
    assert "takes (width: int, depth: int = 1, *, norm: bool) -> " in message
    assert "unexpected keyword argument 'dept'" in message


def test_a_model_takes_no_arguments(write: Write) -> None:
    path = write("from torch import nn\nnet = nn.ReLU()\n")
    assert "net is a model already (ReLU), so it takes no arguments" in refused(f"{path}:net", width=3)


def test_arguments_reach_the_model_from_the_command_line(write: Write, convert: Convert) -> None:
    path = write(FACTORY)
    by_options = convert(f"{path}:build", "--arg", "width=5", "--arg", "norm=False", "--json")
    by_call = convert(f"{path}:build(width=5, norm=False)", "--json")
    shapes = [json.loads(done.stdout)["plan"]["convolutions"][0]["shape"] for done in (by_options, by_call)]
    assert shapes == [[5, 3, 1, 1]] * 2


def test_a_model_of_timm_is_the_one_that_timm_makes() -> None:
    model = load_model("timm:resnet10t", {"num_classes": 7})
    expected = timm.create_model("resnet10t", pretrained=False, num_classes=7)
    assert [(n, p.shape) for n, p in model.named_parameters()] == [
        (n, p.shape) for n, p in expected.named_parameters()
    ]
    assert type(load_model("timm:create_model('resnet10t', num_classes=2)")) is type(expected)


def test_a_model_of_torchvision_is_the_one_that_torchvision_makes_without_any_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fetch)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fetch)
    model = load_model("torchvision:squeezenet1_1(num_classes=3)")
    assert isinstance(model, torchvision.models.SqueezeNet)
    assert model.classifier[1].out_channels == 3
    # By default a detector fetches weights for its backbone.
    assert isinstance(
        load_model("torchvision:ssdlite320_mobilenet_v3_large"), torchvision.models.detection.ssd.SSD
    )


SMALL = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}


def test_a_model_of_transformers_is_made_from_a_class_a_kind_or_a_file(tmp_path: Path) -> None:
    config = transformers.ResNetConfig(**SMALL)
    (tmp_path / "folder").mkdir()
    config.architectures = ["ResNetForImageClassification"]
    config.save_pretrained(tmp_path / "folder")
    plain = {n: p.shape for n, p in transformers.ResNetModel(config).named_parameters()}
    for name in ("hf:ResNetConfig", "hf:resnet", "hf:ResNetModel"):
        model = load_model(name, SMALL)
        assert {n: p.shape for n, p in model.named_parameters()} == plain
    for place in (tmp_path / "folder", tmp_path / "folder" / "config.json"):
        assert type(load_model(f"hf:{place}")).__name__ == "ResNetForImageClassification"
    assert load_model(f"hf:{tmp_path / 'folder'}", {"num_labels": 6}).config.num_labels == 6


def test_a_model_of_transformers_is_converted_without_a_word_on_its_inputs(convert: Convert) -> None:
    done = convert(
        "hf:ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type='basic')", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["bare"] == 0


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("timm:resnte18", "timm has no model 'resnte18'. The nearest names are resnet18"),
        ("torchvision:vgg", "torchvision has no model 'vgg'. The nearest names are vgg"),
        ("hf:./nothing/there", "failed: "),
        ("transformers:ResNetModel", "A model of transformers is made from its configuration by hf:CLASS"),
    ],
)
def test_a_name_that_a_collection_lacks_is_one_message(
    target: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert words in refused(target)


def test_a_module_of_a_collection_is_still_a_module() -> None:
    assert isinstance(load_model("torchvision.ops:Permute", {"dims": [0, 1]}), nn.Module)
