"""`kleval compare`: its formats, and what cannot be compared."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from stored_profiles import make_profile
from stored_runs import make_run

from kleval.cli.compare import compare
from kleval.store import RunStore
from kleval.types import UsageError

__all__ = ["make_profile", "make_run"]
Make = Callable[..., RunStore]
ONE = {"models": ("one@nano",), "ctxs": (1024,), "n": 10}


def called(*arguments: object) -> Result:
    done = CliRunner().invoke(compare, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture
def runs(make_run: Make) -> tuple[Path, Path]:
    worse = make_run("b", answer=lambda model, task, ctx, index: float(index > 1), seed=7, **ONE)
    return make_run("a", **ONE).path, worse.path


def test_the_table_says_who_is_worse_and_what_differs(runs: tuple[Path, Path]) -> None:
    out = called(*runs, "--flips", "--explain").stdout
    for text in ("ruler average", "−20.0", "differs: seed 42 against 7", "ruler/vt:1024:1", "moved B - A"):
        assert text in out


def test_json_holds_every_record(runs: tuple[Path, Path]) -> None:
    rows = json.loads(called(*runs, "--flips", "--explain", "--format", "json").stdout)
    kinds = [row["record"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {"difference": 3, "differs": 1, "part": 2, "flip": 4}
    lines = called(*runs, "--flips", "--explain", "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_csv_is_the_differences_and_the_rest_is_said_beside(runs: tuple[Path, Path]) -> None:
    done = called(*runs, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [float(row["difference"]) for row in rows] == pytest.approx([-20.0] * 3)
    assert "differs: seed" in done.stderr


def test_profiles_are_compared_by_their_ratios(make_profile: Make) -> None:
    one, two = make_profile("one"), make_profile("two")
    rows = json.loads(called(one.path, two.path, "--model", "mla@nano", "--format", "json").stdout)
    assert {(row["ratio"], row["sessions_a"]) for row in rows if row["record"] == "ratio"} == {(1.0, 1)}


def test_two_models_of_one_profile(make_profile: Make) -> None:
    profile = make_profile().path
    rows = json.loads(called(profile, profile, "--model", "mla@nano,kimi-linear@nano", "--format", "json").stdout)
    assert all(row["ratio"] < 1 for row in rows if row["record"] == "ratio" and row["kind"] == "memory")


def test_a_run_and_a_profile_are_a_usage_error(make_run: Make, make_profile: Make) -> None:
    with pytest.raises(UsageError, match="one holds scores, the other a profile"):
        called(make_run(**ONE).path, make_profile().path)


def test_a_model_may_be_named_without_its_size(runs: tuple[Path, Path]) -> None:
    assert called(*runs, "--model", "one").stdout == called(*runs, "--model", "one@nano").stdout
