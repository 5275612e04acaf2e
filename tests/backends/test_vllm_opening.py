"""The vllm backend is opened on a fake of vLLM: its engine arguments, settings and environment, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from misbehaving import write_byte_tokenizer
from vllm_fakes import BLOCK, LIMIT

from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.backends.vllm import VllmBackend, open_vllm
from kleval.backends.vllm_setup import OWN_OPTIONS, parse_value
from kleval.types import UsageError


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("true", "bool", True),
        ("False", "bool", False),
        ("4096", "int | None", 4096),
        ("0.9", "float", 0.9),
        ("none", "int | None", None),
        ('{"rope_theta": 1e6}', "dict", {"rope_theta": 1e6}),
        ("fp8", "CacheDType", "fp8"),
        ("12e4", "str | None", "12e4"),
        ("{broken", "dict", "{broken"),
    ],
)
def test_engine_arguments_are_read_as_what_they_look_like(text: str, annotation: str, value: Any) -> None:
    assert parse_value(text, annotation) == value


def test_engine_arguments_reach_the_engine(
    opened_vllm: Callable[..., VllmBackend], engine_arguments: dict[str, Any]
) -> None:
    given = {"max-num-batched-tokens": "64", "enforce_eager": "true", "hf_overrides": '{"a": 1}'}
    opened_vllm(engine_args=given, tp=2, max_model_len=32, batch=3, memory_budget=1 << 20, share_prefixes=False)
    expected = {
        "max_num_batched_tokens": 64,
        "enforce_eager": True,
        "hf_overrides": {"a": 1},
        "tensor_parallel_size": 2,
        "max_model_len": 32,
        "max_num_seqs": 3,
        "kv_cache_memory_bytes": 1 << 20,
        "enable_prefix_caching": False,
        "trust_remote_code": False,
    }
    assert expected.items() <= engine_arguments.items()


def test_a_tokenizer_that_lengths_are_counted_in_gives_the_model_no_ids(
    opened_vllm: Callable[..., VllmBackend], tmp_path: Path
) -> None:
    """`--tokenizer words` and another model's are for lengths; their ids mean other tokens to this one."""
    other = write_byte_tokenizer(tmp_path / "other")
    own = opened_vllm().tokenizer.digest
    for named in ("words", "tiktoken:cl100k_base", f"hf:{other}"):
        assert opened_vllm(tokenizer=named).tokenizer.digest == own


@pytest.mark.parametrize("given", [{"memory_budget": 1 << 20}, {"engine_args": {"gpu_memory_utilization": "0.5"}}, {}])
def test_on_a_cpu_the_cache_takes_a_part_of_the_memory_unless_told(
    opened_vllm: Callable[..., VllmBackend], engine_arguments: dict[str, Any], given: dict[str, Any]
) -> None:
    opened_vllm(**given)
    expected = given.get("memory_budget", None if given else 4 << 30)
    assert (engine_arguments.get("kv_cache_memory_bytes") or 0) <= (expected or 0)
    assert ("kv_cache_memory_bytes" in engine_arguments) == ("engine_args" not in given)


@pytest.mark.parametrize(
    ("stored", "asked", "used"),
    [("float32", "auto", "float32"), ("bfloat16", "auto", "auto"), ("float32", "bfloat16", "bfloat16")],
)
def test_auto_is_the_dtype_that_the_weights_are_stored_in(
    fake_vllm: None,
    model_folder: Path,
    tmp_path: Path,
    engine_arguments: dict[str, Any],
    stored: str,
    asked: str,
    used: str,
) -> None:
    for file in model_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": stored}))
    open_vllm(BackendSpec(model=str(tmp_path), dtype=asked))
    assert engine_arguments["dtype"] == used


@pytest.mark.parametrize(
    ("name", "words"),
    [("max_num_batched_token", "did you mean max_num_batched_tokens"), ("_internal", "no engine argument")],
)
def test_an_unknown_engine_argument_names_the_nearest(
    opened_vllm: Callable[..., VllmBackend], name: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        opened_vllm(engine_args={name: "1"})


@pytest.mark.parametrize("name", OWN_OPTIONS)
def test_what_has_an_option_is_not_an_engine_argument(opened_vllm: Callable[..., VllmBackend], name: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: say it with --"):
        opened_vllm(engine_args={name: "1"})


def test_what_vllm_cannot_load_is_one_line(opened_vllm: Callable[..., VllmBackend]) -> None:
    with pytest.raises(UsageError, match=r"cannot load .*: ValueError: Value error, fp3 is not a cache dtype"):
        opened_vllm(engine_args={"kv_cache_dtype": "fp3"})


@pytest.mark.parametrize("device", ["cuda", "cpu:1"])
def test_a_device_that_the_build_has_not_is_refused(opened_vllm: Callable[..., VllmBackend], device: str) -> None:
    with pytest.raises(UsageError, match="--device"):
        opened_vllm(device=device)


def test_without_vllm_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, model_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with mock.patch.dict(os.environ), pytest.raises(UsageError, match="pip install 'vllm>="):
        open_backend(str(model_folder), "vllm")


def test_the_environment_is_set_before_vllm_is_imported_and_what_is_set_stays(
    opened_vllm: Callable[..., VllmBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    opened_vllm()
    assert os.environ["VLLM_NO_USAGE_STATS"] == os.environ["DO_NOT_TRACK"] == "1"
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_settings_are_json_and_name_version_and_weights(opened_vllm: Callable[..., VllmBackend]) -> None:
    backend = opened_vllm()
    told = json.loads(json.dumps(backend.describe()))
    assert told["vllm"] == "0.32.0"
    assert len(told["weights_sha256"]) == 64
    assert (told["max_model_len"], told["block_size"], told["prefix_caching"]) == (LIMIT, BLOCK, True)
    assert backend.max_ctx == LIMIT
