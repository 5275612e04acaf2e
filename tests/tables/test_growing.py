"""A leaderboard file that grows: each run once, whoever writes at the same time."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kleval.store import RunStore
from kleval.tables import growing
from kleval.tables.leaderboard import columns_of, to_csv, to_rows
from kleval.types import UsageError

MakeRun = Callable[..., RunStore]


def put(path: Path, run: RunStore, kind: str = "csv") -> None:
    rows = to_rows([run])
    growing.append(path, rows, columns_of(rows), kind)


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".json":
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
        return found
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", growing.KINDS)
def test_writers_at_the_same_time_lose_nothing_and_repeat_nothing(make_run: MakeRun, tmp_path: Path, kind: str) -> None:
    runs = [make_run(f"run-{i}", models=("one",), tasks=("ruler/vt",), ctxs=(1024,), n=1) for i in range(6)]
    board = tmp_path / f"board.{kind}"
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(lambda run: put(board, run, kind), runs * 2))
    rows = read(board)
    assert sorted(row["run_id"] for row in rows) == [f"run-{i}" for i in range(6)]
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} == {board.name, f".{board.name}.lock"}


def test_a_run_that_changed_takes_its_own_place_and_a_copy_is_the_same_run(make_run: MakeRun, tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    run, other = make_run("run", models=("one",)), make_run("other", models=("one",))
    for store in (run, other):
        put(board, store)
    shutil.copytree(run.path, tmp_path / "moved")
    manifest = json.loads((tmp_path / "moved" / "run.json").read_text("utf-8"))
    (tmp_path / "moved" / "run.json").write_text(json.dumps(manifest | {"title": "renamed"}), "utf-8")
    put(board, RunStore.open(tmp_path / "moved"))
    rows = read(board)
    assert {row["run"] for row in rows} == {"other", "renamed"}
    assert len(rows) == 2 * len(to_rows([run]))


def test_cells_of_the_file_are_kept_as_they_are_and_new_ones_are_no_formulas(make_run: MakeRun, tmp_path: Path) -> None:
    board = tmp_path / "board.csv"
    first = make_run("first", models=("=HYPERLINK(1)",), seed=-1)
    put(board, first)
    assert board.read_text("utf-8") == to_csv(to_rows([first]))
    before = read(board)
    put(board, make_run("second", models=("two",)))
    assert read(board)[: len(before)] == before
    assert before[0]["model"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "model,run_uid\nx\n", "[1]", "{}", '[{"model": 1}]', "\x00"])
@pytest.mark.parametrize("kind", growing.KINDS)
def test_a_file_that_is_no_leaderboard_is_left_alone(make_run: MakeRun, tmp_path: Path, text: str, kind: str) -> None:
    board = tmp_path / f"board.{kind}"
    board.write_text(text, "utf-8")
    run = make_run(models=("one",))
    with pytest.raises(UsageError, match="no leaderboard that can be appended to"):
        put(board, run, kind)
    assert board.read_text("utf-8") == text
