"""What a command that works says, whatever its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kleval.cli.main import call
from kleval.cli.shows import Show
from kleval.cli.watch import Watch
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
