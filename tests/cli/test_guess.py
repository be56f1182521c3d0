"""Without --input, a model that cannot be traced is run on inputs guessed from what it says of itself."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from sgdph_fx.cli.main import main

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d({channels}, 4, 3)

    def forward(self, x):
        if x.shape[2:] != torch.Size({sizes}):
            raise ValueError("wrong size")
        return self.conv(x) if x.sum() > 0 else self.conv(-x)

net = Net()
{more}
"""


def run(folder: Path, channels: int, sizes: str, more: str = "") -> tuple[int, str, str]:
    file = folder / "model.py"
    file.write_text(MODEL.format(channels=channels, sizes=sizes, more=more))
    result = CliRunner().invoke(main, [f"{file}:net"])
    return result.exit_code, result.stdout, result.stderr


def test_from_the_first_convolution(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, 5, "[32, 32]")
    assert code == 0
    assert "2×5×32×32, from the channels of the first convolution" in err
    assert "1 of 1 convolution was decoupled" in out
    assert "recorded" in out


def test_from_pretrained_cfg(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, 3, "[40, 48]", "net.pretrained_cfg = {'input_size': (3, 40, 48)}")
    assert code == 0
    assert "2×3×40×48, from the model's pretrained_cfg" in err


def test_nothing_fits(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, 3, "[41, 41]")
    assert (code, out) == (4, "")
    assert "does not run on guessed inputs either" in err
    assert "--input" in err


def test_a_real_detector(tmp_path: Path) -> None:
    file = tmp_path / "detector.py"
    file.write_text(
        "from torchvision.models.detection import ssdlite320_mobilenet_v3_large\n"
        "net = ssdlite320_mobilenet_v3_large(weights_backbone=None)\n"
    )
    result = CliRunner().invoke(main, [f"{file}:net"])
    assert result.exit_code == 0, result.stderr
    assert "two images and targets for them, from the arguments of torchvision's detectors" in result.stderr


TWO = """
import torch
from torch import nn

class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.{conv}

    def forward(self, {parameters}):
        return self.conv({first}) if {first}.sum() > 0 else self.conv(-{first})

net = {name}()
"""


def two(folder: Path, conv: str, parameters: str, first: str, *arguments: str) -> tuple[int, str]:
    file = folder / "model.py"
    file.write_text(TWO.format(name="Two", conv=conv, parameters=parameters, first=first))
    result = CliRunner().invoke(main, [f"{file}:net", *arguments])
    return result.exit_code, result.stderr


def test_an_argument_that_has_to_be_named_is_named(tmp_path: Path) -> None:
    code, err = two(tmp_path, "Conv2d(3, 4, 1)", "*, pixel_values", "pixel_values")
    assert code == 0, err
    assert "2×3×224×224, from the channels of the first convolution" in err
    code, err = two(
        tmp_path, "Conv2d(3, 4, 1)", "*, pixel_values", "pixel_values", "--input", "pixel_values=1,3,8,8"
    )
    assert code == 0, err


def test_a_model_of_two_inputs_says_what_it_takes_and_takes_it(tmp_path: Path) -> None:
    code, err = two(tmp_path, "Conv2d(3, 4, 1)", "images, times", "images")
    assert code == 4
    words = " ".join(err.split())
    assert "Its forward takes (images, times), as in: sgdph-convert " in words
    assert "--input images=SHAPE --input times=SHAPE." in words
    for given in (("images=2,3,8,8", "times=2"), ("2,3,8,8", "2"), ("times=2:int64", "2,3,8,8")):
        code, err = two(
            tmp_path,
            "Conv2d(3, 4, 1)",
            "images, times",
            "images",
            *(w for g in given for w in ("--input", g)),
        )
        assert code == 0, err


def test_a_generator_is_tried_on_small_inputs_first(tmp_path: Path) -> None:
    code, err = two(tmp_path, "ConvTranspose2d(64, 4, 4)", "latent", "latent")
    assert (code, "2×64×1×1" in err) == (0, True)
    code, err = two(tmp_path, "Conv2d(64, 4, 1)", "latent", "latent")
    assert (code, "2×64×8×8" in err) == (0, True)


def test_a_model_of_tokens_is_tried_on_tokens(tmp_path: Path) -> None:
    code, err = two(tmp_path, "Embedding(9, 4)", "tokens", "tokens")
    assert (code, "token numbers of shape 2×16, from the first embedding" in err) == (0, True)
