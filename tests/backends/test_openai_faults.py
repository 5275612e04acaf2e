"""200 requests through the whole harness to a server that misbehaves on purpose: every fault is noticed, none becomes an answer."""

import os
import random
import re

import pytest
from harness_fakes import OneCall, loader, rows, spec
from misbehaving import Behaviour, new_tokens, serve, write_byte_tokenizer

from kleval.backends import server_pace
from kleval.backends.registry import open_backend
from kleval.harness import run
from kleval.types import Sample, Score

N = 200
PASSING = [("429", "0.05"), "429", "500", "half", "malformed", "reset"]
LASTING = {
    "overflow": "context_overflow",
    "wrong_model": "server",
    "unwanted": "bad_request",
}


class Bytes(OneCall):
    """Right when the answer is the model's, to the letter: an answer that is none of the model's would score 0."""

    id = "fake/bytes"

    def samples(self, tokenizer, ctx, n, seed):
        for index in range(n):
            prompt = f"question {index:04d} of {seed} "
            length = tokenizer.count(prompt + "so:")
            yield Sample(
                f"s{index}", self.id, ctx, index, prompt, (), 8, length, answer_prefix="so:", meta={"prompt": prompt}
            )

    def step(self, sample, outcomes):
        if not outcomes:
            return [self.request(sample)]
        wanted = bytes(new_tokens(f"{sample.prompt}so:".encode(), 8)).decode()
        return Score({self.metric: float(outcomes[0].text == wanted)}, extracted=outcomes[0].text)


def plan(prompt):
    """What happens to a prompt, decided by itself alone: about half meet a fault or two, some never recover, three are slow."""
    found = re.search(r"question (\d+) of", prompt)
    if found is None:
        return ()
    number, rng = int(found[1]), random.Random(found[1])
    if number in (50, 100, 150):
        return [("slow", 2.5)]
    if rng.random() < 0.08:
        return [rng.choice([*LASTING, "500"])] * 9
    return rng.choices(PASSING, k=rng.choice([0, 0, 1, 2]))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    monkeypatch.setattr(server_pace, "FIRST_WAIT_SECONDS", 0.02)


def ask(out, url, folder, **changes):
    def open_model(name):
        return open_backend(
            name, "openai", base_url=url, tokenizer=f"hf:{folder}", request_timeout=changes.get("timeout", 2.0)
        )

    task = Bytes()
    return run(
        spec(out, models=("tiny",), tasks=(task.id,), ctxs=(64,), limit=N, retries=3, retry_seconds=0.01),
        open_model,
        loader(task),
    )


@pytest.fixture
def folder(tmp_path):
    return write_byte_tokenizer(tmp_path / "tokenizer")


def test_no_fault_is_scored_nothing_is_lost_and_nothing_is_sent_again_after_success(tmp_path, folder, quick):
    behaviour = Behaviour(plan=plan)
    with serve(behaviour) as url:
        result = ask(tmp_path / "run", url, folder)
    got = rows(tmp_path / "run")
    assert len({row.id for row in got}) == len(got) == N
    faults = {row.id: plan(f"question {row.index:04d} of 42 ") for row in got}
    met = {str(fault[0]) if isinstance(fault, tuple) else fault for some in faults.values() for fault in some}
    assert met >= {"429", "500", "half", "malformed", "reset", "slow", "overflow", "wrong_model", "unwanted"}

    lasting = {name: some[0] for name, some in faults.items() if len(some) == 9}
    failed = {row.id: row.failure["kind"] for row in got if row.failed}
    assert failed == {name: LASTING.get(fault, "server") for name, fault in lasting.items()}
    assert 0 < len(failed) < N / 4
    assert all(row.metrics == {"accuracy": 1.0} for row in got if not row.failed)
    assert all(row.metrics == {} for row in got if row.failed)
    assert result.exit_code == 3
    assert result.counts["answered"] == N - len(failed)

    sent = {f"question {row.index:04d} of 42 so:": row for row in got}
    assert all(
        behaviour.succeeded[prompt] == (0 if row.failed else 1)
        for prompt, row in sent.items()
        if "slow" not in str(faults[row.id])
    )
    assert not [prompt for prompt in +behaviour.again if "question" in prompt]
    retried_in_vain = [p for p, row in sent.items() if row.failed and faults[row.id][0] != "500"]
    assert all(behaviour.came[prompt] == 1 for prompt in retried_in_vain)


def test_a_server_that_dies_in_the_middle_costs_no_answer_that_was_given(tmp_path, folder, quick):
    behaviour = Behaviour()
    behaviour.plan = lambda prompt: ["reset"] * 9 if behaviour.succeeded.total() > 20 else ()
    with serve(behaviour) as url:
        first = ask(tmp_path / "run", url, folder)
        kept = {row.id for row in rows(tmp_path / "run") if not row.failed}
        behaviour.plan = lambda prompt: ()
        second = ask(tmp_path / "run", url, folder)
    assert 0 < len(kept) < N
    assert (first.exit_code, second.exit_code, second.counts["answered"]) == (3, 0, N)
    assert not [prompt for prompt in +behaviour.again if "question" in prompt]


def test_the_same_command_asks_again_for_the_failures_alone(tmp_path, folder, quick):
    behaviour = Behaviour(plan=lambda prompt: ["500"] * 9 if re.search("question ...7", prompt) else ())
    with serve(behaviour) as url:
        first = ask(tmp_path / "run", url, folder)
        failed = {row.id for row in rows(tmp_path / "run") if row.failed}
        before = dict(behaviour.came)
        behaviour.plan = lambda prompt: ()
        second = ask(tmp_path / "run", url, folder)
    assert (first.exit_code, second.exit_code) == (3, 0)
    again = {prompt for prompt, n in behaviour.came.items() if n > before.get(prompt, 0) and "question" in prompt}
    assert {f"s{int(prompt[9:13])}" for prompt in again} == failed
    assert not [prompt for prompt in +behaviour.again if "question" in prompt]
