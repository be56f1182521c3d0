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
