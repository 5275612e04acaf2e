"""`kleval report`: which directories a page is made of, and which it refuses."""

from __future__ import annotations

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
MODELS = ("kimi-linear@nano", "mla@nano")


def test_what_is_half_written_or_of_a_newer_schema_is_named_and_the_rest_is_shown(
    make_run: Make, make_profile: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("good", models=("one",))
    make_run("begun", answer=lambda m, t, c, i: None)
    newer = make_run("newer").path / "run.json"
    newer.write_text(json.dumps(json.loads(newer.read_text("utf-8")) | {"schema_version": 99}), "utf-8")
    torn = make_profile("torn", repeats=1, ctxs=(4096,)).path / "run.json"
    torn.write_text(torn.read_text("utf-8")[:40], "utf-8")
    assert call(["report", "good", "begun", "newer", "torn", "--out", "page.html"]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == "page.html"
    left_out = [line for line in said.err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3
    assert all(any(name in line for line in left_out) for name in ("begun", "newer", "torn"))
    assert "All scores" in Path("page.html").read_text("utf-8")


def test_records_that_cannot_stand_together_are_a_usage_error_that_says_which_and_why(
    make_run: Make, make_profile: Make, one_line: Callable[..., str]
) -> None:
    make_run(models=MODELS, ctxs=(4096,))
    for name in ("first", "second"):
        make_profile(name, architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=1)
    line = one_line(["report", "run", "first", "second", "--out", "page.html"])
    assert "first and" in line
    assert "second both hold the cost of kimi-linear@nano at 4k: give one of them" in line
    assert not Path("page.html").exists()


def test_figures_are_refused_in_one_line_where_they_cannot_be_written(
    make_run: Make, one_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make_run("run")
    (tmp_path / "taken").write_text("", "utf-8")
    assert "taken is a file: --figures takes a directory" in one_line(["report", "run", "--figures", "taken"])
    monkeypatch.setattr("kleval.report.matplotlib_drawer.available", lambda: False)
    assert "pip install 'matplotlib>=3.9'" in one_line(["report", "run", "--figures", "new"])
    assert not Path("new").exists()
    assert not Path("run/report.html").exists()


FIGURES = """
from kleval.report.figure import Figure, Series, lengths, looks_of, scores

def answers(tables):
    '''Scores <of mine>.'''
    found = tables.samples
    x = sorted(set(found["ctx"]))
    y = [100 * float(found[found["ctx"] == ctx]["value"].mean()) for ctx in x]
    return Figure(lengths(x, "ctx"), scores(), (Series("a", "all", looks_of("a")["a"], x, y, [["all"]] * len(x)),))

def nothing(tables):
    return 7

def broken(tables):
    return tables.samples["no such column"]
"""


def test_a_figure_of_ones_own_is_on_the_page_and_among_the_files(make_run: Make, one_line: Callable[..., str]) -> None:
    make_run("run", ctxs=(1024, 4096))
    Path("mine.py").write_text(FIGURES, "utf-8")
    assert call(["report", "run", "--add-figure", "./mine.py:answers", "--figures", "drawn"]) == 0
    text = Path("run/report.html").read_text("utf-8")
    assert "Figures of your own" in text
    assert "Scores &lt;of mine&gt;" in text
    assert [path.name for path in Path("drawn").glob("*own*.svg")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "figure nothing gives int"),
        ("broken", "mine.py line 15"),
        ("absent", "has no absent: it has answers, nothing, broken"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_one_line(
    name: str, said: str, make_run: Make, one_line: Callable[..., str]
) -> None:
    make_run("run")
    Path("mine.py").write_text(FIGURES, "utf-8")
    assert said in one_line(["report", "run", "--add-figure", f"./mine.py:{name}"])
    assert not Path("run/report.html").exists()
