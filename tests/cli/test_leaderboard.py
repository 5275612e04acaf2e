"""`kleval leaderboard`: runs alone, and with what their lengths cost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from stored_profiles import make_profile
from stored_runs import make_run

from kleval.cli.leaderboard import leaderboard
from kleval.store import RunStore
from kleval.types import UsageError

__all__ = ["make_profile", "make_run"]
Make = Callable[..., RunStore]
MODELS = ("kimi-linear@nano", "mla@nano")


def output(*arguments: object) -> str:
    done = CliRunner().invoke(leaderboard, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_profile_named_beside_a_run_adds_columns_and_no_row(make_run: Make, make_profile: Make) -> None:
    run, profile = make_run(models=MODELS, ctxs=(4096,)), make_profile()
    plain = list(csv.DictReader(io.StringIO(output(run.path))))
    rows = list(csv.DictReader(io.StringIO(output(run.path, profile.path))))
    assert len(rows) == len(plain)
    assert all(row["tpot_ms_batch1"] and row["cost_of"].startswith("profile profile") for row in rows)


def test_a_folder_of_both_is_a_table_of_scores_as_before(make_run: Make, make_profile: Make) -> None:
    run = make_run(models=MODELS, ctxs=(4096,))
    alone = output(run.path)
    make_profile("one")
    make_profile("two")
    assert output(run.path.parent) == alone


def test_two_profiles_that_fit_are_a_usage_error_that_names_them(make_run: Make, make_profile: Make) -> None:
    run, one, two = make_run(models=MODELS, ctxs=(4096,)), make_profile("one"), make_profile("two")
    with pytest.raises(UsageError, match=r"one and .*two both hold the cost"):
        output(run.path, one.path, two.path)


def test_the_ending_of_out_decides_the_format(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    for name in ("a.json", "a.md", "a.csv", "a.parquet"):
        assert output(run.path, "--out", tmp_path / name).strip() == str(tmp_path / name)
    assert len(json.loads((tmp_path / "a.json").read_text("utf-8"))) == 12
    assert (tmp_path / "a.md").read_text("utf-8").startswith("| model |")
    assert (tmp_path / "a.csv").read_text("utf-8").startswith("model,")
    assert (tmp_path / "a.parquet").read_bytes()[:4] == b"PAR1"


def test_parquet_goes_to_a_file(make_run: Make) -> None:
    with pytest.raises(UsageError, match="--out FILE"):
        output(make_run().path, "--format", "parquet")


def test_appending_needs_a_file_that_can_grow(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    with pytest.raises(UsageError, match="--out FILE"):
        output(run.path, "--append")
    with pytest.raises(UsageError, match="a CSV or JSON file, not with md"):
        output(run.path, "--append", "--out", tmp_path / "a.md")
    output(run.path, "--append", "--out", tmp_path / "a.csv")
    first = (tmp_path / "a.csv").read_text("utf-8")
    output(run.path, "--append", "--out", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text("utf-8") == first


def test_a_leaderboard_as_a_page_has_every_row_once_and_loads_nothing(make_run: Make, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    one, two = make_run("one", models=(hostile,)), make_run("two", title="=nightly", tags={"engine": "0.33"})
    output(one.path, two.path, "--out", tmp_path / "board.html")
    text = (tmp_path / "board.html").read_text("utf-8")
    rows = json.loads(output(one.path, two.path, "--format", "json"))
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr") == len(rows)
    assert hostile not in text
    assert 'id="scores"' in text
    assert 'id="filter"' in text
    assert len(text) < 200_000  # no figure, so no script that draws any
