import dataclasses
import json
import random

import pytest
from harness_fakes import (
    ALL,
    TASKS,
    Choice,
    EchoBackend,
    OneCall,
    Paid,
    TwoStep,
    WordTokenizer,
    comparable,
    failing,
    go,
    loader,
    rows,
    spec,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.harness import run
from kleval.store import RunStore
from kleval.types import UsageError
from kleval.work.events import Finished, Phase, Planned, Progress, Skipped, Started, UnitDone


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
        if sum(isinstance(e, UnitDone) for e in seen) == after:
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
    assert {event.record.key for event in events if isinstance(event, UnitDone)} == failed
    assert (second.status, second.counts["failed"]) == ("complete", 0)
    go(tmp_path / "whole", limit=8)
    assert comparable(RunStore.open(tmp_path / "run")) == comparable(RunStore.open(tmp_path / "whole"))


def test_an_event_stream_begins_begun_and_ends_finished_with_its_tokens_adding_up(tmp_path):
    events = []
    result = go(tmp_path / "run", EchoBackend(fault=failing(0.2)), events=events, window_tokens=90)
    assert isinstance(events[0], Started)
    assert isinstance(events[1], Planned)
    assert [type(event) for event in events].count(Finished) == 1
    assert events[-1] == Finished(result)
    progress = [event for event in events if isinstance(event, Progress)]
    done = [event.record for event in events if isinstance(event, UnitDone)]
    weights = [row.prompt_tokens + row.max_new_tokens for row in done]
    assert [event.work_done for event in progress] == [sum(weights[: i + 1]) for i in range(len(weights))]
    assert progress[-1].work_done == progress[-1].work_total
    assert (progress[-1].n_done, progress[-1].n_total) == (30, 30)
    assert progress[-1].n_failed == sum(row.failed for row in done)
    assert all(event.work_done <= event.work_total for event in progress)


def test_the_tokens_of_a_continued_run_add_up(tmp_path):
    go(tmp_path / "run", EchoBackend(fault=failing(0.4)))
    events = []
    go(tmp_path / "run", events=events)
    progress = [event for event in events if isinstance(event, Progress)]
    assert (progress[-1].n_done, progress[-1].work_done) == (30, progress[-1].work_total)
    assert progress[0].n_done > 1


def test_a_row_is_on_the_disk_when_its_event_comes(tmp_path):
    def look(event):
        if isinstance(event, UnitDone):
            assert event.record in rows(tmp_path / "run")

    assert run(spec(tmp_path / "run"), lambda n: EchoBackend(), loader(OneCall()), look).status == "complete"


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
        def __init__(self, name):
            super().__init__()
            self.name, self.digest = name, "half of the words"

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


def test_a_dry_run_plans_and_writes_nothing(tmp_path):
    events, backend = [], Paid()
    result = go(tmp_path / "run", backend, tasks=(OneCall(minimum_tokens=20), TwoStep()), events=events, dry_run=True)
    assert (result.exit_code, result.out, result.counts) == (0, None, {"planned": 15, "answered": 0, "skipped": 5})
    assert [type(event) for event in events] == [Started, Phase, Planned, Skipped, Finished]
    units = events[2].units
    assert sum(unit.n * unit.weight for unit in units) == 5 * 16 + 2 * 5 * 32
    assert [(cell.ctx, cell.task) for cell in units] == [(16, "fake/two"), (32, "fake/one"), (32, "fake/two")]
    assert backend.batches == []
    assert backend.closed == 1
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_the_run_with_one_line_and_continues_later(tmp_path, monkeypatch):
    from kleval import files

    real, free = files.write_all, [4]

    def full(fd, data):
        if data.startswith(b'{"id"'):  # a row; prompts and the manifest still fit
            if free[0] == 0:
                raise OSError(28, "No space left on device")
            free[0] -= 1
        real(fd, data)

    monkeypatch.setattr(files, "write_all", full)
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
