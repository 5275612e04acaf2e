"""Models by name: NAME[@SIZE], a folder that holds config.json, safetensors and a tokenizer, or a Hugging Face hub id.

MODELS has every name that means something; `ModelSpec.path` is None where no weights are shipped: such a model has a shape and a
cost, but cannot answer. The tokenizer of a folder may also lie one level up, where models share it. A hub id is `org/name` or
`org/name@revision`; naming it fetches its small files, loading it its weights.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.models.checkpoint import load_decoder, read_config
from kleval.models.checkpoint.config_json import ForeignArchitecture, eos_ids, not_implemented, own_config, read_json
from kleval.models.checkpoint.families import read_shape
from kleval.models.checkpoint.files import digest, weight_files
from kleval.models.checkpoint.formats import check_place
from kleval.models.checkpoint.hub import fetch, is_hub_id
from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.models.costs import Costs
from kleval.models.published import PUBLISHED, published_file
from kleval.models.sizes import NAMED, SIZES, preset
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.models.decoder import Decoder
    from kleval.tokenization import ModelTokenizer

DEFAULT_SIZE = "nano"
_CAME_TO = {
    *("steps", "tokens_seen", "seconds", "threads", "torch", "final_training_accuracy"),
    *("parameters", "device", "hardware", "loss"),
}
_SHIPPED = Path(__file__).parent / "nano"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """name: as it is printed. size: None for a folder. path: the folder with the weights, None when there are none.

    hub: whether path is a snapshot of a hub id, whose weights may still have to be fetched.
    """

    name: str
    architecture: str
    size: str | None
    path: Path | None
    hub: bool = False


def _shipped() -> dict[str, ModelSpec]:
    specs = {}
    for size in SIZES:
        for architecture in ARCHITECTURES:
            folder = _SHIPPED / architecture
            here = size == "nano" and (folder / "model.safetensors").is_file()
            name = f"{architecture}@{size}"
            specs[name] = ModelSpec(name, architecture, size, folder if here else None)
    for name, config in NAMED.items():
        specs[name] = ModelSpec(name, config.architecture, name.partition("@")[2], None)
    return specs


MODELS: dict[str, ModelSpec] = _shipped()


def resolve(name: str) -> ModelSpec:
    """What a model name, path or hub id means. UsageError, with the nearest names, when nothing."""
    full = name if "@" in name else f"{name}@{DEFAULT_SIZE}"
    if full in MODELS:
        return MODELS[full]
    try:
        folder = Path(name).expanduser()
    except RuntimeError:  # ~somebody who is not known here
        folder = Path(name)
    check_place(folder)
    if folder.is_dir():
        return ModelSpec(name, read_config(folder).architecture, None, folder)
    if (file := published_file(name)) is not None:
        values = read_json(file)
        reason = not_implemented(values) if name == "kimi-k3" else f"{name}: kleval has no decoder for it"
        named = next((f"; {n} has its KDA" for n in NAMED if n.startswith(f"{name}@")), "")
        raise UsageError(f"{reason}, but knows its costs (kleval ls models {name}){named}")
    architecture, _, size = full.partition("@")
    if architecture in ARCHITECTURES:
        raise UsageError(f"unknown size {size!r} of {architecture}: choose one of {', '.join(SIZES)}")
    if is_hub_id(name):
        snapshot = fetch(name, weights=False)
        return ModelSpec(name, read_config(snapshot).architecture, None, snapshot, hub=True)
    if "/" in name:
        raise UsageError(f"there is no folder {name}")
    known = [*ARCHITECTURES, *MODELS, *PUBLISHED]
    near = difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(architecture, ARCHITECTURES, 1)
    hint = (
        f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ARCHITECTURES)}, or give a folder or hub id"
    )
    raise UsageError(f"unknown model {name!r}: {hint}")


def is_native(name: str) -> bool:
    """Whether kleval has a decoder for a model that exists. UsageError as `resolve` for what does not."""
    try:
        resolve(name)
    except ForeignArchitecture:
        return False
    return True


def config_of(spec: ModelSpec) -> ModelConfig:
    """The configuration of a model, with or without weights."""
    if spec.path is not None:
        return read_config(spec.path)
    if spec.name in NAMED:
        return NAMED[spec.name]
    return preset(spec.architecture, spec.size or DEFAULT_SIZE)


def costs_of(name: str) -> tuple[str, Costs]:
    """A model as it is printed, and its shape: of every model that `resolve` knows, of a published one without a decoder, of a
    config.json, a folder that has one, or a hub id. UsageError for what is none of them, or whose costs are not known."""
    if (file := published_file(name)) is not None:
        return name, read_shape(file)
    place = Path(name)
    if place.suffix == ".json" and place.is_file():
        values = read_json(place)
        return name, read_shape(place) if values.keys() & {"model_type", "architectures"} else own_config(place)
    try:
        spec = resolve(name)
    except UsageError as refused:
        folder = place if (place / "config.json").is_file() else _snapshot(name)
        if folder is None:
            raise
        try:
            return name, read_shape(folder / "config.json")
        except ForeignArchitecture as unknown:
            raise (unknown if isinstance(refused, ForeignArchitecture) else refused) from None
    return spec.name, config_of(spec)


def _snapshot(name: str) -> Path | None:
    """The small files of a hub id, None where a name is none or cannot be had."""
    try:
        return fetch(name, weights=False) if is_hub_id(name) else None
    except UsageError:
        return None


def load(
    spec: ModelSpec, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Decoder, ModelTokenizer]:
    """Weights and tokenizer, ready to answer, as `load_weights`. UsageError also when there is no tokenizer that fits."""
    tokenizer = _tokenizer(spec, _folder(spec))
    config = config_of(spec)
    if tokenizer.vocab_size > config.vocab_size:
        raise UsageError(
            f"{spec.name}: its tokenizer knows {tokenizer.vocab_size} tokens and its config.json {config.vocab_size}: "
            "they do not belong together"
        )
    return load_weights(spec, device, dtype), tokenizer


def load_weights(spec: ModelSpec, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Decoder:
    """Weights alone. dtype None: as stored. Decay rates and router bias stay float32.

    UsageError when the model has no weights, or when they do not belong to its config.json.
    """
    return load_decoder(_weights_folder(spec), device, dtype)


def load_model_tokenizer(name: str) -> ModelTokenizer:
    """The tokenizer of a model, without its weights. UsageError as `resolve` and `load`."""
    spec = resolve(name)
    return _tokenizer(spec, _folder(spec))


def weights_digest(spec: ModelSpec) -> str:
    """sha256 (hex) of the weights file; where there are several, of the list of theirs."""
    return digest(weight_files(_weights_folder(spec)))


def training(spec: ModelSpec) -> dict[str, Any]:
    """How the weights were trained, as `training.json` beside them says, without what it came to; empty where nothing says it."""
    path = spec.path / "training.json" if spec.path is not None else None
    if path is None or not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text("utf-8"))
    except ValueError:
        return {}
    return {name: value for name, value in told.items() if name not in _CAME_TO} if isinstance(told, dict) else {}


def _folder(spec: ModelSpec) -> Path:
    if spec.path is None:
        shipped = ", ".join(name for name, known in MODELS.items() if known.path is not None) or "none yet"
        raise UsageError(
            f"{spec.name} cannot be scored, its weights are not shipped: use one that has weights ({shipped}) or a folder"
        )
    return spec.path


def _weights_folder(spec: ModelSpec) -> Path:
    folder = _folder(spec)
    if spec.hub:
        # A snapshot folder is named after its commit: the weights are those of the config that was read, whatever came since.
        folder = fetch(spec.name, weights=True, commit=folder.name)
    weight_files(folder)
    return folder


def _tokenizer(spec: ModelSpec, folder: Path) -> ModelTokenizer:
    from kleval.tokenization import has_tokenizer, read_tokenizer

    shared = not has_tokenizer(folder) and has_tokenizer(folder.parent)
    tokenizer = read_tokenizer(folder.parent if shared else folder, name=spec.name)
    if tokenizer.eos_id is None:
        tokenizer.eos_id = next(iter(eos_ids(folder)), None)
    return tokenizer
