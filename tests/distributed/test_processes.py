"""A run on several workers is the run of one process, whatever happens to them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness_fakes import ALL, TASKS, EchoBackend, comparable, go, loader, open_deadly, open_echo, open_named, spec

from kleval.harness import run
from kleval.harness.replicas import Replicas
from kleval.store import RunStore
from kleval.types import UsageError
from kleval.work import events as ev
from kleval.work.processes import Processes

pytestmark = pytest.mark.distributed
PLAIN = partial(open_echo, 0.0)
TWO = ("cpu", "cpu")


def spread(out: Path, open_on: Any = PLAIN, events: list[Any] | None = None, **changes: Any) -> Any:
    changes = {"tasks": ALL, "devices": TWO, **changes}
    tell: Callable[[Any], None] = (lambda event: None) if events is None else events.append
    return run(spec(out, **changes), partial(Replicas, Processes(TWO), open_on), loader(*TASKS), tell)


def test_two_processes_leave_the_rows_of_one_and_one_goes_on_where_they_were(tmp_path: Path) -> None:
    go(tmp_path / "one", EchoBackend())
    result = spread(tmp_path / "two", limit=3)
    assert result.exit_code == 0
    assert {"cpu", "cpu (2)"} >= set(result_workers(tmp_path / "two")["devices"])
    go(tmp_path / "two", EchoBackend(), amend=True)
    one, two = RunStore.open(tmp_path / "one"), RunStore.open(tmp_path / "two")
    assert comparable(two) == comparable(one)
    changed = {
        name for name in one.manifest["settings"] if one.manifest["settings"][name] != two.manifest["settings"][name]
    }
    assert not changed
    assert not workers()


def test_a_request_that_kills_three_workers_is_a_failure_and_no_other_is_lost(tmp_path: Path) -> None:
    events: list[Any] = []
    result = spread(
        tmp_path / "run", partial(open_deadly, ["w42-1-0"]), events, ctxs=(16,), tasks=("fake/one",), limit=6
    )
    rows = list(RunStore.open(tmp_path / "run").rows())
    assert [row.index for row in rows if row.failed] == [1]
    assert len(rows) == 6
    failure = next(row.failure for row in rows if row.failed)
    assert failure == {
        "kind": "internal",
        "message": "3 workers ended while they answered it; the last one ended with exit code 7",
    }
    assert result.exit_code == 3
    assert result_workers(tmp_path / "run")["worker_deaths"] == 3
    assert any("what it had goes to others" in event.text for event in events if isinstance(event, ev.Phase))


def test_a_worker_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(event: Any) -> None:
        if isinstance(event, ev.UnitDone) and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    asked = spec(tmp_path / "two", tasks=ALL, limit=20)
    result = run(asked, partial(Replicas, Processes(TWO), partial(open_echo, 0.01)), loader(*TASKS), kill)
    go(tmp_path / "one", EchoBackend(), limit=20)
    assert killed
    assert result.exit_code == 0
    assert comparable(RunStore.open(tmp_path / "two")) == comparable(RunStore.open(tmp_path / "one"))


def test_a_worker_with_another_engine_is_left_out(tmp_path: Path) -> None:
    events: list[Any] = []
    launcher = Processes(TWO)
    launcher._places = [dataclasses.replace(place, device=f"cpu:{at}") for at, place in enumerate(launcher.places())]
    asked = spec(tmp_path / "run", limit=200)
    result = run(asked, partial(Replicas, launcher, open_named), loader(*TASKS), events.append)
    assert result.exit_code == 0
    assert result_workers(tmp_path / "run")["devices"] == ["cpu"]


@pytest.mark.parametrize("ended", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_driver_and_the_same_command_goes_on(tmp_path: Path, ended: signal.Signals) -> None:
    here = Path(__file__)
    out = f"t.Path({str(tmp_path / 'run')!r})"
    # Python takes no notice of Ctrl-C where it was started with it ignored, as a shell's background jobs are.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import test_processes as t; t.spread({out}, t.partial(t.open_echo, 0.5), limit=200)"
    path = os.pathsep.join(map(str, [here.parent, here.parents[1] / "harness", here.parents[2]]))
    driver = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    until(lambda: list(tmp_path.glob("run/samples/*/*.jsonl")) and workers(driver.pid))
    there = workers(driver.pid)
    driver.send_signal(ended)
    driver.wait(60)
    _, alive = psutil.wait_procs(there, timeout=10)
    assert not alive
    before = len(list(RunStore.open(tmp_path / "run").rows()))
    assert spread(tmp_path / "run", limit=200).exit_code == 0
    rows = list(RunStore.open(tmp_path / "run").rows())
    assert 0 < before < len(rows) == 200 * 2 * len(ALL)


def test_what_cannot_be_opened_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such model"):
        Replicas(Processes(TWO), _refuses, "one")
    assert not workers()


def _refuses(model: str, device: str) -> Any:
    raise UsageError("no such model")


def result_workers(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = RunStore.open(out).manifest["sessions"][-1]["workers"]["fake@one"]
    return found


def workers(driver: int | None = None) -> list[psutil.Process]:
    return [child for child in psutil.Process(driver).children() if "spawn_main" in " ".join(child.cmdline())]


def until(there: Callable[[], Any]) -> None:
    while not there():
        time.sleep(0.05)
