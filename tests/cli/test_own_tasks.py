"""The researcher with a task and a model of her own, from the first line to a mended metric; and what goes wrong on the way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from backends.test_given import Bytes, Sums

import kleval
from kleval.cli.main import call
from kleval.store import RunStore

TASK = """from kleval.tasks.base import Questions

class Number(Questions):
    id = "mine/number"

    def question(self, draw):
        n = draw.randrange(1000)
        return f"{{context}}\\nThe number is {n}. Which number is it?", str(n)
"""
METRIC = """def digits(answer, references):
    return sum(digit in answer for digit in references[0]) / len(references[0])
"""
RUN = ["run", "--tasks", "./my.py:Number", "--ctx", "256", "--limit", "4", "--out", "r", "--quiet"]


def rows(out: str = "r") -> list[float | None]:
    return [row.score for row in RunStore.open(Path(out)).rows()]


def test_her_story(one_line: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """A task in 8 lines and a metric in 2; each step as she would type it."""
    Path("my.py").write_text(TASK)
    Path("m.py").write_text(METRIC)
    assert [len(text.splitlines()) for text in (TASK, METRIC)] == [8, 2]
    assert call(RUN) == 0
    finished = [row.finished for row in RunStore.open(Path("r")).rows()]
    capsys.readouterr()
    # She wants another metric: told, offered, scored without asking.
    assert "kleval score r --metric ./m.py:digits" in one_line([*RUN, "--metric", "./m.py:digits"])
    assert call(["score", "r", "--tasks", "./my.py:Number", "--metric", "./m.py:digits", "--json", "-q"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["counts"]["scored"], done["counts"]["left"]) == (4, 0)
    assert {row.metric for row in RunStore.open(Path("r")).rows()} == {"digits"}
    assert [row.finished for row in RunStore.open(Path("r")).rows()] == finished
    assert call([*RUN, "--metric", "./m.py:digits"]) == 0
    # Another prompt under the same --out is told too, and is not to be had by scoring.
    Path("my.py").write_text(TASK.replace("Which number", "What number"))
    capsys.readouterr()
    assert "mine/number.asked_by" in one_line([*RUN, "--metric", "./m.py:digits"])
    again = ["score", "r", "--tasks", "./my.py:Number", "--metric", "./m.py:digits"]
    assert "its prompts or samples were changed" in one_line(again)
    # The same task, and the metric as a function, on her own model in Python.
    Path("my.py").write_text(TASK)
    found = kleval.evaluate(Sums(True), Bytes(), tasks="./my.py:Number", ctx=600, limit=2, out="own")
    assert set(found.to_pandas()["metric"]) == {"exact"}
    found.score(metric=lambda answer, references: len(answer) > 0)
    assert found.result.status == "complete"
    assert (Path("r") / "report.html").is_file()


def test_a_fault_in_a_metric_ends_early_says_where_and_is_mended_without_asking(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = TASK + "\n    def score(self, sample, answer):\n        return {}['nope']\n"
    Path("my.py").write_text(broken)
    monkeypatch.setenv("KLEVAL_DEBUG", "1")
    assert call([*RUN[:-2], "r", "--limit", "9"]) == 3
    said = capsys.readouterr().err
    assert said.count("mine/number at 256: internal: KeyError: 'nope' (my.py line 11)") == 1
    assert "Traceback (most recent call last)" in said
    assert "then `kleval score r --tasks ./my.py:Number` scores the answers that are there" in said
    assert "run the same command again" not in said
    assert "continue  " not in said
    failed = list(RunStore.open(Path("r")).rows())
    assert len(failed) == 3
    assert all("KeyError" in (row.failure or {})["traceback"] for row in failed)
    Path("my.py").write_text(TASK)
    assert call(["score", "r", "--tasks", "./my.py:Number", "-q"]) == 0
    assert None not in rows()


def test_a_fault_in_the_samples_is_mended_and_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    Path("my.py").write_text(TASK.replace("n = draw", "1 / 0; n = draw"))
    assert call(RUN) == 3
    assert "(my.py line 7)): mend it and run the same command again" in capsys.readouterr().err
    Path("my.py").write_text(TASK)
    assert call(RUN) == 0


def test_a_text_by_position(capsys: pytest.CaptureFixture[str]) -> None:
    Path("texts").mkdir()
    for i in range(2):
        Path(f"texts/{i}.txt").write_text(" ".join(f"word{j * (i + 3) % 97}" for j in range(1200)))
    assert call(["run", "--tasks", "ppl:texts", "--ctx", "600", "--limit", "2", "--out", "r", "-q"]) == 0
    said = capsys.readouterr().out
    assert "negative log-likelihood by position" in said
    assert all(place in said for place in ("0–256", "256–512", "512–600"))
    session = RunStore.open(Path("r")).manifest["sessions"][0]
    assert session["forecast"]["requests"] == session["spent"]["requests"] == 6
    assert session["forecast"]["read"] == pytest.approx(session["spent"]["prompt_tokens"], rel=0.05)
    assert session["spent"]["output_tokens"] == 0
    table = Path("r/positions.csv").read_text().splitlines()
    assert table[0].startswith("model,task,ctx,from,to,nll,ci_low,ci_high,ppl")
    assert [line.split(",")[3:5] for line in table[1:]] == [["0", "256"], ["256", "512"], ["512", "600"]]
    page = Path("r/report.html").read_text()
    assert 'id="positions"' in page
    assert "ppl/texts" in page
    assert not Path("r2").exists()
    assert call(["run", "--tasks", "ppl:texts", "--ctx", "1m", "--limit", "2", "--out", "r2", "-q"]) == 2
    assert "choose a shorter --ctx" in capsys.readouterr().err


def test_documents_of_ones_own_are_marked_in_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text(" ".join(f"Walrus number {i} sat on a rock." for i in range(400)))
    assert (
        call(
            [
                "run",
                "--tasks",
                "ruler/niah_single_2",
                "--haystack",
                "notes.txt",
                "--ctx",
                "600",
                "--limit",
                "2",
                "--out",
                "r",
                "-q",
            ]
        )
        == 0
    )
    store = RunStore.open(Path("r"))
    assert not [text for text in store.manifest["caveats"] if "repeated" in text]
    Path("short.txt").write_text("A walrus.")
    short = ["run", "--tasks", "ruler/niah_single_2", "--haystack", "short.txt", "--ctx", "600", "--dry-run"]
    capsys.readouterr()
    assert call(short) == 0
    assert re.search(r"short.txt has \d+ tokens in all: to fill 600 it is repeated", capsys.readouterr().err)
    (row, _) = store.rows()
    assert (row.edition, "notes.txt" in row.data_revision, len(row.data_digest)) == ("own", True, 64)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--tasks", "./gone.py:Task"], "there is no file gone.py"),
        (["run", "--tasks", "./gone.yaml"], "there is no file gone.yaml"),
        (["run", "--tasks", "ppl:gone"], "there is no file or folder gone"),
        (["run", "--tasks", "ruler/vt", "--metric", "./gone.py:f"], "there is no file gone.py"),
        (["run", "--haystack", "gone"], "there is no file or folder gone"),
        (["run", "--tasks", "ruler/cwe", "--haystack", "."], "has no haystack of prose"),
        (["run", "--haystack", ".", "--edition", "official"], "leave out --edition"),
        (["run", "--edition", "own"], "name them with --haystack FILE"),
        (["score", "gone"], "gone is not a run directory"),
    ],
)
def test_what_cannot_be_is_one_line(one_line: Callable[..., str], words: list[str], said: str) -> None:
    assert said in one_line(words)


def test_the_stored_answers_of_every_family_score_the_same_again() -> None:
    tasks = "ruler/niah_multivalue,mrcr/2needle,longbench2/mcq,frames/oracle,short/cmath"
    assert call(["run", "--tasks", tasks, "--ctx", "2k", "--limit", "1", "--out", "r", "-q"]) == 0
    before = [(row.id, row.score, row.metrics, row.extracted) for row in RunStore.open(Path("r")).rows()]
    assert call(["score", "r", "-q"]) == 0
    assert [(row.id, row.score, row.metrics, row.extracted) for row in RunStore.open(Path("r")).rows()] == before


def test_scoring_runs_no_file_and_no_answer_that_the_command_does_not_allow(
    one_line: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A run directory may be somebody else's."""
    Path("my.py").write_text(TASK)
    Path("m.py").write_text(METRIC)
    assert call(RUN) == 0
    capsys.readouterr()
    for file in ("my.py", "m.py"):
        Path(file).write_text("raise SystemExit('was run')")
    assert f"add --tasks {Path('my.py').resolve()}:Number" in one_line(["score", "r"])
    run = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps(run | {"spec": run["spec"] | {"metric": "./m.py:digits"}}))
    assert one_line(["score", "r"]).endswith(":Number --metric ./m.py:digits")
    Path("my.py").write_text(f"{TASK}\n    needs_code_execution = True\n")
    asked = ["score", "r", "--tasks", "./my.py:Number", "--metric", "none"]
    assert "mine/number runs the code that the model writes: add --allow-code-execution" in one_line(asked)


def test_an_interrupted_scoring_is_whole_after_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from kleval.harness import rescoring

    Path("my.py").write_text(TASK)
    Path("m.py").write_text(METRIC)
    assert call(RUN) == 0
    before = rows()
    scoring = ["score", "r", "--tasks", "./my.py:Number", "--metric", "./m.py:digits"]

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rescoring, "checked", stopped)
        assert call([*scoring, "-q"]) == 130
    assert rows() == before
    assert call([*scoring, "-q"]) == 0
    assert torch.isfinite(torch.tensor([score or 0.0 for score in rows()])).all()
