"""A served profile on vLLM itself, in this process."""

from __future__ import annotations

from pathlib import Path

from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore


def test_rounds_on_vllm_have_every_token_that_was_asked_for_and_none_from_a_cache(llama: Path, tmp_path: Path) -> None:
    engine = BackendSpec(
        model=str(llama),
        backend="vllm",
        max_model_len=256,
        memory_budget=1 << 26,
        engine_args={"enforce_eager": "true"},
    )
    spec = ServedSpec(
        engine=engine, ctxs=(64, 251), concurrencies=(1, 3), decode_tokens=6, repeats=1, out=tmp_path / "run"
    )
    result = profile_served(spec)
    assert result.status == "complete", result.message
    store = RunStore.open(tmp_path / "run")
    assert [one["ctx"] for one in store.manifest["unmeasured"]] == [251, 251]
    counted = [
        (p.batch, p.values["prompt_tokens"], p.values["output_tokens"], p.values["cached_tokens"])
        for p in store.points()
    ]
    assert counted == [(1, 64, 6, 0), (3, 64, 18, 0)]
    point = next(store.points())
    assert point.values["e2e_ms"] > point.values["ttft_ms"] > 0
    assert point.settings["prefix_caching"] is False
    assert point.environment["software"].startswith("vLLM ")
