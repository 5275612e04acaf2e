"""Long Code Arena's data: three formats, one line naming file and row where they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data
from kleval.tasks.lca import prompts
from kleval.tasks.lca.task import SIMPLE, CommitTask, LibraryTask
from kleval.tasks.registry import load_task
from kleval.types import Sample, Tokenizer, UsageError

LIBRARY = Path(LibraryTask.file)
COMMITS = Path(CommitTask.file)


def write(folder: Path, name: Path, rows: list[dict[str, Any]], suffix: str) -> Path:
    path = (folder / name).with_suffix(suffix)
    if suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(name: str, folder: Path, tokenizer: Tokenizer, protocol: str | None = None) -> list[Sample]:
    samples = load_task(name, "official", protocol, folder).samples(tokenizer, 8192, 99, 0)
    return [sample for sample in samples if isinstance(sample, Sample)]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_every_format_reads_the_same(
    suffix: str,
    tmp_path: Path,
    library_rows: list[dict[str, Any]],
    commit_rows: list[dict[str, Any]],
    words: Tokenizer,
) -> None:
    write(tmp_path, LIBRARY, library_rows, suffix)
    write(tmp_path, COMMITS, commit_rows, suffix)
    library = read("lca/lib", tmp_path, words)
    assert [asked.prompt for asked in library] == [prompts.library_prompt(row["instruction"]) for row in library_rows]
    assert library[0].meta["apis"] == ["Farm", "plant"]
    commits = read("lca/commit", tmp_path, words, SIMPLE)
    diffs = [prompts.commit_diff(row["mods"]) for row in commit_rows]
    assert [asked.prompt for asked in commits] == [prompts.commit_text(diff, simple=True) for diff in diffs]


def test_a_missing_file_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch lca"):
        load_task("lca/lib", "official", None, tmp_path)


def test_the_revision_says_that_nothing_is_pinned(tmp_path: Path, library_rows: list[dict[str, Any]]) -> None:
    write(tmp_path, LIBRARY, library_rows, ".jsonl")
    revision = load_task("lca/lib", "official", None, tmp_path).data_revision
    assert revision.startswith(f"unpinned {LIBRARY.stem}.jsonl sha256:")


def test_a_file_without_a_known_hash_is_kept_when_it_is_there(tmp_path: Path) -> None:
    (asset, _) = data.assets("lca")
    (tmp_path / asset.name).write_bytes(b"brought along")
    assert data.fetch_asset(asset, tmp_path) is False
    assert (tmp_path / asset.name).read_bytes() == b"brought along"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row.pop("instruction"), "row 1: field 'instruction' is missing"),
        (lambda row: row.update(clean_reference=3), "row 1: field 'clean_reference' must be a text, is int"),
        (lambda row: row.update(unique_apis="f"), "row 1: field 'unique_apis' must be a list of texts"),
    ],
)
def test_a_wrong_library_row_is_one_line(
    spoil: Callable[[dict[str, Any]], Any],
    message: str,
    tmp_path: Path,
    library_rows: list[dict[str, Any]],
    words: Tokenizer,
) -> None:
    spoil(library_rows[1])
    path = write(tmp_path, LIBRARY, library_rows, ".jsonl")
    with pytest.raises(UsageError, match=message) as error:
        read("lca/lib", tmp_path, words)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row.pop("mods"), "row 2: field 'mods' is missing"),
        (lambda row: row.update(mods={}), "row 2: field 'mods' must be a list"),
        (lambda row: row["mods"].append({}), "row 2 mod 1: field 'change_type' is missing"),
        (lambda row: row["mods"].append({"change_type": "EAT"}), "row 2 mod 1: change_type 'EAT' is none of"),
        (lambda row: row.update(mods=[{**row["mods"][0], "old_path": 1}]), "field 'old_path' must be a text or null"),
    ],
)
def test_a_wrong_commit_row_is_one_line(
    spoil: Callable[[dict[str, Any]], Any],
    message: str,
    tmp_path: Path,
    commit_rows: list[dict[str, Any]],
    words: Tokenizer,
) -> None:
    commit_rows[2] = json.loads(json.dumps(commit_rows[2]))
    spoil(commit_rows[2])
    write(tmp_path, COMMITS, commit_rows, ".jsonl")
    with pytest.raises(UsageError, match=message):
        read("lca/commit", tmp_path, words)


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".parquet", b"PAR1 but not really", "cannot be read as Parquet"),
        (".jsonl", b'{"a": 1}\n{oops\n', "row 0: field 'instruction' is missing"),
        (".jsonl", b"{oops\n", "row 0 is not JSON"),
        (".json", b"{}", "must hold a list of rows"),
        (".json", b"\xff", "cannot be read"),
        (".jsonl", b"", "has no rows"),
    ],
)
def test_a_damaged_file_is_one_line(
    suffix: str, content: bytes, message: str, tmp_path: Path, words: Tokenizer
) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    (tmp_path / LIBRARY).with_suffix(suffix).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        read("lca/lib", tmp_path, words)
    assert "\n" not in str(error.value)
