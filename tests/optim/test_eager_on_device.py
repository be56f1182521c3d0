"""Eager steps that a device decides: the host's numbers, nothing read, few operations, what is skipped counted later.

The CPU stands in for the device, or ``FakeTensorMode``, which computes no numbers but knows devices.
"""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.curvature.precision import widest_float
from sgdph_fx.optim import SGDPH, device_step, masked_update, stepping
from sgdph_fx.optim.hessian.estimate import HessianEstimate
from tests.optim.test_capturable import OPTIONS, poisoned, take_spoiled_step, train
from tests.torch_versions import fake_gpus_compute

CPU = torch.device("cpu")


@pytest.fixture
def by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU decide, as a GPU would."""
    monkeypatch.setattr(stepping, "deciding_device", lambda present, groups, *, alone: CPU)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_steps_are_those_of_the_host(
    small: Any, make_batches: Any, make_groups: Any, name: str, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = torch.float64 if double else torch.float32
    data = [(x.to(dtype), y) for x, y in make_batches(20)]
    found = []
    for place in (None, CPU):
        monkeypatch.setattr(stepping, "deciding_device", lambda present, groups, *, alone, place=place: place)
        net = small().to(dtype)
        found.append(train(net, SGDPH(make_groups(net), **{"lr": 0.05, **OPTIONS[name]}), data))
    torch.testing.assert_close(
        found[1], found[0], rtol=1e-10 if double else 1e-3, atol=1e-12 if double else 1e-5
    )


@pytest.mark.parametrize("interval", [1, 4, 100])
@pytest.mark.parametrize("probe", ["ones", "rademacher", "rademacher-4", "exact", "gradient"])
@pytest.mark.usefixtures("by_device")
def test_the_host_reads_nothing_at_a_refresh_or_between(
    small: Any, make_batches: Any, make_groups: Any, probe: Any, interval: int
) -> None:
    net = small().float()
    optimizer = SGDPH(make_groups(net), 0.05, probe=probe, hessian_interval=interval, weight_decay=0.01)
    train(net, optimizer, [(x.float(), y) for x, y in make_batches(12)], watched=True)
    assert optimizer.statistics()["step"] == 12


class Operations(TorchDispatchMode):
    """Counts what torch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if not name.startswith("_record_function"):  # for the profiler
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("by_device")
def test_a_step_between_refreshes_asks_for_little_more_than_sgds(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    """Groups that agree step together, so that the number of groups and parameters does not matter."""
    (batch,) = [(x.float(), y) for x, y in make_batches(1)]
    counts = []
    for many in (False, True):
        net = small().float()
        groups = make_groups(net)
        if many:
            groups = [
                {"params": [named], "index": [i], "order": group["order"]}
                for group in groups
                for i, named in zip(group["index"], group["params"], strict=True)
            ]
        optimizer = SGDPH(groups, 0.05, hessian_interval=100, weight_decay=0.01)
        train(net, optimizer, [batch] * 2)
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        with Operations() as seen:
            optimizer.step()
        counts.append(seen.found)
    assert counts[0] == counts[1]
    # First-order, M^G, and the parameters; M^H + ε, the quotient, and τ_SO; the look for what is not finite; the count.
    assert counts[0] == {
        "_fused_sgd_": 3,
        **dict.fromkeys(("_foreach_add", "_foreach_div", "_foreach_mul_"), 1),
        **dict.fromkeys(("_foreach_norm", "stack", "linalg_vector_norm", "lt", "logical_not", "_to_copy"), 1),
        **dict.fromkeys(("select", "add_"), 1),
    }


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.usefixtures("by_device")
def test_a_step_that_is_skipped_writes_nothing_and_is_told_without_being_asked(
    small: Any, make_batches: Any, make_groups: Any, where: str
) -> None:
    net = small().float()
    data = [(x.float(), y) for x, y in make_batches(30)]
    optimizer = SGDPH(make_groups(net), 0.05, weight_decay=0.1)
    train(net, optimizer, data[:3])
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()["state"]))
    take_spoiled_step(net, optimizer, data[3], where)
    torch.testing.assert_close(dict(net.state_dict()), dict(before[0]), rtol=0, atol=0)
    optimizer_state = {p: dict(own) for p, own in optimizer.state.items()}
    kept = dict(zip(optimizer_state, before[1].values(), strict=True))
    torch.testing.assert_close(list(optimizer_state.values()), list(kept.values()), rtol=0, atol=0)
    with pytest.warns(RuntimeWarning, match="The loss or a gradient is not finite"):
        train(net, optimizer, data[4:])
    assert (optimizer.steps_skipped, optimizer.refreshes_skipped) == (1, 0)
    assert optimizer.statistics()["step"] == 30


