"""Tables align and amounts read well."""

from __future__ import annotations

import json

import pytest

from kleval.cli.console import emit, table


def test_a_table_is_aligned_and_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "n"], [["a" * 200, "5"], ["b", "12"]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "a" * 200 + "   5"
    assert lines[3].endswith(" 12")
    assert len({len(line) for line in lines[1:]}) == 1


def test_an_empty_table_has_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name"], [])
    assert capsys.readouterr().out.splitlines() == ["name", "----"]


def test_a_record_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit("done", text="zwei\nZeilen")
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"record": "done", "text": "zwei\nZeilen"}
