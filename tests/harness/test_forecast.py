"""The forecast of a run, against what the run then asks."""

from __future__ import annotations

import pytest
from harness_fakes import Choice, EchoBackend, OneCall, Paid, TwoStep, WordTokenizer, go

from kleval.harness.forecast import Rehearsed, rehearse
from kleval.store import RunStore
from kleval.types import Request
from kleval.work.events import Planned


def forecast_of(tmp_path, tasks, backend=None, **changes):
    events = []
    go(tmp_path / "run", backend, tasks=tasks, events=events, **changes)
    (planned,) = [event for event in events if isinstance(event, Planned)]
    return planned.facts["sessions"][-1]["forecast"]


@pytest.mark.parametrize("task", [OneCall(), TwoStep(), Choice()])
def test_what_is_forecast_is_what_is_asked(tmp_path, task):
    backend = EchoBackend()
    told = forecast_of(tmp_path, (task,), backend, price_per_mtok=(1.0, 2.0))
    spent = RunStore.open(tmp_path / "run").manifest["sessions"][0]["spent"]
    assert told["requests"] == spent["requests"]
    assert told["read"] == pytest.approx(spent["prompt_tokens"], rel=0.15)
    assert told["written"] >= spent["output_tokens"]
    assert told["cost"] == pytest.approx((told["read"] + 2 * told["written"]) / 1e6)


def test_only_what_is_left_is_forecast(tmp_path):
    go(tmp_path / "run", tasks=(OneCall(),), limit=2)
    assert forecast_of(tmp_path, (OneCall(),), limit=3, amend=True)["requests"] == 2


def test_a_prompt_that_fills_its_ctx_grows_and_another_does_not():
    assert Rehearsed(False, 900, 100, 1024).at(4096) == 3900
    assert Rehearsed(False, 300, 100, 1024).at(4096) == 300


def test_a_judge_is_counted_apart():
    class Judged(TwoStep):
        def step(self, sample, outcomes):
            return (
                [Request("judge", "is it", max_new_tokens=3)] if len(outcomes) == 1 else super().step(sample, outcomes)
            )

    task = Judged()
    sample = next(task.samples(WordTokenizer(), 16, 1, 0))
    assert [(one.judging, one.read) for one in rehearse(task, sample, WordTokenizer())] == [(False, 12), (True, 2)]


def test_a_task_that_fails_at_a_made_up_answer_is_counted_all_the_same():
    class Raising(TwoStep):
        def step(self, sample, outcomes):
            if outcomes:
                raise ValueError("what?")
            return super().step(sample, outcomes)

    task = Raising()
    assert len(rehearse(task, next(task.samples(WordTokenizer(), 16, 1, 0)), WordTokenizer())) == 1


def test_a_dry_run_tries_the_pace_where_asking_costs_nothing(tmp_path):
    free, paid = EchoBackend(), Paid()
    least, most = forecast_of(tmp_path, (OneCall(),), free, dry_run=True)["seconds"]
    assert 0 < least == most
    told = forecast_of(tmp_path, (OneCall(),), paid, dry_run=True)
    assert (told["seconds"], paid.batches) == (None, [])
    assert "a key was given" in told["untried"]


def test_a_servers_forecast_has_two_ends(tmp_path):
    server = EchoBackend(settings={"dtype": "float32", "concurrency": 4})
    least, most = forecast_of(tmp_path, (OneCall(),), server, dry_run=True)["seconds"]
    assert most == pytest.approx(4 * least)
