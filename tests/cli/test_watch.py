"""What a command that works says, whatever its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kleval.cli import watch as watch_module
from kleval.cli.main import call
from kleval.cli.shows import RunShow, Show
from kleval.cli.watch import Watch
from kleval.harness import RunSpec
from kleval.profiler.workload import KernelSpec
from kleval.store import Point
from kleval.work import events as ev

KERNELS = ["profile", "kernels", "--ctx", "48", "--heads", "1", "--head-dim", "8", "--repeats", "1", "--device", "cpu"]


def failed(repeat: int, message: str) -> ev.UnitDone:
    point = Point(
        id=f"decode/x/m/1/b1/r{repeat}", kind="decode", model="m", ctx=1, batch=1, protocol="x", repeat=repeat, values={},
        failure={"kind": "internal", "message": message},
    )  # fmt: skip
    return ev.UnitDone(point)


def test_a_command_that_takes_long_to_open_says_its_first_lines_meanwhile(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "HEAD_AFTER_SECONDS", 0.0)
    spec = RunSpec(models=("slow",), tasks=("ruler/vt",), ctxs=(1024,), out=Path("here"))
    with Watch(spec, RunShow(spec), as_json=False, quiet=False) as watch:
        watch._timer.join()
        opening = capsys.readouterr().err
        watch(ev.Started(spec, {"slow@1": {}}, {}, {}, continued=False))
        watch(ev.Phase("planning"))
    assert [text for text in ("ruler/vt", "1k tokens", "opening   slow") if text not in opening] == []
    assert "slow@1" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("more", [["--dry-run"], ["--out", "here"]])
def test_every_json_line_of_kernels_names_its_record(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*KERNELS, "--json", "-q", *more]) == 0
    records = [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()]
    assert (records[0], records[-1]) == ("launch", "done")
    assert set(records[1:-1]) == {"planned" if "--dry-run" in more else "point"}


def test_the_same_failure_of_every_repeat_is_said_once_even_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    spec = KernelSpec(ctxs=(48,), out=Path("here"))
    watch = Watch(spec, Show(spec), as_json=False, quiet=True)
    for event in (failed(0, "no luck"), failed(1, "no luck"), failed(2, "worse")):
        watch(event)
    assert capsys.readouterr().err.splitlines() == [
        "decode/x/m/1/b1/r0 failed: no luck",
        "decode/x/m/1/b1/r2 failed: worse",
    ]
