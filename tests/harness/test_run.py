import dataclasses
import json
import random

import pytest
from harness_fakes import Choice, EchoBackend, OneCall, TwoStep, WordTokenizer, comparable, loader, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.harness import Finished, Planned, Progress, RowDone, Skipped, Started, TaskFailed, run
from kleval.stats import summarise
from kleval.store import RunStore
from kleval.types import Failure, Request, Score, UsageError

TASKS = (OneCall(), TwoStep(), Choice())
ALL = tuple(task.id for task in TASKS)


def go(out, backend=None, tasks=TASKS, events=None, **changes):
    changes.setdefault("tasks", tuple(task.id for task in tasks))
    backend = backend or EchoBackend()
    on_event = (lambda event: None) if events is None else events.append
    return run(spec(out, **changes), lambda name: backend, loader(*tasks), on_event)


def rows(out):
    return list(RunStore.open(out).rows())


def failing(share, seed=0, **kind):
    """A fault that hits a fixed share of the prompts, whatever the order."""
    kind = {"kind": "server", "message": "broken", **kind}

    def fault(request):
        rng = random.Random(f"{seed}{request.prompt}{request.continuation}")
        return Failure(**kind) if rng.random() < share else None

    return fault


def test_a_run_answers_every_sample_of_every_task_and_length(tmp_path):
    result = go(tmp_path / "run", repeats=2)
    assert (result.status, result.exit_code, result.message) == ("complete", 0, "")
    got = {(r.task, r.ctx, r.index, r.repeat) for r in rows(tmp_path / "run")}
    assert got == {(t, c, i, r) for t in ALL for c in (16, 32) for i in range(5) for r in range(2)}
    assert result.counts == {
        "planned": 60,
        "finished": 60,
        "answered": 60,
        "scored": 60,
        "failed": 0,
        "unscored": 0,
        "skipped": 0,
    }


def test_a_row_tells_how_its_number_came_about(tmp_path):
    go(tmp_path / "run", tasks=(TwoStep(),), limit=1, ctxs=(16,))
    [row] = rows(tmp_path / "run")
    first, second = row.outcomes
    assert row.score == int(second["text"], 16) % 2
    assert row.metrics["soft"] == int(second["text"], 16) % 5 / 4
    assert row.extracted == second["text"][:4]
    assert (first["max_new_tokens"], second["max_new_tokens"]) == (4, 2)
    assert first["seed"] != second["seed"]
    assert (row.task_version, row.data_revision, row.references) == ("1", "r1", ("r0",))
    assert RunStore.open(tmp_path / "run").read_prompt(row).startswith("w42-0-0 w42-0-1")


def test_backends_get_the_token_ids_of_prompt_and_answer_prefix(tmp_path):
    backend = EchoBackend()
    go(tmp_path / "run", backend, tasks=(OneCall(),))
    tokenizer = WordTokenizer()
    for request in (request for batch in backend.batches for request in batch):
        assert request.token_ids == tuple(tokenizer.encode(f"{request.prompt} so:"))


def test_the_second_request_of_a_task_has_its_own_token_ids(tmp_path):
    backend = EchoBackend()
    go(tmp_path / "run", backend, tasks=(TwoStep(),), limit=1, ctxs=(16,))
    second = backend.batches[1][0]
    assert second.prompt.endswith(" therefore")
    assert second.token_ids == tuple(WordTokenizer().encode(second.prompt))


def test_likelihoods_reach_the_task_in_the_order_it_asked(tmp_path):
    backend = EchoBackend(shuffle=random.Random(1), batch=3)
    go(tmp_path / "run", backend, tasks=(Choice(),))
    for row in rows(tmp_path / "run"):
        sums = [outcome["logprob_sum"] for outcome in row.outcomes]
        assert [outcome["continuation"] for outcome in row.outcomes] == [f"option {c}" for c in "abcd"]
        assert row.extracted == "abcd"[sums.index(max(sums))]


