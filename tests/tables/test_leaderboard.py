"""Rows, CSV and markdown of stored runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval import files
from kleval.store import RunStore
from kleval.tables.cells import FAMILY_METRIC
from kleval.tables.formats import cell_text
from kleval.tables.leaderboard import COLUMNS, to_csv, to_markdown, to_rows, write_csv
from kleval.text import limits
from kleval.types import UsageError

MakeRun = Callable[..., RunStore]


def only(rows: list[dict[str, Any]], **values: Any) -> dict[str, Any]:
    (row,) = [row for row in rows if all(row[name] == value for name, value in values.items())]
    return row


def test_every_cell_and_every_average_has_one_row(make_run: MakeRun) -> None:
    rows = to_rows([make_run()])
    keys = [(r["model"], r["task"], r["ctx"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys) == 2 * (2 * 2 + 2)


def test_values_are_times_100_and_lie_in_their_interval(make_run: MakeRun) -> None:
    rows = to_rows([make_run(answer=lambda m, t, c, i: float(i == 0))])
    row = only(rows, model="one@nano", task="ruler/vt", ctx=1024)
    assert row["value"] == 33.3333
    assert row["ci_low"] < row["value"] < row["ci_high"]
    assert (row["n"], row["n_scored"], row["n_failed"], row["ci_method"]) == (3, 3, 0, "wilson")


def test_markdown_rounds_as_the_page_and_the_terminal_do(make_run: MakeRun) -> None:
    run = make_run(answer=lambda m, t, c, i: 1.0, n=1)
    row = only(rows := to_rows([run]), model="one@nano", task="ruler/vt", ctx=1024)
    shown = limits(row["ci_low"] / 100, row["ci_high"] / 100)
    assert shown == "20.7 – 100.0"  # 20.654…, which two digits would make 20.65 and then 20.6
    assert f"| {shown} |" in to_markdown(rows)


def test_answers_and_the_samples_of_the_interval_are_counted_apart(make_run: MakeRun) -> None:
    row = only(to_rows([make_run(n=2, repeats=3)]), model="one@nano", task="ruler/vt", ctx=1024)
    assert (row["n"], row["n_scored"], row["n_samples"]) == (6, 6, 2)


def test_failures_leave_the_score_and_widen_the_bounds(make_run: MakeRun, failed: dict[str, str]) -> None:
    run = make_run(answer=lambda m, t, c, i: failed if (m, t, c, i) == ("one@nano", "ruler/vt", 1024, 0) else 1.0)
    rows = to_rows([run])
    row = only(rows, model="one@nano", task="ruler/vt", ctx=1024)
    assert (row["value"], row["n"], row["n_scored"], row["n_failed"]) == (100.0, 3, 2, 1)
    assert (row["bound_low"], row["bound_high"]) == (66.6667, 100.0)


def test_an_average_says_how_much_of_its_family_it_covers(make_run: MakeRun, ruler_tasks: tuple[str, ...]) -> None:
    partial = only(to_rows([make_run()]), model="one@nano", metric=FAMILY_METRIC, ctx=1024)
    assert (partial["task"], partial["n_tasks"], partial["n_tasks_expected"]) == ("ruler", 2, 13)
    whole = only(to_rows([make_run("whole", tasks=ruler_tasks, n=1)]), model="one@nano", metric=FAMILY_METRIC, ctx=1024)
    assert (whole["n_tasks"], whole["n_tasks_expected"]) == (13, 13)


def test_the_area_of_a_group_whose_prompts_come_again_is_no_narrower_than_a_length(make_run: MakeRun) -> None:
    tasks = ("lm_eval/a", "lm_eval/b")
    run = make_run(
        models=("one",),
        tasks=tasks,
        groups={"mean of both": tasks},
        answer=lambda m, t, c, i: float(i > 0),
        prompt=lambda m, t, c, i: f"{t} {i}",
    )
    of = [row for row in to_rows([run]) if row["task"] == "mean of both"]
    assert {(row["area_low"], row["area_high"]) for row in of} == {(row["ci_low"], row["ci_high"]) for row in of}
    assert {row["data_digest"] for row in of} == {"d" * 64}


def test_a_task_without_a_score_is_missing_from_the_average(make_run: MakeRun, failed: dict[str, str]) -> None:
    run = make_run(answer=lambda m, t, c, i: failed if t == "ruler/vt" else 0.5)
    rows = to_rows([run])
    assert only(rows, model="one@nano", task="ruler/vt", ctx=1024)["value"] is None
    assert only(rows, model="one@nano", metric=FAMILY_METRIC, ctx=1024)["n_tasks"] == 1


def test_a_skipped_cell_has_a_row_without_a_value(make_run: MakeRun, make_skip: Callable[..., dict[str, Any]]) -> None:
    run = make_run(answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0)
    assert not [r for r in to_rows([run]) if (r["task"], r["ctx"]) == ("ruler/cwe", 1024)]
    skipping = make_run(
        "skipping",
        answer=lambda m, t, c, i: None if (t, c) == ("ruler/cwe", 1024) else 1.0,
        skips=[make_skip("ruler/cwe", 1024)],
    )
    row = only(to_rows([skipping]), task="ruler/cwe", ctx=1024)
    assert (row["value"], row["n"], row["n_skipped"]) == (None, 0, 3)


def test_provenance_is_in_every_row(make_run: MakeRun) -> None:
    for row in to_rows([make_run()]):
        assert (row["edition"], row["protocol"], row["seed"], row["temperature"]) == (
            "builtin",
            "nvidia-c3f5e3b",
            42,
            0.0,
        )
        assert (row["data_digest"], row["task_version"], row["data_revision"]) == ("d" * 64, "1", "builtin-1")
        assert (row["backend"], row["dtype"], row["device"]) == ("native", "float32", "cpu")
        assert (row["kleval_version"], row["commit"], row["run_id"]) == ("0.1.0", "c" * 40, "run")
        assert (row["date"], row["run_status"], row["repeats"]) == ("2026-03-01T10:00:00+00:00", "complete", 1)


def test_repeats_are_not_further_samples(make_run: MakeRun) -> None:
    one, three = to_rows([make_run("a", n=4)]), to_rows([make_run("b", n=4, repeats=3)])
    first, second = (only(rows, model="one@nano", task="ruler/vt", ctx=1024) for rows in (one, three))
    assert second["n"] == 3 * first["n"]
    assert (first["ci_low"], first["ci_high"]) == (second["ci_low"], second["ci_high"])


def test_the_csv_reads_back_as_the_rows(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    path = write_csv([run], tmp_path / "out" / "leaderboard.csv")
    read = list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
    assert tuple(read[0]) == COLUMNS
    rows = to_rows([run])
    assert [r["value"] for r in read] == [str(r["value"]) for r in rows]
    assert sorted(p.name for p in path.parent.iterdir()) == ["leaderboard.csv"]


def test_the_same_rows_give_the_same_bytes(make_run: MakeRun) -> None:
    def text(name: str) -> str:
        return to_csv([{**row, "run_uid": ""} for row in to_rows([make_run(name)])]).replace(f",{name},", ",x,")

    assert text("a") == text("b")


def test_a_formula_in_a_name_stays_text(make_run: MakeRun) -> None:
    text = to_csv(to_rows([make_run(models=("=1+1", "@cmd"), protocol="-2+3")]))
    cells = {cell for line in csv.reader(io.StringIO(text)) for cell in line}
    assert {"'=1+1", "'@cmd", "'-2+3"} <= cells
    assert not {"=1+1", "@cmd", "-2+3"} & cells


@given(st.sampled_from("=+-@\t\r"), st.text(max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_text_cell_begins_a_formula(start: str, rest: str) -> None:
    assert cell_text(start + rest) == "'" + start + rest


def test_negative_numbers_stay_numbers() -> None:
    assert (cell_text(-1.5), cell_text(-3), cell_text(None)) == ("-1.5", "-3", "")


def test_a_full_disk_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    path.write_text("old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UsageError, match="No space left on device"):
        files.write_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("leaderboard.csv", "old")]


def test_a_directory_as_the_file_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        files.write_text(tmp_path, "text")


def test_markdown_marks_partial_averages_and_escapes_bars(make_run: MakeRun) -> None:
    text = to_markdown(to_rows([make_run(models=("a|b",))]))
    assert "ruler (2 of 13 tasks)" in text
    assert "a\\|b" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines()}) == 1


def test_no_runs_and_a_run_without_answers_are_usage_errors(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="no run given"):
        to_rows([])
    with pytest.raises(UsageError, match="has no answers yet"):
        to_rows([make_run(answer=lambda m, t, c, i: None)])


def test_a_row_says_which_run_when_on_what_engine_and_hardware(make_run: MakeRun) -> None:
    run = make_run("dir", title="nightly", tags={"engine": "0.33", "b": "x"}, started="2026-03-02T01:30:00+00:00")
    row = to_rows([run])[0]
    assert (row["run"], row["run_id"], row["date"]) == ("nightly", "dir", "2026-03-02T01:30:00+00:00")
    assert (row["engine_version"], row["hardware"], row["tags"]) == ("torch 2.9.0", "Some CPU", "engine=0.33 b=x")
    served = {"server": "http://x", "software": "vLLM", "version": "0.33", "hardware": "8x H200", "device": None}
    row = to_rows([make_run("served", describe=lambda model: served)])[0]
    assert (row["engine_version"], row["hardware"]) == ("vLLM 0.33", "8x H200")


def test_markdown_of_several_runs_tells_them_apart(make_run: MakeRun) -> None:
    alone = make_run("one", models=("m",))
    assert to_markdown(to_rows([alone])).startswith("| model | task |")
    other = make_run(
        "two", models=("m",), title="nightly", tags={"engine": "0.33"}, started="2026-03-02T01:30:00+00:00"
    )
    lines = to_markdown(to_rows([alone, other])).splitlines()
    assert lines[0].startswith("| model | run | date | tags | task |")
    assert any(line.startswith("| m | one | 2026-03-01 10:00 UTC |  | ruler") for line in lines)
    assert any(line.startswith("| m | nightly | 2026-03-02 01:30 UTC | engine=0.33 | ruler") for line in lines)
