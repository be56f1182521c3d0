"""Whole products on tensors of a GPU that is not there: a read by the host, or a tensor on another device, is an error.

``FakeTensorMode`` computes shapes, dtypes and devices, and no numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional as F
from torch.torch_version import TorchVersion

from experiments.networks import build
from sgdph_fx.curvature.forward_over_reverse import backward_with_product, coverage
from tests.curvature.by_hand import product_by_hand
from tests.curvature.networks import IMAGES, LABELS, NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")

# Before 2.10, autograd asks the driver for a stream and ends the process where there is none.
needs_driver: Any = pytest.mark.gpu if TorchVersion(torch.__version__) < (2, 10) else lambda test: test


def on_fake_gpu(net: nn.Module) -> nn.Module:
    """The same module, its tensors replaced; to be called under ``FakeTensorMode``."""
    for module in net.modules():
        for tensors in (module._parameters, module._buffers):
            for name, t in tensors.items():
                if t is not None:
                    fake = torch.empty(t.shape, dtype=t.dtype, device="cuda")
                    tensors[name] = nn.Parameter(fake) if tensors is module._parameters else fake
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_by_hand_the_product_is_the_same(name: str) -> None:
    torch.manual_seed(0)
    net = NETWORKS[name]().double()
    p = next(p for p in net.parameters() if p.dim() == 1)
    v = torch.randn_like(p)
    expected = backward_with_product(F.cross_entropy(net(IMAGES.double()), LABELS), p, v)
    found = product_by_hand(F.cross_entropy(net(IMAGES.double()), LABELS), p, v)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)


# torch fakes no fused GRU cell.
@needs_driver
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"cells"}))
def test_a_product_asks_the_host_for_nothing(
    monkeypatch: pytest.MonkeyPatch, name: str, autocast: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    torch.manual_seed(0)
    net = NETWORKS[name]()
    with FakeTensorMode():
        net = on_fake_gpu(net)
        images, labels = (torch.empty(t.shape, dtype=t.dtype, device="cuda") for t in (IMAGES, LABELS))
        with torch.autocast("cuda", autocast or torch.float16, enabled=autocast is not None):
            logits = net(images)
            loss = F.cross_entropy(logits, labels)
        assert logits.dtype is (autocast or torch.float32)
        p = next(p for p in net.parameters() if p.dim() == 1)
        found = product_by_hand(loss, p, torch.ones_like(p))
        assert found is not None
        assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.float32, p.shape)
        assert coverage(loss, p).fallbacks == {}


@needs_driver
def test_batch_norm_is_cudnns() -> None:
    with FakeTensorMode():
        net = on_fake_gpu(build("resnet18", width=4))
        loss = net(torch.empty(2, 3, 32, 32, device="cuda")).sum()
        assert coverage(loss).own_rule["CudnnBatchNormBackward0"] == 20


HEADS = (2, 2, 16, 8)


def _attention(kernel: str, *given: Any) -> Callable[..., Tensor]:
    call: Any = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention")
    return lambda q, k, v: call(q, k, v, *given)[0]


@needs_driver
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    "attend",
    [
        _attention("flash"),
        _attention("flash", 0.0, True),
        _attention("efficient", None, True),
        _attention("cudnn", None, True),
    ],
)
def test_fused_attention_in_halves_multiplies_halves(
    attend: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    with FakeTensorMode():
        p = torch.ones(8, device="cuda", requires_grad=True)
        q, k, v = (torch.empty(HEADS, device="cuda") for _ in range(3))
        out = attend(*((t * p).to(dtype) for t in (q, k, v)))
        with _Products() as products:
            found = product_by_hand(out.float().square().sum(), p, torch.ones_like(p))
        assert found is not None
        assert products.dtypes == {dtype}


class _Products(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the dtypes of the factors of all products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("mm", "bmm", "baddbmm", "baddbmm_", "addmm_"):
            self.dtypes |= {t.dtype for t in args if isinstance(t, Tensor) and t.dim() == 3}
        return func(*args, **(kwargs or {}))


def test_a_rule_that_reads_a_number_would_be_seen() -> None:
    with FakeTensorMode():
        x = torch.ones(3, device="cuda")
        with pytest.raises(DataDependentOutputException):
            bool(x.sum() > 0)
        with pytest.raises(RuntimeError, match=r"device"):
            x * torch.ones(3)
