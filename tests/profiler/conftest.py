"""Small profiles: two architectures at nano size, chunks of 16 tokens, a few hundred tokens of context."""

from __future__ import annotations

from pathlib import Path

import pytest
from one_thread import one_thread

from kleval.profiler.workload import ProfileSpec

__all__ = ["one_thread"]


@pytest.fixture(autouse=True)
def _quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound from small copies and products: right in kind, quick to get."""
    monkeypatch.setattr("kleval.profiler.bound.COPY_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr("kleval.profiler.bound.MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr("kleval.profiler.rates.DEEP_TOKENS", 128)
    monkeypatch.setattr("kleval.profiler.plan.MIN_BUDGET_BYTES", 1 << 20)


@pytest.fixture
def small(tmp_path: Path) -> ProfileSpec:
    """Two lengths, of which both are also sampled; 2 timed steps, 2 repeats."""
    return ProfileSpec(
        models=("kimi-linear", "mla"),
        ctxs=(128, 272),
        chunk_tokens=16,
        decode_tokens=2,
        repeats=2,
        device="cpu",
        out=tmp_path / "run",
    )
