"""How CUDA graphs are recorded, held on a stand-in for torch's calls: no GPU is needed to see what they are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sgdph_fx.optim.capture import cuda_graphs
from sgdph_fx.optim.capture.cuda_graphs import Recorder


class Cuda:
    """Torch's calls; as in torch, a recording whose end fails leaves its stream the current one."""

    def __init__(self) -> None:
        self.current = ["the caller's"]
        self.graphs: list[dict[str, Any]] = []
        self.pools = 0
        self.waits: list[tuple[Any, Any]] = []

    def Stream(self, device: object) -> Any:
        return _Stream("own", self.waits)

    def current_stream(self, device: object) -> Any:
        return _Stream("the caller's", self.waits)

    def CUDAGraph(self) -> Any:
        class Graph:
            def replay(self) -> None:
                pass

        return Graph()

    def graph_pool_handle(self) -> int:
        self.pools += 1
        return self.pools

    def stream(self, stream: Any) -> _Stays:
        return _Stays(self.current, stream.name)

    def graph(self, graph: object, **how: Any) -> Any:
        self.graphs.append(how)
        return _Ends(self.current, how["stream"].name)


class _Stream:
    def __init__(self, name: str, waits: list[Any]) -> None:
        self.name, self.waits = name, waits

    def wait_stream(self, other: _Stream) -> None:
        self.waits.append((self.name, other.name))


class _Stays:
    """Makes a stream the current one, and what was the current one, afterwards."""

    def __init__(self, current: list[str], name: str) -> None:
        self.current, self.name = current, name

    def __enter__(self) -> None:
        self.before, self.current[0] = self.current[0], self.name

    def __exit__(self, *error: Any) -> None:
        self.current[0] = self.before


class _Ends(_Stays):
    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        super().__exit__(*error)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    for name in ("Stream", "current_stream", "CUDAGraph", "graph_pool_handle", "stream", "graph"):
        monkeypatch.setattr(cuda_graphs.torch.cuda, name, getattr(made, name))
    return made


def fails(error: BaseException) -> Callable[[], Tensor]:
    def run() -> Tensor:
        raise error

    return run


def test_other_threads_go_on_while_one_records(cuda: Cuda) -> None:
    Recorder(torch.device("cuda")).record(lambda: torch.ones(()))
    assert cuda.graphs[0]["capture_error_mode"] == "thread_local"
    assert cuda.current == ["the caller's"]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no memory"), RuntimeError("not permitted"), KeyError("x"), KeyboardInterrupt()],
)
def test_a_recording_that_fails_says_why_and_leaves_its_stream(cuda: Cuda, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        Recorder(torch.device("cuda")).record(fails(error))
    assert caught.value is error
    assert cuda.current == ["the caller's"]


def test_recordings_share_a_pool_until_it_is_forgotten(cuda: Cuda) -> None:
    recorder = Recorder(torch.device("cuda"))
    for number in range(4):
        if number == 2:
            recorder.forget()
        recorder.record(lambda: torch.ones(()))
    assert [how["pool"] for how in cuda.graphs] == [1, 1, 2, 2]


def test_what_follows_a_warm_up_waits_for_it_even_if_it_failed(cuda: Cuda) -> None:
    recorder = Recorder(torch.device("cuda"))
    recorder.warm_up(lambda: torch.ones(()))
    with pytest.raises(KeyError):
        recorder.warm_up(fails(KeyError("x")))
    assert cuda.waits == [("own", "the caller's"), ("the caller's", "own")] * 2
    assert cuda.current == ["the caller's"]
