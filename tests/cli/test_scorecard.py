"""`kleval scorecard`: formats, and what is wrong is one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stored_profiles import make_profile
from stored_runs import make_run

from kleval.cli.main import call
from kleval.store import RunStore

__all__ = ["make_profile", "make_run"]
Make = Callable[..., RunStore]
Capture = pytest.CaptureFixture[str]


def output(capsys: Capture, *words: object) -> str:
    assert call(["scorecard", *map(str, words)]) == 0
    return capsys.readouterr().out


@pytest.fixture
def profile(make_profile: Make) -> Path:
    return make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=2).path


def test_people_see_claims_verdicts_and_the_paper_s_contradictions(profile: Path, capsys: Capture) -> None:
    text = output(capsys, profile)
    assert "Decodes 6.3 times as fast as MLA, larger batches at 1M" in text
    assert "above a byte bound" in text
    assert "75 % is an idealisation." in text
    assert "size nano, claimed of 48b-a3b" in text
    assert output(capsys, profile, "--format", "md").startswith("### Kimi Linear (arXiv 2510.26692)\n\n| # | claim |")


def test_machines_get_every_claim_and_column(profile: Path, capsys: Capture) -> None:
    rows = json.loads(output(capsys, profile, "--format", "json"))
    table = list(csv.DictReader(io.StringIO(output(capsys, profile, "--format", "csv"))))
    assert [row["id"] for row in rows] == [row["id"] for row in table]
    assert {row["unit"] for row in rows if row["id"] == "order-mla"} == {"points"}
    assert next(row["value"] for row in rows if row["id"] == "kv-saving") == 75.0


def test_what_cannot_be_compared_is_one_line(make_run: Make, profile: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "wrong.toml").write_text("claims = 3", "utf-8")
    for words in (
        [make_run(models=("other",)).path],
        [profile, "--claims", tmp_path / "wrong.toml"],
        [profile, "--claims", tmp_path / "none.toml"],
        [tmp_path / "nowhere"],
    ):
        assert call(["scorecard", *map(str, words)]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
