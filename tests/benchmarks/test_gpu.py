"""The benchmark for GPUs, run on a CPU with narrow networks: which steps are measured, and how they are summed up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from click.testing import CliRunner
from torch import Tensor
from torch._C._autograd import DeviceType

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import measure as measure_module
from benchmarks.gpu.loops import LOOPS, Loop, LoopKind
from benchmarks.gpu.measure import measure, summed
from benchmarks.gpu.results import Result, markdown, read_results
from benchmarks.gpu.workloads import WORKLOADS, Workload
from experiments.networks import build
from sgdph_fx import SGDPH

CPU = torch.device("cpu")
NARROW = {
    "resnet18": Workload(lambda: build("resnet18", width=2), 4, 32, 10),
    "vit": Workload(
        lambda: torchvision.models.VisionTransformer(32, 16, 1, 2, 8, 16, num_classes=5), 4, 32, 5, False
    ),
}


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "WORKLOADS", {**WORKLOADS, **NARROW})


def run(file: Path, *arguments: str) -> Any:
    done = CliRunner().invoke(
        command.main,
        ["--device", "cpu", "--sample", "1", "--rounds", "1", "--out", str(file), *arguments],
    )
    assert done.exit_code == 0, done.output
    return done


def test_the_command_appends_json_and_prints_a_table(tmp_path: Path) -> None:
    file = tmp_path / "made" / "gpu.jsonl"
    done = run(file, "--network", "resnet18", "--network", "vit")
    results = read_results(file)
    each = ["SGD, eager", "SGD, captured", "SGD-PH, eager", "SGD-PH, every 10th step, eager"]
    each += ["SGD-PH, captured", "SGD-PH, every 10th step, captured"]
    assert [(r.network, r.name) for r in results] == [(n, name) for n in NARROW for name in each]
    assert all(r.milliseconds > 0 and r.megabytes is None for r in results)
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| resnet18", "| vit"))]
    assert len(rows) == 12
    assert [cell.strip() for cell in rows[0].split("|")][4:6] == ["1.00", "1.00"]
    assert "Not measured" not in done.output


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
def test_other_optimizers_are_measured_where_they_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "gpu.jsonl"
    run(file, "--network", "vit", "--what", "adamw", "--what", "adahessian")
    assert [r.name for r in read_results(file)] == ["AdamW, eager", "AdaHessian, eager"]


def test_what_fails_or_comes_too_late_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> Loop:
        raise RuntimeError("no such kernel\nand more")

    broken = [LOOPS[0], LoopKind("SGD-PH", "eager", fails, "main")]
    monkeypatch.setattr(command, "LOOPS", broken)
    file = tmp_path / "gpu.jsonl"
    done = run(file, "--network", "resnet18")
    assert "Not measured: resnet18, SGD-PH, eager: no such kernel\n" in done.output
    assert [r.optimizer for r in read_results(file)] == ["SGD"]
    late = run(file, "--network", "resnet18", "--seconds", "0")
    assert "Not measured: resnet18, SGD, eager: no time left\n" in late.output
    assert read_results(file) == []


def test_what_was_measured_before_something_failed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of any kind, in the second half of a loop's measurement: the first half and other loops stay."""
    peak = measure_module._peak

    def fails(loop: Loop, device: torch.device, blocks: Any, captured: bool) -> float | None:
        if len(blocks[0]) == 10:
            raise AssertionError("of a compiler")
        return peak(loop, device, blocks, captured)

    monkeypatch.setattr(measure_module, "_peak", fails)
    file = tmp_path / "gpu.jsonl"
    done = run(file, "--network", "resnet18")
    kept = [("SGD", "eager"), ("SGD", "captured"), ("SGD-PH", "eager"), ("SGD-PH", "captured")]
    assert [(r.optimizer, r.form) for r in read_results(file)] == kept
    assert done.stdout.count("| resnet18 |") == 4
    assert "Not measured: resnet18, SGD-PH, eager: of a compiler\n" in done.output


