"""A gate's judgements: on stored runs, and the rates at which they are wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kleval.store import RunStore
from kleval.tables.compare import Line, matched, read_sides
from kleval.tables.compare_times import Estimate, Place, Timed
from kleval.tables.conditions import conditions
from kleval.tables.gate import Judgement, corrected, judge_line, judge_run, judge_times, overall
from kleval.tables.paired import Pair, contrast

Make = Callable[..., RunStore]
ONE = {"models": ("one@nano",), "ctxs": (1024,), "tasks": ("ruler/vt",), "n": 40}
TPOT: Place = ("decode", "batch-1", 65536, "ms_per_token")
N = 1000


def first(k: int, value: object = 0.0):  # type: ignore[no-untyped-def]
    return lambda model, task, ctx, index: value if index < k else 1.0


def judged(text: str, run: RunStore, base: RunStore | None = None) -> Judgement:
    ((other, side),) = matched(read_sides([base or run]), read_sides([run]))
    one = judge_run(conditions([text])[0], side, other if base else None)
    assert one is not None
    return one


def test_a_score_rests_on_samples_and_a_share_on_answers(make_run: Make) -> None:
    run = make_run("b", repeats=2, **ONE)
    assert [(judged(text, run).n, judged(text, run).unit) for text in ("ruler < 60", "cut > 1%")] == [
        (40, "samples"),
        (80, "answers"),
    ]


@pytest.mark.parametrize(("lost", "verdict"), [(0, "undecided"), (3, "undecided"), (12, "fail")])
def test_a_difference_is_judged_by_its_interval(make_run: Make, lost: int, verdict: str) -> None:
    one = judged("ruler < -2", make_run("b", answer=first(lost), **ONE), make_run("a", **ONE))
    assert (one.verdict, one.n, one.value) == (verdict, 40, pytest.approx(-lost / 40))
    assert (one.needed is None) == (verdict == "fail")


def test_a_level_needs_no_base(make_run: Make) -> None:
    run = make_run(answer=first(12), **ONE)
    assert [judged(text, run).verdict for text in ("ruler < 90", "all@1k < 70", "ruler/vt < 50")] == [
        "fail",
        "undecided",
        "pass",
    ]


def test_failures_are_a_share_and_none_at_all_is_a_pass(make_run: Make, failed: dict[str, str]) -> None:
    text = "failures > 1%"
    verdicts = [judged(text, make_run(f"r{k}", answer=first(k, failed), **ONE)).verdict for k in (0, 1, 8)]
    assert verdicts == ["pass", "undecided", "fail"]


def test_an_unfinished_run_passes_nothing(make_run: Make) -> None:
    one = judged("ruler < 50", make_run(status="interrupted", **ONE))
    assert (one.verdict, "continues it" in one.why) == ("undecided", True)


def test_cut_answers_fail_by_themselves(make_run: Make) -> None:
    assert judged("cut > 1%", make_run(finish="length", **ONE)).verdict == "fail"


def test_a_verdict_has_to_hold_at_both_bounds(make_run: Make, failed: dict[str, str]) -> None:
    a = make_run("a", answer=first(15), **ONE)
    b = make_run("b", answer=lambda model, task, ctx, index: failed if index < 30 else 0.0, **ONE)
    one = judged("ruler < -2", b, a)
    assert one.high < -0.02
    assert (one.verdict, "both bounds" in one.why) == ("undecided", True)


def test_holms_correction_takes_back_a_fail() -> None:
    condition = conditions(["ruler < -2"])[0]
    one = Judgement(condition, "one", -0.1, -0.2, -0.03, 40, "fail", p=0.03)
    found = corrected([one, replace(one, verdict="pass", p=1.0)])
    assert [(j.verdict, j.p_holm) for j in found] == [("undecided", pytest.approx(0.06)), ("pass", 1.0)]
    assert overall(found) == "undecided"
    assert overall(corrected([one])) == "fail"


def right_wrong(rng: np.random.Generator, n: int, effect: float) -> list[Pair]:
    u = rng.random(n)
    lost = (0.2 + effect) / 2
    return [(1.0, 0.0) if v < lost else (0.0, 1.0) if v < 0.2 else (1.0, 1.0) if v < 0.7 else (0.0, 0.0) for v in u]


def graded(rng: np.random.Generator, n: int, effect: float) -> list[Pair]:
    level = rng.beta(3, 2, n)
    a, b = (np.clip(level + rng.normal(0, 0.1, n) - shift, 0, 1) for shift in (0.0, effect))
    return list(zip(a.tolist(), b.tolist(), strict=True))


def scores(make, rng: np.random.Generator, n: int, effect: float) -> Judgement:  # type: ignore[no-untyped-def]
    found = contrast([make(rng, n // 2, effect), make(rng, n // 2, effect)])
    assert found is not None
    return judge_line(conditions(["ruler < -0"])[0], "", Line("ruler", None, (), found, found.p))


def times(rng: np.random.Generator, n: int, ratio: float) -> Judgement:
    """n alternating sessions per side that spread by a fifth, of three repeats that spread by a hundredth."""

    def side(first: int, factor: float) -> Timed:
        centre = 10 * factor * np.exp(rng.normal(0, 0.2, n))
        repeats = centre[:, None] * np.exp(rng.normal(0, 0.01, (n, 3)))
        return Timed("one", {f"{2 * i + first:06}": {TPOT: values} for i, values in enumerate(repeats.tolist())}, ())

    one = judge_times(conditions(["tpot@64k > +0%"])[0], side(1, ratio), side(0, 1.0))
    assert one is not None
    return one


@pytest.mark.slow
@pytest.mark.parametrize(("make", "n"), [(right_wrong, 40), (right_wrong, 400), (graded, 24), (graded, 48)])
def test_of_1000_pairs_without_a_difference_at_most_5_percent_fail(make, n: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(3)
    assert sum(scores(make, rng, n, 0.0).verdict == "fail" for _ in range(N)) <= 0.05 * N


@pytest.mark.parametrize("n", [3, 6])
def test_of_1000_pairs_of_profiles_without_a_difference_at_most_5_percent_fail(n: int) -> None:
    rng = np.random.default_rng(5)
    assert sum(times(rng, n, 1.0).verdict == "fail" for _ in range(N)) <= 0.05 * N


@pytest.mark.slow
@pytest.mark.parametrize(("make", "effect"), [(right_wrong, 0.1), (graded, 0.1)])
def test_of_1000_with_the_planted_effect_at_its_n_80_percent_do_not_pass(make, effect: float) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(7)
    pilot = contrast([make(rng, 200, effect)])
    assert pilot is not None
    verdicts = [scores(make, rng, pilot.needed(effect) + 1, effect).verdict for _ in range(N)]
    assert sum(verdict != "pass" for verdict in verdicts) >= 0.8 * N
    assert verdicts.count("fail") >= 0.76 * N  # 0.8 expected; the n is estimated itself


def test_of_1000_slower_profiles_at_the_n_it_names_80_percent_do_not_pass() -> None:
    rng = np.random.default_rng(9)
    n = Estimate(0.0, 0.2 * np.sqrt(2 / 12), 22).needed(np.log(1.35), 12)
    verdicts = [times(rng, n, 1.35).verdict for _ in range(N)]
    assert sum(verdict != "pass" for verdict in verdicts) >= 0.8 * N
    assert verdicts.count("fail") >= 0.76 * N