@given(st.integers(0, 10**6), st.integers(1, 7), st.sampled_from([1, 30, 200, 10**6]), st.sampled_from([0.0, 0.3]))
@settings(max_examples=12, deadline=None)
def test_neither_order_nor_batches_nor_windows_change_a_row(tmp_path_factory, seed, batch, window, share):
    base = tmp_path_factory.mktemp("order")
    more = {"temperature": 1.0, "repeats": 2, "limit": 3}
    go(base / "a", EchoBackend(fault=failing(share)), **more)
    shuffled = EchoBackend(shuffle=random.Random(seed), batch=batch, fault=failing(share))
    go(base / "b", shuffled, window_tokens=window, **more)
    assert comparable(RunStore.open(base / "a")) == comparable(RunStore.open(base / "b"))


@given(st.integers(1, 60), st.sampled_from([1, 60, 10**6]))
@settings(max_examples=15, deadline=None)
def test_an_interrupted_run_continued_equals_an_uninterrupted_one(tmp_path_factory, after, window):
    base = tmp_path_factory.mktemp("resume")
    more = {"repeats": 2, "limit": 4, "temperature": 0.7}
    go(base / "whole", **more)
    seen = []

    def interrupt(event):
        seen.append(event)
        if sum(isinstance(e, RowDone) for e in seen) == after:
            seen.append(event)
            raise KeyboardInterrupt

    task_loader = loader(*TASKS)
    first = run(
        spec(base / "cut", tasks=ALL, window_tokens=window, **more), lambda n: EchoBackend(), task_loader, interrupt
    )
    if after <= 48:
        assert (first.status, first.exit_code) == ("interrupted", 130)
        assert RunStore.open(base / "cut").manifest["status"] == "interrupted"
        assert len(rows(base / "cut")) == after
    assert go(base / "cut", window_tokens=window, **more).status == "complete"
    assert comparable(RunStore.open(base / "whole")) == comparable(RunStore.open(base / "cut"))


def test_nothing_answered_is_asked_again(tmp_path):
    go(tmp_path / "run")
    task, backend, events = OneCall(), EchoBackend(), []
    result = go(tmp_path / "run", backend, tasks=(task, TwoStep(), Choice()), events=events)
    assert result.status == "complete"
    assert backend.batches == []
    assert task.made == []
    assert isinstance(events[-1], Finished)
    assert events[0].continued


def test_a_failure_is_asked_again_by_the_next_run_and_nothing_else(tmp_path):
    broken = EchoBackend(fault=failing(0.4))
    first = go(tmp_path / "run", broken, limit=8)
    failed = {row.key for row in rows(tmp_path / "run") if row.failed}
    assert (first.status, first.exit_code, first.counts["failed"]) == ("incomplete", 3, len(failed))
    assert 0 < len(failed) < first.counts["finished"]
    events = []
    second = go(tmp_path / "run", limit=8, events=events)
    assert {event.row.key for event in events if isinstance(event, RowDone)} == failed
    assert (second.status, second.counts["failed"]) == ("complete", 0)
    go(tmp_path / "whole", limit=8)
    assert comparable(RunStore.open(tmp_path / "run")) == comparable(RunStore.open(tmp_path / "whole"))


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
    assert why[1] == "fake/one: KeyError: 'answer'"
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
    assert "fake/one could not make its samples at 32 (OSError: data gone)" in result.message
    assert (result.counts["planned"], result.counts["finished"]) == (20, 17)
    [failed] = [event for event in events if isinstance(event, TaskFailed)]
    assert (failed.task, failed.ctx) == ("fake/one", 32)
    assert RunStore.open(tmp_path / "run").manifest["errors"][0]["message"] == "OSError: data gone"
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
    assert (last.n_done, last.tokens_done) == (last.n_total, last.tokens_total)
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
    assert (skipped.task, skipped.ctx, skipped.n, skipped.minimum_tokens) == ("fake/one", 16, 10, 20)
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


class Holes(OneCall):
    """Fits at 16 and not at 32, against what the plan assumes."""

    def samples(self, tokenizer, ctx, n, seed):
        self.minimum_tokens = 99 if ctx == 32 else 8
        return super().samples(tokenizer, ctx, n, seed)


