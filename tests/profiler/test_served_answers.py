"""Load whose prompts are a task's samples: times and scores from the same answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.harness.spec import RunSpec
from kleval.harness.under_load import Questions
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.store import Point, RunStore
from kleval.tables.frame import load
from kleval.tasks.registry import loader
from kleval.types import Failure, UsageError
from kleval.work import Result

TASK = """
data: rows.jsonl
prompt: "{text}"
answer: "{answer}"
metric: contains
max_new_tokens: 5
stop: ["never said"]
"""


@pytest.fixture
def spec(served_server: Any, manner: Any, tmp_path: Path) -> Iterator[ServedSpec]:
    """Nine prompts in a file; the server says x all the time, which is right for two of three."""
    rows = [{"text": f"question number {i}", "answer": "y" if i % 3 == 0 else "x"} for i in range(9)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "mine.yaml").write_text(TASK)
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10, tokenizer="words")
        given = {"concurrencies": (), "repeats": 1, "requests": 6, "rates": (60.0,)}
        yield ServedSpec(engine=engine, ctxs=(64,), tasks=(str(tmp_path / "mine.yaml"),), out=tmp_path / "run", **given)


def profile(spec: ServedSpec) -> tuple[Result, list[Point]]:
    asked = RunSpec(models=("tiny",), tasks=spec.tasks, ctxs=spec.ctxs, out=spec.out)
    result = profile_served(spec, questions=Questions(asked, loader(spec.tasks)))
    assert spec.out is not None
    return result, list(RunStore.open(spec.out).points())


def free(manner: Any) -> list[dict[str, Any]]:
    return [body for body in manner.bodies if str(body["prompt"]).startswith("question")]


def test_one_run_has_times_and_scores_of_the_same_answers(spec: ServedSpec) -> None:
    _, (point,) = profile(spec)
    assert spec.out is not None
    rows = list(RunStore.open(spec.out).rows())
    assert (point.protocol, point.values["requests"], point.values["scored"]) == ("rate-60", 6, 6)
    assert point.values["score"] == pytest.approx(sum(row.score or 0 for row in rows) / 6) == pytest.approx(4 / 6)
    assert {row.meta["load"] for row in rows} == {"rate-60"}
    assert [row.outcomes[0]["text"] for row in rows] == ["xxxxx"] * 6


def test_requests_are_sent_as_in_a_run_and_may_end_early(spec: ServedSpec, manner: Any) -> None:
    manner.stops_after = 3
    _, (point,) = profile(spec)
    assert point.failure is None
    assert point.values["output_tokens"] == 6 * 3
    for body in free(manner):
        assert (body["max_tokens"], body["stop"]) == (5, ["never said"])
        assert "ignore_eos" not in body


def test_no_prompt_is_sent_twice_until_the_data_end(spec: ServedSpec, manner: Any) -> None:
    profile(replace(spec, repeats=2))
    sent = [body["prompt"] for body in free(manner)]
    assert len(set(sent[:6])) == len(set(sent[6:])) == 6
    assert sorted(map(sent.count, set(sent))) == [1] * 6 + [2] * 3
    assert spec.out is not None
    assert sorted({row.repeat for row in RunStore.open(spec.out).rows()}) == [0, 1]
    said = " ".join(RunStore.open(spec.out).manifest["caveats"])
    assert "prompts are the tasks' samples" in said
    assert "twice" not in said


def test_a_failed_round_keeps_its_answers_and_is_asked_with_other_samples(spec: ServedSpec, manner: Any) -> None:
    manner.faulty = frozenset({3})
    result, (point,) = profile(spec)
    assert (result.exit_code, point.failed) == (3, True)
    assert spec.out is not None
    rows = list(RunStore.open(spec.out).rows())
    assert sorted(row.failed for row in rows) == [False] * 5 + [True]
    manner.faulty = frozenset()
    result, (point,) = profile(spec)
    assert (result.exit_code, point.failed, len(list(RunStore.open(spec.out).rows()))) == (0, False, 12)


def test_runs_and_profiles_are_both_read_from_it(spec: ServedSpec) -> None:
    profile(spec)
    assert spec.out is not None
    loaded = load(spec.out)
    assert list(loaded.frame["record"]) == ["answer"] * 6 + ["measurement"]
    assert loaded.scores["value"].iloc[0] == pytest.approx(66.7, abs=0.1)
    assert loaded.cost["score"].iloc[0] == pytest.approx(4 / 6)


def test_a_warm_up_fits_where_the_length_is_the_servers_own(spec: ServedSpec, manner: Any) -> None:
    manner.max_model_len = 64
    _, (point,) = profile(spec)
    assert point.failure is None
    (warm,) = [body for body in manner.measured if body not in free(manner)]
    assert len(warm["prompt"]) + warm["max_tokens"] == 64


def test_a_round_is_as_long_as_samples_take(spec: ServedSpec, manner: Any) -> None:
    """0.2 s and 4 steps of 0.05 s: 4 times 60 per second as long are 96. The sample that is asked alone comes in no round."""
    manner.first_seconds, manner.step_seconds = 0.2, 0.05
    _, (point,) = profile(replace(spec, requests=None))
    assert point.values["requests"] >= 96
    assert spec.out is not None
    loads = [row.meta["load"] for row in RunStore.open(spec.out).rows()]
    assert (loads.count("alone"), loads.count("rate-60")) == (1, point.values["requests"])
    sent = [body["prompt"] for body in free(manner)]
    assert max(map(sent.count, sent)) - min(map(sent.count, sent)) <= 1


def test_where_nothing_fits_it_is_one_line_before_anything_is_asked(spec: ServedSpec, manner: Any) -> None:
    with pytest.raises(
        UsageError, match=r"needs at least --ctx \d+.* add a longer --ctx or leave the task out"
    ) as error:
        profile(replace(spec, ctxs=(4, 6)))
    assert "\n" not in str(error.value)
    assert manner.measured == []


def test_a_length_at_which_nothing_fits_is_left_out_and_named(spec: ServedSpec) -> None:
    result, (point,) = profile(replace(spec, ctxs=(4, 64)))
    assert (result.exit_code, point.ctx, point.failed) == (0, 64, False)
    assert spec.out is not None
    manifest = RunStore.open(spec.out).manifest
    (one,) = manifest["unmeasured"]
    assert (one["ctx"], one["protocol"]) == (4, "rate-60")
    assert one["reason"] in " ".join(manifest["caveats"])
    assert [skip["ctx"] for skip in manifest["skips"]] == [4]


def test_a_task_that_asks_several_requests_at_once_is_refused(spec: ServedSpec, tmp_path: Path) -> None:
    chosen = TASK.replace("metric: contains\nmax_new_tokens: 5\nstop:", "choices: [x, y]\nstop:")
    (tmp_path / "mine.yaml").write_text(chosen.replace('stop: ["never said"]\n', ""))
    with pytest.raises(UsageError, match=r"asks 2 requests at first, .*: leave it out") as error:
        profile(spec)
    assert "\n" not in str(error.value)


def test_a_round_of_samples_that_cannot_be_asked_is_a_failed_point(
    spec: ServedSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(*given: Any) -> Failure:
        return Failure("context_overflow", "planned")

    monkeypatch.setattr("kleval.harness.asking.prepare", unfit)
    result, (point,) = profile(spec)
    assert (result.exit_code, point.failed) == (3, True)


@pytest.mark.parametrize(
    "manners", [{"step_seconds": 0.0, "buffers": True}, {"step_seconds": 0.0, "tokens_per_event": 8}]
)
def test_answers_that_were_made_before_they_were_sent_have_no_times(
    spec: ServedSpec, manner: Any, tmp_path: Path, manners: dict[str, Any]
) -> None:
    (tmp_path / "mine.yaml").write_text(TASK.replace("max_new_tokens: 5", "max_new_tokens: 64"))
    for name, value in manners.items():
        setattr(manner, name, value)
    _, (point,) = profile(replace(spec, ctxs=(256,)))
    assert point.failure is not None
    # A machine that is too busy to read arrivals in time cannot tell: no times either.
    assert point.failure["kind"] in ("not_streamed", "client")
    assert spec.out is not None
    assert [row.failed for row in RunStore.open(spec.out).rows()] == [False] * 6


def test_answers_of_one_token_have_no_time_per_token(spec: ServedSpec, manner: Any) -> None:
    manner.stops_after = 1
    _, (point,) = profile(spec)
    assert point.failure is not None
    assert "ask a task with longer answers" in point.failure["message"]


def test_a_backend_whose_timed_answers_are_filled_up_is_refused(spec: ServedSpec) -> None:
    class Filled:
        name, model = "own", "tiny"

    asked = RunSpec(models=("tiny",), tasks=spec.tasks, ctxs=spec.ctxs, out=spec.out)
    with pytest.raises(UsageError, match="is for servers"):
        Questions(asked, loader(spec.tasks)).open(Filled())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rates": (), "concurrencies": (1,)}, "--tasks is for requests under load"),
        ({"concurrencies": (1,)}, "leave out --concurrency"),
        ({"reuse": (0.5,)}, "leave out --reuse"),
    ],
)
def test_tasks_are_prompts_of_a_load(spec: ServedSpec, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        replace(spec, **change).check()