@pytest.mark.usefixtures("by_device")
def test_what_was_counted_on_the_device_is_in_every_copy(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small().float()
    (batch,) = [(x.float(), y) for x, y in make_batches(1)]
    optimizer = SGDPH(make_groups(net), 0.05)
    train(net, optimizer, [poisoned(batch)] * 2)
    with pytest.warns(RuntimeWarning, match="skipped"):
        copied = copy.deepcopy(optimizer)
    assert (copied.steps_skipped, optimizer.steps_skipped) == (2, 2)


@pytest.mark.usefixtures("by_device")
def test_what_eager_steps_counted_is_kept_by_steps_that_can_be_captured(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small().float()
    batch, other = [(x.float(), y) for x, y in make_batches(2)]
    optimizer = SGDPH(make_groups(net), 0.05)
    train(net, optimizer, [batch, poisoned(batch), other])
    optimizer._make_capturable()
    with pytest.warns(RuntimeWarning, match="skipped"):
        train(net, optimizer, [batch, poisoned(batch)])
    assert (optimizer.steps_skipped, optimizer.statistics()["step"]) == (2, 5)
    assert all(type(group["steps_skipped"]) is int for group in optimizer.state_dict()["param_groups"])


class _Kernels(TorchDispatchMode):
    """torch fakes no fused kernel: what CUDA's asks of its arguments is asked here."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ != "_fused_sgd_":
            return func(*args, **(kwargs or {}))
        self.calls += 1
        params, grads, momenta = args
        found: Tensor = kwargs["found_inf"]
        assert (found.device.type, found.dtype, found.numel()) == ("cuda", torch.float32, 1)
        assert (kwargs["momentum"] > 0) == bool(momenta)
        for tensors in zip(params, grads, *([momenta] if momenta else []), strict=True):
            assert len({(t.dtype, t.shape, t.stride(), t.device.type) for t in tensors}) == 1
        return None


@pytest.mark.skipif(not fake_gpus_compute(), reason="this torch asks for a driver of the fake GPU")
@pytest.mark.parametrize("due", [False, True])
@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, {"weight_decay": 0.1}, {"momentum": 0.0}])
def test_on_a_gpu_that_is_not_there_the_step_asks_for_no_number(options: Any, due: bool) -> None:
    with FakeTensorMode(), _Kernels() as kernels:
        shapes = ((4, 3, 1, 1), (4,), (4,), (2, 4), (2,))
        params = [nn.Parameter(torch.empty(shape, device="cuda")) for shape in shapes]
        groups = [
            {"params": [p for p in params if p.dim() == d], "order": d and 3 - min(d, 2)} for d in (1, 2)
        ]
        groups[1]["params"].append(params[0])
        optimizer = SGDPH(groups, 0.1, hessian_interval=1 if due else 2, **options)
        for _ in range(2):
            for p in params:
                p.grad = torch.empty_like(p)
            refreshed = optimizer.due
            found = () if refreshed is None else (refreshed,)
            optimizer._estimate = HessianEstimate(
                found, tuple(torch.empty_like(p) for p in found), (torch.empty((), device="cuda"),)
            )
            optimizer.step()
        assert kernels.calls > 0
        with pytest.raises(DataDependentOutputException):
            _ = optimizer.steps_skipped


class AsOnApples(TorchDispatchMode):
    """What Apple's devices refuse: float64, and torch's fused kernel of SGD with a flag that says whether to step."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "_fused_sgd_" and (kwargs or {}).get("found_inf") is not None:
            raise RuntimeError("grad_scale and found_inf are not supported on MPS")
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor) and found.dtype is torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        return found


@pytest.mark.parametrize("options", [{}, {"variant": "paper", "weight_decay": 0.1}, {"blocks": "affine"}])
@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.usefixtures("by_device")
def test_on_apples_devices_steps_ask_for_what_these_have(
    small: Any,
    make_batches: Any,
    make_groups: Any,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    capturable: bool,
) -> None:
    monkeypatch.setattr(device_step, "widest_float", lambda device: widest_float(torch.device("mps")))
    monkeypatch.setattr(masked_update, "_FUSED_ON", masked_update._FUSED_ON - {"cpu"})
    assert "mps" not in masked_update._FUSED_ON
    data = [(x.float(), y) for x, y in make_batches(10)]
    found = []
    for mode in (nullcontext(), AsOnApples()):
        net = small().float()
        optimizer = SGDPH(make_groups(net), 0.05, capturable=capturable, **options)
        with mode:
            train(net, optimizer, data)
        found.append([p.detach() for p in net.parameters()])
        assert optimizer.statistics()["step"] == 10
    torch.testing.assert_close(*found)
