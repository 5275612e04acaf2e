"""The files of a model folder: which hold weights, what tensors are in them, and their sha256. Safetensors only.

Pickled weights (.bin, .pt, .pth) can run code when they are read, and are refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.models.checkpoint.config_json import read_json
from kleval.models.checkpoint.formats import check_gguf
from kleval.types import UsageError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file. dtype: as safetensors names it (`BF16`)."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights, in order: model.safetensors, or the shards of its index. UsageError when there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = sorted(set(_index(folder).values()))
        for shard in shards:
            if not (folder / shard).is_file():
                raise UsageError(f"{folder / shard} is missing, though {INDEX} names it: download it again")
        return [folder / shard for shard in shards]
    check_gguf(sorted(folder.glob("*.gguf")))
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise UsageError(
            f"{folder} holds pickled weights only ({pickles[0]}), which can run code when read: convert them to safetensors, "
            "for example by transformers' from_pretrained(...).save_pretrained(...)"
        )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    hint = f"; {others[0]} needs an index beside it or that name" if others else ""
    raise UsageError(f"{folder} is not a model folder: it has no {WEIGHTS} and no {INDEX}{hint}")


def stored_tensors(folder: Path) -> list[Stored]:
    """Every tensor in a folder's weight files, in the order in which they lie there; nothing but headers is read.

    What an index tells of and no shard has is passed over, as by other engines: a tensor that is needed is missed when it is placed.
    UsageError when a file is cut off or not safetensors.
    """
    return [stored for file in weight_files(folder) for stored in _scan(file)]


def digest(files: Iterable[Path]) -> str:
    """sha256 (hex) of a file; of several, of the list of their names and sha256.

    The hub's cache names a file after its sha256 and links to it: such a file is not read again.
    """
    each = [(file.name, _sha256(file)) for file in files]
    if len(each) == 1:
        return each[0][1]
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in each).encode()).hexdigest()


def _sha256(file: Path) -> str:
    target = file.resolve()
    if file.is_symlink() and target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _index(folder: Path) -> dict[str, str]:
    table: Any = read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise UsageError(f"{folder / INDEX} has no weight_map")
    for name, shard in table.items():
        if not _is_file_name(shard):
            said = repr(shard)[:100]
            raise UsageError(f"{folder / INDEX}: {name} is in {said}, which is no safetensors file of this folder")
    return table


def _is_file_name(shard: Any) -> bool:
    """Whether it names a safetensors file directly in the folder: a path could point anywhere."""
    if not isinstance(shard, str) or not shard.isprintable() or len(shard.encode()) > 255:
        return False
    return Path(shard).name == shard and shard.endswith(".safetensors")


def _scan(file: Path) -> list[Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as content:
            parts = {name: content.get_slice(name) for name in content.offset_keys()}
            return [Stored(name, file, tuple(p.get_shape()), p.get_dtype()) for name, p in parts.items()]
    except (OSError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{file} cannot be read as safetensors, it may be cut off: {said}") from error
