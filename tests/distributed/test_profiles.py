"""Native profiles measured by several processes: the points of one process, which can go on with them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import kleval
from kleval.profiler import ProfileSpec, profile
from kleval.store import Point, RunStore
from kleval.work import events as ev
from kleval.work.processes import Processes

pytestmark = pytest.mark.distributed
TWO = ("cpu", "cpu")


def asked(out: Path, **changes: Any) -> ProfileSpec:
    few: dict[str, Any] = {"models": ("kimi-linear", "mla"), "ctxs": (1024, 2048), "repeats": 1, "decode_tokens": 2}
    return ProfileSpec(**{**few, "batches": (1,), "prefill": "full", "device": "cpu", "out": out, **changes})


def points_of(out: Path) -> list[Point]:
    return list(RunStore.open(out).points())


def after(n: int, act: Callable[[], None]) -> Callable[[ev.Event], None]:
    seen: list[str] = []

    def listen(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone):
            seen.append(event.record.id)
            if len(seen) == n:
                act()

    return listen


def press() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors to share, whatever started the tests."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


def test_processes_share_the_threads_and_one_process_goes_on(two_cores: None, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = profile(asked(out, devices=TWO), after(4, press), Processes(TWO))
    assert first.exit_code == 130
    there = points_of(out)
    assert there
    assert {(p.environment["threads"], p.settings["side_by_side"]) for p in there} == {(1, 2)}
    settings = RunStore.open(out).manifest["settings"]
    result = profile(asked(out))
    assert (result.status, result.message) == ("complete", "")
    assert RunStore.open(out).manifest["settings"] == settings
    found = points_of(out)
    assert len(found) == len({point.id for point in found}) == len(result.units)
    assert {(p.id, p.finished) for p in there} <= {(p.id, p.finished) for p in found}


def test_a_process_that_is_killed_loses_no_point_that_was_there(tmp_path: Path) -> None:
    def kill() -> None:
        children = [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]
        os.kill(children[0].pid, signal.SIGKILL)

    out = tmp_path / "run"
    result = profile(asked(out, devices=TWO), after(2, kill), Processes(TWO))
    assert (result.status, result.message) == ("complete", "")
    found = points_of(out)
    assert len(found) == len({point.id for point in found}) == len(result.units)
    assert RunStore.open(out).manifest["sessions"][-1]["workers"]["worker_deaths"] == 1


def test_python_measures_on_processes(tmp_path: Path) -> None:
    few: dict[str, Any] = {"ctx": (128, 256), "batch": 1, "repeats": 1, "decode_tokens": 2, "prefill": "full"}
    found = kleval.profile("kimi-linear", **few, devices=TWO, out=tmp_path / "run")
    store = RunStore.open(found.out)
    workers = store.manifest["sessions"][-1]["workers"]  # so little work may be done before the second has opened
    assert store.status == "complete"
    assert workers["devices"]
    assert set(workers["devices"]) <= {"cpu", "cpu (2)"}
    assert workers["worker_deaths"] == 0
