from __future__ import annotations

import json
from typing import Any

import pytest

from kleval import paper
from kleval.cli.main import call
from kleval.suites import SUITES, suite
from kleval.tasks.registry import expand, families, load_task
from kleval.tasks.short import builtin
from kleval.types import UsageError


def test_every_suite_names_tasks_that_exist() -> None:
    for name, found in SUITES.items():
        assert found.name == name
        assert expand(found.tasks, "builtin")


def test_short_is_what_the_paper_s_short_tables_ask_without_running_code() -> None:
    short = set(suite("short").tasks)
    rows = [row for row in paper.ROWS if row.table in ("3", "4", "8")]
    assert short == {task for row in rows for task in row.tasks if not task.startswith("code/")} | {
        "short/cruxeval_output_cot"
    }
    assert not any(getattr(load_task(task), "needs_code_execution", False) for task in short)


def test_short_runs_on_a_fresh_machine() -> None:
    assert expand(suite("short").tasks, "builtin") == list(suite("short").tasks)
    assert all(builtin.has(task) for task in suite("short").tasks)


def test_the_paper_s_suites_are_its_tables_at_its_temperature() -> None:
    tables = {"paper-base": "3", "paper-sft": "4", "paper-released-base": "8", "paper-released": "9"}
    for name, table in tables.items():
        assert set(suite(name).tasks) == {task for row in paper.rows(table) for task in row.tasks} - {"ruler"}
        assert suite(name).temperature == 1.0
    assert suite("paper-sft").repeats["lm_eval/aime25"] == 64
    assert set(suite("paper-sft").repeats) <= set(suite("paper-sft").tasks)


def test_long_more_is_what_it_says_that_it_is() -> None:
    found = suite("long-more")
    said = found.description.rpartition(": ")[2].lower().split(", ")
    assert said == list(dict.fromkeys(task.partition("/")[0] for task in expand(found.tasks)))


def test_no_suite_names_a_task_twice() -> None:
    for found in SUITES.values():
        assert len(set(found.tasks)) == len(found.tasks)


def test_long_is_every_family_of_the_paper_s_table() -> None:
    assert set(suite("long").tasks) == {"ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca"}
    assert set(suite("long").tasks) <= set(families())
    assert suite("long-official").tasks == suite("long").tasks
    assert suite("long-official").edition == "official"


def test_smoke_asks_one_sample_per_task() -> None:
    assert suite("smoke").limit == 1
    assert all(suite("smoke").lengths(edition) in ("2k", "8k") for edition in ("builtin", "official"))
    assert suite("long").limit is None


@pytest.mark.parametrize(("name", "said"), [("lnog", "long"), ("smok", "smoke"), ("zzz", "there are long, long-off")])
def test_an_unknown_suite_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        suite(name)


def launched(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(["run", "--model", "kimi-linear", "--dry-run", "--json", "--quiet", *words]) == 0
    record: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[0])
    return record


def test_a_suite_brings_its_length_and_the_user_s_own_wins(capsys: pytest.CaptureFixture[str]) -> None:
    assert launched(["--suite", "short", "--limit", "1"], capsys)["ctx"] == [4096]
    assert launched(["--suite", "short", "--limit", "1", "--ctx", "3k"], capsys)["ctx"] == [3072]
    assert suite("short").lengths("official") == "64k"
    assert suite("long").lengths("builtin") is None
