"""RepoQA's data: read where they are right, one line naming the place where they are not."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.repoqa import dataset
from kleval.types import UsageError


def test_packed_and_unpacked_files_read_the_same(data_dir: Path, small_data: dict[str, Any]) -> None:
    unpacked = dataset.read(dataset.find("t", data_dir))
    (data_dir / dataset.FILE).write_bytes(gzip.compress(json.dumps(small_data).encode()))
    source = dataset.find("t", data_dir)
    assert source.path.suffix == ".gz"
    assert dataset.read(source) == unpacked


def test_a_file_that_is_not_the_published_one_is_named_so(data_dir: Path) -> None:
    assert dataset.find("t", data_dir).revision.startswith("unrecognised repoqa-2024-06-23.json sha256:")


def test_needles_are_the_lines_of_their_files(data_dir: Path) -> None:
    read = dataset.read(dataset.find("t", data_dir))
    assert [asked.needle.name for asked in read] == ["first", "second", "third"]
    assert read[0].order == ["box.py", "other.py"]
    assert read[1].needle.code == "    def second(self, y):\n        return y + 1"


def test_a_repository_without_needles_is_passed_over_whatever_else_it_holds(
    data_dir: Path, small_data: dict[str, Any]
) -> None:
    small_data["python"].append({"repo": "invented/none", "needles": [], "dependency": {"gone.py": []}})
    (data_dir / dataset.FILE.removesuffix(".gz")).write_text(json.dumps(small_data))
    assert {asked.repository for asked in dataset.read(dataset.find("t", data_dir))} == {"invented/box"}


def test_a_missing_file_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch repoqa"):
        dataset.find("repoqa/snf", tmp_path)


def _drop(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data["python"][0]["needles"][1].pop(name)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: data["python"][0]["needles"][1].update({name: value})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_drop("description"), r"python repository 0 \(invented/box\) needle 1: field 'description' is missing"),
        (_set("start_byte", "nine"), "needle 1: field 'start_byte' must be a whole number, is str"),
        (_set("path", "gone.py"), "needle 1: path 'gone.py' is not among"),
        (_set("end_byte", 10**9), "needle 1: bytes .* are not in box.py"),
        (_set("end_line", 10**9), "needle 1: lines .* are not in box.py"),
        (lambda data: data["python"][0].pop("content"), "python repository 0 .*: field 'content' is missing"),
        (lambda data: data["python"][0]["content"].update({"box.py": 3}), "content: field 'box.py' must be a text"),
        (
            lambda data: data["python"][0]["content"].update({"box.py": "\ud800"}),
            "content: field 'box.py' holds half of a surrogate pair",
        ),
        (lambda data: data["python"][0]["dependency"].update({"lost.py": []}), "dependency names 'lost.py'"),
        (
            lambda data: data["python"][0]["dependency"].update({"box.py": [["a"]]}),
            "dependency: field 'box.py' must be a list of texts",
        ),
        (lambda data: data["python"].append("x"), "python repository 1: field 'repo' is missing"),
        (lambda data: data.update(python=3), "python is not a list"),
        (lambda data: data.pop("python"), "does not have the shape"),
        (lambda data: data["python"][0].pop("needles"), "no repository in it has needles"),
    ],
)
def test_what_is_wrong_is_one_line_naming_file_and_place(
    spoil: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path, small_data: dict[str, Any]
) -> None:
    spoil(small_data)
    file = tmp_path / dataset.FILE.removesuffix(".gz")
    file.write_text(json.dumps(small_data), encoding="utf-8")
    with pytest.raises(UsageError, match=message) as error:
        dataset.read(dataset.find("t", tmp_path))
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / dataset.FILE).write_bytes(gzip.compress(b"{}" * 500)[:-9])
    with pytest.raises(UsageError, match=r"cannot be read as JSON .*fetch repoqa"):
        dataset.read(dataset.find("t", tmp_path))
