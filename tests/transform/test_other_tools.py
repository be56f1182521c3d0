"""Other tools on a decoupled convolution: they work, or are refused by one clear error that says `restore`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, parametrize, prune, spectral_norm, weight_norm

from sgdph_fx import prepare, restore
from sgdph_fx.errors import ModelError
from tests.trace.states import state_of

X = torch.rand(1, 3, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore")


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))


def for_training(model: nn.Module) -> nn.Module:
    model.train()
    model.qconfig = quantization.get_default_qat_qconfig()
    return quantization.prepare_qat(model)


def after_training(model: nn.Module) -> nn.Module:
    model.eval()
    model.qconfig = quantization.get_default_qconfig()
    return quantization.convert(quantization.prepare(model))


def by_fx(model: nn.Module) -> nn.Module:
    return quantize_fx.prepare_fx(model.eval(), quantization.get_default_qconfig_mapping(), (X,))


def fused(model: nn.Module) -> nn.Module:
    return quantization.fuse_modules(model.eval(), [["0", "1"]])


def fused_for_training(model: nn.Module) -> nn.Module:
    return quantization.fuse_modules_qat(model.train(), [["0", "1"]])


def globally(model: nn.Module) -> None:
    prune.global_unstructured([(model[0], "weight")], prune.L1Unstructured, amount=0.5)


TOOLS: dict[str, Callable[[Any], Any]] = {
    "torch.jit.script": torch.jit.script,
    "prune, unstructured": lambda m: prune.l1_unstructured(m[0], "weight", 0.5),
    "prune, structured": lambda m: prune.ln_structured(m[0], "weight", 0.5, 2, 0),
    "prune, globally": globally,
    "prune, identity": lambda m: prune.identity(m[0], "weight"),
    "weight_norm": lambda m: weight_norm(m[0]),
    "spectral_norm": lambda m: spectral_norm(m[0]),
    "weight_norm, parametrized": lambda m: parametrizations.weight_norm(m[0]),
    "spectral_norm, parametrized": lambda m: parametrizations.spectral_norm(m[0]),
    "orthogonal": lambda m: parametrizations.orthogonal(m[0]),
    "parametrization": lambda m: parametrize.register_parametrization(m[0], "weight", Doubled()),
    "quantization-aware training": for_training,
    "quantization": after_training,
    "quantization by fx": by_fx,
    "fusing for quantization": fused,
    "fusing for quantization-aware training": fused_for_training,
    "register_parameter": lambda m: m[0].register_parameter("weight", nn.Parameter(torch.zeros(1))),
    "its weight as a parameter": lambda m: m.register_parameter("own", m[0].weight),
    "delattr": lambda m: delattr(m[0], "weight"),
    "_parameters": lambda m: m[0]._parameters["weight"],
}


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS)
def test_a_tool_that_takes_the_weight_apart(tool: Callable[[Any], Any]) -> None:
    model = prepare(net()).model
    state = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises((ModelError, TypeError), match=r"`restore\(model\)` first|cannot assign"):
        tool(model)
    assert {name: id(p) for name, p in model[0].named_parameters()}.keys() == {"direction", "gain", "bias"}
    assert all(torch.equal(p, state[name]) for name, p in model.named_parameters())
    assert torch.equal(restore(model)[0].weight, model[0].weight)
    tool_on_plain = restore(model)
    if "register" not in str(tool) and tool not in (
        TOOLS["its weight as a parameter"],
        TOOLS["register_parameter"],
    ):
        tool(tool_on_plain)


@pytest.mark.parametrize("read", [torch.from_dlpack, np.from_dlpack])
def test_another_library_gets_a_copy_and_not_the_computed_weight(read: Callable[[Any], Any]) -> None:
    model = prepare(net()).model
    for weight in (model[0].weight.detach(), model[0].weight.data):
        with pytest.raises(ModelError, match=r"Hand over a copy, `module\.weight\.detach\(\)\.clone\(\)`"):
            read(weight)
    assert read(model[0].weight.detach().clone()).shape == (4, 3, 3, 3)


def test_what_is_no_weight_is_not_assigned() -> None:
    model = prepare(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    ).model
    before = state_of(model)
    with pytest.raises(ModelError, match=r"was given a NoneType.*`restore\(model\)` first"):
        model[0].weight = None
    with pytest.raises(ModelError, match=r"was given that of another module.*Tie them in the plain model"):
        model[3].weight = model[2].weight
    with pytest.raises(ModelError, match=r"was given the shape \(4, 4, 1, 1\)"):
        model[2].weight = torch.zeros(4, 4, 1, 1)
    assert state_of(model) == before
    model[3].weight = model[2].weight.detach().clone()
    torch.testing.assert_close(model[3].weight, model[2].weight)


def test_a_batch_norm_is_folded_into_a_decoupled_convolution() -> None:
    conv, norm = prepare(nn.Conv2d(3, 4, 3).double()).model.eval(), nn.BatchNorm2d(4).double()
    norm(conv(X.double()))
    nn.init.uniform_(norm.weight)
    norm.eval()
    fused = fuse_conv_bn_eval(conv, norm)
    torch.testing.assert_close(fused(X.double()), norm(conv(X.double())), rtol=1e-12, atol=1e-14)


def test_tracing_works() -> None:
    model = prepare(net()).model
    assert torch.equal(torch.jit.trace(model, X)(X), model(X))
    assert torch.equal(torch.fx.symbolic_trace(model)(X), model(X))


def test_pruning_a_direction_has_to_be_taken_back_before_restoring() -> None:
    model = prepare(net()).model
    prune.l1_unstructured(model[0], "direction", 0.5)
    before = state_of(model)
    with pytest.raises(ModelError, match="pruning replaced it"):
        restore(model, inplace=True)
    assert state_of(model) == before
    prune.remove(model[0], "direction")
    assert float((restore(model)[0].weight == 0).float().mean()) == 0.5
