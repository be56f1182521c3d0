"""What a page takes as given before its first Python block, and what holds after its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from click.testing import CliRunner
from torch import nn

from sgdph_fx.cli.load import load_model
from sgdph_fx.cli.main import main
from tests.cli.conftest import NET

__all__ = ["AFTER", "ELSEWHERE", "GIVEN", "MODEL_FILE", "Names"]

Names = dict[str, Any]
MODEL_FILE = NET + "\n\nsmall = Net\n"

# Pages whose blocks do not run in this process: where they do, and why.
ELSEWHERE: Mapping[str, tuple[str, str]] = {
    "docs/distributed.md": (
        "tests/distributed/test_documented.py",
        "they are one script for two processes, which torchrun starts",
    ),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)),
    )


def batches(size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(4, 3, size, size), torch.tensor([0, 1, 2, 0])) for _ in range(3)]


@contextmanager
def in_place_of_vgg11() -> Iterator[Names]:
    """The real one takes 4 GB to train; that it is prepared as the README says is tested beside its report."""
    with mock.patch("torchvision.models.vgg11", network):
        yield {"batches": batches(224), "untrained": network()}


@contextmanager
def a_batch() -> Iterator[Names]:
    images, labels = batches(12)[0]
    yield {"net": network(), "torch": torch, "images": images, "labels": labels}


@contextmanager
def converted() -> Iterator[Names]:
    """The page's own command wrote the folder that is read back."""
    Path("model.py").write_text(MODEL_FILE, encoding="utf-8")
    done = CliRunner().invoke(main, ["model.py:small", "--input", "1,3,32,32", "--output", "converted"])
    assert done.exit_code == 0, done.output
    yield {"Net": lambda: load_model("model.py")}


GIVEN: Mapping[str, Callable[[], Any]] = {
    "docs/cli.md": converted,
    "docs/curvature.md": a_batch,
    "docs/quickstart.md": in_place_of_vgg11,
}


def is_plain_and_trained(names: Names) -> None:
    before, after = names["untrained"].state_dict(), names["net"].state_dict()
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[key], after[key]) for key in before if key.endswith("weight"))
    assert all(value.isfinite().all() for value in after.values())


def is_restored(names: Names) -> None:
    """The page's own network: one convolution and one linear layer, plain again."""
    after = names["net"].state_dict()
    assert [*after] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert all(value.isfinite().all() for value in after.values())
    assert not hasattr(names["net"][0], "gain")
    assert names["optimizer"].param_groups[0]["step"] == len(names["batches"])


def is_saved(names: Names) -> None:
    is_plain_and_trained(names)
    saved = torch.load("trained.pt", weights_only=True)
    torch.testing.assert_close(saved, dict(names["net"].state_dict()))


def is_drawn(names: Names) -> None:
    assert {row.name for row in names["found"].rows} >= {"3.weight", "3.bias", "0.gain"}
    assert Path("audit.png").read_bytes().startswith(b"\x89PNG")


def is_read_back(names: Names) -> None:
    torch.manual_seed(0)
    plain, x = load_model("model.py").eval(), torch.randn(2, 3, 8, 8)
    assert names["model"].head.gain.shape == (3,)
    torch.testing.assert_close(names["model"].eval()(x), plain(x))
    assert '"$defs"' in names["schema"]


AFTER: Mapping[str, Callable[[Names], None]] = {
    "README.md": is_restored,
    "docs/cli.md": is_read_back,
    "docs/curvature.md": is_drawn,
    "docs/index.md": is_restored,
    "docs/quickstart.md": is_saved,
}
"""Pages without assertions of their own; what follows from each is derived from what the page says."""