def test_a_length_that_turns_out_too_small_is_skipped_when_it_comes(tmp_path):
    events = []
    result = go(tmp_path / "run", tasks=(Holes(),), events=events)
    assert (result.status, result.counts["planned"], result.counts["skipped"]) == ("complete", 5, 5)
    assert [event.skip.ctx for event in events if isinstance(event, Skipped)] == [32]
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


def test_an_event_stream_begins_begun_and_ends_finished_with_its_tokens_adding_up(tmp_path):
    events = []
    result = go(tmp_path / "run", EchoBackend(fault=failing(0.2)), events=events, window_tokens=90)
    assert isinstance(events[0], Started)
    assert isinstance(events[1], Planned)
    assert [type(event) for event in events].count(Finished) == 1
    assert events[-1] == Finished(result)
    progress = [event for event in events if isinstance(event, Progress)]
    done = [event.row for event in events if isinstance(event, RowDone)]
    weights = [row.prompt_tokens + row.max_new_tokens for row in done]
    assert [event.tokens_done for event in progress] == [sum(weights[: i + 1]) for i in range(len(weights))]
    assert progress[-1].tokens_done == progress[-1].tokens_total
    assert (progress[-1].n_done, progress[-1].n_total) == (30, 30)
    assert progress[-1].n_failed == sum(row.failed for row in done)
    assert all(event.tokens_done <= event.tokens_total for event in progress)


def test_the_tokens_of_a_continued_run_add_up(tmp_path):
    go(tmp_path / "run", EchoBackend(fault=failing(0.4)))
    events = []
    go(tmp_path / "run", events=events)
    progress = [event for event in events if isinstance(event, Progress)]
    assert (progress[-1].n_done, progress[-1].tokens_done) == (30, progress[-1].tokens_total)
    assert progress[0].n_done > 1


def test_a_row_is_on_the_disk_when_its_event_comes(tmp_path):
    def look(event):
        if isinstance(event, RowDone):
            assert event.row in rows(tmp_path / "run")

    assert run(spec(tmp_path / "run"), lambda n: EchoBackend(), loader(OneCall()), look).status == "complete"


