"""`kleval show` and `kleval status`: what is stored, within 80 columns, and how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from stored_profiles import make_profile
from stored_runs import make_run

from kleval.cli.console import table
from kleval.cli.main import call
from kleval.cli.scores import print_scores
from kleval.store import RunStore
from kleval.tables.cells import summarise

__all__ = ["make_profile", "make_run"]

Make = Callable[..., RunStore]
Capture = pytest.CaptureFixture[str]
EARLIER = Path(__file__).parents[1] / "data" / "0.1.0"


def test_show_has_the_verdict_then_the_tables(make_run: Make, make_profile: Make, capsys: Capture) -> None:
    run = make_run(models=("kimi-linear@nano", "mla@nano"), ctxs=(4096, 8192), n=4)
    profile = make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096, 8192), repeats=2)
    assert call(["show", str(run.path), str(profile.path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("At 8k, averaged over all 2 tasks asked (builtin data), kimi-linear@nano scores")
    assert out.index("Time per token at 8k") < out.index("ruler/vt") < out.index("State memory of one sequence")
    assert "per answer p50 500 ms, p99 500 ms" in out


def test_tables_of_runs_and_profiles_fit_80_columns(make_run: Make, make_profile: Make, capsys: Capture) -> None:
    ctxs = (1024, 2048, 4096, 8192, 16384)
    run = make_run(models=("kimi-linear@nano", "mla@nano"), ctxs=ctxs)
    profile = make_profile(architectures=("kimi-linear", "mla"), ctxs=ctxs, repeats=2)
    call(["show", str(run.path), str(profile.path)])
    rules = [line for line in capsys.readouterr().out.splitlines() if line and set(line) <= {"-", " "}]
    assert len(rules) > 6
    assert max(map(len, rules)) <= 80


def test_a_wide_table_goes_on_below_behind_its_lead(capsys: Capture) -> None:
    table(["what", "a" * 40, "b" * 40], [["one", "1", "2"]], lead=1)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["one", "1"]
    assert lines[6] == ["one", "2"]


@pytest.mark.parametrize("asked", [False, True])
def test_further_metrics_are_there_when_they_are_asked_for(make_run: Make, capsys: Capture, asked: bool) -> None:
    rows = [replace(row, metrics={**row.metrics, "further": 0.25}) for row in make_run(models=("one",)).rows()]
    print_scores(summarise(rows, []), [], all_metrics=asked)
    assert ("further" in capsys.readouterr().out) is asked


def test_status_counts_what_is_there_and_says_how_to_go_on(capsys: Capture) -> None:
    assert call(["status", str(EARLIER / "killed")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("killed: run, interrupted, 2026-11-28 23:17 UTC")
    assert lines[1].startswith("3 of 16 answers are there, none failed, the last one at ")
    assert lines[-2].startswith("continue  kleval run --model kimi-linear,mla")


def test_status_as_a_record(capsys: Capture) -> None:
    call(["status", str(EARLIER), "--json"])
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {record["record"] for record in records} == {"status"}
    (run,) = [record for record in records if record["run"].endswith("/run")]
    assert (run["done"], run["failed"], run["failures"]) == (25, 12, {"server": 12})


def test_nothing_to_show_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    assert call(["show", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"kleval: {tmp_path} holds no run (no run.json in it or in its folders)\n"
