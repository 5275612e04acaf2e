"""Small random models of `verify_engines`, and the servers of other engines that answer for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import small_models
import torch

from kleval.backends.hf import _torch_only
from kleval.backends.registry import open_backend
from kleval.types import Backend
from kleval.verify.model import write_model

SECONDS_TO_START = 600.0  # a server


def hf_config(kind: str) -> Any:
    import transformers

    small = {
        "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": 256,
        "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    if kind == "llama":
        return transformers.LlamaConfig(**small)
    if kind == "gemma3":
        return transformers.Gemma3TextConfig(**small, head_dim=16, sliding_window=128)
    if kind == "mamba2":
        return transformers.Mamba2Config(
            vocab_size=257, hidden_size=64, state_size=16, num_hidden_layers=3, num_heads=8, head_dim=16, n_groups=2,
            expand=2, bos_token_id=None, eos_token_id=256, pad_token_id=0, tie_word_embeddings=False,
        )  # fmt: skip
    return transformers.Qwen3NextConfig(
        **small, layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4,
        num_experts_per_tok=2, head_dim=16, moe_intermediate_size=32, shared_expert_intermediate_size=32,
    )  # fmt: skip


def hf_folder(kind: str, home: Path) -> Path:
    """A small random model with the byte tokenizer of `write_model`."""
    small = small_model(home)
    if kind == "kimi_linear":
        return small
    folder = home / kind
    if not (folder / "config.json").exists():
        import transformers

        torch.manual_seed(0)
        with _torch_only(torch.device("cpu")):
            model = transformers.AutoModelForCausalLM.from_config(hf_config(kind))
        small_models.move_apart(model)
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_text((small / file).read_text())
    return folder


def small_model(home: Path) -> Path:
    folder = home / "small"
    if not (folder / "config.json").exists():
        write_model(folder, max_ctx=4096)
    return folder


def vllm_folder(kind: str, home: Path) -> Path:
    """A small random model of a shape that vLLM's CPU build runs, with `small_models.factor`."""
    from safetensors.torch import load_file, save_file

    folder = home / f"vllm-{kind}"
    if not folder.exists():
        folder.mkdir()
        torch.manual_seed(0)
        getattr(small_models, f"make_{kind}")(folder)
        small_models.add_tokenizer(folder)
        for file in folder.glob("*.safetensors"):
            tensors = {name: tensor * small_models.factor(name) for name, tensor in load_file(file).items()}
            save_file(tensors, file, metadata={"format": "pt"})
    return folder


@contextlib.contextmanager
def server(command: list[str], **settings: Any) -> Iterator[Backend]:
    """What a server at {port} answers, asked over HTTP, until it is no longer needed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "TORCH_COMPILE_DISABLE": "1",
    }
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, env=env, start_new_session=True
        )
        try:
            until = time.monotonic() + SECONDS_TO_START
            while not _answers(port):
                if running.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} did not come up: {log.read()[-600:]}")
                time.sleep(1)
            url = f"http://127.0.0.1:{port}/v1"
            with contextlib.closing(
                open_backend("small", "openai", base_url=url, request_timeout=600.0, **settings)
            ) as backend:
                yield backend
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
