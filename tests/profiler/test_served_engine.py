"""Rounds on an engine in this process that is stepped: what is made of its outputs. vLLM itself is not needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kleval.backends import vllm, vllm_timing
from kleval.backends.spec import BackendSpec
from kleval.backends.vllm import VllmBackend
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore
from kleval.tokenization import load_tokenizer
from kleval.types import Request, TimedRequest, Trace


@dataclass
class Engine:
    """Gives every request tokens_per_step tokens per step after one step of prefill. fails: called before every step."""

    tokens_per_step: int = 1
    max_model_len: int = 512
    vocab_size: int = 1000
    most: int | None = None
    cached: int = 0
    fails: Callable[[int], None] = lambda step: None
    steps: int = 0
    open: dict[str, list[int]] = field(default_factory=dict)
    prompts: list[list[int]] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)

    @property
    def vllm_config(self) -> Any:
        config = SimpleNamespace(max_model_len=self.max_model_len, get_vocab_size=lambda: self.vocab_size)
        return SimpleNamespace(model_config=config, scheduler_config=SimpleNamespace(max_num_seqs=8))

    @property
    def engine_core(self) -> Any:
        return self

    def add_request(self, name: str, prompt: list[int], n_out: int) -> None:
        if len(prompt) > self.max_model_len:
            raise ValueError("longer than the maximum model length")
        self.open[name] = [0, 0, min(n_out, self.most or n_out)]
        self.prompts.append(prompt)

    def step(self) -> list[Any]:
        self.steps += 1
        self.fails(self.steps)
        outputs = []
        for name, state in list(self.open.items()):
            state[0] += 1
            if state[0] == 1:
                continue
            new = min(self.tokens_per_step, state[2] - state[1])
            state[1] += new
            done = state[1] == state[2]
            if done:
                del self.open[name]
            answer = SimpleNamespace(token_ids=[7] * new)
            outputs.append(
                SimpleNamespace(request_id=name, outputs=[answer], finished=done, num_cached_tokens=self.cached)
            )
        return outputs

    def abort_request(self, names: list[str]) -> None:
        self.aborted += names
        for name in names:
            self.open.pop(name, None)


@pytest.fixture(autouse=True)
def _plain_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake takes a prompt and a number where vLLM takes objects of its own."""
    monkeypatch.setattr(vllm_timing, "_input", lambda job: list(job.prompt))
    monkeypatch.setattr(vllm_timing, "_params", lambda job: job.request.max_new_tokens)
    monkeypatch.setattr(vllm, "settings", lambda llm: {"dtype": "float32"})


def target(engine: Engine, seconds: float = 60.0) -> VllmBackend:
    llm = SimpleNamespace(llm_engine=engine)
    return VllmBackend(llm, load_tokenizer("words"), "fake", frozenset(), request_timeout=seconds)


def ask(engine: VllmBackend, *prompts: list[int], at: tuple[float, ...] = ()) -> list[Trace]:
    """5 tokens of each; at: when they are submitted."""
    asked = [Request("generate", "", max_new_tokens=5, token_ids=tuple(prompt)) for prompt in prompts]
    return engine.timed([TimedRequest(*one) for one in zip(asked, at or [0.0] * len(asked), strict=True)])


def spec(folder: Path, **given: Any) -> ServedSpec:
    engine = BackendSpec(model="fake", backend="vllm")
    return ServedSpec(engine=engine, ctxs=(32,), decode_tokens=5, repeats=2, out=folder / "run", **given)


def test_tokens_are_counted_as_the_engine_hands_them_out_at_the_step_that_made_them() -> None:
    engine = Engine(tokens_per_step=2)
    first, second = ask(target(engine), [1, 2, 3], [4, 5])
    assert (first.output_tokens, first.prompt_tokens, first.cached_tokens) == (5, 3, 0)
    assert (second.output_tokens, second.prompt_tokens) == (5, 2)
    assert [arrival.tokens for arrival in first.arrivals] == [2, 2, 1]
    assert first.submitted <= first.arrivals[0].seconds <= first.arrivals[-1].seconds
    assert first.arrivals == second.arrivals
    assert first.failure is None


def test_requests_are_added_when_they_are_due() -> None:
    engine = Engine()
    late, early = ask(target(engine), [1], [2, 3], at=(0.05, 0.0))
    assert engine.prompts == [[2, 3], [1]]
    assert late.submitted == pytest.approx(early.submitted + 0.05)
    assert late.arrivals[0].seconds >= late.submitted
    assert len(late.arrivals) == len(early.arrivals) == 5


def test_a_profile_of_an_engine_needs_no_server(tmp_path: Path) -> None:
    engine = Engine()
    result = profile_served(spec(tmp_path, concurrencies=(1, 3)), backend=target(engine))
    assert result.status == "complete"
    store = RunStore.open(tmp_path / "run")
    points = list(store.points())
    assert [(p.batch, p.values["output_tokens"], p.values["cached_tokens"]) for p in points] == [
        *[(1, 5, 0)] * 2,
        *[(3, 15, 0)] * 2,
    ]
    assert all(len(prompt) == 32 and min(prompt) >= 256 and max(prompt) < 1000 for prompt in engine.prompts)
    assert len({tuple(prompt) for prompt in engine.prompts}) == len(engine.prompts) == 3 * (1 + 3)
    assert points[0].settings["backend"] == "vllm"
    assert "in this process, without a server" in " ".join(store.manifest["caveats"])


def test_a_step_that_raises_fails_its_round_and_no_other(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 9:  # 6 steps warm up; the third of the first round
            raise RuntimeError("CUDA out of memory")

    result = profile_served(spec(tmp_path), backend=target(Engine(fails=fail)))
    assert result.counts == {"planned": 2, "measured": 1, "failed": 1, "missing": 0}
    assert "out of memory" in result.message


def test_a_request_that_is_refused_fails_alone() -> None:
    good, bad = ask(target(Engine()), [1] * 10, [1] * 600)
    assert good.failure is None
    assert bad.failure is not None
    assert bad.failure.kind == "context_overflow"


def test_what_takes_too_long_is_aborted() -> None:
    engine = Engine()
    (trace,) = ask(target(engine, seconds=0.0), [1, 2])
    assert trace.failure is not None
    assert trace.failure.kind == "timeout"
    assert engine.open == {}


def test_fewer_tokens_than_asked_is_a_failure(tmp_path: Path) -> None:
    result = profile_served(spec(tmp_path), backend=target(Engine(most=4)))
    assert result.exit_code == 3
    failures = [p.failure for p in RunStore.open(tmp_path / "run").points()]
    assert [f and f["kind"] for f in failures] == ["fewer_tokens"] * 2


@pytest.mark.parametrize(("size", "low"), [(300, 0), (1000, 256)])
def test_ids_are_of_the_vocabulary(size: int, low: int) -> None:
    ids = target(Engine(vocab_size=size)).vocabulary()
    assert (min(ids), max(ids)) == (low, size - 1)
