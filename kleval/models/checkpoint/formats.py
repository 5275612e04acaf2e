"""Checkpoints in the forms of other tools, each refused in one line that names what runs it.

kleval's decoders read plain weights in safetensors. Quantized ones (AWQ, GPTQ, FP8, …) are read by transformers and vLLM, those of MLX
and GGUF files by their own tools' servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kleval.types import UsageError


def check_place(path: Path) -> None:
    """UsageError where a model's name is a file, or a folder that holds nothing but GGUF files."""
    files = [path] if path.is_file() else []
    if path.is_dir() and not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
    check_gguf(files)
    if files:
        raise UsageError(f"{path} is a file: give the folder that holds it, with its config.json")


def check_gguf(files: list[Path]) -> None:
    """UsageError when the first of some files is of llama.cpp's kind."""
    if files and files[0].suffix == ".gguf":
        raise UsageError(
            f"{files[0]} is a GGUF file, which llama.cpp's server runs (llama-server -m {files[0].name}): start it, and give its "
            "address with --base-url"
        )


def check_weights(file: Path, values: Mapping[str, Any], packed: bool = False) -> None:
    """UsageError for a config.json that tells of weights which are not plain. packed: whether transformers' kinds are taken."""
    how = values.get("quantization_config") or values.get("quantization")
    if isinstance(how, dict) and "bits" in how and "quant_method" not in how:
        raise UsageError(
            f"{file}: its weights are quantized by MLX, whose server runs them (mlx_lm.server): start it, and give its address with "
            "--base-url"
        )
    if how and not packed:
        name = how.get("quant_method", "of an unknown kind") if isinstance(how, dict) else how
        raise UsageError(
            f"{file}: quantization_config is {name}: kleval's decoder reads plain weights; --backend hf, --backend vllm or a server "
            "(--base-url) run quantized ones"
        )
