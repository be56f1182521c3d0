"""Biases that only layer norms read, by torch's own Hessian: its rows sum to zero there, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models import VisionTransformer

from sgdph_fx import analyze
from sgdph_fx.analysis.flow import flow_of
from sgdph_fx.analysis.shift_biases import shifts
from sgdph_fx.trace.read import read_model
from tests.forwards import Written


class Residual(nn.Module):
    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def mlp(*behind: nn.Module) -> nn.Module:
    """Embed, one pre-norm block, norm, head; ``behind`` stands behind the block's second layer."""
    block = Residual(nn.LayerNorm(4), nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4), *behind)
    return nn.Sequential(nn.Linear(3, 4), block, nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2))


def images(*behind: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *behind, nn.Flatten(), nn.LazyLinear(2))


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.5, 2.0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def shared() -> nn.Module:
    """A layer whose bias a layer norm reads once, and GELU once."""
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), layer, nn.LayerNorm(4), nn.GELU(), layer, nn.GELU())


def vision_transformer() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=4, mlp_dim=6, num_classes=3
    )
    nn.init.normal_(model.heads.head.weight)  # type: ignore[union-attr, arg-type]
    return model


VECTORS, SQUARES = (5, 3), (5, 3, 8, 8)
MODELS: Mapping[str, tuple[nn.Module, tuple[int, ...], set[str]]] = {
    "a block": (mlp(), VECTORS, {"0.bias", "1.branch.3.bias"}),
    "dropout of nothing": (mlp(nn.Dropout(0.0)), VECTORS, {"0.bias", "1.branch.3.bias"}),
    "a LayerScale behind": (mlp(Scale()), VECTORS, {"0.bias"}),
    "an activation behind": (mlp(nn.Tanh()), VECTORS, {"0.bias"}),
    "an RMS norm": (nn.Sequential(nn.Linear(3, 4), nn.RMSNorm(4), nn.Linear(4, 2)), VECTORS, set()),
    "a group norm": (images(nn.GroupNorm(2, 4), nn.GELU()), SQUARES, {"0.bias"}),
    "a padded map": (images(nn.ZeroPad2d(1), nn.GroupNorm(2, 4), nn.GELU()), SQUARES, set()),
    "used by two": (shared(), VECTORS, set()),
    "a skip to the end": (
        nn.Sequential(nn.Linear(3, 4), Residual(nn.LayerNorm(4), nn.GELU())),
        VECTORS,
        set(),
    ),
    "a vision transformer": (
        vision_transformer(),
        SQUARES,
        {
            f"encoder.layers.encoder_layer_{n}.{leaf}"
            for n in range(2)
            for leaf in ("self_attention.out_proj.bias", "mlp.3.bias")
        },
    ),
}


@pytest.mark.parametrize(("model", "shape", "wanted"), MODELS.values(), ids=MODELS.keys())
def test_they_are_found_and_their_rows_sum_to_zero(
    model: nn.Module, shape: tuple[int, ...], wanted: set[str]
) -> None:
    model, x = model.double(), torch.randn(shape, dtype=torch.float64)
    model(x)
    found = read_model(model, x, lambda reading: set(shifts(flow_of(reading.traces[0], model))))
    assert found == wanted
    for name, parameter in model.named_parameters():
        if name in found or ("bias" in name and _is_near_miss(name, model)):
            block = _block(model, x, name, parameter)
            sums = block.sum(1).abs().max() / block.abs().max()
            assert (sums < 1e-9) == (name in found), name


def _is_near_miss(name: str, model: nn.Module) -> bool:
    """The bias of a layer that the table names for what stands behind it."""
    layer = model.get_submodule(name.rpartition(".")[0])
    return isinstance(layer, nn.Linear | nn.Conv2d) and not isinstance(model, VisionTransformer)


def _block(model: nn.Module, x: Tensor, name: str, parameter: Tensor) -> Tensor:
    target = torch.arange(len(x)) % 2

    def loss(value: Tensor) -> Tensor:
        out = functional_call(model, {name: value}, (x,))
        return (out.sin() + out.square()).flatten(1)[:, :2].gather(1, target[:, None]).sum()

    with sdpa_kernel(SDPBackend.MATH):
        return hessian(loss)(parameter.detach())


def test_a_bias_that_the_model_reads_itself_is_none_of_them() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    reading_it = Written(lambda m, x: m.body(x) + m.body[0].bias.sum(), body=model)
    assert _codes(model) == {"0.bias"}
    assert _codes(reading_it) == set()


def test_it_is_one_hint_for_those_of_order_2() -> None:
    model, x = timm.create_model("test_vit"), torch.randn(2, 3, 160, 160)
    hints = [hint for hint in analyze(model, x).hints if hint.code == "shift-bias"]
    assert [hint.where for hint in hints] == ["blocks.0.attn.proj.bias"]
    assert "12 biases" in hints[0].message  # two in each of six blocks
    assert not [hint for hint in analyze(timm.create_model("resnet18")).hints if hint.code == "shift-bias"]


def _codes(model: nn.Module) -> set[str]:
    hints = analyze(model, torch.randn(VECTORS)).hints
    return {hint.where for hint in hints if hint.code == "shift-bias"}