@pytest.mark.parametrize(
    ("changes", "diff"),
    [
        ({"seed": 7}, "seed: 42 -> 7"),
        ({"temperature": 0.5}, "temperature: (none) -> 0.5"),
        ({"limit": 6}, "limit: 5 -> 6"),
        ({"ctxs": (16,)}, "ctx: 16,32 -> 16"),
        ({"protocol": "p-2"}, "protocol: (none) -> p-2"),
    ],
)
def test_a_changed_command_is_refused_before_a_model_is_opened(tmp_path, changes, diff):
    go(tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def closed(name):
        raise AssertionError("opened")

    with pytest.raises(UsageError) as error:
        run(spec(tmp_path / "run", tasks=ALL, **changes), closed, loader(*TASKS))
    assert diff in str(error.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("backend", "diff"),
    [
        (EchoBackend(settings={"dtype": "bfloat16"}), "models.fake@one.dtype: float32 -> bfloat16"),
        (EchoBackend(settings={"dtype": "float32", "weights": {"digest": "x"}}), "weights.digest: (not set) -> x"),
        (EchoBackend(tokenizer=WordTokenizer(digest="f" * 64)), "models.fake@one.tokenizer: ddd"),
        (EchoBackend(tokenizer=WordTokenizer(chat_template_digest="c")), "models.fake@one.chat_template:  -> c"),
        (EchoBackend(model="fake@two"), "models: fake@one -> fake@two"),
    ],
)
def test_another_model_is_refused(tmp_path, backend, diff):
    go(tmp_path / "run")
    with pytest.raises(UsageError) as error:
        go(tmp_path / "run", backend)
    assert diff in str(error.value)


@pytest.mark.parametrize("setting", ["version", "edition", "protocol", "data_digest", "data_revision"])
def test_a_changed_task_is_refused(tmp_path, setting):
    go(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"tasks\.fake/one\.{setting}: .* -> new"):
        go(tmp_path / "run", tasks=(OneCall(**{setting: "new"}), TwoStep(), Choice()))


def test_settings_that_only_change_speed_may_differ(tmp_path):
    go(tmp_path / "run", EchoBackend(settings={"dtype": "float32", "batch": 4}))
    assert go(tmp_path / "run", EchoBackend(settings={"dtype": "float32", "batch": 8}), window_tokens=7).exit_code == 0


def test_an_amended_run_asks_only_for_what_is_new_and_equals_one_that_asked_for_all(tmp_path):
    go(tmp_path / "run", tasks=TASKS[:2], limit=3, ctxs=(16,))
    events = []
    result = go(tmp_path / "run", limit=5, ctxs=(32, 16), repeats=2, amend=True, events=events)
    assert result.status == "complete"
    assert len([event for event in events if isinstance(event, RowDone)]) == 60 - 6
    assert set(events[0].amended) == {
        "tasks: fake/one,fake/two -> fake/one,fake/two,fake/choice",
        "ctx: 16 -> 16,32",
        "limit: 3 -> 5",
        "repeats: 1 -> 2",
    }
    go(tmp_path / "whole", repeats=2)
    assert comparable(RunStore.open(tmp_path / "run")) == comparable(RunStore.open(tmp_path / "whole"))


class Drifting(OneCall):
    """Makes other samples when more are asked for, under the same ids."""

    def samples(self, tokenizer, ctx, n, seed):
        for sample in super().samples(tokenizer, ctx, n, seed + n):
            yield dataclasses.replace(sample, id=f"{ctx}-{sample.index}")


def test_an_answer_to_another_sample_of_the_same_name_is_not_taken(tmp_path):
    go(tmp_path / "run", tasks=(Drifting(),), limit=3)
    with pytest.raises(UsageError, match="another sample named 16-0"):
        go(tmp_path / "run", tasks=(Drifting(),), limit=4, amend=True)


def test_several_models_are_asked_the_same(tmp_path):
    backends = {"one": EchoBackend(), "two": EchoBackend(model="fake@two")}
    opened = []

    def open_backend(name):
        opened.append(name)
        return backends[name]

    run(spec(tmp_path / "run", models=("one", "two"), temperature=1.0), open_backend, loader(OneCall()))
    store = RunStore.open(tmp_path / "run")
    asked = {
        model: {
            (r.id, r.repeat, r.prompt_hash, r.outcomes[0]["seed"], r.score) for r in store.rows() if r.model == model
        }
        for model in ("fake@one", "fake@two")
    }
    assert asked["fake@one"] == asked["fake@two"]
    assert len(asked["fake@one"]) == 10
    assert store.manifest["comparison"]["same_samples"] is True
    assert store.manifest["caveats"] == []
    assert opened == ["two", "one", "two"]
    assert [b.closed for b in backends.values()] == [1, 2]
    assert len(list((tmp_path / "run").glob("prompts/*/*"))) == 10


def test_what_makes_two_models_incomparable_is_said(tmp_path):
    other = EchoBackend(
        model="fake@two", tokenizer=WordTokenizer("b", "f" * 64), settings={"dtype": "bfloat16", "device": "cuda"}
    )
    backends = {"one": EchoBackend(), "two": other}
    events = []
    run(spec(tmp_path / "run", models=("one", "two")), backends.__getitem__, loader(OneCall()), events.append)
    manifest = RunStore.open(tmp_path / "run").manifest
    assert manifest["comparison"]["same_samples"] is False
    assert events[0].caveats == tuple(manifest["caveats"])
    tokenizers, dtype, device = manifest["caveats"]
    assert "fake@one (fake-words), fake@two (b)" in tokenizers
    assert "float32" in dtype
    assert "cuda" in device


def test_two_names_of_one_model_are_one_model(tmp_path):
    backend = EchoBackend()
    result = run(spec(tmp_path / "run", models=("one", "fake@one", "one")), lambda n: backend, loader(OneCall()))
    assert (result.status, result.counts["finished"]) == ("complete", 10)


def test_a_model_that_does_not_open_is_told_before_anything_is_asked(tmp_path):
    backend = EchoBackend()

    def open_backend(name):
        if name == "two":
            raise UsageError("no model two")
        return backend

    with pytest.raises(UsageError, match="no model two"):
        run(spec(tmp_path / "run", models=("one", "two")), open_backend, loader(OneCall()))
    assert backend.batches == []
    assert not (tmp_path / "run").exists()


def test_temperature_and_seeds_make_repeats_differ_and_runs_agree(tmp_path):
    for name in ("a", "b"):
        go(tmp_path / name, tasks=(OneCall(),), temperature=1.0, repeats=3, limit=2)
    go(tmp_path / "c", tasks=(OneCall(),), temperature=1.0, repeats=3, limit=2, seed=43)

    def texts(name):
        return [row.outcomes[0]["text"] for row in rows(tmp_path / name)]

    assert texts("a") == texts("b")
    assert len(set(texts("a"))) == 12
    assert {row.outcomes[0]["temperature"] for row in rows(tmp_path / "a")} == {1.0}
    assert {row.outcomes[0]["seed"] for row in rows(tmp_path / "a")}.isdisjoint(
        row.outcomes[0]["seed"] for row in rows(tmp_path / "c")
    )


def test_windows_bound_what_is_made_ahead_of_being_asked(tmp_path):
    task, ahead = OneCall(), []

    class Watching(EchoBackend):
        def run(self, requests):
            ahead.append(len(task.made) - 1 - sum(len(batch) for batch in self.batches))
            return super().run(requests)

    go(tmp_path / "run", Watching(), tasks=(task,), limit=40, ctxs=(32,), window_tokens=4 * 32)
    assert len(ahead) >= 10
    assert max(ahead) <= 6


def test_a_window_holds_at_least_a_batch(tmp_path):
    backend = EchoBackend()
    go(tmp_path / "run", backend, tasks=(OneCall(),), limit=12, ctxs=(32,), window_tokens=1, batch=6)
    assert [len(batch) for batch in backend.batches] == [6, 6]


def test_the_longest_of_a_window_goes_first(tmp_path):
    backend = EchoBackend()
    go(tmp_path / "run", backend, tasks=(OneCall(),))
    lengths = [len(request.token_ids) for request in backend.batches[0]]
    assert len(set(lengths)) > 2
    assert lengths == sorted(lengths, reverse=True)


def test_lengths_can_be_counted_in_another_tokenizer(tmp_path):
    class Halves(WordTokenizer):
        def count(self, text):
            return len(text.split()) // 2

    class Counted(OneCall):
        def samples(self, tokenizer, ctx, n, seed):
            for sample in super().samples(tokenizer, 2 * ctx - 8, n, seed):
                counted = tokenizer.count(tokenizer.render(sample.prompt, sample.answer_prefix))
                yield dataclasses.replace(sample, ctx=ctx, prompt_tokens=counted)

    backend = EchoBackend()
    given_spec = spec(tmp_path / "run", tokenizer="halves", ctxs=(32,))
    result = run(given_spec, lambda n: backend, loader(Counted()), load_tokenizer=lambda name: Halves(name))
    assert result.counts["failed"] == 0
    assert max(len(r.token_ids) for r in backend.batches[0]) > 32
    assert "counted in halves" in RunStore.open(tmp_path / "run").manifest["caveats"][0]


class Judged(OneCall):
    needs_judge = True

    def step(self, sample, outcomes):
        if not outcomes:
            return [self.request(sample)]
        if len(outcomes) == 1:
            return [Request("judge", f"is {outcomes[0].text} right?", max_new_tokens=8)]
        return self.score(outcomes[1].text)


def test_judge_requests_go_to_the_judge(tmp_path):
    backends = {"one": EchoBackend(), "judge": EchoBackend(model="judge@x", max_ctx=100)}
    given_spec = spec(tmp_path / "run", judge_model="judge", temperature=0.9)
    assert run(given_spec, backends.__getitem__, loader(Judged())).status == "complete"
    assert {r.kind for batch in backends["one"].batches for r in batch} == {"generate"}
    judged = [r for batch in backends["judge"].batches for r in batch]
    assert {(r.kind, r.temperature) for r in judged} == {("judge", 0.0)}
    assert len(judged) == 10
    assert backends["judge"].closed == 1
    assert RunStore.open(tmp_path / "run").manifest["judge"]["name"] == "judge@x"


def test_a_judge_that_is_needed_and_not_named_is_asked_for_at_once(tmp_path):
    with pytest.raises(UsageError, match="--judge-model"):
        run(spec(tmp_path / "run"), lambda n: pytest.fail("opened"), loader(Judged()))


def test_a_judge_that_was_not_announced_is_asked_for_when_it_comes(tmp_path):
    task = Judged()
    task.needs_judge = False
    events = []
    with pytest.raises(UsageError, match="--judge-model"):
        run(spec(tmp_path / "run"), lambda n: EchoBackend(), loader(task), events.append)
    assert events[-1].result.exit_code == 2


def test_a_dry_run_plans_and_writes_nothing(tmp_path):
    events, backend = [], EchoBackend()
    result = go(tmp_path / "run", backend, tasks=(OneCall(minimum_tokens=20), TwoStep()), events=events, dry_run=True)
    assert (result.exit_code, result.out, result.counts) == (0, None, {"planned": 15, "answered": 0, "skipped": 5})
    assert [type(event) for event in events] == [Started, Planned, Skipped, Finished]
    plan = events[1].plan
    assert plan.estimated_tokens == 5 * 16 + 2 * 5 * 32
    assert [(cell.ctx, cell.task) for cell in plan.cells] == [(16, "fake/two"), (32, "fake/one"), (32, "fake/two")]
    assert backend.batches == []
    assert backend.closed == 1
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_the_run_with_one_line_and_continues_later(tmp_path, monkeypatch):
    from kleval.store import files

    real, free = files.append_line, [4]

    def full(path, line):
        if free[0] == 0:
            with files.usage_errors(path):
                raise OSError(28, "No space left on device")
        free[0] -= 1
        real(path, line)

    monkeypatch.setattr(files, "append_line", full)
    events = []
    with pytest.raises(UsageError, match=r"disk full at .*run the same command again") as error:
        go(tmp_path / "run", events=events)
    assert "\n" not in str(error.value)
    assert (events[-1].result.status, events[-1].result.exit_code) == ("interrupted", 2)
    assert len(rows(tmp_path / "run")) == 4
    free[0] = 1000
    assert go(tmp_path / "run").status == "complete"


def test_an_internal_error_is_raised_with_the_state_saved(tmp_path):
    events = []

    def burst(event):
        events.append(event)
        if isinstance(event, Progress):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(spec(tmp_path / "run"), lambda n: EchoBackend(), loader(OneCall()), burst)
    assert events[-1].result.exit_code == 1
    assert len(rows(tmp_path / "run")) == 1
    assert go(tmp_path / "run", tasks=(OneCall(),)).status == "complete"


def test_the_manifest_says_what_was_run(tmp_path):
    go(tmp_path / "run", suite="long", command="kleval run …")
    go(tmp_path / "run", suite="long", command="kleval run …")
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["schema_version"] == 1
    assert manifest["status"] == "complete"
    assert manifest["started"] <= manifest["finished"]
    assert manifest["spec"]["suite"] == "long"
    assert manifest["spec"]["ctxs"] == [16, 32]
    assert manifest["models"]["fake@one"]["tokenizer"]["digest"] == "d" * 64
    assert manifest["models"]["fake@one"]["describe"] == {"dtype": "float32"}
    assert manifest["tasks"]["fake/two"]["data_digest"] == "e" * 64
    assert manifest["seeds"]["seed"] == 42
    assert manifest["hardware"]["cores"] >= 1
    assert manifest["hardware"]["memory_bytes"] > 1 << 20
    assert [session["status"] for session in manifest["sessions"]] == ["complete", "complete"]


@pytest.mark.parametrize(
    "changes",
    [{"models": ()}, {"tasks": ()}, {"ctxs": ()}, {"ctxs": (0,)}, {"limit": 0}, {"repeats": 0}, {"out": None}],
)
def test_a_spec_that_cannot_be_run_is_refused(tmp_path, changes):
    with pytest.raises(UsageError) as error:
        go(**{"out": tmp_path / "run", **changes})
    assert "\n" not in str(error.value)


def test_the_harness_prints_nothing(tmp_path, capfd):
    go(tmp_path / "run", EchoBackend(fault=failing(0.3)))
    assert capfd.readouterr() == ("", "")
