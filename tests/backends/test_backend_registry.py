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
