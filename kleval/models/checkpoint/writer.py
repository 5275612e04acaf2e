"""Decoders into model folders: the layout of transformers >= 5.17, or kleval's own.

The transformers layout has the published tensor names, which that package reads and writes too. The dense layer is under `mlp.`,
as in the published files: transformers reads it there, and vLLM nowhere else. Tensors are written shard by shard; experts are
slices, not copies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kleval.models.checkpoint.files import INDEX, WEIGHTS
from kleval.models.checkpoint.layout import cannot_hold, transformers_config
from kleval.models.checkpoint.names import published
from kleval.types import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from kleval.models.decoder import Decoder
    from kleval.tokenization import ModelTokenizer

Layout = Literal["transformers", "kleval"]
SHARD_BYTES = 5 << 30


def save(
    decoder: Decoder,
    folder: Path,
    tokenizer: ModelTokenizer | None = None,
    layout: Layout = "transformers",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write config.json, safetensors and, if given, the tokenizer. The folder is made; it must not hold weights yet.

    UsageError when it does, or when transformers' Kimi Linear cannot be this model (RoPE, GDN); `layout="kleval"` takes every model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / WEIGHTS).exists() or (folder / INDEX).exists():
        raise UsageError(f"{folder} holds weights already: give another folder, or remove them")
    parameters = {name: p.detach() for name, p in decoder.named_parameters()}
    if layout == "transformers":
        if why := cannot_hold(decoder.config):
            raise UsageError(
                f"transformers' Kimi Linear cannot hold a {decoder.config.architecture} model, {why}: save it in layout kleval"
            )
        tensors = _published_tensors(decoder, parameters)
        dtype = str(parameters["model.embed_tokens.weight"].dtype).removeprefix("torch.")
        config = transformers_config(decoder.config, dtype)
    else:
        tensors = iter(parameters.items())
        config = decoder.config.to_dict()
    _write(tensors, folder, shard_bytes)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)


def _published_tensors(decoder: Decoder, parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    config = decoder.config
    for name, piece in published({n: tuple(p.shape) for n, p in parameters.items()}).items():
        tensor = parameters[piece.parameter][piece.index]
        if name == "model.embed_tokens.weight" and config.embedding_multiplier != 1:
            tensor = tensor * config.embedding_multiplier
        yield name, tensor
    if config.tie_word_embeddings:
        yield "lm_head.weight", parameters["model.embed_tokens.weight"].clone()


def _write(tensors: Iterator[tuple[str, Tensor]], folder: Path, shard_bytes: int) -> None:
    """One model.safetensors, or numbered shards of at most shard_bytes (or one tensor) and their index."""
    from safetensors.torch import save_file

    written: list[Path] = []
    where: dict[str, int] = {}
    shard: dict[str, Tensor] = {}
    size = total = 0

    def flush() -> None:
        path = folder / f"part-{len(written) + 1}.safetensors"
        save_file(shard, path, {"format": "pt"})
        written.append(path)
        shard.clear()

    for name, tensor in tensors:
        count = tensor.numel() * tensor.element_size()
        if shard and size + count > shard_bytes:
            flush()
            size = 0
        shard[name] = tensor.contiguous()
        where[name] = len(written)
        size += count
        total += count
    flush()
    if len(written) == 1:
        written[0].rename(folder / WEIGHTS)
        return
    names = [f"model-{i:05}-of-{len(written):05}.safetensors" for i in range(1, len(written) + 1)]
    for path, final in zip(written, names, strict=True):
        path.rename(folder / final)
    index: dict[str, Any] = {
        "metadata": {"total_size": total},
        "weight_map": {name: names[shard_number] for name, shard_number in where.items()},
    }
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
