"""Users' stories through the command line: the first try on a laptop, and the engineer who serves a model."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from profiler import served_server

from kleval.cli.main import call

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def misbehaving() -> ModuleType:
    file = Path(__file__).parents[1] / "backends" / "misbehaving.py"
    spec = importlib.util.spec_from_file_location("misbehaving", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("misbehaving", module)
    spec.loader.exec_module(module)
    return module


def test_the_first_try_on_a_laptop(capsys: Capture) -> None:
    """A dry run says what a family will take though one of its tasks does not fit; the run does it and leaves a page."""
    family = ["run", "--tasks", "ruler/niah_single_*,ruler/cwe,-ruler/niah_single_3", "--ctx", "512", "--limit", "1"]
    asked = [part.replace("ruler/cwe,", "") for part in family]
    assert call([*family, "--dry-run"]) == 2
    assert "ruler/cwe fits into none of the lengths asked for" in capsys.readouterr().err
    assert call([*asked, "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "work      2 answers, about 2 requests" in told
    assert "time      at most about" in told
    assert call([*asked, "--out", "first"]) == 0
    assert {"report.html", "leaderboard.csv"} <= {path.name for path in Path("first").iterdir()}


def test_the_engineer_who_serves_a_model(
    misbehaving: ModuleType, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a run at a paid endpoint may cost is said before it asks; it stops at the limit, and goes on with a higher one. Then
    scores and costs on one page, and a gate."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    behaviour = misbehaving.Behaviour(software="other", key="sk-very-secret")
    with misbehaving.serve(behaviour) as url:
        tokenizer = f"hf:{misbehaving.write_byte_tokenizer(Path('bytes'))}"
        at = ["run", "--model", "tiny", "--base-url", url, "--api", "completions", "--tokenizer", tokenizer]
        asked = [*at, "--tasks", "ruler/niah_single_1", "--ctx", "4k", "--limit", "6"]
        price = ["--price-per-mtok", "1,4,0.5"]
        assert call([*asked, *price, "--dry-run", "--json"]) == 0
        said = capsys.readouterr()
        tried = len(behaviour.bodies)  # whether the server answers at all
        assert "a key was given and asking may cost" in said.err
        forecast = [json.loads(line) for line in said.out.splitlines()][-1]["forecast"]
        assert (forecast["requests"], forecast["seconds"]) == (6, None)
        assert call([*asked, "--out", "run", *price, "--max-cost", str(forecast["cost"] / 2)]) == 3
        stopped = capsys.readouterr().err
        assert "incomplete: stopped at --max-cost" in stopped
        assert 0 < len(behaviour.bodies) - 2 * tried < 6
        assert call([*asked, "--out", "run", *price]) == 0
        whole = capsys.readouterr().err
        assert len(behaviour.bodies) == 3 * tried + 6
        note = whole.index("a key was given and no limit")
        assert note < whole.index("rows      run")
        assert "spent     6 requests" in whole
    # What it costs, on one page with what it scores, and a gate for the next engine.
    with served_server.serving(served_server.Manner(max_model_len=None, step_seconds=0.002)) as url:
        cost = [
            "profile",
            "--base-url",
            url,
            "--model",
            "tiny",
            "--ctx",
            "4k",
            "--repeats",
            "1",
            "--decode-tokens",
            "4",
        ]
        assert call([*cost, "--out", "cost", "-q"]) == 0
    assert call(["report", "run", "cost", "--out", "page.html"]) == 0
    page = Path("page.html").read_text("utf-8")
    assert all(f'id="{section}"' in page for section in ("p0-served", "samples"))
    capsys.readouterr()
    assert call(["gate", "run", "--against", "run", "--fail-on", "ruler/niah_single_1 < -60"]) == 4
    verdicts = capsys.readouterr().out
    assert re.search(r"niah_single_1 < -60 .* pass", verdicts)
    assert re.search(r"cut > 1% .* fail", verdicts)  # this server's answers all end at their budget
    assert "sk-very-secret" not in page
    assert not any(b"sk-very-secret" in file.read_bytes() for file in Path("run").rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--price-per-mtok", "1"], "write IN,OUT or IN,OUT,CACHED"),
        (["--price-per-mtok", "cheap,dear"], "write IN,OUT or IN,OUT,CACHED"),
        (["--max-cost", "3"], "--max-cost needs --price-per-mtok"),
        (["--max-cost", "0", "--price-per-mtok", "1,2"], "--max-cost"),
        (["--max-requests", "some"], "--max-requests"),
    ],
)
def test_a_limit_that_makes_no_sense_is_one_line(more: list[str], said: str, one_line: object) -> None:
    assert callable(one_line)
    assert said in one_line(["run", "--tasks", "ruler/vt", *more])
