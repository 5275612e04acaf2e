"""openai/mrcr: both revisions, three formats, one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data
from kleval.tasks.mrcr import official as dataset
from kleval.tasks.plain_editions import Asked
from kleval.types import UsageError

Write = Callable[..., list[Path]]


def read(folder: Path) -> list[Asked]:
    return list(dataset.read(dataset.find("mrcr/2needle", 2, folder), 2))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json"])
def test_both_revisions_read_in_order_in_every_format(
    suffix: str, old: bool, mrcr_rows: list[dict[str, Any]], write_mrcr: Write, tmp_path: Path
) -> None:
    write_mrcr(mrcr_rows, suffix, old)
    rows = read(tmp_path)
    assert [row.references for row in rows] == [(row["answer"],) for row in mrcr_rows]
    assert [list(row.build(())) for row in rows] == [json.loads(row["prompt"]) for row in mrcr_rows]
    assert ("date_added" in rows[0].meta) is not old


def test_the_revision_names_which_of_the_two_it_is(
    mrcr_rows: list[dict[str, Any]], write_mrcr: Write, tmp_path: Path
) -> None:
    write_mrcr(mrcr_rows, old=True)
    older = dataset.find("mrcr/2needle", 2, tmp_path)
    write_mrcr(mrcr_rows)
    newer = dataset.find("mrcr/2needle", 2, tmp_path)
    assert "before 2025-12-05" in older.revision
    assert "since 2025-12-05" in newer.revision
    assert older.sha256 != newer.sha256


def test_the_pinned_files_are_known_by_their_hash(
    mrcr_rows: list[dict[str, Any]], write_mrcr: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mrcr(mrcr_rows)
    pins = [sha256 for asset in data.assets("mrcr") for sha256 in asset.known]
    assert len(set(pins)) == 6
    monkeypatch.setattr(data, "file_sha256", lambda path: pins[0])
    assert dataset.find("mrcr/2needle", 2, tmp_path).revision == dataset.REVISION


def test_half_of_the_files_is_not_enough(mrcr_rows: list[dict[str, Any]], write_mrcr: Write, tmp_path: Path) -> None:
    first, second = write_mrcr(mrcr_rows, ".jsonl")
    second.unlink()
    with pytest.raises(data.MissingData, match=r"2needle_1.parquet.*kleval data fetch mrcr"):
        dataset.find("mrcr/2needle", 2, tmp_path)
    (tmp_path / "2needle/2needle_0.parquet").write_bytes(first.read_bytes())
    with pytest.raises(data.MissingData, match=r"2needle_1.parquet"):
        dataset.find("mrcr/2needle", 2, tmp_path)


def test_one_half_outside_its_folder_is_not_enough(
    mrcr_rows: list[dict[str, Any]], write_mrcr: Write, tmp_path: Path
) -> None:
    first, second = write_mrcr(mrcr_rows, ".jsonl")
    second.unlink()
    first.rename(tmp_path / first.name)
    with pytest.raises(data.MissingData, match="kleval data fetch mrcr"):
        dataset.find("mrcr/2needle", 2, tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row.pop("answer"), "row 1: field 'answer' is missing"),
        (lambda row: row.update(prompt="[{"), "row 1: field 'prompt' is not JSON"),
        (lambda row: row.update(prompt="{}"), "row 1: field 'prompt' must be a list of messages"),
        (lambda row: row.update(prompt='[{"role": "user"}]'), "row 1 message 0: field 'content' is missing"),
        (lambda row: row.update(prompt='[{"role": "cat", "content": ""}]'), "row 1 message 0: role 'cat' is none of"),
        (lambda row: row.update(prompt="[3]"), "row 1 message 0: field 'role' is missing"),
        (lambda row: row.update(n_needles=4), "row 1: field 'n_needles' must be 2, is 4"),
        (lambda row: row.update(random_string_to_prepend=""), "must not be empty"),
    ],
)
def test_a_wrong_row_is_one_line(
    spoil: Callable[[dict[str, Any]], Any],
    message: str,
    mrcr_rows: list[dict[str, Any]],
    write_mrcr: Write,
    tmp_path: Path,
) -> None:
    spoil(mrcr_rows[1])
    (path,) = write_mrcr(mrcr_rows, old=True)
    with pytest.raises(UsageError, match=message) as error:
        read(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
