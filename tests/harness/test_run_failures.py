import math
import random
from dataclasses import replace

import pytest
from harness_fakes import Choice, EchoBackend, OneCall, TwoStep, comparable, failing, go, rows

from kleval.store import RunStore
from kleval.tables.cells import summarise
from kleval.types import Failure, Request, Score, Unfit, UsageError
from kleval.work.events import Failed, Progress, Skipped


def test_failures_are_never_counted_as_wrong(tmp_path):
    go(tmp_path / "whole", tasks=(OneCall(),), limit=30, ctxs=(32,))
    right = {row.id: row.score for row in rows(tmp_path / "whole")}
    go(tmp_path / "run", EchoBackend(fault=failing(0.3)), tasks=(OneCall(),), limit=30, ctxs=(32,))
    got = rows(tmp_path / "run")
    answered = [right[row.id] for row in got if not row.failed]
    assert 0 < len(answered) < 30
    [cell] = [c for c in summarise(got) if c.headline]
    assert cell.value == pytest.approx(sum(answered) / len(answered))
    assert cell.n_failed == 30 - len(answered)
    assert cell.bound_low == pytest.approx(sum(answered) / 30)
    assert cell.bound_high == pytest.approx((sum(answered) + 30 - len(answered)) / 30)
    assert all(row.score is None and row.metrics == {} for row in got if row.failed)


def test_a_failure_that_may_pass_is_asked_again_within_the_run(tmp_path):
    times = {}

    def twice(request):
        times[request.prompt] = times.get(request.prompt, 0) + 1
        return Failure("rate_limit", "slow down", retryable=True) if times[request.prompt] <= 2 else None

    result = go(tmp_path / "run", EchoBackend(fault=twice), tasks=(OneCall(),), retries=2)
    assert result.status == "complete"
    assert {row.outcomes[0]["attempts"] for row in rows(tmp_path / "run")} == {3}
    go(tmp_path / "whole", tasks=(OneCall(),))
    assert comparable(RunStore.open(tmp_path / "run")) == comparable(RunStore.open(tmp_path / "whole"))


def test_retries_are_bounded(tmp_path):
    backend = EchoBackend(fault=failing(1.0, kind="timeout", retryable=True))
    result = go(tmp_path / "run", backend, tasks=(OneCall(),), retries=2, limit=1, ctxs=(16,))
    assert len(backend.batches) == 3
    assert result.message.startswith("1 of 1 answers failed (timeout 1)")
    [row] = rows(tmp_path / "run")
    assert row.failure == {"kind": "timeout", "message": "broken"}


def test_a_failure_that_cannot_pass_is_asked_once(tmp_path):
    backend = EchoBackend(fault=failing(1.0, kind="bad_request"))
    go(tmp_path / "run", backend, tasks=(OneCall(),), limit=1, ctxs=(16,))
    assert len(backend.batches) == 1


@pytest.mark.parametrize("sums", [math.nan, -math.inf, math.inf, None])
def test_a_likelihood_that_is_no_number_is_a_failure_and_no_answer(tmp_path, sums):
    class Broken(EchoBackend):
        def run(self, requests):
            for position, outcome in super().run(requests):
                yield position, replace(outcome, logprob_sum=sums)

    go(tmp_path / "run", Broken(), tasks=(Choice(),), limit=2, ctxs=(32,))
    assert {(row.failure or {}).get("kind") for row in rows(tmp_path / "run")} == {
        "bad_request" if sums is None else "internal"
    }


def test_an_outcome_of_another_kind_is_a_failure_of_the_backend(tmp_path):
    class Texts(EchoBackend):
        def run(self, requests):
            yield from ((position, "an answer") for position, _ in enumerate(requests))

    result = go(tmp_path / "run", Texts(), tasks=(OneCall(),), limit=2, ctxs=(32,))
    assert (result.status, result.counts["failed"]) == ("incomplete", 2)


def test_one_failed_request_fails_its_sample_with_the_first_reason(tmp_path):
    def fault(request):
        return Failure("server", request.continuation) if request.continuation in ("option b", "option d") else None

    go(tmp_path / "run", EchoBackend(fault=fault, shuffle=random.Random(2)), tasks=(Choice(),), limit=2)
    assert {row.failure["message"] for row in rows(tmp_path / "run")} == {"option b"}
    assert all(len(row.outcomes) == 4 for row in rows(tmp_path / "run"))


