"""Shared prefixes in the native backend: fewer tokens are run, the same answers come back, and memory is still respected."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kleval.backends.native import NativeBackend, open_native
from kleval.backends.native_memory import Memory
from kleval.backends.serving import Serving
from kleval.backends.spec import BackendSpec
from kleval.types import Completion, Failure, Outcome, Request

WORDS = ["river ", "Does a ", "ünï ", "42, ", "answer: ", "because ", "the "]
ARCHITECTURES = ["kimi-linear", "gdn-h", "kimi-linear-rope", "mla"]


def words(seed: int, n: int) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(WORDS) for _ in range(n))


def multiple_choice(questions: int = 3) -> list[Request]:
    """A few-shot block, questions on it, four choices each: two of one token, two of several."""
    shots = words(0, 60)
    return [
        Request("loglikelihood", f"{shots}{words(q, 12)}?", continuation=choice)
        for q in range(1, questions + 1)
        for choice in ("A", "B", " yes, as far", " yes, as near")
    ]


def mixed() -> list[Request]:
    """Every kind of sharing: whole prompts, prompts that go on inside a continuation, haystacks with questions, nothing at all."""
    haystack = words(9, 150)
    requests = multiple_choice()
    requests += [Request("generate", f"{haystack}{words(q, 3)}", max_new_tokens=4 + q) for q in range(20, 25)]
    requests += [Request("generate", haystack, max_new_tokens=6, temperature=5.0, seed=s) for s in range(3)]
    # One prompt that is scored and generated from, in turns: what is asked decides which go together, not where they stand.
    both = words(77, 60)
    requests += [
        one
        for choice in "ABC"
        for one in (
            Request("loglikelihood", both, continuation=choice),
            Request("generate", both, max_new_tokens=3),
        )
    ]
    requests += [Request("loglikelihood", haystack[:300], continuation=haystack[300:] + tail) for tail in ("x", "yz")]
    requests += [Request("loglikelihood", haystack[:250], continuation=haystack[250:400])]
    requests += [Request("generate", words(s, 30), max_new_tokens=5) for s in (51, 52)]
    return requests


def ask(backend: NativeBackend, requests: Sequence[Request]) -> list[Outcome]:
    answers = list(backend.run(requests))
    assert sorted(position for position, _ in answers) == list(range(len(requests)))
    return [outcome for _, outcome in sorted(answers, key=lambda answer: answer[0])]


def same(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> None:
    """The same text, tokens and argmaxes; log-probabilities to 1e-4 per token."""
    for one, other in zip(ours, theirs, strict=True):
        assert isinstance(one, Completion)
        assert isinstance(other, Completion)
        assert (one.text, one.token_ids, one.finish_reason) == (other.text, other.token_ids, other.finish_reason)
        assert (one.prompt_tokens, one.output_tokens, one.greedy) == (
            other.prompt_tokens,
            other.output_tokens,
            other.greedy,
        )
        if one.logprob_sum is not None:
            assert other.logprob_sum == pytest.approx(one.logprob_sum, abs=1e-4 * one.output_tokens)


@pytest.fixture
def opened(model_folder: Path) -> Callable[..., NativeBackend]:
    return lambda **settings: open_native(BackendSpec(model=str(model_folder), **settings))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_off_or_on_does_not_change_an_answer(
    make_model: Callable[..., Path], tmp_path: Path, architecture: str
) -> None:
    folder = str(make_model(tmp_path / "m", architecture))
    off = open_native(BackendSpec(model=folder, share_prefixes=False))
    on = open_native(BackendSpec(model=folder))
    same(ask(on, mixed()), ask(off, mixed()))
    assert off.stats["prefilled_tokens"] == off.stats["prompt_tokens"] == on.stats["prompt_tokens"]
    assert on.stats["prefilled_tokens"] < on.stats["prompt_tokens"] / 2


@pytest.mark.parametrize(("batch", "chunk"), [(1, 1024), (2, 48), (5, 100)])
def test_batch_and_chunk_do_not_change_an_answer(opened: Callable[..., NativeBackend], batch: int, chunk: int) -> None:
    expected = ask(opened(share_prefixes=False), mixed())
    backend = opened(batch=batch)
    backend.prefill_tokens = chunk
    same(ask(backend, mixed()), expected)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tree_of_requests_is_answered_as_without_it(
    opened: Callable[..., NativeBackend], data: st.DataObject
) -> None:
    blocks = st.lists(st.sampled_from([(7,) * 40, (8, 9) * 25, (1, 2, 3), (11,)]), min_size=1, max_size=5)
    ids = blocks.map(lambda parts: tuple(i for part in parts for i in part))
    requests = []
    for prompt, continuation in data.draw(st.lists(st.tuples(ids, st.one_of(st.just(()), ids)), max_size=7)):
        if continuation:
            requests.append(
                Request("loglikelihood", "", continuation="c", token_ids=prompt, continuation_ids=continuation)
            )
        else:
            requests.append(Request("generate", "", max_new_tokens=3, token_ids=prompt))
    backend = opened(batch=data.draw(st.integers(1, 4)))
    same(ask(backend, requests), ask(opened(share_prefixes=False), requests))


def test_few_shots_are_prefilled_once(opened: Callable[..., NativeBackend]) -> None:
    backend, requests = opened(), multiple_choice(4)
    ask(backend, requests)
    encode = backend.tokenizer.encode
    shots = len(encode(words(0, 60)))
    questions = [len(encode(f"{words(q, 12)}?")) for q in range(1, 5)]
    # " yes, as far" and " yes, as near" have " yes, as " in common and are prefilled without their last token: too short to share.
    rests = len(encode(" yes, as fa")) + len(encode(" yes, as nea"))
    assert backend.stats["prefilled_tokens"] <= shots + sum(questions) + 4 * rests
    assert backend.stats["prompt_tokens"] == sum(4 * (shots + q) + rests for q in questions)


def test_one_token_continuations_of_a_prompt_are_one_forward(
    opened: Callable[..., NativeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened()
    forwards: list[tuple[int, ...]] = []
    original = backend._decoder.hidden

    def hidden(ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        forwards.append(tuple(ids.shape))
        return original(ids, *rest)

    monkeypatch.setattr(backend._decoder, "hidden", hidden)
    prompt = words(3, 20)
    ask(backend, [Request("loglikelihood", prompt, continuation=choice) for choice in "ABCD"])
    assert forwards == [(1, len(backend.tokenizer.encode(prompt)))]


def test_samples_of_one_prompt_are_prefilled_once_and_stay_their_own(opened: Callable[..., NativeBackend]) -> None:
    backend, prompt = opened(), words(4, 40)
    requests = [Request("generate", prompt, max_new_tokens=12, temperature=8.0, seed=seed) for seed in range(5)]
    outcomes = ask(backend, requests)
    same(outcomes, ask(opened(share_prefixes=False), requests))
    assert backend.stats["prefilled_tokens"] == len(backend.tokenizer.encode(prompt))
    assert len({outcome.token_ids for outcome in outcomes if isinstance(outcome, Completion)}) == 5


def test_stats_add_up_over_calls(opened: Callable[..., NativeBackend]) -> None:
    backend = opened()
    ask(backend, multiple_choice())
    once = dict(backend.stats)
    ask(backend, multiple_choice())
    assert backend.stats == {name: 2 * count for name, count in once.items()}


def test_the_states_that_are_kept_count_in_the_budget(opened: Callable[..., NativeBackend]) -> None:
    """A budget for one request and little more: the tree is walked one row at a time, and what does not fit beside the states
    that it goes on from is served alone."""
    expected = ask(opened(share_prefixes=False), mixed())
    probe = opened()
    memory = Memory(probe.config, probe._device, probe._dtype, 1024, None)
    longest = max(len(probe.tokenizer.encode(str(r.prompt) + r.continuation)) for r in mixed()) + 10
    one = memory.state_bytes(longest) + memory.working_bytes(longest, longest)
    for budget in (one, one + memory.state_bytes(longest), 3 * one):
        same(ask(opened(memory_budget=budget), mixed()), expected)
    tiny = ask(opened(memory_budget=one // 3), mixed())
    assert {outcome.kind for outcome in tiny if isinstance(outcome, Failure)} == {"out_of_memory"}


@pytest.mark.parametrize("states", [1.2, 1.5, 4])
def test_no_more_is_allocated_than_the_budget_says(
    opened: Callable[..., NativeBackend], monkeypatch: pytest.MonkeyPatch, states: float
) -> None:
    """States of all levels that are alive at once and what the next group needs; a state by closed form and as it really is."""
    monkeypatch.setattr(Memory, "working_bytes", lambda self, tokens, total: 2000)
    probe = opened(share_prefixes=False)
    expected = ask(probe, mixed())
    memory = Memory(probe.config, probe._device, probe._dtype, 1024, None)
    budget = int(states * memory.state_bytes(1200))
    live: list[int] = []
    forked = Serving._forked

    def watch(self: Serving[Any], frame: Any, group: Any) -> Any:
        cache = forked(self, frame, group)
        states = [memory.state_bytes(part.total_tokens, part.begin) for _, part in group]
        live.append(frame.live + sum(states) + 2000 * len(group))
        assert cache.allocated_bytes() <= live[-1]
        return cache

    monkeypatch.setattr(Serving, "_forked", watch)
    same(ask(opened(memory_budget=budget), mixed()), expected)
    assert budget / 2 < max(live) <= budget


def test_states_leave_room_for_what_goes_on_from_them(
    opened: Callable[..., NativeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More shared states than fit: as many at a time as still let a question follow, and every one is run once."""
    monkeypatch.setattr(Memory, "working_bytes", lambda self, tokens, total: 2000)
    haystacks = [words(seed, 100) for seed in range(100, 106)]
    requests = [
        Request("generate", haystack + words(seed, 2), max_new_tokens=2) for haystack in haystacks for seed in range(3)
    ]
    probe = opened()
    lengths = [len(probe.tokenizer.encode(haystack)) for haystack in haystacks]
    memory = Memory(probe.config, probe._device, probe._dtype, 1024, None)
    backend = opened(memory_budget=int(3.2 * memory.state_bytes(max(lengths))))
    same(ask(backend, requests), ask(opened(share_prefixes=False), requests))
    assert backend.stats["prefilled_tokens"] <= sum(lengths) + 18 * 20


