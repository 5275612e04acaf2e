"""Shared by all tests: where the outputs of official code lie that some of them compare with, and transformers' modules."""

from __future__ import annotations

import functools
import gc
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def pytest_collection_finish() -> None:
    """What was imported stays, and is not looked through again: measuring collects garbage before each repeat, and hundreds of
    thousands of objects of torch and transformers make that 20 times as slow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder named by KLEVAL_FIXTURES, else `shared/fixtures` beside the checkout; the test skips without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    folder = Path(os.environ.get("KLEVAL_FIXTURES") or default)
    if not folder.is_dir():
        pytest.skip(f"no official outputs at {folder}: set KLEVAL_FIXTURES to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def real_rows() -> Path:
    """The folder named by KLEVAL_REAL_DATA, else `shared/data` beside the checkout: data sets as published."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("KLEVAL_REAL_DATA") or default)
    if not folder.is_dir():
        pytest.skip(f"no data sets at {folder}: set KLEVAL_REAL_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def plain_module() -> Callable[[str], Any]:
    """transformers' module of a family, in plain torch; the test skips without transformers, or where it has no such family.

    With fla-core installed transformers calls its Triton kernels, which crash without a GPU. Which functions it calls is settled
    when the module is imported, so it is imported afresh while those packages are hidden.
    """
    transformers = pytest.importorskip("transformers", minversion="5.17")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    hidden = ("fla", "causal_conv1d")

    @functools.cache
    def module(family: str) -> Any:
        name = f"transformers.models.{family}.modeling_{family}"
        if importlib.util.find_spec(f"transformers.models.{family}") is None:
            pytest.skip(f"transformers {transformers.__version__} has no {family}")
        kept = {m: sys.modules.pop(m) for m in list(sys.modules) if m == name or m.split(".")[0] in hidden}
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
        try:
            return importlib.import_module(name)
        finally:
            for package in hidden:
                del sys.modules[package]
            sys.modules.update(kept)

    return module


@pytest.fixture(scope="session")
def kimi_linear(plain_module: Callable[[str], Any]) -> Any:
    """transformers' module of Kimi Linear, in plain torch."""
    return plain_module("kimi_linear")


@pytest.fixture(scope="session")
def served_server() -> ModuleType:
    """A server that streams tokens at a known pace, for the profiler of served models (tests/profiler/served_server.py)."""
    name = "kleval_served_server"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "profiler" / "served_server.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def manner(served_server: Any) -> Any:
    """How that server behaves in one test."""
    return served_server.Manner()
