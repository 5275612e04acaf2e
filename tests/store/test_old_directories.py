"""Directories that kleval 0.1.0 wrote open, report, and are continued by their command with nothing done twice.

tests/data/0.1.0, written by its commands: `run`, fake tasks with answered, failed and skipped samples; `killed`, two native
models of the first recipe, killed while a row was being written; `profile`, one model at two lengths.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from kleval.cli.main import cli
from kleval.store import RunStore
from kleval.types import UsageError

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))  # for harness_fakes

from harness_fakes import Choice as Choices
from harness_fakes import EchoBackend, OneCall, TwoStep, go

OLD = Path(__file__).parents[1] / "data" / "0.1.0"


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def command(*arguments):
    done = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


def lines(folder):
    return {file: file.read_bytes() for file in folder.glob("samples/*/*.jsonl")}


def test_an_old_run_opens_with_its_counts_and_prompts(old):
    store = RunStore.open(old / "run")
    assert store.counts() == {"finished": 25, "answered": 13, "scored": 13, "failed": 12, "unscored": 0}
    assert store.counts().items() <= store.manifest["counts"].items()
    assert [skip["task"] for skip in store.manifest["skips"]] == ["fake/one"]
    for row in store.rows():
        assert store.read_prompt(row).startswith(f"w42-{row.index}-0 ")
    with (OLD / "run" / "samples" / "fake@one" / "fake__two.16.jsonl").open() as file:
        written = [json.loads(line) for line in file]
    again = {row.id: row for row in store.rows()}
    assert all(getattr(again[one["id"]], name) == one[name] for one in written for name in ("score", "failure", "meta"))


def test_an_old_run_is_continued_and_only_what_failed_is_asked_again(old):
    before = lines(old / "run")
    backend = EchoBackend()
    result = go(old / "run", backend, tasks=(OneCall(minimum_tokens=20), TwoStep(), Choices()))
    assert (result.status, result.counts["answered"], result.counts["skipped"]) == ("complete", 25, 5)
    store = RunStore.open(old / "run")
    asked = {request.prompt for batch in backend.batches for request in batch}
    answered = {
        json.loads(line)["id"] for raw in before.values() for line in raw.splitlines() if b'"failure": null' in line
    }
    assert len(answered) == 13
    own = {row.id: store.read_prompt(row) for row in store.rows()}
    assert len([prompt for id, prompt in own.items() if id not in answered and prompt in asked]) > 0
    for file, raw in before.items():
        assert file.read_bytes().startswith(raw)
    assert list((old / "run" / "prompts").glob("*.gz")) == []  # nothing that is there is stored again
    assert go(old / "run", backend, tasks=(OneCall(minimum_tokens=20), TwoStep(), Choices())).status == "complete"


def test_an_old_run_that_was_killed_is_not_continued_with_other_weights(old):
    killed = old / "killed"
    before = lines(killed)
    store = RunStore.open(killed)
    assert (store.status, store.counts()["answered"]) == ("interrupted", 3)
    assert all(store.read_prompt(row) for row in store.rows())
    options = ["--model", "kimi-linear,mla", "--backend", "native", "--tasks", "ruler/niah_single_1"]
    options += ["--ctx", "512,1k", "--limit", "4", "--out", killed, "--workers", "0"]
    done = CliRunner().invoke(cli, [str(a) for a in ["run", *options]])
    assert isinstance(done.exception, UsageError)
    assert "another command (models.kimi-linear@nano.config.eos_token_id: 1023 -> 1535" in str(done.exception)
    assert lines(killed) == before
    command("report", killed)
    assert (killed / "report.html").is_file()


def test_an_old_profile_opens_and_reports_and_nothing_is_measured_again(old):
    profile = old / "profile"
    before = (profile / "points.jsonl").read_bytes()
    points = list(RunStore.open(profile).points())
    assert len(points) == 8
    assert not any(point.failed for point in points)
    command("report", profile)
    assert (profile / "report.html").is_file()
    manifest = json.loads((profile / "run.json").read_text())
    with RunStore.create(profile, {**manifest, "status": "complete"}) as store:
        assert list(store.points()) == points
        with pytest.raises(ValueError, match="measured already"):
            store.append_point(points[0])
    assert (profile / "points.jsonl").read_bytes() == before


def test_an_old_profile_with_a_line_cut_short_measures_only_that(old):
    profile = old / "profile"
    raw = (profile / "points.jsonl").read_bytes()
    (profile / "points.jsonl").write_bytes(raw[:-40])
    manifest = json.loads((profile / "run.json").read_text())
    with RunStore.create(profile, manifest) as store:
        assert store.repaired == [profile / "points.jsonl"]
        assert len(list(store.points())) == 7


def test_old_directories_stand_in_a_leaderboard(old, tmp_path):
    out = tmp_path / "board.csv"
    command("leaderboard", old / "run", "--out", out)
    assert "fake/one" in out.read_text()
