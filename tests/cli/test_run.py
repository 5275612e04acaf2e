"""`kleval run` from the command line to the files it leaves, with a backend that reads the answer out of the prompt."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kleval.backends import registry as backends
from kleval.backends.spec import BackendSpec
from kleval.cli.main import call
from kleval.cli.options import without_secrets
from kleval.suites import suite
from kleval.tasks.registry import expand
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Failure, Outcome, Request, UsageError

Capture = pytest.CaptureFixture[str]


class Reader:
    """Answers every number of the prompt; fails the requests whose position is in `failing`."""

    name, model, max_ctx = "reader", "reader@test", None

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.tokenizer = load_tokenizer("words")
        self.failing = failing

    def describe(self) -> dict[str, Any]:
        return {"device": "paper", "dtype": "ink"}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        for position, request in enumerate(requests):
            if position in self.failing:
                yield position, Failure("bad_request", "unreadable")
            else:
                text = self.tokenizer.render(request.prompt)
                yield position, Completion(" ".join(re.findall(r"\d{7}", text)), self.tokenizer.count(text), 1)

    def close(self) -> None:
        pass


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings each backend was opened with; set `failing` by putting it first."""
    settings: list[dict[str, Any]] = []

    def open_backend(model: str, **given: Any) -> Reader:
        if model != "reader":
            raise UsageError(f"unknown model {model!r}: did you mean reader?")
        settings.append(given)
        return Reader()

    monkeypatch.setattr(backends, "open_backend", open_backend)
    return settings


SHORT = ["run", "--model", "reader", "--tasks", "ruler/niah_single_1", "--ctx", "512,1k", "--limit", "2"]
pytestmark = pytest.mark.usefixtures("opened")


def test_a_run_leaves_rows_report_and_table(capsys: Capture, tmp_path: Path) -> None:
    assert call([*SHORT, "--out", "a"]) == 0
    said = capsys.readouterr()
    assert {"run.json", "samples", "report.html", "leaderboard.csv"} <= {p.name for p in Path("a").iterdir()}
    assert "reader@test: score × 100" in said.out
    assert "builtin edition" in said.out
    assert "n = 2 each" in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("ruler/niah_single_1"))
    assert row.count("100.0 [34, 100]") == 2
    assert "a/report.html" in said.err
    assert "a/leaderboard.csv" in said.err


def test_the_first_lines_say_everything(capsys: Capture) -> None:
    call([*SHORT, "--out", "a"])
    first = capsys.readouterr().err.partition("work")[0]
    wanted = [
        "reader@test (backend reader, device paper, dtype ink)",
        "edition builtin",
        "512,1k",
        "--limit 2",
        "seed 42",
    ]
    assert [text for text in [*wanted, "greedy", "ruler/niah_single_1", "out       a"] if text not in first] == []


def test_the_first_lines_call_only_greedy_what_is(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "hmmt_feb_2025.jsonl").write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    official = [
        "--model",
        "reader",
        "--tasks",
        "short/hmmt25",
        "--edition",
        "official",
        "--data-dir",
        str(tmp_path),
        "--ctx",
        "64k",
    ]
    assert call(["run", *official, "--dry-run"]) == 0
    assert "temperature each task’s own" in capsys.readouterr().err
    assert call(["run", *official, "--dry-run", "--temperature", "0"]) == 0
    assert "greedy" in capsys.readouterr().err


def test_defaults_are_what_the_manual_says(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from kleval import harness
    from kleval.work import Result

    specs: list[harness.RunSpec] = []

    def run(spec: harness.RunSpec, *rest: Any, **more: Any) -> Result:
        specs.append(spec)
        return Result("complete", 0, None)

    monkeypatch.setattr(harness, "run", run)
    assert call(["run"]) == 0
    (spec,) = specs
    assert spec.models == ("kimi-linear",)
    assert (spec.suite, spec.tasks) == ("long", tuple(expand(suite("long").tasks)))
    assert spec.ctxs == (1024, 2048, 4096)
    assert (spec.limit, spec.edition, spec.seed, spec.repeats, spec.temperature) == (10, "builtin", 42, 1, None)
    assert spec.out is not None
    assert re.fullmatch(r"runs/\d{8}-\d{6}", str(spec.out))


def test_the_same_command_continues_and_asks_nothing_twice(capsys: Capture) -> None:
    assert call([*SHORT, "--out", "a"]) == 0
    rows = {p: p.read_bytes() for p in Path("a/samples").rglob("*.jsonl")}
    assert call([*SHORT, "--out", "a"]) == 0
    assert "4 of 4 are there already" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in Path("a/samples").rglob("*.jsonl")} == rows


