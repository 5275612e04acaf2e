"""Verdicts: what a deviation needs to be one, what is left untold, and what right engines do that looks like a fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from toy import Toy

from kleval.backends.spec import BackendSpec
from kleval.types import REGRESSION, Failure, Outcome, Request, UsageError
from kleval.verify.engine import Dead, Engine, OutOfTime, Unanswered
from kleval.verify.job import VerifyJob, vocabulary_of
from kleval.verify.judge import Judge
from kleval.verify.laws import LAWS, Law, harmless, text
from kleval.verify.plan import Plan
from kleval.verify.spec import VerifySpec
from kleval.verify.trial import Case, Deviation
from kleval.work import Result


def judge_of(engine: Toy, longest: int = 120, seed: int = 42) -> Judge:
    judge = Judge(Engine.of(engine), Plan(longest, seed), 1e-3, n_checks=100)
    judge.measure(harmless.cases(judge.engine, judge.plan))
    return judge


def law_of(sizes: Sequence[float], names: str = "ab") -> Law:
    """A law whose trials have those deviations, one after the other; then the time is over."""
    left = iter(sizes)

    def measure(*_: Any) -> Deviation:
        if (size := next(left, None)) is None:
            raise OutOfTime
        return Deviation(size)

    return Law("made", "Made", lambda *_: [Case("made", name, 10, measure) for name in names], lambda trial: "")


def test_a_deviation_that_no_time_is_left_to_try_again_is_undecided() -> None:
    found = judge_of(Toy()).try_law(law_of([0.0, 5.0]))
    assert found.verdict == "undecided"
    assert "no time" in found.why


def test_a_deviation_that_comes_again_is_broken_at_once() -> None:
    found = judge_of(Toy()).try_law(law_of([5.0, 0.0, 5.0, 0.0], "a"))
    assert found.verdict == "broken"


def test_a_prompt_that_leaves_nothing_to_compare_is_taken_for_another() -> None:
    nothing = float("nan")
    found = judge_of(Toy()).try_law(law_of([nothing, nothing, 0.0], "a"))
    assert (found.verdict, found.tried) == ("holds", 1)
    never = judge_of(Toy()).try_law(law_of([nothing] * 9, "a"))
    assert never.verdict == "undecided"
    assert "nothing to compare" in never.why


def test_a_law_without_a_case_at_this_length_is_not_testable() -> None:
    judge = judge_of(Toy(abilities=("tells", "ids")), 100)
    told = {name: judge.try_law(LAWS[name]) for name in ("state", "long")}
    assert {found.verdict for found in told.values()} == {"not testable"}
    assert "give a longer --ctx" in told["state"].why


def test_the_smallest_prompt_is_of_a_length_that_is_broken_again() -> None:
    asked: list[int] = []

    def measure(engine: Engine, ids: tuple[int, ...], rng: Any) -> Deviation:
        asked.append(len(ids))
        # of shorter prompts one alone is beyond the limit
        return Deviation(1.0 if len(ids) >= 40 or asked.count(len(ids)) == 1 else 0.0)

    made = Law("made", "Made", lambda *_: [Case("made", "a", 64, measure)], lambda trial: "")
    found = judge_of(Toy()).try_law(made)
    assert found.smallest is not None
    assert len(found.smallest.ids) == 40


@pytest.mark.parametrize("seed", [0, 1, 3])
@pytest.mark.parametrize("abilities", [("tells",), ()])
def test_near_ties_of_an_engine_that_tells_no_ids_are_no_fault(abilities: tuple[str, ...], seed: int) -> None:
    judge = judge_of(Toy(abilities=abilities, noise=0.03, dtype="unknown", n_asked=1000 * seed), seed=seed)
    found = [judge.try_law(LAWS[name]).verdict for name in ("batch", "prefix-cache", "slots")]
    assert "broken" not in found


@pytest.mark.parametrize(
    ("fault", "law", "noise"), [("batch", "batch", 0.0), ("batch", "batch", 0.02), ("slot", "slots", 0.0)]
)
def test_faults_are_told_from_near_ties_by_texts_alone(fault: str, law: str, noise: float) -> None:
    judge = judge_of(Toy(fault, noise=noise, dtype="bfloat16", abilities=(), max_ctx=900), 300)
    assert judge.try_law(LAWS[law]).verdict == "broken"


@pytest.mark.parametrize("seed", [0, 2])
def test_log_probabilities_of_two_decimals_are_no_fault(seed: int) -> None:
    judge = judge_of(Toy(noise=1e-4, dtype="unknown", decimals=2, n_asked=1000 * seed), seed=seed)
    assert judge.engine.step == 0.01
    assert {judge.try_law(LAWS[name]).verdict for name in ("causality", "state", "batch")} == {"holds"}


@pytest.mark.parametrize("keeps", [0.95, 0.98, 0.99])
def test_an_influence_that_fades_below_the_steps_of_the_logits_is_not_forgotten_at_once(keeps: float) -> None:
    judge = judge_of(Toy(keeps=keeps, rounded=1 / 32, dtype="bfloat16", max_ctx=4000), 1100)
    assert judge.try_law(LAWS["long"]).verdict != "broken"


@pytest.mark.parametrize(("abilities", "longest", "seed"), [(("tells", "ids"), 300, 0), (("tells",), 700, 10)])
def test_an_influence_on_an_answer_that_is_small_by_chance_is_not_forgotten(
    abilities: tuple[str, ...], longest: int, seed: int
) -> None:
    engine = Toy(noise=1e-6, dtype="unknown", abilities=abilities, n_asked=100000 * seed, max_ctx=900)
    assert judge_of(engine, longest, seed).try_law(LAWS["long"]).verdict == "holds"
    engine.fault = "forgets"
    assert judge_of(engine, 120, seed).try_law(LAWS["long"]).verdict == "broken"


def test_numbers_that_are_never_finite_let_no_law_hold() -> None:
    judge = judge_of(Toy(finite_to=12))
    found = {name: judge.try_law(LAWS[name]) for name in ("causality", "state", "prefix-cache")}
    told = {name: (one.verdict, one.why) for name, one in found.items()}
    assert told["causality"][0] == told["state"][0] == "broken"
    assert told["prefix-cache"][0] == "undecided"
    assert "numbers that are not finite" in told["prefix-cache"][1]


def test_an_engine_whose_scores_are_not_finite_gives_scores() -> None:
    assert Engine.of(_NanScores()).scores


class _NanScores(Toy):
    def _answer(self, request: Request, together: int) -> Outcome:
        if request.kind == "loglikelihood":
            return Failure("server", "the server gives nan as log-probability of the continuation")
        return super()._answer(request, together)


def test_an_engine_that_ends_at_once_is_not_dead() -> None:
    engine = Engine.of(Toy(silent=True))
    told = [engine.answer(Request("generate", "", 1, token_ids=(1, 2))) for _ in range(5)]
    assert all(isinstance(one, Failure) for one in told[1:])


@pytest.mark.parametrize("abilities", [("tells", "ids"), ()])
def test_an_engine_that_ends_at_once_after_a_prompt_that_it_knows_is_broken(abilities: tuple[str, ...]) -> None:
    assert judge_of(Toy(silent=True, abilities=abilities)).try_law(LAWS["prefix-cache"]).verdict == "broken"


def test_rounding_that_was_hardly_measured_makes_no_fault_of_bfloat16() -> None:
    judge = Judge(Engine.of(Toy(noise=0.03, dtype="bfloat16")), Plan(120), 1e-3, n_checks=100)
    judge.measure(harmless.cases(judge.engine, judge.plan)[:1])
    assert {judge.try_law(LAWS[name]).verdict for name in ("batch", "state")} == {"holds"}


def test_a_law_whose_last_requests_were_lost_is_left_for_later_where_the_engine_is_dead() -> None:
    judge = judge_of(Toy())

    def lost(engine: Engine, *_: Any) -> Deviation:
        engine.backend = Toy(dies_after=0)
        engine.score([(1, 2)])
        return Deviation(0.0)

    cases = [Case("made", name, 10, measure) for name, measure in (("a", lambda *_: Deviation(0.0)), ("b", lost))]
    with pytest.raises(Dead):
        judge.try_law(Law("made", "Made", lambda *_: cases, lambda trial: ""))


def test_no_answer_is_waited_for_longer_than_all_laws_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr("kleval.verify.job.open_backend", lambda model, **spec: told.update(spec))
    engine = BackendSpec(model="toy", backend="native")
    VerifyJob(VerifySpec(engine=engine, time_budget=60.0))._opened(engine)
    assert told["request_timeout"] == 60.0


@pytest.mark.parametrize(("fault", "size"), [("", 0.0), ("stop", 1.0)])
def test_an_engine_that_writes_on_behind_a_stop_string_is_seen(fault: str, size: float) -> None:
    engine, rng = Engine.of(Toy(fault)), Plan(120).rng("stop")
    ids = engine.prompt(24, "random", rng)
    assert text.stopped(engine, ids, rng).size == size


def test_the_law_of_texts_keeps_the_time_and_tells_a_dead_engine() -> None:
    engine = Engine.of(Toy())
    cases = text.cases(engine, Plan(120))
    ids, rng = engine.prompt(16, "random", Plan(120).rng("x")), Plan(120).rng("y")
    engine.deadline = 0.0
    with pytest.raises(OutOfTime):
        cases[0].measure(engine, ids, rng)
    engine.deadline, engine.backend = float("inf"), Toy(dies_after=0)
    for case in cases[:2]:
        with pytest.raises(Unanswered):
            case.measure(engine, ids, rng)
    with pytest.raises(Dead):
        cases[2].measure(engine, ids, rng)


@pytest.mark.parametrize(("ended", "code"), [(0, REGRESSION), (3, REGRESSION), (1, 1), (130, 130)])
def test_a_broken_law_does_not_hide_that_the_command_was_stopped(ended: int, code: int) -> None:
    job = VerifyJob(VerifySpec(engine=BackendSpec(model="toy")))
    result = Result("complete", ended, None, {"broken": 1})
    assert job.exit_code(result) == code


def test_a_server_that_does_not_stream_has_no_vocabulary_to_compare() -> None:
    class Unstreamed:
        def vocabulary(self) -> tuple[int, ...]:
            raise UsageError("it does not stream an answer")

    assert vocabulary_of(Unstreamed()) is None
    assert vocabulary_of(object()) is None
