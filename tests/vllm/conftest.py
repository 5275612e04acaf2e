"""A small random Llama in a folder, and one engine for all tests here. Without vLLM they skip: `make test-vllm` installs it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NANO = Path(__file__).parents[2] / "kleval" / "models" / "nano"
MAX_MODEL_LEN = 1024


def why_not() -> str | None:
    """Why vLLM does not run here, None where it should."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:  # this folder itself is found where tests/ is on the path
        return "vllm is not installed: make test-vllm"
    import torch

    if not torch.accelerator.is_available() and platform.machine() in ("x86_64", "AMD64"):
        flags = Path("/proc/cpuinfo")
        if flags.is_file() and " avx2 " not in flags.read_text("utf-8").replace("\n", " "):
            return "vLLM's CPU build needs AVX2, which this CPU has not"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = why_not() if here else None
    if reason is not None:
        for item in here:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, float32, 1024 entries: the tokenizer of the nano models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, folder)
    return folder


@pytest.fixture(scope="session")
def reference(llama: Path) -> Any:
    """The same weights in transformers."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(llama).eval()


@pytest.fixture(scope="session")
def engine(llama: Path) -> Iterator[Any]:
    from kleval.backends.registry import open_backend

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    backend = open_backend(
        str(llama), "vllm", dtype="float32", max_model_len=MAX_MODEL_LEN, memory_budget=1 << 26, batch=8
    )
    yield backend
    backend.close()
