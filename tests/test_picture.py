"""The picture of small models, worked out by hand from their source."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdph_fx import prepare
from sgdph_fx.picture import Picture


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x).flatten(2).unflatten(2, x.shape[2:])))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.block = Block()
        self.kernel = nn.Parameter(torch.ones(2, 4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        return F.conv2d(x, self.kernel).exp().sqrt().mean()


def picture_of(net: nn.Module, inputs: Tensor | None = None) -> Picture:
    picture = prepare(net, inputs).report.picture
    assert picture is not None
    return picture


def names(picture: Picture) -> list[str]:
    return [part.path or part.label for part in picture.parts]


def flow(picture: Picture) -> set[tuple[str, str]]:
    name = names(picture)
    return {(name[a], name[b]) for a, b in picture.edges}


EDGES = {
    ("input", "stem"),
    ("stem", "block.conv"),
    ("stem", "add"),
    ("block.conv", "flatten"),
    ("flatten", "unflatten"),
    ("unflatten", "block.norm"),
    ("block.norm", "relu"),
    ("relu", "add"),
    ("add", "conv2d"),
    ("kernel", "conv2d"),
    ("conv2d", "3 operations"),
    ("3 operations", "output"),
}


def test_modules_are_parts_and_operations_off_every_way_to_a_norm_are_put_together() -> None:
    # relu and add are of one module, and add follows relu by no other way. flatten and unflatten stand on a way to a
    # norm, so they stay alone. What reads a shape for unflatten is no part.
    picture = picture_of(Net(), torch.zeros(2, 3, 8, 8))
    expected = {tuple("2 operations" if n in ("relu", "add") else n for n in edge) for edge in EDGES}
    assert flow(picture) == expected - {("2 operations", "2 operations")}


def test_each_part_stands_in_its_module_and_names_its_line() -> None:
    picture = picture_of(Net(), torch.zeros(2, 3, 8, 8))
    scope = {part.path or part.label: part.scope for part in picture.parts}
    assert (scope["block.conv"], scope["flatten"], scope["unflatten"]) == ("block", "block", "block")
    assert (scope["stem"], scope["3 operations"], scope["kernel"], scope["input"]) == ("", "", "", "")
    assert dict(picture.modules) == {"": "Net", "block": "Block"}
    (conv,) = (part for part in picture.parts if part.path == "block.conv")
    assert conv.source is not None
    assert conv.source.startswith("tests/test_picture.py:")
    assert (conv.kind, conv.label, conv.shape) == ("convolution", "Conv2d", (2, 4, 6, 6))


def test_symbolic_tracing_gives_the_same_picture_without_shapes() -> None:
    recorded, symbolic = picture_of(Net(), torch.zeros(2, 3, 8, 8)), picture_of(Net())
    assert flow(symbolic) == flow(recorded)
    assert {(p.path, p.scope) for p in symbolic.parts} == {(p.path, p.scope) for p in recorded.parts}
    assert {p.shape for p in symbolic.parts} == {None}


def test_the_way_from_a_convolution_leads_to_its_norm_and_no_further() -> None:
    picture = picture_of(Net(), torch.zeros(2, 3, 8, 8))
    name = names(picture)
    routes = {name[start]: {name[place] for place in route} for start, route in picture.routes.items()}
    assert routes["block.conv"] == {"flatten", "unflatten", "block.norm"}
    # Both uses of the stem's output end its paths: another convolution, and an addition.
    assert routes["stem"] == {"block.conv", "2 operations"}


def test_what_happens_before_the_model_is_its_input() -> None:
    picture = prepare(
        nn.Sequential(nn.Conv2d(3, 2, 1)), lambda net: net(torch.rand(1, 3, 4, 4) * 2)
    ).report.picture
    assert picture is not None
    assert flow(picture) == {("inputs", "0"), ("0", "output")}


def test_a_picture_holds_no_tensor_and_no_module() -> None:
    picture = picture_of(Net())
    values = [value for part in picture.parts for value in (part.kind, part.label, part.path, part.scope)]
    assert {type(value) for value in values} == {str}
