"""`kleval ls` shows the registries as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kleval.backends.registry import all_backends
from kleval.cli.main import call
from kleval.models.registry import MODELS
from kleval.suites import SUITES
from kleval.tasks.registry import all_tasks

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("what", "name", "expected"),
    [
        ("models", "model", list(MODELS)),
        ("tasks", "id", list(all_tasks())),
        ("suites", "suite", list(SUITES)),
        ("backends", "backend", list(all_backends())),
    ],
)
def test_json_lines_are_the_registry(what: str, name: str, expected: list[str], capsys: Capture) -> None:
    assert call(["ls", what, "--json"]) == 0
    assert [json.loads(line)[name] for line in capsys.readouterr().out.splitlines()] == expected


@pytest.mark.parametrize("what", ["models", "tasks", "suites", "backends"])
def test_tables_have_a_line_each(what: str, capsys: Capture) -> None:
    assert call(["ls", what, "--json"]) == 0
    n = len(capsys.readouterr().out.splitlines())
    assert call(["ls", what]) == 0
    assert len(capsys.readouterr().out.splitlines()) == n + 2


def test_a_card_says_what_a_task_is(capsys: Capture) -> None:
    assert call(["ls", "tasks", "ruler/vt", "--card"]) == 0
    card = capsys.readouterr().out
    assert [text for text in ("ruler/vt", "nvidia-c3f5e3b", "string_match_all", "builtin") if text not in card] == []


def test_a_damaged_run_does_not_hide_the_others(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("{")
    assert call(["ls", "runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "damaged"


def test_no_runs_is_said(capsys: Capture) -> None:
    assert call(["ls", "runs"]) == 0
    assert capsys.readouterr().err == "no runs in runs\n"
