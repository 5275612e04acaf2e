"""Tiny random models with a byte tokenizer, in folders as `load` and transformers want them, and a fake of vLLM."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from one_thread import one_thread
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from kleval.backends.native import NativeBackend, open_native
from kleval.backends.spec import BackendSpec
from kleval.backends.vllm import VllmBackend, open_vllm
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset

__all__ = ["one_thread"]

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "harness")]  # the fakes


def write_model(folder: Path, architecture: str = "kimi-linear", seed: int = 0, max_ctx: int = 4096) -> Path:
    """One linear and one MLA layer, few channels, 257 entries: every byte, and <|eos|>."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*alphabet, "<|eos|>"])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|eos|>"}), encoding="utf-8")
    config = preset(architecture, "nano", vocab_size=len(alphabet) + 1, eos_token_id=len(alphabet))
    config = replace(
        config,
        hidden_size=32,
        layer_mixers=(config.layer_mixers[0], "mla"),
        kda_head_dim=16,
        num_attention_heads=2,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        kv_lora_rank=16,
        intermediate_size=32,
        max_position_embeddings=max_ctx,
    )
    decoder = Decoder(config)
    decoder.init_weights(seed)
    tensors = {name: p.detach().contiguous() for name, p in decoder.named_parameters()}
    tensors["model.embed_tokens.weight"] *= 4  # sharper answers, so that rounding does not decide between tokens
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def backend(model_folder: Path) -> NativeBackend:
    return open_native(BackendSpec(model=str(model_folder)))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Path]:
    return write_model


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """kind -> a folder with random weights and a byte tokenizer."""
    from hf_tiny import write_hf_model

    return functools.cache(lambda kind: write_hf_model(kind, tmp_path_factory.mktemp(kind) / "model", write_model))


@pytest.fixture
def engine_arguments() -> dict[str, Any]:
    """What the last vllm.LLM was called with."""
    return {}


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch, engine_arguments: dict[str, Any]) -> Iterator[None]:
    from vllm_fakes import install

    install(monkeypatch, engine_arguments)
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def opened_vllm(fake_vllm: None, model_folder: Path) -> Callable[..., VllmBackend]:
    return lambda **given: open_vllm(BackendSpec(model=str(model_folder), **given))
