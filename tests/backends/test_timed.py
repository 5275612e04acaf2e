"""Timed requests to engines in this process: every token has its arrival, and bytes are those of the caches."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.backends.generation import Job
from kleval.backends.hf_state import state_bytes
from kleval.backends.native import open_native
from kleval.backends.spec import BackendSpec
from kleval.cli.main import call
from kleval.store import RunStore
from kleval.types import Completion, Failure, Request, TimedRequest, UsageError


def timed(n_prompt: int, n_out: int = 6, at: float = 0.0, seed: int = 0) -> TimedRequest:
    ids = torch.randint(200, (n_prompt,), generator=torch.Generator().manual_seed(seed)).tolist()
    return TimedRequest(Request("generate", "", max_new_tokens=n_out, token_ids=tuple(ids), stop=("a", "b", "e")), at)


@pytest.fixture
def native(model_folder: Path) -> Any:
    return open_native(BackendSpec(model=str(model_folder), device="cpu"))


def test_every_token_arrives_and_nothing_ends_an_answer_early(native: Any) -> None:
    native._ends = frozenset(range(native.config.vocab_size))
    traces = native.timed([timed(40), timed(33, 4, seed=1)])
    assert [len(t.arrivals) for t in traces] == [t.output_tokens for t in traces] == [6, 4]
    assert [t.prompt_tokens for t in traces] == [40, 33]
    for trace in traces:
        assert trace.failure is None
        times = [trace.submitted, *(arrival.seconds for arrival in trace.arrivals)]
        assert times == sorted(times)
        assert {arrival.tokens for arrival in trace.arrivals} == {1}


def test_native_state_is_the_closed_form_at_the_last_token(native: Any) -> None:
    (trace,) = native.timed([timed(40, 6)])
    expected = native.config.state_bytes(45, 1, "float32")  # the last token is not run
    assert trace.state_bytes == {
        "latent": expected.latent,
        "recurrent": expected.recurrent,
        "conv": expected.conv,
    }
    assert trace.peak_bytes is None or trace.peak_bytes > sum(trace.state_bytes.values())


def test_a_request_waits_until_it_is_due_and_counts_from_then(native: Any) -> None:
    before = time.perf_counter()
    late, early = native.timed([timed(8, 2, at=0.2), timed(8, 2)])
    assert late.submitted == pytest.approx(early.submitted + 0.2)
    assert early.submitted >= before
    assert early.arrivals[-1].seconds <= late.submitted <= late.arrivals[0].seconds


def test_what_cannot_be_asked_fails_alone_and_what_takes_too_long_is_given_up(native: Any) -> None:
    good, empty = native.timed([timed(8), timed(0)])
    assert good.failure is None
    assert (empty.failure.kind, empty.arrivals) == ("bad_request", ())
    native._request_timeout = 0.0
    (slow,) = native.timed([timed(8)])
    assert slow.failure.kind == "timeout"
    assert len(slow.arrivals) == 1


def test_a_restarted_job_forgets_its_arrivals() -> None:
    job = Job(0, timed(3).request, (1, 2, 3), arrivals=[1.0, 2.0])
    job.restart()
    assert job.arrivals == []


def test_prefill_tokens_is_an_engine_argument(model_folder: Path) -> None:
    spec = BackendSpec(model=str(model_folder), device="cpu", engine_args={"prefill-tokens": "7"})
    assert open_native(spec).describe()["prefill_chunk"] == 7
    with pytest.raises(UsageError, match="--backend native has no such argument, it takes prefill_tokens"):
        open_native(BackendSpec(model=str(model_folder), engine_args={"chunk": "7"}))


@pytest.mark.parametrize("kind", ["llama", "qwen3_next", "mamba"])
def test_hf_state_is_that_of_the_models_own_cache(hf_folder: Any, kind: str) -> None:
    from hf_tiny import ask, opened

    backend = opened(hf_folder(kind))
    asked = timed(20, 6)
    (trace,) = backend.timed([asked])
    assert (trace.failure, trace.output_tokens, trace.prompt_tokens) == (None, 6, 20)
    (plain,) = ask(backend, [Request("generate", "", max_new_tokens=6, token_ids=asked.request.token_ids)])
    assert isinstance(plain, Completion)
    ids = torch.tensor([[*(asked.request.token_ids or ()), *([1] * 5)]])
    rows = backend._adapter.fresh(1)
    for chunk in (ids[:, :20], *ids[:, 20:].split(1, 1)):
        backend._adapter.forward(chunk, torch.ones_like(chunk), rows, 1)
    expected = state_bytes(rows.cache)
    assert trace.state_bytes == expected
    names = {"llama": {"kv"}, "qwen3_next": {"kv", "conv", "recurrent"}, "mamba": {"conv", "recurrent"}}
    assert set(expected) == names[kind]
    if kind == "llama":  # 2 layers, keys and values of 1 head of 16, float32
        assert expected == {"kv": 2 * 2 * 16 * 4 * 25}
    assert backend.describe_timed()["prompts"] == "token ids"


def test_hf_requests_that_the_model_does_not_take_fail_alone(hf_folder: Any) -> None:
    from hf_tiny import opened

    good, long = opened(hf_folder("llama")).timed([timed(10), timed(2046)])
    assert good.failure is None
    assert isinstance(long.failure, Failure)
    assert long.failure.kind == "context_overflow"


@pytest.mark.parametrize("backend", ["hf", "auto"])
def test_hf_is_profiled_with_its_caches_bytes(
    hf_folder: Any, backend: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "--backend", backend, "--model", str(hf_folder("llama")), "--ctx", "32,64", "--device", "cpu"]
    assert (
        call([*words, "--concurrency", "2", "--decode-tokens", "4", "--repeats", "1", "--out", str(tmp_path / "here")])
        == 0
    )
    assert "transformers" in capsys.readouterr().err
    points = list(RunStore.open(tmp_path / "here").points())
    assert [(p.ctx, p.values["state_bytes"]) for p in points] == [(n, 2 * 2 * 16 * 4 * (n + 3)) for n in (32, 64)]
    assert points[0].settings["backend"] == "hf"
