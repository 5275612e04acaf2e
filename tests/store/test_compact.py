"""The compact form of rows: nothing is lost, whatever happens in between, and every reader takes both forms."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from store_helpers import create, failed, one_line, row, sample_file

from kleval.store import Row, RunStore, parquet
from kleval.store.places import Compacted, Records
from kleval.types import UsageError

pytest.importorskip("pyarrow")

ODD = row(
    7,
    0.25,
    metrics={"acc": 0.25, "other": None},
    references=("", 'é"\n\x00', "="),
    extracted=[1, {"a": None}],
    outcomes=({"kind": "generate", "text": "\u2028ok 🂡", "seconds": 0.1, "seed": 2**70},),
    meta={"depth": 0.1 + 0.2, "deep": [[]]},
    seconds=1e-300,
)


def written(path: Path, *rows: Row) -> list[Row]:
    """What a reader sees of a run that has these rows."""
    with create(path) as store:
        for one in rows:
            store.append(one)
    return list(RunStore.open(path).rows())


def compact(path: Path) -> Compacted:
    with RunStore.reopen(path) as store:
        return store.compact()


def read(path: Path) -> list[Row]:
    """By a reader, and by one who holds the index."""
    found = list(RunStore.open(path).rows())
    with RunStore.reopen(path) as store:
        assert store.counts()["finished"] == len(found)
        assert list(store.rows()) == found
    return found


def forms(path: Path) -> list[str]:
    return sorted(file.suffix for file in sample_file(path).parent.iterdir())


def test_rows_are_the_same_in_the_compact_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_ROWS", 7)
    other = [row(index, task="fam/b", id=f"b-{index}") for index in range(20)]
    before = written(tmp_path / "run", row(3), ODD, failed(1), row(0), *other)
    done = compact(tmp_path / "run")
    assert (done.cells, done.rows) == (2, 24)
    assert forms(tmp_path / "run") == [".parquet", ".parquet"]
    assert read(tmp_path / "run") == before
    with RunStore.reopen(tmp_path / "run") as store:
        assert store.row(ODD.key) == ODD
    assert compact(tmp_path / "run") == Compacted()


def test_a_compact_run_goes_on_and_takes_in_what_came(tmp_path: Path) -> None:
    written(tmp_path / "run", row(2), failed(1))
    compact(tmp_path / "run")
    after = written(tmp_path / "run", row(1), row(0), failed(3))
    assert [(one.index, one.failed) for one in after] == [(0, False), (1, False), (2, False), (3, True)]
    assert read(tmp_path / "run") == after
    assert forms(tmp_path / "run") == [".jsonl", ".parquet"]
    assert RunStore.open(tmp_path / "run").n_cells() == 1
    assert compact(tmp_path / "run").rows == 5  # with the one that failed
    assert forms(tmp_path / "run") == [".parquet"]
    assert read(tmp_path / "run") == after
    with create(tmp_path / "run") as store, pytest.raises(ValueError, match="has an answer already"):
        store.append(row(1))


# Where a process is killed: in the middle of the file, once it is whole, and in its place with the lines still there.
POINTS = {
    "written": "pyarrow.parquet.ParquetWriter.write_table = lambda *a, **k: die()",
    "checked": "parquet.digest = lambda draft: die()",
    "in place": "Path.unlink = lambda self, **k: die() if self.suffix == '.jsonl' else unlink(self, **k)",
}
KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet
from kleval.store import RunStore, parquet
die, unlink = lambda: os.kill(os.getpid(), signal.SIGKILL), Path.unlink
{point}
with RunStore.reopen(Path(sys.argv[1])) as store:
    store.compact()
"""


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_and_doubles_nothing(tmp_path: Path, point: str) -> None:
    run = tmp_path / "run"
    written(run, row(2), failed(1))
    compact(run)
    before = written(run, row(1), failed(3))
    script = KILLED.format(point=POINTS[point])
    assert subprocess.run([sys.executable, "-c", script, str(run)]).returncode == -signal.SIGKILL
    assert forms(run) == [".jsonl", ".parquet"]
    assert read(run) == before
    assert compact(run).rows == 4
    assert forms(run) == [".parquet"]
    assert read(run) == before
    assert not list((run / "tmp").iterdir())


