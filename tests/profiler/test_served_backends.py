"""Figures of a served profile against a backend whose arrivals are written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore
from kleval.tokenization import load_tokenizer
from kleval.types import Arrival, TimedRequest, Trace


class Referee:
    """Its times are written down: the first `bundle` tokens after 0.25 s, then each after 10 ms. No clock is read."""

    name, model, max_ctx = "referee", "referee", None
    tokenizer = load_tokenizer("words")

    def __init__(self, bundle: int = 1, told: bool = True) -> None:
        self.bundle, self.told = bundle, told
        self.asked: list[TimedRequest] = []

    def describe(self) -> dict[str, Any]:
        return {"software": "none"}

    def run(self, requests: Sequence[Any]) -> Any:
        raise AssertionError

    def close(self) -> None:
        raise AssertionError("an object is closed by its owner")

    def timed(self, requests: Sequence[TimedRequest]) -> list[Trace]:
        self.asked += requests
        return [self.trace(one, 100.0 * at) for at, one in enumerate(requests)]

    def trace(self, one: TimedRequest, start: float) -> Trace:
        n_out = one.request.max_new_tokens
        sizes = [self.bundle, *([1] * (n_out - self.bundle))]
        arrivals = tuple(
            Arrival(start + 0.25 + 0.01 * at, size if self.told else None) for at, size in enumerate(sizes)
        )
        return Trace(start, arrivals, n_out, len(one.request.token_ids or ()), state_bytes={"kv": 1000, "conv": 24})


def spec(folder: Path, **given: Any) -> ServedSpec:
    engine = BackendSpec(model="referee", backend="referee")
    return ServedSpec(engine=engine, ctxs=(64,), **{"decode_tokens": 9, "repeats": 2, "out": folder / "run", **given})


@pytest.mark.parametrize(
    ("referee", "tpot", "estimate"),
    [(Referee(), 10, False), (Referee(4), 10, False), (Referee(4, told=False), 50 / 8, True)],
)
def test_figures_are_those_of_the_arrivals(referee: Referee, tpot: float, estimate: bool, tmp_path: Path) -> None:
    result = profile_served(spec(tmp_path, concurrencies=(2,)), backend=referee)  # type: ignore[arg-type]
    assert result.status == "complete"
    store = RunStore.open(tmp_path / "run")
    for point in store.points():
        assert point.values["ttft_ms"] == pytest.approx(250)
        assert point.values["tpot_ms"] == pytest.approx(tpot)
        assert (point.values["state_bytes"], point.values["kv_bytes"], point.values["conv_bytes"]) == (1024, 1000, 24)
        assert point.estimate is estimate
    assert ("TPOT is an estimate" in " ".join(store.manifest["caveats"])) is estimate
    prompts = [one.request for one in referee.asked]
    assert {len(prompt.token_ids or ()) for prompt in prompts} == {64}
    assert len({prompt.token_ids for prompt in prompts}) == len(prompts) == 2 * 3
    assert all(prompt.prompt == referee.tokenizer.decode(prompt.token_ids or ()) for prompt in prompts)


def test_a_backend_that_sends_the_text_of_its_ids_may_count_it_otherwise(tmp_path: Path) -> None:
    """5 % more tokens, as where a text is cut into tokens anew."""

    class Text(Referee):
        def trace(self, one: TimedRequest, start: float) -> Trace:
            return replace(super().trace(one, start), prompt_tokens=210)

    result = profile_served(replace(spec(tmp_path), ctxs=(200,)), backend=Text())  # type: ignore[arg-type]
    assert result.status == "complete"
