"""Points of a run directory keep the guarantees of its rows: durable, once per id, safe against a kill and a full disk."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval import files as store_files
from kleval.store import Point, RunStore
from kleval.store.records import from_line, to_line
from kleval.types import UsageError

MANIFEST = {
    "kind": "profile",
    "status": "running",
    "started": "2026-01-01T00:00:00+00:00",
    "settings": {"models": ["m@nano"], "ctx": [1024], "repeats": 1},
}


def point(repeat: int = 0, **changes: Any) -> Point:
    base = Point(
        id=f"prefill/full/m@nano/1024/b1/r{repeat}",
        kind="prefill",
        model="m@nano",
        ctx=1024,
        batch=1,
        protocol="full",
        repeat=repeat,
        values={"seconds": 0.5, "mfu": None},
        closed_form={"flops": 10},
        environment={"cpu": "x"},
    )
    return dataclasses.replace(base, **changes)


def failed(repeat: int = 0) -> Point:
    return point(repeat, values={}, failure={"kind": "out_of_memory", "message": "no room"})


def create(path: Path, **changes: Any) -> RunStore:
    return RunStore.create(path, {**MANIFEST, **changes})


def test_points_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = [point(0), point(1, estimate=True, settings={"chunk_tokens": 512}), failed(2)]
    with create(tmp_path) as store:
        for one in written:
            store.append_point(one)
        assert list(store.points()) == written
    assert list(RunStore.open(tmp_path).points()) == written


def test_the_order_of_reading_is_not_that_of_measuring(tmp_path: Path) -> None:
    ones = [point(r, ctx=ctx, id=f"{ctx}/{r}") for ctx in (4096, 512) for r in (2, 0, 1)]
    with create(tmp_path) as store:
        for one in ones:
            store.append_point(one)
    read = [(one.ctx, one.repeat) for one in RunStore.open(tmp_path).points()]
    assert read == sorted(read)


@given(st.text(), st.floats(allow_nan=True, allow_infinity=True))
@settings(max_examples=50, deadline=None)
def test_any_point_is_one_line_that_reads_back(text: str, number: float) -> None:
    line = to_line(point(settings={"text": text}, values={"seconds": number}))
    assert line.count(b"\n") == 1
    assert from_line(Point, line).values["seconds"] == (number if math.isfinite(number) else None)


def test_a_measured_point_is_never_overwritten(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        store.append_point(point())
        with pytest.raises(ValueError, match="measured already"):
            store.append_point(point(values={"seconds": 9.0}))
        assert [one.values["seconds"] for one in store.points()] == [0.5]


def test_a_new_point_stands_for_one_that_failed(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        store.append_point(failed())
        store.append_point(point())
    with create(tmp_path) as store:
        assert [one.failure for one in store.points()] == [None]


def test_a_line_cut_short_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        store.append_point(point(0))
    file = tmp_path / "points.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + to_line(point(1))[:40])
    assert len(list(RunStore.open(tmp_path).points())) == 1
    with create(tmp_path) as store:
        assert store.repaired == [file]
        store.append_point(point(1))
        assert len(list(store.points())) == 2


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        store.append_point(point(0))
    file = tmp_path / "points.jsonl"
    file.write_bytes(b'{"id": "x"}\n' + file.read_bytes())
    with pytest.raises(UsageError, match=r"points\.jsonl line 1 .* delete that line"):
        list(RunStore.open(tmp_path).points())


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path) as store:
        store.append_point(point(0))
        before = (tmp_path / "points.jsonl").read_bytes()

        def full(fd: int, data: bytes) -> None:
            import errno
            import os

            os.write(fd, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(store_files, "write_all", full)
        with pytest.raises(UsageError, match="disk full"):
            store.append_point(point(1))
        monkeypatch.undo()
        assert (tmp_path / "points.jsonl").read_bytes() == before
        assert len(list(store.points())) == 1


def test_a_reader_cannot_append(tmp_path: Path) -> None:
    create(tmp_path).close()
    with pytest.raises(ValueError, match="open for reading"):
        RunStore.open(tmp_path).append_point(point())


def test_a_failed_point_has_no_values() -> None:
    with pytest.raises(ValueError, match="values"):
        from_line(Point, to_line(point(failure={"kind": "internal", "message": "x"})))


def test_a_directory_of_another_kind_is_refused(tmp_path: Path) -> None:
    create(tmp_path, kind="run").close()
    with pytest.raises(UsageError, match="holds a run, not a profile"):
        create(tmp_path)


def test_a_reader_sees_what_is_written_meanwhile(tmp_path: Path) -> None:
    with create(tmp_path) as store:
        reader = RunStore.open(tmp_path)
        assert list(reader.points()) == []
        store.append_point(point())
        assert len(list(reader.points())) == 1
