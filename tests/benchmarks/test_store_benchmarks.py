"""The benchmarks of the store, small: what they file is read back."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from kleval.store import RunStore
from kleval.tables.leaderboard import to_rows

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def test_every_row_that_is_written_at_once_is_a_row_of_the_leaderboard(tmp_path: Path) -> None:
    importlib.import_module("leaderboard_50k").write_run(tmp_path / "run", 30)
    (row,) = to_rows([RunStore.open(tmp_path / "run")])
    assert (row["n"], row["ci_method"]) == (30, "bca")


def test_every_way_of_filing_an_answer_has_its_time(tmp_path: Path) -> None:
    found = importlib.import_module("store_overhead").measure(tmp_path, 1024, n=2, models=2, rounds=1)
    assert set(found) == {"kleval", "store", "rest", "plain"}
    assert all(wall > 0 for pairs in found.values() for wall, _ in pairs)
