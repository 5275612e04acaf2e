"""The verdict: one sentence over everything that was asked, a winner only where nothing speaks against one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kleval.report.figure import Look
from kleval.report.verdict import verdict
from kleval.store import RunStore
from kleval.tables.costs import read_profile
from kleval.tables.headline import ahead, effective, headlines
from kleval.tables.scores import Entrant, collect

Make = Callable[..., RunStore]
LOOK = Look("#000000", "circle", "solid")
MODELS = ("kimi-linear@nano", "mla@nano")


def said(entrants: Sequence[Entrant], *profiles: RunStore) -> str:
    looks = {e.key: LOOK for e in entrants}
    models = {model: LOOK for store in profiles for model in store.manifest["models"]}
    return verdict(entrants, [read_profile(store) for store in profiles], looks, models).sentence


def test_it_averages_everything_that_was_asked_at_the_longest_length(make_run: Make) -> None:
    run = make_run(models=("one",), answer=lambda m, t, c, i: float(t == "ruler/vt" and c == 2048), n=10)
    assert said(collect([run])).startswith("At 2k, averaged over all 2 tasks asked (builtin data), one scores 50.0 (")


def test_a_clear_lead_is_named_and_overlapping_intervals_are_none(make_run: Make) -> None:
    clear = make_run("clear", answer=lambda m, t, c, i: float(m == "one@nano"), n=10)
    assert said(collect([clear])).endswith("; one@nano is ahead.")
    close = make_run("close", answer=lambda m, t, c, i: float(i % 2 or m == "one@nano"), n=3)
    assert said(collect([close])).endswith("; the intervals overlap, so neither is ahead.")


def test_no_model_is_ahead_where_its_failures_could_undo_it(make_run: Make, failed: dict[str, str]) -> None:
    run = make_run(answer=lambda m, t, c, i: (1.0 if i < 6 else failed) if m == "one@nano" else float(i < 5), n=30)
    entrants = collect([run])
    assert ahead(headlines(entrants, {})) is None
    assert "48 of 60 answers there of one@nano failed, which leaves 20.0 – 100.0 possible" in said(entrants)


def test_no_model_is_ahead_of_one_that_was_asked_something_else(make_run: Make) -> None:
    runs = [
        make_run("a", models=("one",), n=20),
        make_run("b", models=("two",), n=20, tasks=("ruler/vt",), answer=lambda m, t, c, i: 0.0),
    ]
    text = said(collect(runs))
    assert "averaged over the tasks that each was asked (1 to 2)" in text
    assert "they were not asked the same, so none is called ahead" in text


def test_a_run_whose_answers_all_failed_has_no_score_and_says_why(make_run: Make, failed: dict[str, str]) -> None:
    run = make_run(models=("one",), answer=lambda m, t, c, i: failed, n=2)
    assert said(collect([run])) == "one has no score: all 8 answers failed (out_of_memory)."


@pytest.mark.parametrize(("start", "differ"), [("the same", False), ("its own", True)])
def test_other_training_recipes_are_in_the_same_sentence(make_run: Make, start: str, differ: bool) -> None:
    def describe(model: str) -> dict[str, Any]:
        return {"training": {"tokens": 8, "start": "the same" if model == "one@nano" else start}}

    text = said(collect([make_run(describe=describe)]))
    assert ("their training recipes differ (initial weights)" in text) is differ
    assert len(re.findall(r"[.!?]( |$)", text)) == 1


def test_costs_are_those_of_the_length_of_the_scores(make_run: Make, make_profile: Make) -> None:
    run = make_run(models=MODELS, ctxs=(4096, 8192))
    profile = make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096, 8192), repeats=2)
    found = verdict(collect([run]), [read_profile(profile)], {"m0": LOOK, "m1": LOOK}, {})
    assert [name for name, _ in found.columns][2:4] == ["Time per token at 8k", "State bytes saved at 8k"]
    assert [less for _, less in found.columns] == [False, False, True, False, False]
    assert "kimi-linear@nano keeps" in found.sentence
    assert found.lines[1].numbers[3].value == "0.0 %"


def test_without_scores_it_is_about_costs(make_profile: Make) -> None:
    profile = make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=3)
    assert said([], profile).startswith("At 4k, a token takes ")


def test_a_single_repeat_is_said_to_have_no_interval(make_profile: Make) -> None:
    sentence = said([], make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=1))
    assert re.search(
        r"kimi-linear@nano is [\d.]+× as fast as mla@nano in a single repeat, which has no interval\.$", sentence
    )
    assert "nan" not in sentence.replace("nano", "")


@pytest.mark.parametrize(("repeats", "note"), [(1, "1 repeat, no interval, "), (3, "least and most of 3 repeats, ")])
def test_a_time_has_the_range_of_its_repeats_and_none_of_a_single_one(
    make_profile: Make, repeats: int, note: str
) -> None:
    profile = read_profile(make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=repeats))
    time = verdict([], [profile], {}, dict.fromkeys(profile.models, LOOK)).lines[0].numbers[0]
    assert bool(time.interval) is (repeats > 1)
    assert time.note.startswith(note)


def test_effective_length_is_read_at_the_score_and_at_both_limits(make_run: Make) -> None:
    run = make_run(models=("one",), ctxs=(1024, 2048, 4096), answer=lambda m, t, c, i: float(c < 4096 or i > 0), n=3)
    found = effective(collect([run])[0].overall)
    assert found is not None
    assert (found.at, found.low, found.high, found.last) == (2048, None, 4096, 4096)
