"""Models by name: NAME[@SIZE], or a folder that holds config.json, model.safetensors and tokenizer.json.

MODELS has every name that means something; `ModelSpec.path` is None where no weights are shipped: such a model has a shape and a
cost, but cannot answer. The tokenizer of a folder may also lie one level up, where models share it.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.models.config import ARCHITECTURES, SIZES, ModelConfig, preset
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.models.decoder import Decoder
    from kleval.tokenization import HFTokenizer

DEFAULT_SIZE = "nano"
_SHIPPED = Path(__file__).parent / "nano"
_FLOAT32 = ("A_log", "dt_bias", "e_score_correction_bias")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """name: as it is printed. size: None for a folder. path: the folder with the weights, None when there are none."""

    name: str
    architecture: str
    size: str | None
    path: Path | None


def _shipped() -> dict[str, ModelSpec]:
    specs = {}
    for size in SIZES:
        for architecture in ARCHITECTURES:
            folder = _SHIPPED / architecture
            here = size == "nano" and (folder / "model.safetensors").is_file()
            name = f"{architecture}@{size}"
            specs[name] = ModelSpec(name, architecture, size, folder if here else None)
    return specs


MODELS: dict[str, ModelSpec] = _shipped()


def resolve(name: str) -> ModelSpec:
    """What a model name or path means. UsageError, with the nearest names, when nothing."""
    full = name if "@" in name else f"{name}@{DEFAULT_SIZE}"
    if full in MODELS:
        return MODELS[full]
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelSpec(name, read_config(folder).architecture, None, folder)
    architecture, _, size = full.partition("@")
    if architecture in ARCHITECTURES:
        raise UsageError(f"unknown size {size!r} of {architecture}: choose one of {', '.join(SIZES)}")
    known = [*ARCHITECTURES, *MODELS]
    near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(architecture, ARCHITECTURES, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ARCHITECTURES)}, or give a folder"
    raise UsageError(f"unknown model {name!r}: {hint}")


def config_of(spec: ModelSpec) -> ModelConfig:
    """The configuration of a model, with or without weights."""
    if spec.path is not None:
        return read_config(spec.path)
    return preset(spec.architecture, spec.size or DEFAULT_SIZE)


def load(
    spec: ModelSpec, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Decoder, HFTokenizer]:
    """Weights and tokenizer, ready to answer. dtype None: as stored. Decay rates and router bias stay float32.

    UsageError when the model has no weights, or when they do not belong to its config.json.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from kleval.models.decoder import Decoder

    folder = _weights_folder(spec)
    file = folder / "model.safetensors"
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{file} cannot be read as safetensors: {' '.join(str(error).split())}") from error
    config = read_config(folder)
    with torch.device("meta"):
        model = Decoder(config)
    expected = dict(model.named_parameters())
    wrong = sorted(expected.keys() ^ tensors.keys()) or [
        name for name, tensor in tensors.items() if tensor.shape != expected[name].shape
    ]
    if wrong:
        raise UsageError(
            f"{file} does not belong to its config.json: {wrong[0]} is missing, unknown or of another shape"
        )
    if dtype is not None:
        tensors = {n: t.to(torch.float32 if n.endswith(_FLOAT32) else dtype) for n, t in tensors.items()}
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval().requires_grad_(False), _tokenizer(spec, folder)


def load_model_tokenizer(name: str) -> HFTokenizer:
    """The tokenizer of a model, without its weights. UsageError as `resolve` and `load`."""
    spec = resolve(name)
    return _tokenizer(spec, _weights_folder(spec))


def weights_digest(spec: ModelSpec) -> str:
    """sha256 (hex) of the weights file."""
    with (_weights_folder(spec) / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path) -> ModelConfig:
    """config.json of a folder. UsageError when it is missing or not one that kleval wrote."""
    file = folder / "config.json"
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{folder} is not a model folder: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file} is not a model configuration: expected a JSON object")
    return ModelConfig.from_dict(values)


def _weights_folder(spec: ModelSpec) -> Path:
    if spec.path is None:
        shipped = ", ".join(name for name, known in MODELS.items() if known.path is not None) or "none yet"
        raise UsageError(
            f"{spec.name} cannot be scored, its weights are not shipped: use one that has weights ({shipped}) or a folder"
        )
    if not (spec.path / "model.safetensors").is_file():
        raise UsageError(f"{spec.path} is not a model folder: it has no model.safetensors")
    return spec.path


def _tokenizer(spec: ModelSpec, folder: Path) -> HFTokenizer:
    from kleval.tokenization import HFTokenizer

    place = folder if (folder / "tokenizer.json").is_file() else folder.parent
    return HFTokenizer.from_file(place / "tokenizer.json", name=spec.name)