def test_a_backend_that_breaks_fails_its_batch_and_the_run_goes_on(tmp_path):
    state = {"broken": 0}

    def fault(request):
        if state["broken"] < 2 and request.token_ids and len(request.token_ids) > 20:
            state["broken"] += 1
            return RuntimeError("CUDA\nerror")
        return None

    backend = EchoBackend(fault=fault)
    result = go(tmp_path / "run", backend, tasks=(OneCall(),), window_tokens=60)
    got = rows(tmp_path / "run")
    assert result.status == "incomplete"
    assert len(got) == 10
    assert {row.failure["message"] for row in got if row.failed} == {"RuntimeError: CUDA error"}
    assert 0 < sum(row.failed for row in got) < 10


class Silent(EchoBackend):
    """Forgets the last request, answers the first twice and one that was never asked."""

    def run(self, requests):
        answers = list(super().run(requests))
        yield answers[0]
        yield answers[0]
        yield len(requests) + 5, answers[0][1]
        yield from answers[1:-1]


def test_a_backend_that_miscounts_loses_no_sample_and_doubles_none(tmp_path):
    go(tmp_path / "run", Silent(), tasks=(OneCall(),), ctxs=(16,))
    got = rows(tmp_path / "run")
    assert len(got) == 5
    assert [row.failure["message"] for row in got if row.failed] == ["echo gave no outcome for this request"]


class Broken(OneCall):
    def step(self, sample, outcomes):
        if sample.index == 1 and outcomes:
            raise KeyError("answer")
        if sample.index == 2 and outcomes:
            return Score({"accuracy": 3.0})
        if sample.index == 3:
            return []
        if sample.index == 4 and outcomes:
            return Score({"other": 1.0})
        if sample.index == 5:
            return [self.request(sample)]
        if sample.index == 6 and outcomes:
            return Score({"accuracy": float("nan"), "soft": 0.5})
        return super().step(sample, outcomes)


def test_a_task_that_breaks_fails_its_sample_and_the_run_goes_on(tmp_path):
    result = go(tmp_path / "run", tasks=(Broken(),), limit=8, ctxs=(16,))
    got = {row.index: row for row in rows(tmp_path / "run")}
    assert len(got) == 8
    why = {i: row.failure["message"] for i, row in got.items() if row.failed}
    assert why[1].startswith("fake/one: KeyError: 'answer' (test_run_failures.py line ")
    assert "outside [0, 1]" in why[2]
    assert "neither a request nor a score" in why[3]
    assert "without its metric accuracy" in why[4]
    assert "no score after 64 steps" in why[5]
    assert {row.failure["kind"] for row in got.values() if row.failed} == {"internal"}
    assert (got[6].failed, got[6].score, got[6].metrics) == (False, None, {"accuracy": None, "soft": 0.5})
    assert (result.counts["failed"], result.counts["unscored"], result.counts["scored"]) == (5, 1, 2)


class Cracked(OneCall):
    def samples(self, tokenizer, ctx, n, seed):
        for sample in super().samples(tokenizer, ctx, n, seed):
            if sample.index == 2 and ctx == 32:
                raise OSError("data gone")
            yield sample


def test_a_task_that_cannot_make_its_samples_leaves_the_run_incomplete(tmp_path):
    events = []
    result = go(tmp_path / "run", tasks=(Cracked(), TwoStep()), events=events)
    assert result.exit_code == 3
    assert "fake/one could not make its samples at 32 (OSError: data gone (test_run_failures.py line" in result.message
    assert (result.counts["planned"], result.counts["finished"]) == (20, 17)
    [failed] = [event for event in events if isinstance(event, Failed)]
    assert failed.label == "fake@one, fake/one at 32"
    assert RunStore.open(tmp_path / "run").manifest["errors"][0]["message"].startswith("OSError: data gone")
    assert go(tmp_path / "run", tasks=(OneCall(), TwoStep())).status == "complete"


class Shattered(OneCall):
    def samples(self, tokenizer, ctx, n, seed):
        raise OSError("no data at all")
        yield


