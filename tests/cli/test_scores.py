"""The table at the end of a run says what each number stands on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kleval.cli.scores import print_scores
from kleval.tables.cells import Cell, families

Capture = pytest.CaptureFixture[str]
NAN = float("nan")
CELL = Cell(
    model="m@nano",
    task="ruler/vt",
    ctx=1024,
    metric="string_match_all",
    edition="builtin",
    protocol="nvidia-c3f5e3b",
    value=0.5,
    ci_low=0.19,
    ci_high=0.81,
    ci_method="wilson",
    n_total=6,
    n_scored=6,
    n_failed=0,
    n_skipped=0,
    bound_low=0.5,
    bound_high=0.5,
    n_samples=6,
)


def shown(capsys: Capture, *cells: Cell) -> list[str]:
    print_scores(cells, families(cells))
    return capsys.readouterr().out.splitlines()


def test_a_score_has_its_interval_and_n(capsys: Capture) -> None:
    lines = shown(capsys, CELL, replace(CELL, ctx=2048, value=1.0, ci_high=1.0))
    assert lines[1] == "m@nano: score × 100 [95 % interval], builtin edition, protocol nvidia-c3f5e3b, n = 6 each"
    assert lines[2].split() == ["task", "1k", "2k"]
    assert "50.0 [19, 81]" in lines[4]
    assert "100.0 [19, 100]" in lines[4]
    assert lines[-2] == "no failures"
    assert (
        lines[-1] == "area under score against log length, 1 task scored at every length: 75.0 [32, 90] over 1k to 2k"
    )


def test_different_n_stand_with_each_score(capsys: Capture) -> None:
    lines = shown(capsys, CELL, replace(CELL, ctx=2048, n_samples=5, n_failed=1, n_scored=5))
    assert "each" not in lines[1]
    assert "n=6" in lines[4]
    assert "n=5" in lines[4]
    assert lines[2].split()[-1] == "failed"
    assert lines[4].split()[-1] == "1"


def test_failures_show_what_they_could_make_of_a_score(capsys: Capture) -> None:
    lines = shown(capsys, replace(CELL, n_failed=2, n_scored=4, n_samples=4, bound_low=0.33, bound_high=0.67))
    assert "50.0 [19, 81] {33, 67}" in lines[4]
    assert lines[-1].startswith("{low, high}")


def test_what_was_skipped_or_never_answered_is_no_number(capsys: Capture) -> None:
    nothing = replace(CELL, value=NAN, ci_low=NAN, ci_high=NAN, n_scored=0, n_samples=0)
    skipped = replace(nothing, n_total=0, n_skipped=6)
    failed = replace(nothing, ctx=2048, n_failed=6, bound_low=0.0, bound_high=1.0)
    lines = shown(capsys, skipped, failed, replace(CELL, ctx=4096))
    assert lines[4].split()[:4] == ["ruler/vt", "skipped", "no", "answer"]
    assert lines[4].split()[-2:] == ["6", "6"]
    assert not any(line.startswith("{low, high}") for line in lines)  # there are none to be explained


def test_an_average_over_fewer_tasks_says_so(capsys: Capture) -> None:
    other = replace(CELL, task="ruler/cwe", value=NAN, ci_low=NAN, ci_high=NAN, n_total=0, n_skipped=6, n_samples=0)
    lines = shown(capsys, CELL, other)
    assert any(line.startswith("average of ruler") and "(1 of 13 tasks)" in line for line in lines)


def test_models_and_editions_have_tables_of_their_own(capsys: Capture) -> None:
    lines = shown(capsys, CELL, replace(CELL, model="n@nano"), replace(CELL, edition="official"))
    assert sum("score × 100" in line for line in lines) == 3


def test_a_column_of_one_task_is_not_taken_for_its_family(capsys: Capture) -> None:
    lines = shown(capsys, replace(CELL, task="mrcr/2needle"), replace(CELL, task="lca/lib"))
    columns = [part for line in lines if line.startswith(" 1k") for part in line.split()[1:]]
    assert columns == ["-", "50.0", "(1/3)", "-", "-", "-", "-", "50.0", "-", "-"]


def test_cut_empty_and_looping_answers_are_told_beside_no_failures(capsys: Capture) -> None:
    broken = replace(CELL, n_texts=6, n_cut=3, n_looped=1, n_completed=2, value_completed=1.0)
    lines = shown(capsys, broken, replace(CELL, ctx=2048, n_texts=6))
    at = lines.index("no failures")
    said = "of 6 answers 3 cut by the budget (50%), 1 looping to the end (17%); over completed answers: ruler/vt 100.0 (n=2)"
    assert lines[at + 1] == f"1k: {said}"


@pytest.mark.parametrize(("looped", "said"), [(6, True), (5, False)])
def test_a_whole_cell_of_degenerate_answers_is_said(capsys: Capture, looped: int, said: bool) -> None:
    lines = shown(capsys, replace(CELL, n_texts=6, n_looped=looped))
    told = "1k: every answer of ruler/vt repeats itself to the end: a fault of the engine"
    assert any(line.startswith(told) for line in lines) is said


def test_no_completed_answer_is_no_number(capsys: Capture) -> None:
    lines = shown(capsys, replace(CELL, n_texts=6, n_empty=6))
    assert lines[-1] == "1k: of 6 answers 6 empty (100%); over completed answers: ruler/vt - (n=0)"