def test_json_has_a_launch_and_a_done_record_and_nothing_else(capsys: Capture) -> None:
    assert call([*SHORT, "--out", "a", "--json"]) == 0
    launch, done = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert launch["record"] == "launch"
    assert (launch["models"], launch["ctx"], launch["limit"]) == (["reader@test"], [512, 1024], 2)
    assert done["record"] == "done"
    assert (done["status"], done["exit_code"], done["counts"]["scored"]) == ("complete", 0, 4)
    assert Path(done["report"]).is_file()
    assert Path(done["leaderboard"]).is_file()


def test_a_page_that_fills_the_disk_leaves_the_table(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(stores: object, path: Path) -> Path:
        raise UsageError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("kleval.report.page.write_report", full)
    assert call([*SHORT, "--out", "a"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert Path("a/leaderboard.csv").is_file()


def test_a_dry_run_writes_nothing(capsys: Capture, tmp_path: Path) -> None:
    assert call([*SHORT, "--dry-run"]) == 0
    assert call([*SHORT, "--dry-run", "--out", str(tmp_path / "new")]) == 0
    assert not (tmp_path / "new").exists()
    assert "4 answers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_failures_are_shown_and_exit_3(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "open_backend", lambda model, **given: Reader(failing=[0]))
    assert call([*SHORT, "--out", "a"]) == 3
    said = capsys.readouterr()
    assert "failed" in said.out
    assert "1 of 4 answers failed (bad_request 1)" in said.err
    assert "continue" not in said.err  # asked again it would be refused again


def test_an_interrupt_is_130_and_says_how_to_go_on(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(Reader):
        def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
            yield from [next(iter(super().run(requests)))]
            raise KeyboardInterrupt

    monkeypatch.setattr(backends, "open_backend", lambda model, **given: Interrupted())
    assert call([*SHORT]) == 130
    said = capsys.readouterr()
    out = next(Path("runs").iterdir())
    assert f"--limit 2 --out {out}" in said.err
    monkeypatch.undo()


def test_settings_reach_the_backend(opened: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_MEMORY_BUDGET", "1MiB")
    assert (
        call([*SHORT, "--device", "cpu", "--dtype", "float32", "--batch", "3", "--backend", "native", "--out", "a"])
        == 0
    )
    given = {"backend": "native", "device": "cpu", "dtype": "float32", "batch": 3, "memory_budget": 1 << 20}
    assert opened[0] == {**BackendSpec(model="reader").settings(), **given}


def test_a_typed_option_beats_a_variable_of_its_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_SUITE", "long")
    assert call([*SHORT, "--dry-run"]) == 0


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--model", "raeder"], "did you mean reader?"),
        (["--model", ","], "no model given"),
        (["--tasks", "ruler/niah_singel_1"], "ruler/niah_single_1"),
        (["--suite", "lnog"], "not both"),
        (["--ctx", "4q"], "'4q' is not a length"),
        (["--ctx", "64"], "needs at least --ctx"),
        (["--edition", "offical"], "did you mean official?"),
        (["--edition", "official", "--tasks", "ruler/qa_1", "--data-dir", "none"], "kleval data fetch ruler"),
        (["--protocol", "mine"], "nvidia-c3f5e3b"),
        (["--tokenizer", "word"], "did you mean words?"),
        (["--temperature", "nan"], "--temperature is 0 (greedy) or a number above it"),
        (["--temperature", "inf"], "--temperature is 0 (greedy) or a number above it"),
        (["--max-errors", "nan"], "--max-errors is a count or a share"),
        (["--memory-budget", "lots"], "'lots' is not an amount of memory"),
        (["--devices", "cpu,cuda:77"], "device 'cuda:77' is not there: this machine has"),
        (["--devices", "cpu,gpu7"], "unknown device 'gpu7'"),
        (["--devices", "cpu,cpu", "--device", "cpu"], "leave it out, or leave out --devices"),
        (["--devices", "cpu,cpu", "--executor", "ray"], "leave it out, Ray finds the cluster's"),
        (["--executor", "ray", "--gpus-per-model", "1.5"], "above 1 give a whole number"),
        (["--ray-address", "head:6379"], "--ray-address is for --executor ray"),
        (["--executor", "ray", "--device", "cpu"], "leave it out, or leave out --executor ray"),
        (["--devices", "cpu,cpu", "--base-url", "http://localhost:1/v1"], "of a server raise --concurrency instead"),
    ],
)
def test_what_cannot_be_done_is_one_line(extra: list[str], expected: str, one_line: Callable[..., str]) -> None:
    assert expected in one_line([*SHORT, *extra])


def test_without_ray_the_line_that_installs_it_is_said(
    one_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "--executor ray needs ray: pip install" in one_line([*SHORT, "--executor", "ray"])


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("http://user:pw@host/v1", "http://host/v1"),
        ("--base-url=https://user:p@w@host:80/v1?access_token=x#y", "--base-url=https://host:80/v1"),
        ("hf_token=x", "hf_token=***"),
        ("--engine-arg=hf-token=x", "--engine-arg=hf-token=***"),
        ("--engine-arg=max_num_batched_tokens=8", "--engine-arg=max_num_batched_tokens=8"),
        ("--tokenizer=words", "--tokenizer=words"),
        ("org/name", "org/name"),
    ],
)
def test_a_command_line_is_kept_without_its_secrets(argument: str, kept: str) -> None:
    assert without_secrets(argument) == kept


def test_an_unknown_suite_suggests(one_line: Callable[..., str]) -> None:
    assert "did you mean long" in one_line(["run", "--model", "reader", "--suite", "lnog"])
    assert "unknown suite ''" in one_line(["run", "--model", "reader", "--suite", ""])


def test_another_commands_directory_is_refused_with_the_difference(
    one_line: Callable[..., str], capsys: Capture
) -> None:
    assert call([*SHORT, "--out", "a"]) == 0
    capsys.readouterr()
    line = one_line([*SHORT, "--seed", "7", "--out", "a"])
    assert "seed: 42 -> 7" in line
    assert "--amend" in one_line([*SHORT, "--limit", "3", "--out", "a"])


def test_a_directory_of_something_else_is_refused(one_line: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not lose")
    assert "thesis.tex" in one_line([*SHORT, "--out", "mine"])
    assert "takes a directory" in one_line([*SHORT, "--out", "mine/thesis.tex"])


def test_a_corrupt_row_is_named(one_line: Callable[..., str], capsys: Capture) -> None:
    assert call([*SHORT, "--out", "a"]) == 0
    capsys.readouterr()
    file = next(Path("a/samples").rglob("*.1024.jsonl"))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"{broken\n" + lines[1])
    assert f"{file.name} line 1" in one_line([*SHORT, "--out", "a"])
    assert f"{file.name} line 1" in one_line(["report", "a"])


def test_reports_of_stored_runs(capsys: Capture) -> None:
    assert call([*SHORT, "--out", "runs/a"]) == 0
    assert call([*SHORT, "--seed", "7", "--out", "runs/b"]) == 0
    capsys.readouterr()
    assert call(["report", "runs", "--out", "both.html"]) == 0
    assert Path("both.html").stat().st_size > 1000
    assert call(["leaderboard", "runs/a", "runs/b"]) == 0
    said = capsys.readouterr().out
    assert said.count("reader@test,ruler/niah_single_1,1024") == 2
    assert call(["leaderboard", "runs", "--out", "board.md"]) == 0
    assert Path("board.md").read_text().startswith("| model")
    capsys.readouterr()
    assert call(["ls", "runs", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(run["run"], run["status"], run["answered"]) for run in found] == [
        ("runs/a", "complete", 4),
        ("runs/b", "complete", 4),
    ]


@pytest.mark.parametrize("command", ["report", "leaderboard"])
def test_a_directory_without_runs_is_one_line(command: str, one_line: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no run" in one_line([command, "empty"])
    assert "no such run directory" in one_line([command, "nowhere"])


def test_the_same_command_finds_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def runs() -> list[Path]:
        return sorted(Path("runs").iterdir())

    monkeypatch.setattr(backends, "open_backend", lambda model, **given: Reader(failing=(0,)))
    assert call(SHORT) == 3
    stopped = runs()
    monkeypatch.setattr(backends, "open_backend", lambda model, **given: Reader())
    assert call(SHORT) == 0
    assert runs() == stopped
    assert call(SHORT) == 0  # that one is complete now
    assert len(runs()) == 2
    assert call([*SHORT, "--seed", "1"]) == 0
    assert len(runs()) == 3
