"""`torch.export` and ONNX Runtime compute the same with what comes back from `restore`, a plain model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.vgg import VGG, make_layers

from sgdph_fx import SGDPH, prepare, restore

IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def narrow_vgg19() -> nn.Module:
    """VGG-19's layers and pools at an eighth of their widths, without normalization."""
    widths = (*(8, 8, "M", 16, 16, "M"), *(32,) * 4, "M", *(64,) * 4, "M", *(64,) * 4, "M")
    features = make_layers([*widths], batch_norm=False)
    net = VGG(features, init_weights=False)
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Linear(64, 10)
    return net


class Backbone(nn.Module):
    """A detector's pyramid over ResNet-18; its lateral and output convolutions are bare."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _resnet_fpn_extractor(resnet18(weights=None), trainable_layers=5)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.body(x).values())


def trained(net: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    model, groups, report = prepare(net, IMAGES)
    assert report.plan.decoupled
    optimizer = SGDPH(groups, lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        outputs = model(IMAGES)
        found = outputs if isinstance(outputs, list) else [outputs]
        optimizer.backward(torch.stack([output.square().mean() for output in found]).sum())
        optimizer.step()
    return restore(model).eval()


@pytest.mark.parametrize("build", [narrow_vgg19, Backbone])
def test_a_trained_and_restored_model_is_exported(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    net = trained(build())
    with torch.no_grad():
        expected = net(IMAGES)
    expected = expected if isinstance(expected, list) else [expected]

    program = torch.export.export(net, (IMAGES,))
    exported = program.module()(IMAGES)
    torch.testing.assert_close(exported if isinstance(exported, list) else [exported], expected)
    assert set(program.state_dict) == set(net.state_dict())

    file = tmp_path / "net.onnx"
    torch.onnx.export(program, (IMAGES,), file, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    assert len(found) == len(expected)
    for mine, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, wanted.numpy(), rtol=1e-3, atol=1e-5)


def test_a_trace_of_a_prepared_model_goes_into_onnx_as_well(tmp_path: Path) -> None:
    """By the exporter that came first, which many still call."""
    net = prepare(narrow_vgg19()).model.eval()
    file = tmp_path / "net.onnx"
    torch.onnx.export(net, (IMAGES,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    np.testing.assert_allclose(found, net(IMAGES).detach().numpy(), rtol=1e-3, atol=1e-5)
