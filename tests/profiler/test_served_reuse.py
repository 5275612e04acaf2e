"""Prefix reuse of a served model: the rounds, and what they come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.profiler.served.prompts import Prompts
from kleval.profiler.served.reuse import reuse_round, verdict
from kleval.store import RunStore
from kleval.types import Arrival, Failure, Request, TimedRequest, Trace, UsageError

COLD = 1.0


def caching(keeps: int, power: float = 1.0) -> Callable[[Request, float], tuple[Trace, Failure | None]]:
    """A server that keeps so many prompts and computes each token that it does not know in the same time; with power 2 in a time that
    grows with those before it."""
    known: list[tuple[int, ...]] = []

    def ask(request: Request, of: float) -> tuple[Trace, Failure | None]:
        ids = request.token_ids or ()
        hit = max((shared(ids, other) for other in known), default=0)
        known.append(ids)
        del known[: len(known) - keeps]
        first = COLD * ((len(ids) / 100) ** power - (hit / 100) ** power) + 1e-3
        arrivals = (Arrival(first, 1), Arrival(first + 0.1, 1))
        return Trace(0.0, arrivals, output_tokens=2, prompt_tokens=len(ids), cached_tokens=hit), None

    return ask


def shared(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def prompts(share: float) -> Callable[[Request | None, float], Request]:
    made = [0]

    def make(other: Request | None, of: float) -> Request:
        made[0] += 1
        new = tuple(1000 * made[0] + i for i in range(round(of * 100)))
        kept = round(share * 100) if other is not None else 0
        ids = (*((other.token_ids or ())[:kept] if other is not None else ()), *new[kept:])
        return Request("generate", "", token_ids=ids)

    return make


@pytest.mark.parametrize(("keeps", "at_once", "after"), [(9, 1.0, 1.0), (1, 1.0, 0.0)])
def test_what_is_saved_is_the_shared_parts_time(keeps: int, at_once: float, after: float) -> None:
    values = reuse_round(0.5, caching(keeps), prompts(0.5)).values
    assert values["reuse"] == pytest.approx(at_once, abs=0.01)
    assert values["between_reuse"] == pytest.approx(after, abs=0.01)
    assert (values["reused_tokens"], values["cached_tokens"]) == (50, 0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_a_beginning_that_costs_nothing_is_used_whole_however_cost_grows(share: float) -> None:
    values = reuse_round(share, caching(9, power=2.0), prompts(share)).values
    assert values["reuse"] == pytest.approx(1.0, abs=0.1)
    assert values["requests"] == (6 if share < 1 else 5)
    nothing = reuse_round(share, caching(0, power=2.0), prompts(share)).values
    assert nothing["reuse"] == pytest.approx(0.0, abs=0.01)


def test_new_prompts_share_nothing() -> None:
    values = reuse_round(0.0, caching(9), prompts(0.0)).values
    assert "reuse" not in values
    assert values["ttft_ms"] == pytest.approx(values["cold_ttft_ms"])


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ([0.9, 0.8, 1.0], "works"),
        ([0.9, 0.8, 0.1], "works up to 8k, not beyond"),
        ([0.1, 0.8, 0.9], "works from 8k on, not below"),
        ([0.9, 0.1, 0.9], "works at some lengths only"),
        ([0.0, -0.1, 0.05], "does nothing"),
    ],
)
def test_the_verdict_is_by_length(saved: list[float], said: str) -> None:
    assert verdict([4096, 8192, 16384], saved) == said


class Counting:
    """Counts a token per word and 3 more in a text of fewer than 200 words."""

    model = "tiny"

    def timed(self, requests: Sequence[TimedRequest]) -> list[Trace]:
        lengths = [len(str(one.request.prompt).split()) for one in requests]
        return [Trace(0.0, prompt_tokens=n if n >= 200 else n + 3) for n in lengths]


def test_a_short_prompt_does_not_change_how_long_ones_are_counted() -> None:
    made, rng = Prompts(Counting(), "text", 1), Random(1)  # type: ignore[arg-type]
    for n in (1000, 10):
        request = made.make(n, 2, rng)
        made.learn([request], [Trace(0.0, prompt_tokens=1000 if n == 1000 else 20)])
    assert len(str(made.make(1000, 2, rng).prompt).split()) == pytest.approx(997, abs=3)


@pytest.fixture
def spec(served_server: Any, manner: Any, tmp_path: Path) -> Iterator[ServedSpec]:
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="tiny", backend="openai", base_url=url, request_timeout=10)
        given: dict[str, Any] = {"ctxs": (64,), "concurrencies": (), "decode_tokens": 4, "repeats": 1}
        yield ServedSpec(engine=engine, reuse=(0.5,), out=tmp_path / "run", **given)


@pytest.mark.parametrize("ids", [True, False])
def test_prompts_begin_as_those_before_and_a_server_without_a_cache_is_told(
    spec: ServedSpec, manner: Any, ids: bool
) -> None:
    manner.takes_ids = ids
    result = profile_served(spec)
    assert result.status == "complete"
    assert result.out is not None
    _, a, b, c, d, e, part = (tuple(body["prompt"] if ids else body["prompt"].split()) for body in manner.measured[-7:])
    half = len(a) // 2
    assert abs(len(part) - half) <= 1
    assert part[:4] not in (a[:4], c[:4], d[:4])
    assert (a[:half] == b[:half], c[:half] == e[:half], a[:half] == c[:half], c[:half] == d[:half]) == (
        True,
        True,
        False,
        False,
    )
    assert a[half:] != b[half:]
    (point,) = RunStore.open(result.out).points()
    assert point.protocol == "reuse-0.5"
    said = " ".join(RunStore.open(result.out).manifest["caveats"])
    assert "Prefix reuse, 50 % of the prompt sent before, at once: does nothing" in said


def test_a_server_that_reports_cached_tokens_for_a_new_prompt_is_told(spec: ServedSpec, manner: Any) -> None:
    manner.cached = 16
    result = profile_served(spec)
    assert result.out is not None
    said = RunStore.open(result.out).manifest["caveats"]
    assert any(text.startswith("Not cold: 48 of 192 tokens") for text in said)
    assert not any("Cached prompts" in text for text in said)


def test_shares_outside_of_0_to_1_are_refused(spec: ServedSpec) -> None:
    with pytest.raises(UsageError, match=r"--reuse 0,0\.5,1"):
        replace(spec, reuse=(1.5,)).check()
