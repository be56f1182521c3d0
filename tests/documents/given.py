"""What a page needs before its first Python block, and what holds after its last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from torch import nn

from sgdph_fx.cli.load import load_model
from sgdph_fx.cli.main import main
from tests.cli.conftest import NET

__all__ = ["AFTER", "ELSEWHERE", "GIVEN", "MODEL_FILE", "YOUR_OWN", "Names"]

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


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(4, 3, 12, 12), torch.tensor([0, 1, 2, 0])) for _ in range(3)]


YOUR_OWN: Mapping[str, Callable[[], Any]] = {
    "net": network,
    "example_inputs": lambda: torch.randn(2, 3, 12, 12),
    "batches": batches,
    "criterion": nn.CrossEntropyLoss,
}
"""Stand-ins for what a fragment calls the reader's own."""


@contextmanager
def converted() -> Iterator[Names]:
    """Run the page's own command, which writes the folder that the page reads back."""
    Path("model.py").write_text(MODEL_FILE, encoding="utf-8")
    done = CliRunner().invoke(main, ["model.py:small", "--input", "1,3,32,32", "--output", "converted"])
    assert done.exit_code == 0, done.output
    yield {"Net": lambda: load_model("model.py")}


GIVEN: Mapping[str, Callable[[], Any]] = {
    "docs/cli.md": converted,
}


def is_restored(names: Names) -> None:
    """The page's own network, one convolution and one linear layer, is plain again."""
    after = names["net"].state_dict()
    assert [*after] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert all(value.isfinite().all() for value in after.values())
    assert not hasattr(names["net"][0], "gain")
    assert names["optimizer"].param_groups[0]["step"] == len(names["batches"])


def is_trained_and_saved(names: Names) -> None:
    """The loss falls, every weight has moved, and the file holds the trained network under the plain one's keys."""
    losses = names["losses"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
    before, after = names["net"].state_dict(), names["trained"].state_dict()
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[key], after[key]) for key in before)
    torch.testing.assert_close(torch.load("trained.pt", weights_only=True), dict(after))


def is_drawn(names: Names) -> None:
    assert {row.name for row in names["found"].rows} >= {"3.bias", "0.gain"}
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
    "docs/quickstart.md": is_trained_and_saved,
}
"""Checks for pages without assertions of their own. What they expect follows from what the page says."""
