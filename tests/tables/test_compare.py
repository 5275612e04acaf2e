"""Two runs compared: what is paired, refused and labelled, and what missing answers do to a verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kleval.store import RunStore
from kleval.tables.compare import Comparison, Line, compared, flips, matched, read_sides
from kleval.tables.conditions import conditions
from kleval.tables.explain import OTHER, explained
from kleval.tables.gate import judge_run
from kleval.types import UsageError

Make = Callable[..., RunStore]
ONE = {"models": ("one@nano",), "ctxs": (1024,), "n": 20}


def compare(a: RunStore, b: RunStore) -> Comparison:
    ((mine, theirs),) = matched(read_sides([a]), read_sides([b]))
    return compared(mine, theirs)


def line(found: Comparison, name: str) -> Line:
    return next(line for line in found.lines if line.name == name)


def first(k: int, value: float = 0.0) -> Callable[[str, str, int, int], float]:
    """The first k samples of each task get the value, the others are right."""
    return lambda model, task, ctx, index: value if index < k else 1.0


def test_a_task_an_average_and_who_is_worse(make_run: Make) -> None:
    found = compare(make_run("a", **ONE), make_run("b", answer=first(12), **ONE))
    average = line(found, "ruler average")
    assert (average.contrast.n, average.contrast.lost, average.contrast.difference.value) == (
        40,
        24,
        pytest.approx(-0.6),
    )
    assert {one.verdict for one in found.lines} == {"B is worse"}
    assert line(found, "ruler/vt").p == pytest.approx(2 * 2 * 0.5**12)  # Holm over two tasks


def test_questions_that_come_again_at_each_length_count_once_over_all_lengths(make_run: Make) -> None:
    """As FRAMES' of the official edition: ctx is only room, so that four lengths know no more than one."""
    one: dict[str, Any] = {
        "models": ("one@nano",),
        "tasks": ("frames/oracle",),
        "ctxs": (1024, 2048, 4096, 8192),
        "n": 20,
    }
    again = {**one, "prompt": lambda model, task, ctx, index: f"{task}, number {index}?"}
    every, once = (
        compare(make_run(f"a{i}", **of), make_run(f"b{i}", answer=first(6), **of)).lines[-1]
        for i, of in enumerate((one, again))
    )
    assert (every.ctx, every.contrast.n) == (once.ctx, once.contrast.n) == (None, 80)
    assert every.contrast.difference.value == once.contrast.difference.value == pytest.approx(-0.3)
    single = compare(
        make_run("a2", **{**again, "ctxs": (1024,)}), make_run("b2", **{**again, "ctxs": (1024,)}, answer=first(6))
    )
    assert once.contrast.difference.low == pytest.approx(single.lines[0].contrast.difference.low)
    assert once.contrast.p == pytest.approx(single.lines[0].contrast.p) == pytest.approx(2 * 0.5**6)
    assert every.contrast.p < 1e-6


def test_a_group_of_a_provider_is_weighed_by_size_and_all_tasks_are_not(make_run: Make) -> None:
    """20 samples of one task, 5 of the other, of which B loses all."""
    given: dict[str, Any] = {
        "models": ("one@nano",),
        "ctxs": (1024,),
        "n": 20,
        "tasks": ("lm_eval/a", "lm_eval/b"),
        "groups": {"lm_eval/ab": ("lm_eval/a", "lm_eval/b")},
    }
    of_b = {"lm_eval/a": 1.0, "lm_eval/b": 0.0}
    a = make_run("a", answer=lambda m, t, c, i: 1.0 if i < 5 or t == "lm_eval/a" else None, **given)
    b = make_run("b", answer=lambda m, t, c, i: of_b[t] if i < 5 or t == "lm_eval/a" else None, **given)
    found = compare(a, b)
    assert line(found, "lm_eval/ab average").contrast.difference.value == pytest.approx(-0.2)
    assert line(found, "all tasks").contrast.difference.value == pytest.approx(-0.5)
    (side,) = read_sides([b])
    level, all_of_it = (judge_run(conditions([text])[0], side, None) for text in ("lm_eval/ab < 70", "all < 40"))
    assert level is not None
    assert all_of_it is not None
    assert (level.value, all_of_it.value) == (pytest.approx(0.8), pytest.approx(0.5))


@pytest.mark.parametrize("setting", ["edition", "protocol"])
def test_another_edition_or_protocol_is_refused_by_name(make_run: Make, setting: str) -> None:
    a, b = make_run("a", **ONE), make_run("b", **ONE, **{setting: "other"})
    with pytest.raises(UsageError, match=f"no common samples: {setting} .* against other"):
        compare(a, b)


def test_other_samples_by_another_seed_are_refused_with_the_seeds(make_run: Make) -> None:
    a = make_run("a", **ONE, prompt=lambda model, task, ctx, index: f"42 {index}")
    b = make_run("b", **ONE, prompt=lambda model, task, ctx, index: f"7 {index}", seed=7)
    with pytest.raises(UsageError, match="no common samples: seed 42 against 7; "):
        compare(a, b)