def test_lines_stay_where_the_file_cannot_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path / "run", row(0), row(1))
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "digest", lambda draft: (2, "another"))
        with pytest.raises(UsageError, match="cannot be read back") as error:
            compact(tmp_path / "run")
    assert one_line(error)
    assert forms(tmp_path / "run") == [".jsonl"]
    assert read(tmp_path / "run") == before


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    written(tmp_path / "run", row(0), row(1))
    compact(tmp_path / "run")
    file = sample_file(tmp_path / "run").with_suffix(".parquet")
    whole = file.read_bytes()
    for damaged in (whole[:100] + b"\xff" * 20 + whole[120:], whole[:-20], b"PAR1"):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=f"{file.name} is damaged"):
            list(RunStore.open(tmp_path / "run").rows())


def test_a_table_of_something_else_is_not_read_as_rows(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    written(tmp_path / "run", row(0))
    compact(tmp_path / "run")
    file = sample_file(tmp_path / "run").with_suffix(".parquet")
    for table, said in (({"score": ["a"]}, "its column score"), ({"score": [7.0]}, "is damaged")):
        write_table(pyarrow.table(table), file)
        with pytest.raises(UsageError, match=said) as error:
            list(RunStore.open(tmp_path / "run").rows())
        assert one_line(error)


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "run", row(0))
    compact(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"fam__a.1024.parquet needs pyarrow: pip install") as error:
        list(RunStore.open(tmp_path / "run").rows())
    assert one_line(error)


def test_a_kleval_that_would_not_see_the_rows_refuses_them(tmp_path: Path) -> None:
    written(tmp_path / "run", row(0))
    assert RunStore.open(tmp_path / "run").manifest["schema_version"] == 1
    compact(tmp_path / "run")
    written(tmp_path / "run", row(1))
    assert RunStore.open(tmp_path / "run").manifest["schema_version"] == 2


def test_rows_that_are_scored_again_stay_compact(tmp_path: Path) -> None:
    written(tmp_path / "run", failed(1), row(2))
    compact(tmp_path / "run")
    written(tmp_path / "run", row(1))
    with RunStore.reopen(tmp_path / "run") as store:
        store.rewrite(lambda one: dataclasses.replace(one, score=0.5))
    assert forms(tmp_path / "run") == [".jsonl", ".parquet"]
    assert [(one.index, one.score) for one in read(tmp_path / "run")] == [(1, 0.5), (2, 0.5)]


def test_the_command_leaves_the_tables_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kleval.cli.main import call

    def told(*words: str) -> str:
        assert call([*words]) == 0
        return capsys.readouterr().out

    for name in ("a", "b"):
        written(tmp_path / "runs" / name, row(0), row(1, 0.5), failed(2))
    board = ("leaderboard", str(tmp_path / "runs"), "--format", "json")
    before = told(*board)
    (a, b) = (json.loads(line) for line in told("compact", str(tmp_path / "runs"), "--json", "-q").splitlines())
    assert (a["rows"], b["rows"], a["cells"]) == (3, 3, 1)
    assert told(*board) == before
    assert call(["compact", str(tmp_path / "runs" / "a")]) == 0
    assert "has no lines to put together" in capsys.readouterr().err
    assert call(["compact", str(tmp_path / "nothing")]) == 2


def test_an_index_that_nobody_asked_for_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 600 bytes a row, more than all else."""
    kept = written(tmp_path / "run", row(0), row(1))
    monkeypatch.setattr(Records, "refresh", lambda records: pytest.fail("the index was made"))
    compact(tmp_path / "run")
    assert list(RunStore.open(tmp_path / "run").rows()) == kept
