"""The mean of a data set's length bins weighs each the same, and says which it lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.cli.scores import print_scores
from kleval.tables.bins import bins_of, in_words, means_of_bins
from kleval.tables.cells import Cell, mover, summarise
from kleval.tables.leaderboard import to_rows
from kleval.tasks.mrcr import official as bins

NAMES = tuple(bins_of("mrcr/2needle"))
MILLION = 1 << 20


def rows(
    scores: Mapping[str, Sequence[float]], task: str = "mrcr/8needle", ctx: int = MILLION
) -> list[SimpleNamespace]:
    """A row per score, of the bin that it is listed under."""
    return [
        SimpleNamespace(
            model="m",
            task=task,
            ctx=ctx,
            edition="official",
            protocol="openai",
            metric="match",
            id=f"{name}/{i}",
            score=value,
            metrics={"match": value, "prefix": 1.0, f"match {name}": value},
            failure=None,
            outcomes=(),
            references=(),
            prompt_hash="",
            max_new_tokens=32,
            answer_prefix="",
        )
        for name, values in scores.items()
        for i, value in enumerate(values)
    ]


def mean(scores: Mapping[str, Sequence[float]], **more: object) -> tuple[Cell, list[Cell]]:
    cells = summarise(rows(scores, **more))  # type: ignore[arg-type]
    (found,) = means_of_bins(cells)
    return found, cells


def test_the_bins_are_those_of_the_task():
    assert bins.NAMES == NAMES


@settings(max_examples=5, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=8, max_size=8))
def test_every_bin_weighs_the_same(values):
    found, cells = mean(dict(zip(NAMES, values, strict=True)))
    of = [next(cell for cell in cells if cell.metric == f"match {name}") for name in NAMES]
    assert found.metric == "match, mean of 8 bins"
    assert found.value == pytest.approx(sum(sum(one) / len(one) for one in values) / 8)
    assert (found.ci_low, found.ci_high) == (mover(of).low, mover(of).high)
    assert (found.n_samples, found.missing) == (sum(map(len, values)), ())


def test_the_mean_of_all_rows_leans_to_the_bins_with_more():
    scores = {name: [1.0] if name != NAMES[0] else [0.0] * 8 for name in NAMES}
    found, cells = mean(scores)
    assert found.value == pytest.approx(7 / 8)
    assert next(cell for cell in cells if cell.headline).value == pytest.approx(7 / 15)


def test_bins_that_lack_are_in_its_name():
    found, _ = mean(dict.fromkeys(NAMES[:5], (0.5, 1.0)), ctx=131_072)
    assert found.metric == "match, mean of 5 of 8 bins"
    assert found.missing == NAMES[5:]
    assert math.isnan(found.bound_low)


@pytest.mark.parametrize("task", ["mrcr/2needle", "other/2needle"])
def test_a_single_bin_and_other_tasks_have_none(task):
    assert not means_of_bins(
        summarise(rows({NAMES[0]: (0.5,)} if task == "mrcr/2needle" else dict.fromkeys(NAMES, (0.5,)), task))
    )  # type: ignore[arg-type]


def test_a_line_tells_whether_it_is_the_published_number():
    whole, _ = mean(dict.fromkeys(NAMES, (0.5,) * 4))
    part, _ = mean(dict.fromkeys(NAMES[:5], (0.5,) * 4), ctx=131_072)
    (line,) = in_words([part, whole])
    assert line.startswith("mrcr/8needle, mean of its 8 length bins, 4k-8k to 512k-1m: 50.0 [")
    assert line.endswith("n = 32")
    (line,) = in_words([part])
    assert "mean of 5 length bins of 8, not the published number" in line
    assert line.endswith("no score in 128k-256k, 256k-512k, 512k-1m")


def test_the_terminal_says_it_below_the_scores(capsys):
    found, cells = mean(dict.fromkeys(NAMES, (0.5,) * 4))
    print_scores([*cells, found], [])
    assert "mrcr/8needle, mean of its 8 length bins" in capsys.readouterr().out


def test_leaderboards_hold_it(make_run):
    store = make_run(
        tasks=("mrcr/8needle",),
        ctxs=(MILLION,),
        n=8,
        metrics=lambda model, task, ctx, index: {f"string_match_all {NAMES[index]}": 1.0},
    )
    (row,) = (row for row in to_rows([store]) if row["model"] == "one@nano" and "mean of" in row["metric"])
    assert (row["metric"], row["value"], row["n_scored"]) == ("string_match_all, mean of 8 bins", 100.0, 8)