def test_without_a_gpu_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(command.main, ["--out", str(tmp_path / "gpu.jsonl")])
    assert done.exit_code == 2
    assert "--device cuda: torch finds no GPU here" in " ".join(done.output.split())
    assert not (tmp_path / "gpu.jsonl").exists()


def test_refreshes_spread_over_the_cycle_and_every_tenth_step_has_nine_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(measure_module, "_now", lambda device: clock[0])
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(8)]
    optimizer = SGDPH([{"params": parameters, "order": 2}], 0.1, hessian_interval=10)
    steps: list[int] = []

    def step() -> None:
        steps.append(optimizer.param_groups[0]["step"])
        # A refresh takes 3 seconds, and one more for each parameter above; any other step takes 1.
        clock[0] += 1 if optimizer.due is None else 3 + steps[-1] // 10

    every, tenth = measure(Loop(step, optimizer), CPU, sample=2, rounds=1, captured=False)
    # Parameters 2 and 6 of 8 stand for all.
    assert steps[:8] == [20] * 4 + [60] * 4
    assert every.milliseconds == pytest.approx(1e3 * (5 + 9) / 2)
    assert steps[-20:] == [*range(20, 30), *range(60, 70)]
    assert tenth.milliseconds == pytest.approx(1e3 * ((5 + 9) / 2 + 9) / 10)
    assert (every.interval, tenth.interval) == (1, 10)


def test_kernels_are_summed_up_without_what_ran_on_the_host() -> None:
    def event(name: str, microseconds: float, device: Any = DeviceType.CUDA) -> Any:
        return SimpleNamespace(name=name, device_type=device, self_device_time_total=microseconds)

    events = [
        event("gemm", 3000),
        event("add", 500),
        event("add", 500),
        event("aten::add", 9, DeviceType.CPU),
    ]
    found = summed([*events, event("Optimizer.step#SGD.step", 4000)], 2)
    assert (found.milliseconds, found.launches) == (2, 1.5)
    assert found.longest == (("gemm", 1.5, 0.5), ("add", 0.5, 1))


def test_ratios_are_to_sgd_in_the_same_form_and_eager() -> None:
    def row(optimizer: str, form: str, ms: float, interval: int = 1) -> Result:
        return Result("net", optimizer, form, interval, ms, 10 * ms, None if interval > 1 else ms, 7)

    rows = [row("SGD", "eager", 8), row("SGD", "captured", 4), row("SGD-PH", "captured", 6)]
    table = markdown([*rows, row("SGD-PH", "captured", 5, 10), row("SGD-PH", "compiled", 12)])
    lines = [[cell.strip() for cell in line.split("|")[2:-1]] for line in table.splitlines()[2:]]
    assert lines[2] == ["SGD-PH, captured", "6.00", "1.50", "0.75", "6.00", "1.50", "7", "60", "1.50"]
    assert lines[3][:5] == ["SGD-PH, every 10th step, captured", "5.00", "1.25", "0.62", ""]
    assert lines[4][:4] == ["SGD-PH, compiled", "12.00", "", "1.50"]


@pytest.mark.parametrize(
    "kind", [kind for kind in LOOPS if kind.form != "compiled"], ids=lambda k: f"{k.optimizer}-{k.form}"
)
def test_every_loop_trains_the_whole_network(kind: Any) -> None:
    workload = NARROW["resnet18"]
    net = workload.network(CPU)
    loop = kind.make(net, workload.data(CPU))
    loop.go_to(0)
    loop.step()
    assert loop.cycle == (41 if kind.optimizer == "SGD-PH" else 1)
    for parameter in net.parameters():
        averages = [t for t in loop.optimizer.state[parameter].values() if isinstance(t, Tensor) and t.dim()]
        assert any(t.abs().sum() > 0 for t in averages)