def test_a_task_that_cannot_make_any_sample_does_not_keep_the_others_from_running(tmp_path):
    result = go(tmp_path / "run", tasks=(Shattered(), TwoStep()))
    assert result.exit_code == 3
    assert "could not make its samples" in result.message
    assert {row.task for row in rows(tmp_path / "run")} == {"fake/two"}


def test_a_task_with_fewer_samples_than_asked_is_complete_with_those(tmp_path):
    events = []
    result = go(tmp_path / "run", tasks=(OneCall(n_available=3),), repeats=2, events=events)
    assert (result.status, result.counts["planned"], result.counts["finished"]) == ("complete", 12, 12)
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.n_done, last.work_done) == (last.n_total, last.work_total)
    assert go(tmp_path / "run", tasks=(OneCall(n_available=3),), repeats=2).status == "complete"


class Twins(OneCall):
    def samples(self, tokenizer, ctx, n, seed):
        for sample in super().samples(tokenizer, ctx, n, seed):
            yield sample
            yield sample


def test_two_samples_with_one_id_are_an_error_of_the_task(tmp_path):
    result = go(tmp_path / "run", tasks=(Twins(),))
    assert result.exit_code == 3
    assert "two samples have the id" in result.message


class TooLong(OneCall):
    def request(self, sample):
        return Request("generate", sample.prompt, sample.answer_prefix, max_new_tokens=3 + 2 * (sample.index % 3))


def test_ctx_is_never_exceeded(tmp_path):
    backend = EchoBackend()
    go(tmp_path / "run", backend, tasks=(TooLong(),), ctxs=(16,), limit=6)
    for request in (request for batch in backend.batches for request in batch):
        assert len(request.token_ids) + request.max_new_tokens <= 16
    failures = [row.failure for row in rows(tmp_path / "run") if row.failed]
    assert {failure["kind"] for failure in failures} == {"context_overflow"}
    assert "exceed ctx 16" in failures[0]["message"]
    assert 0 < len(failures) < 6


def test_the_models_longest_context_is_never_exceeded(tmp_path):
    backend = EchoBackend(max_ctx=20)
    go(tmp_path / "run", backend, tasks=(OneCall(),))
    assert {(row.ctx, row.failed) for row in rows(tmp_path / "run")} == {(16, False), (32, True)}
    assert all(len(r.token_ids) + r.max_new_tokens <= 20 for batch in backend.batches for r in batch)


def test_a_continuation_counts_as_new_tokens(tmp_path):
    class Long(Choice):
        def step(self, sample, outcomes):
            if outcomes:
                return super().step(sample, outcomes)
            return [Request("loglikelihood", sample.prompt, sample.answer_prefix, "a b c d e f g")]

    go(tmp_path / "run", tasks=(Long(),), limit=1)
    assert {row.failure["kind"] for row in rows(tmp_path / "run")} == {"context_overflow"}


def test_a_task_that_fits_at_some_lengths_is_skipped_at_the_others(tmp_path):
    events = []
    result = go(tmp_path / "run", tasks=(OneCall(minimum_tokens=20), TwoStep()), events=events, repeats=2)
    assert (result.status, result.counts["planned"], result.counts["skipped"]) == ("complete", 30, 10)
    [skipped] = [event.skip for event in events if isinstance(event, Skipped)]
    assert tuple(skipped[name] for name in ("task", "ctx", "n", "minimum_tokens")) == ("fake/one", 16, 10, 20)
    store = RunStore.open(tmp_path / "run")
    [record] = store.manifest["skips"]
    assert record["reason"] == "fake/one needs 20 tokens"
    cells = summarise(store.rows(), store.manifest["skips"])
    assert [(c.task, c.ctx, c.n_skipped) for c in cells if c.n_skipped] == [("fake/one", 16, 10)]