def test_one_refused_task_leaves_the_others(make_run: Make) -> None:
    found = compare(make_run("a", **ONE), make_run("b", digests={"ruler/vt": "e" * 64}, **ONE))
    assert [one.name for one in found.lines] == ["ruler/cwe"]
    assert found.refused == ("data digest dddddddddddd against eeeeeeeeeeee (ruler/vt)",)


def test_another_text_under_the_same_id_is_no_pair(make_run: Make) -> None:
    b = make_run("b", prompt=lambda model, task, ctx, index: f"{task} {index}" + (" again" if index < 5 else ""), **ONE)
    a = make_run("a", prompt=lambda model, task, ctx, index: f"{task} {index}", **ONE)
    found = compare(a, b)
    assert line(found, "ruler/vt").contrast.n == 15
    assert "10 samples with another prompt hash" in found.unpaired[0]


def test_settings_engine_and_lengths_are_labelled(make_run: Make) -> None:
    a = make_run("a", models=("one@nano",), n=3)
    b = make_run("b", **{**ONE, "n": 3}, seed=7, describe=lambda model: {"dtype": "bfloat16"})
    found = compare(a, b)
    assert {"seed 42 against 7", "dtype float32 against bfloat16"} <= set(found.labels)
    assert any("of A alone" in text and "at 2k" in text for text in found.unpaired)


def test_a_verdict_holds_only_where_it_holds_at_both_bounds(make_run: Make, failed: dict[str, str]) -> None:
    """A loses 8 samples that B has right. Where B fails on the 12 others, which A has right, they may be worth more than the 8."""
    one = {**ONE, "tasks": ("ruler/vt",)}
    a = make_run("a", answer=first(8), **one)
    whole = line(compare(a, make_run("b", **one)), "ruler/vt")
    assert (whole.verdict, whole.bounds) == ("B is better", ())
    broken = make_run("c", answer=lambda model, task, ctx, index: 1.0 if index < 8 else failed, **one)
    unsure = line(compare(a, broken), "ruler/vt")
    assert (unsure.contrast.n, unsure.contrast.sign) == (8, 1)
    assert [bound.difference.value for bound in unsure.bounds] == pytest.approx([-0.2, 0.4])
    assert unsure.verdict == "undecided: failed or cut answers could turn it"


def test_a_task_on_which_one_side_failed_throughout_is_in_the_bounds(make_run: Make, failed: dict[str, str]) -> None:
    answer = lambda model, task, ctx, index: failed if task == "ruler/vt" else float(index % 4 > 0)  # noqa: E731
    found = compare(make_run("a", **ONE), make_run("b", answer=answer, **ONE))
    assert [one.name for one in found.lines] == ["ruler/cwe", "ruler average"]
    average = line(found, "ruler average")
    assert (average.contrast.n, average.failed) == (20, (0.0, 0.5))
    assert [bound.difference.value for bound in average.bounds] == pytest.approx([-0.625, -0.125])


def test_cut_answers_count_as_scored_or_as_right(make_run: Make) -> None:
    one = {**ONE, "tasks": ("ruler/vt",)}
    found = line(compare(make_run("a", **one), make_run("b", answer=first(10), finish="length", **one)), "ruler/vt")
    assert found.cut == (0.0, 1.0)
    assert [bound.difference.value for bound in found.bounds] == pytest.approx([-0.5, 0.0])
    assert found.verdict == "undecided: failed or cut answers could turn it"


def test_flips_name_the_samples(make_run: Make) -> None:
    found = compare(make_run("a", **ONE), make_run("b", answer=first(1), **ONE))
    told = list(flips(found.a, found.b, [("ruler/vt", 1024)]))
    assert [(flip["sample"], flip["difference"]) for flip in told] == [("ruler/vt:1024:0", -1.0)]


def test_the_parts_of_a_gap_add_up(make_run: Make) -> None:
    """The first five prompts differ; of the rest one answer is another and two have the same text and another score."""
    a = make_run("a", **ONE)
    b = make_run(
        "b",
        answer=first(8),
        prompt=lambda model, task, ctx, index: f"{task} at {ctx}, number {index}?" + ("!" if index < 5 else ""),
        text=lambda model, task, ctx, index: "another" if index == 5 else "the answer is 42",
        **ONE,
    )
    parts = {
        row["cause"].split(" (")[0]: row["moved"]
        for ((mine, theirs),) in [matched(read_sides([a]), read_sides([b]))]
        for row in explained(mine, theirs)
    }
    assert parts == pytest.approx({"prompt": -25.0, "scoring": -10.0, OTHER: -5.0})


def test_models_that_no_two_runs_share_are_named(make_run: Make) -> None:
    a, b = make_run("a"), make_run("b", models=("three@nano", "four@nano"))
    with pytest.raises(UsageError, match="no model is in both: A has one@nano, two@nano"):
        matched(read_sides([a]), read_sides([b]))
    ((mine, theirs),) = matched(read_sides([a]), read_sides([b]), ["one@nano", "four@nano"])
    assert (mine.model, theirs.model) == ("one@nano", "four@nano")
