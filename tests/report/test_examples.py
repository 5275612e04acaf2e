"""Which answers are shown, and how much of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kleval.report.examples import ANSWER_CHARS, PER_CELL, PROMPT_CHARS, Example, Picker, clean
from kleval.store import RunStore
from kleval.tables.scores import collect

MakeRun = Callable[..., RunStore]


def picked(run: RunStore, **limits: int) -> tuple[list[Example], int]:
    picker = Picker()
    return picker.pick(collect([run], picker.watch), **limits)


def test_no_cell_shows_more_than_its_share(make_run: MakeRun) -> None:
    found, left_out = picked(make_run(n=6))
    places = [(e.model, e.row.task, e.row.ctx) for e in found]
    assert len(places) == 2 * 2 * 2 * PER_CELL
    assert all(places.count(place) == PER_CELL for place in places)
    assert left_out == 0


def test_a_failure_a_wrong_and_a_right_answer_are_all_shown(make_run: MakeRun, failed: dict[str, str]) -> None:
    run = make_run(answer=lambda m, t, c, i: failed if i == 9 else float(i != 5), n=10, models=("one",), ctxs=(1024,))
    found, _ = picked(run)
    assert [(e.row.index, e.verdict) for e in found if e.row.task == "ruler/vt"] == [
        (0, "right"),
        (5, "wrong"),
        (9, "failed"),
    ]


def test_long_texts_are_clipped_to_the_end_of_the_prompt_and_the_start_of_the_answer(make_run: MakeRun) -> None:
    run = make_run(
        prompt=lambda m, t, c, i: "x" * 5000 + f"the question {t} {c} {i}",
        text=lambda m, t, c, i: "the answer" + "y" * 5000,
    )
    example = picked(run)[0][0]
    assert len(example.prompt) == PROMPT_CHARS
    assert "the question" in example.prompt
    assert example.prompt_cut > 4000
    assert len(example.answer) == ANSWER_CHARS
    assert example.answer.startswith("the answer")


def test_the_total_is_bounded_and_what_is_left_out_is_counted(make_run: MakeRun) -> None:
    run = make_run(text=lambda m, t, c, i: "y" * 500)
    everything, _ = picked(run)
    some, left_out = picked(run, total_chars=3000)
    assert len(some) + left_out == len(everything)
    assert sum(e.chars for e in some) < 3000 + 2 * ANSWER_CHARS
    assert len({(e.model, e.row.task, e.row.ctx) for e in some}) == len(some)


def test_a_prompt_that_is_not_there_is_said_to_be_missing(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    for path in (tmp_path / "run" / "prompts").rglob("*.gz"):
        path.unlink()
    assert {e.prompt for e in picked(run)[0]} == {"(the prompt is not stored with the run)"}


def test_control_characters_become_visible() -> None:
    assert clean("a\x00b\x1b[31m\ud800\tc\r\nd") == "a\ufffdb\ufffd[31m\ufffd\tc\nd"