def test_a_task_that_fits_nowhere_is_refused_with_its_minimum(tmp_path):
    with pytest.raises(UsageError, match=r"fake/one fits into none .*--ctx 99") as error:
        go(tmp_path / "run", tasks=(OneCall(minimum_tokens=99), TwoStep()))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_task_of_a_suite_that_fits_nowhere_is_skipped_and_counted(tmp_path):
    large, named = OneCall(minimum_tokens=99), {"named": ("fake/two",)}
    result = go(tmp_path / "run", tasks=(large, TwoStep()), **named)
    assert (result.status, result.counts["planned"], result.counts["skipped"]) == ("complete", 10, 10)
    assert {skip["task"] for skip in RunStore.open(tmp_path / "run").manifest["skips"]} == {"fake/one"}


def test_where_nothing_fits_every_task_is_named_with_its_minimum(tmp_path):
    unfit = (OneCall(minimum_tokens=99), TwoStep(minimum_tokens=88))
    with pytest.raises(UsageError, match=r"2 tasks .*fake/one --ctx 99, fake/two --ctx 88"):
        go(tmp_path / "run", tasks=unfit, named=())
    assert not (tmp_path / "run").exists()


def test_a_task_whose_prompts_do_not_grow_is_asked_once_at_default_lengths(tmp_path):
    fixed = OneCall()
    fixed.grows = False
    assert go(tmp_path / "own", tasks=(fixed, TwoStep()), ctxs_given=False).counts["planned"] == 15
    assert {row.ctx for row in rows(tmp_path / "own") if row.task == "fake/one"} == {32}
    assert go(tmp_path / "given", tasks=(fixed,)).counts["planned"] == 10


class Holes(OneCall):
    """Fits at 16 and not at 32, against what the plan assumes."""

    def samples(self, tokenizer, ctx, n, seed):
        self.minimum_tokens = 99 if ctx == 32 else 8
        return super().samples(tokenizer, ctx, n, seed)


def test_a_length_that_turns_out_too_small_is_skipped_when_it_comes(tmp_path):
    events = []
    result = go(tmp_path / "run", tasks=(Holes(),), events=events)
    assert (result.status, result.counts["planned"], result.counts["skipped"]) == ("complete", 5, 5)
    assert [event.skip["ctx"] for event in events if isinstance(event, Skipped)] == [32]
    assert RunStore.open(tmp_path / "run").manifest["skips"][0]["ctx"] == 32


@pytest.mark.parametrize(("limit", "asked"), [(3, 4), (0.1, 3)])
def test_too_many_failures_end_a_run_early(tmp_path, limit, asked):
    result = go(tmp_path / "run", EchoBackend(fault=failing(1.0)), tasks=(OneCall(),), limit=10, max_errors=limit)
    assert (result.status, result.exit_code) == ("incomplete", 3)
    assert result.message.startswith(f"ended early: {asked} answers failed")
    assert len(rows(tmp_path / "run")) == asked


def test_tolerated_failures_leave_a_run_complete(tmp_path):
    result = go(tmp_path / "run", EchoBackend(fault=failing(0.3)), tasks=(OneCall(),), limit=10, max_errors=0.9)
    assert result.counts["failed"] > 0
    assert (result.status, result.exit_code) == ("complete", 0)


class Patchy(OneCall):
    """Every third sample of its data does not fit."""

    def samples(self, tokenizer, ctx, n, seed):
        made = 0
        for sample in super().samples(tokenizer, ctx, 2 * n, seed):
            if sample.index % 3 == 0:
                yield Unfit(sample.index, f"sample {sample.index} is too long", ctx + 10 - sample.index)
            else:
                made += 1
                yield sample
            if made == n:
                return


def test_samples_that_do_not_fit_are_passed_over_and_counted(tmp_path):
    for _ in range(2):
        result = go(tmp_path / "run", tasks=(Patchy(),), ctxs=(32,), limit=4)
        assert (result.status, result.counts["finished"], result.counts["skipped"]) == ("complete", 4, 2)
        [skipped] = RunStore.open(tmp_path / "run").manifest["skips"]
        assert (skipped["n"], skipped["minimum_tokens"]) == (2, 39)


class NoneFits(OneCall):
    def samples(self, tokenizer, ctx, n, seed):
        for sample in super().samples(tokenizer, ctx, n, seed):
            yield Unfit(sample.index, "too long", 100 + sample.index)


def test_a_task_none_of_whose_samples_fits_names_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="needs at least --ctx 100"):
        go(tmp_path / "run", tasks=(NoneFits(),))
