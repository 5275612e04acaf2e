"""What vLLM would allocate, where it is not installed or plans otherwise; `tests/vllm/test_vllm_plan.py` asks vLLM itself."""

from __future__ import annotations

from typing import Any

import pytest

from kleval.models.costs import ONE
from kleval.models.registry import costs_of
from kleval.profiler import vllm_plan
from kleval.profiler.memory import memory_rows


def test_without_vllm_there_is_nothing_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_plan, "installed", lambda: False)
    assert vllm_plan.beside(costs_of("kimi-k3")[1], 4096, "bfloat16", None, ONE) is None


def test_a_release_that_plans_otherwise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise AttributeError("no such function")

    monkeypatch.setattr(vllm_plan, "installed", lambda: True)
    monkeypatch.setattr(vllm_plan, "allocation", fails)
    (row,) = memory_rows(["deepseek-v3"], [4096])
    assert row["vllm"]["vllm_bytes"] is None
    assert row["vllm"]["why"] == "not planned: AttributeError: no such function"


def test_an_indexer_or_4_bits_are_not_planned() -> None:
    assert vllm_plan.allocation(costs_of("glm-5.3-flash")[1], 4096) is None
    assert vllm_plan.allocation(costs_of("deepseek-v3")[1], 4096, kv="int4") is None
