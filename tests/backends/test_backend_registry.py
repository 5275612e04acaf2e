"""Backends by name."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from kleval.backends.registry import BACKENDS, open_backend
from kleval.types import UsageError


def test_auto_is_native(model_folder: Path) -> None:
    assert open_backend(str(model_folder)).name == "native"


def test_every_name_leads_to_a_function() -> None:
    for target in BACKENDS.values():
        module, _, attribute = target.partition(":")
        assert callable(getattr(import_module(module), attribute))


def test_an_unknown_backend_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean native"):
        open_backend("kimi-linear", backend="nativ")


def test_an_unknown_model_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean kimi-linear"):
        open_backend("kimi-liner")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("memory_budget", "8GiB", "--memory-budget is a whole number"),
        ("concurrency", 1.5, "--concurrency is a whole number"),
        ("batch", 0, "--batch is a whole number"),
        ("request_timeout", "x", "--request-timeout is a positive time"),
        ("timeout", float("nan"), "--timeout is a positive time"),
        ("base_url", 3, "base_url is an address"),
        ("hardware", "", "hardware is a text"),
        ("hardware", "1x L4", "--hardware is for --backend openai, not native"),
        ("dtype", None, "dtype is a text"),
        ("engine_args", {"a": "b"}, "--engine-arg a: --backend native has no such argument, it takes prefill_tokens"),
        ("engine_args", {"prefill-tokens": "0"}, "--engine-arg prefill-tokens: '0' is no value"),
        ("tp", 2, "--tp is for --backend vllm, not native"),
        ("temprature", 1, "no backend takes temprature"),
    ],
)
def test_a_setting_that_no_engine_takes_is_told(name: str, value: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_backend("kimi-linear", **{name: value})
