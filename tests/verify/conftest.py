"""A small model, and the engine that faults are planted into."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from one_thread import one_thread

__all__ = ["one_thread"]

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))  # for toy


def _module(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small random model that kleval writes."""
    from kleval.verify.model import write_model

    return write_model(tmp_path_factory.mktemp("verify") / "small", max_ctx=2048)


@pytest.fixture(scope="session")
def faults() -> ModuleType:
    return _module(ROOT / "benchmarks" / "verify_faults.py", "verify_faults")


@pytest.fixture(scope="session")
def engine_with(tiny: Path, faults: ModuleType) -> Callable[..., Any]:
    """fault, strength, dtype -> a fresh engine."""
    from kleval.models.registry import load, resolve

    def make(fault: str = "", strength: float = 1.0, dtype: torch.dtype = torch.float32) -> Any:
        decoder, tokenizer = load(resolve(str(tiny)), "cpu", dtype)
        return faults.FaultyEngine(decoder, tokenizer, fault, strength)

    return make
