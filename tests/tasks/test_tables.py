"""Rows of data files: every format gives the same, and what is wrong is one line naming file and row."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kleval.tasks import tables
from kleval.types import UsageError

ROWS: list[dict[str, Any]] = [{"a": "one\ntwo", "b": "Ünï 🙂"}, {"a": "", "b": 'quoted "x", y'}, {"a": "]", "b": "}"}]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", tables.FORMATS)
def test_every_format_gives_the_same_rows(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", ROWS)
    assert [row for _, row in tables.rows(path)] == ROWS
    assert [where for where, _ in tables.rows(path)] == [f"{path} row {i}" for i in range(3)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), min_size=1, max_size=6),
    chunk=st.integers(1, 40),
    ascii_only=st.booleans(),
)
def test_a_list_reads_the_same_in_pieces_of_any_size(
    rows: list[dict[str, Any]], chunk: int, ascii_only: bool, tmp_path: Path
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows, ensure_ascii=ascii_only), encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_CHUNK_CHARS", chunk)
        assert [row for _, row in tables.rows(path)] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b'[{"a": 1}, {"a": tru}]', "x.json row 1 is not JSON"),
        ("x.json", b'[{"a": 1}, {"a": "x', "x.json row 1 is not JSON"),
        ("x.json", b'[{"a": 1} {"a": 2}]', "after row 0 there is neither a comma"),
        ("x.json", b'[{"a": 1}', "after row 0 there is neither a comma"),
        ("x.json", b'[{"a": 1}] more', "something after the list"),
        ("x.json", b'[{"a": 1}, 3]', "row 1 must be an object"),
        ("x.json", b"[]", "has no rows"),
        ("x.json", b'{"a": 1}', "must hold a list of rows"),
        ("x.json", b'{"a":\n 1}', "must hold a list of rows"),
        ("x.json", b"[" + b'{"a":' * 100_000, "row 0 is not JSON"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', "row 1 must be an object, is list"),
        ("x.jsonl", b'{"a": 1}\n{"a"\n', "row 1 is not JSON"),
        ("x.jsonl", b"\xff\n", "cannot be read"),
        ("x.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n", "row 0 is not JSON that can be read"),
        ("x.json", b'[{"a": ' + b"9" * 5_000 + b"}]", "row 0 is not JSON that can be read"),
        ("x.csv", b"a,b\n1,2\n3\n", "row 1 does not have as many fields"),
        ("x.csv", b"a,b\n1,2,3\n", "row 0 does not have as many fields"),
        ("x.csv", b'a,b\n1,"2\n', "row 0 is not CSV"),
        ("x.parquet", b"PAR1 but not really", "cannot be read as Parquet"),
        ("x.txt", b"a", "rows are read from"),
    ],
)
def test_a_damaged_file_is_one_line_naming_it(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as error:
        list(tables.rows(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", [{"a": "x" * 9}, {"a": "damage me"}])
    path.write_bytes(path.read_bytes().replace(b"damage me", b"damage \xff\xfe"))
    with pytest.raises(UsageError, match="row 1 cannot be read") as error:
        list(tables.rows(path))
    assert "\n" not in str(error.value)


def test_half_of_a_surrogate_pair_is_no_text() -> None:
    row = {"t": "\ud800", "l": ["\ud800"]}
    for read, name in ((tables.text, "t"), (tables.texts, "l")):
        with pytest.raises(UsageError, match=f"w: field '{name}'"):
            read("w", row, name)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        list(tables.rows(tmp_path / "x.jsonl"))


def test_fields_are_checked() -> None:
    row = {"t": "x", "l": ["a"], "i": 3, "b": True}
    assert (tables.text("w", row, "t"), tables.texts("w", row, "l"), tables.integer("w", row, "i")) == ("x", ("a",), 3)
    for read, name in ((tables.text, "i"), (tables.texts, "t"), (tables.integer, "b"), (tables.value, "none")):
        with pytest.raises(UsageError, match=f"w: field '{name}'"):
            read("w", row, name)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv"])
def test_a_byte_order_mark_and_gzip_change_nothing(suffix: str, encoding: str, packed: bool, tmp_path: Path) -> None:
    plain = write(tmp_path / f"x{suffix}", ROWS)
    raw = plain.read_bytes().decode().encode(encoding)
    path = tmp_path / f"y{suffix}{'.gz' if packed else ''}"
    path.write_bytes(gzip.compress(raw) if packed else raw)
    assert [row for _, row in tables.rows(path)] == ROWS


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv"])
def test_gzip_is_seen_whatever_a_file_is_called(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, ROWS)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert [row for _, row in tables.rows(path)] == ROWS


def test_a_cut_gzip_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 50_000)[:-20])
    with pytest.raises(UsageError, match=r"x.jsonl.gz cannot be read"):
        list(tables.rows(path))


def test_either_kind_of_json_is_read_under_either_name(tmp_path: Path) -> None:
    lines, whole = tmp_path / "lines.json", tmp_path / "whole.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    whole.write_text(json.dumps(ROWS, indent=2), "utf-8")
    assert [row for _, row in tables.rows(lines)] == [row for _, row in tables.rows(whole)] == ROWS


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.json", "x.csv", "x.tsv", "x.jsonl.gz"])
def test_a_git_lfs_pointer_is_called_one(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 190822058\n", "utf-8"
    )
    with pytest.raises(UsageError, match=r"Git LFS pointer, not the file: `git lfs pull`"):
        list(tables.rows(tmp_path / name))


@pytest.mark.parametrize(
    ("found", "number"),
    [
        (3, 3),
        (3.0, 3),
        ("3", 3),
        ("3.0", 3),
        (-0.0, 0),
        (3.5, None),
        ("3.5", None),
        (True, None),
        (None, None),
        ("", None),
    ],
)
def test_whole_numbers_come_as_floats_and_texts_too(found: Any, number: int | None) -> None:
    assert tables.whole_number(found) == number
    assert tables.whole_number(float("nan")) is None
