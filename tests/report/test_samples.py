"""The sample browser's data: every answer is in it, each prompt once, as text that no markup can come of."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.report import samples
from kleval.report.header import looks
from kleval.report.samples import Samples
from kleval.report.score_curves import Shape
from kleval.store import RunStore
from kleval.store.excerpts import WHOLE
from kleval.tables.scores import collect

MakeRun = Callable[..., RunStore]


def unpacked(text: str) -> str:
    return zlib.decompress(base64.b64decode(text)).decode("utf-8")


class Read:
    """The browser's data as the page's script reads them."""

    def __init__(self, *runs: RunStore) -> None:
        self.samples = Samples()
        entrants = collect(runs, self.samples.watch)
        browser = self.samples.browser(entrants, Shape.of(entrants), looks(entrants, [])[0])
        self.index: dict[str, Any] = json.loads(unpacked(browser.index))
        self.blocks = [unpacked(block).split("\n") for block in browser.blocks]

    def line(self, place: list[int]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.blocks[place[0]][place[1]])
        return found

    def answers(self) -> list[tuple[list[Any], list[Any]]]:
        return [(sample, answer) for sample in self.index["samples"] for answer in sample[5]]

    def answer(self, nth: int = 0) -> dict[str, Any]:
        _, answer = self.answers()[nth]
        return self.line(answer[4:6])

    def prompt(self, nth: int = 0) -> dict[str, Any]:
        return self.line(self.index["prompts"][nth])


def text_of(shown: list[Any]) -> str:
    return "".join("".join(runs) for _, runs in shown[1])


def test_every_answer_is_there_and_each_prompt_once(make_run: MakeRun) -> None:
    found = Read(make_run(n=6))
    assert len(found.index["samples"]) == 2 * 2 * 6
    assert len(found.answers()) == 2 * 2 * 2 * 6
    assert len(found.index["prompts"]) == 2 * 2 * 6
    assert {text_of(found.prompt(i)["prompt"]) for i in range(24)} == {
        f"{task} at {ctx}, number {i}?" for task in ("ruler/vt", "ruler/cwe") for ctx in (1024, 2048) for i in range(6)
    }


def test_of_large_cells_the_first_answers_are_shown_and_the_rest_is_counted(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kleval.report.samples.MOST_ANSWERS", 2 * 8)  # two of each cell
    found = Read(make_run(n=6))
    assert [sample[2] for sample in found.index["samples"]] == [0, 1] * 4
    assert len(found.answers()) == 2 * 2 * 2 * 2
    assert found.samples.unshown == 2 * 2 * 2 * 4


def test_samples_stand_by_task_length_and_number_with_the_answers_of_both_models(make_run: MakeRun) -> None:
    found = Read(make_run(n=2))
    assert [sample[:3] for sample in found.index["samples"]] == [
        [task, length, number] for task in (0, 1) for length in (0, 1) for number in (0, 1)
    ]
    assert all([answer[0] for answer in sample[5]] == [0, 1] for sample in found.index["samples"])


def test_the_result_of_each_answer_is_told(make_run: MakeRun, failed: dict[str, str]) -> None:
    values = [1.0, 0.5, 0.0, failed]
    run = make_run(answer=lambda m, t, c, i: values[i], n=4, models=("one",), tasks=("ruler/vt",), ctxs=(1024,))
    found = Read(run)
    told = [(found.index["verdicts"][answer[1]], answer[2]) for _, answer in found.answers()]
    assert told == [("right", 1.0), ("partial", 0.5), ("wrong", 0.0), ("failed", None)]
    assert found.answer(3)["failure"] == failed


def test_broken_answers_are_flagged(make_run: MakeRun) -> None:
    texts = ["", "!" * 100, "an answer"]
    run = make_run(text=lambda m, t, c, i: texts[i], models=("one",), tasks=("ruler/vt",), ctxs=(1024,))
    found = Read(run)
    flags = [
        [name for i, name in enumerate(found.index["broken"]) if answer[3] >> i & 1] for _, answer in found.answers()
    ]
    assert flags == [["empty"], ["looped"], []]


def test_a_score_by_matches_names_what_was_and_was_not_in_the_answer(make_run: MakeRun) -> None:
    right = Read(make_run("right", text=lambda m, t, c, i: "it is 42"))
    wrong = Read(make_run("wrong", answer=lambda m, t, c, i: 0.0, text=lambda m, t, c, i: "it is 41"))
    assert "In the answer: 42." in right.answer()["why"]
    assert "Not in the answer: 42." in wrong.answer()["why"]


def test_a_long_prompt_is_an_excerpt_and_says_how_long_it_is(make_run: MakeRun) -> None:
    hay = "grass is green\n" * 5000
    found = Read(
        make_run(tasks=("ruler/vt",), prompt=lambda m, t, c, i: f"{hay}the number of {t} {c} {i} is 42\n{hay}which?")
    )
    shown = found.prompt()["prompt"]
    assert shown[0] > 2 * len(hay)
    assert len(text_of(shown)) < WHOLE
    assert [run for _, runs in shown[1] for run in runs[1::2]] == ["the number of ruler/vt 1024 0 is 42"]


def test_a_prompt_that_is_not_there_is_said_to_be_missing(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for path in (tmp_path / "run" / "prompts").rglob("*.gz"):
        path.unlink()
    found = Read(run).prompt()
    assert (found["prompt"], found["missing"]) == (None, "not stored with the run")


def test_prompts_beyond_the_page_s_size_are_left_out_and_counted(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "BLOCK_CHARS", 1000)
    monkeypatch.setattr(samples, "MOST_CHARS", 3000)
    found = Read(make_run(n=20))
    missing = [i for i in range(80) if found.prompt(i).get("missing")]
    assert 0 < len(missing) < 80
    assert found.samples.left_out == len(missing)
    assert len(found.answers()) == 160


def test_texts_survive_whatever_they_hold(make_run: MakeRun) -> None:
    nasty = 'a\nb\\n"</script><!--\u2028\x00\U0001f600'
    found = Read(make_run(text=lambda m, t, c, i: nasty))
    assert text_of(found.answer()["calls"][-1]["text"]) == nasty
