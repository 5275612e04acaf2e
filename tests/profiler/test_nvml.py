"""NVML's GPUs: bytes of processes, and machines without it. `test_energy` has their energy."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from kleval.profiler.nvml import gpus


def library(**changes: Any) -> SimpleNamespace:
    running = {0: [(7, 100), (8, 30)], 1: [(7, None), (9, 5)]}
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda at: at,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetName=lambda handle: b"Some GPU",
        nvmlDeviceGetComputeRunningProcesses=lambda at: [
            SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in running[at]
        ],
        **changes,
    )


def test_bytes_of_processes_are_summed_and_unknown_ones_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())
    assert [gpu.bytes_of({7, 9}) for gpu in gpus()] == [100, 5]


def test_a_device_is_the_one_that_this_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", library())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,GPU-abc")
    assert [gpus(index)[0].name for index in (0, 1)] == ["Some GPU 1", "Some GPU GPU-abc"]


def test_without_the_driver_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise OSError("libnvidia-ml.so.1 is not there")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=missing))
    assert gpus() == []