@pytest.mark.parametrize("most", [1, 2])
def test_running_out_of_memory_anywhere_in_the_tree_changes_nothing(
    opened: Callable[..., NativeBackend], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    expected = ask(opened(share_prefixes=False), mixed())
    backend = opened()
    original = backend._decoder.hidden

    def hidden(ids: torch.Tensor, cache: Any, lengths: Any = None) -> torch.Tensor:
        if len(ids) > most and int(cache.lengths.max()) > 40:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return original(ids, cache, lengths)

    monkeypatch.setattr(backend._decoder, "hidden", hidden)
    same(ask(backend, mixed()), expected)


def test_what_never_fits_behind_a_shared_state_is_served_alone(
    opened: Callable[..., NativeBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(opened(share_prefixes=False), mixed())
    backend = opened()
    monkeypatch.setattr(backend._decoder, "hidden", failing_behind_a_state(backend._decoder.hidden))
    same(ask(backend, mixed()), expected)


def failing_behind_a_state(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A prefill (more than one token) that goes on from a state runs out of memory."""

    def hidden(ids: torch.Tensor, cache: Any, lengths: Any = None) -> torch.Tensor:
        if ids.shape[1] > 1 and int(cache.lengths.max()) > 0:
            raise MemoryError
        return original(ids, cache, lengths)

    return hidden


def test_a_state_that_is_not_finite_fails_all_that_goes_on_from_it(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    backend = open_native(BackendSpec(model=str(make_model(tmp_path / "m"))))
    backend._decoder.model.norm.weight.data.fill_(float("nan"))
    outcomes = ask(backend, multiple_choice())
    assert [isinstance(outcome, Failure) and outcome.kind for outcome in outcomes] == ["internal"] * 12


def test_stopping_early_leaves_the_backend_usable(opened: Callable[..., NativeBackend]) -> None:
    backend = opened()
    answers: Iterator[tuple[int, Outcome]] = backend.run(mixed())
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert backend.stats["prefilled_tokens"] > 0
    same(ask(backend, multiple_choice()), ask(opened(share_prefixes=False), multiple_choice()))
