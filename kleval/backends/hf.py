"""Any transformers causal LM, in this process: the same prompts, stops, sampling and failures as kleval's own decoders.

kleval keeps the loop (prefill in chunks, one step at a time, batches of similar length, shared beginnings once) and asks the model
for logits alone; `hf_model` finds out which of that a model's cache allows. Generation settings that come with a model
(temperature, penalties, …) are not used, but for the tokens that end an answer. Weights are read from safetensors; code that comes
with a model is run with --trust-remote-code only.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kleval.backends.devices import device_name, find_device, find_dtype, settle_dtype
from kleval.backends.engine_timing import time_jobs
from kleval.backends.generation import Job, make_job
from kleval.backends.hf_engine import HFEngine
from kleval.backends.hf_model import HFModel, Rows
from kleval.backends.native_parts import plan_parts
from kleval.backends.serving import Serving
from kleval.backends.spec import BackendSpec, whole_number
from kleval.backends.timing import ordinary_ids
from kleval.models.checkpoint.config_json import eos_ids, read_json
from kleval.models.checkpoint.files import digest, stored_tensors, weight_files
from kleval.models.checkpoint.formats import check_place, check_weights
from kleval.models.checkpoint.hub import fetch, is_hub_id
from kleval.models.registry import MODELS, resolve
from kleval.packages import need
from kleval.tokenization import ModelTokenizer, asked_with, read_tokenizer
from kleval.types import Failure, Outcome, Request, TimedRequest, Trace, UsageError

PREFILL_TOKENS = {"cpu": 512, "cuda": 8192}
MAX_ROWS = {"cpu": 16, "cuda": 64}
BY_LENGTH = "{}: rotary frequencies depend on the length of a call, so each text is run in one piece and by itself"
_UNBOUNDED = 1 << 60
_HELD_SHARE = 0.4  # of a model's numbers that its files hold at least: embeddings may be shared, but not more than that


def open_hf(spec: BackendSpec) -> HFBackend:
    """A backend for a folder or hub id that transformers can load. UsageError for what does not exist or cannot be used."""
    transformers = need("transformers", "hf", "--backend hf")
    own = spec.own_arguments("hf", prefill_tokens=whole_number)
    device = find_device(spec.device)
    find_dtype(spec.dtype)
    folder, name, revision = _folder(spec)
    weights = weight_files(folder)
    tokenizer = read_tokenizer(folder, name)
    asked_with(tokenizer, spec.add_bos, spec.template_args)
    model = _load(transformers, folder, name, spec, device)
    config = model.config.get_text_config()
    adapter = HFModel(model, device, int(config.vocab_size))
    if wrong := adapter.find_out(_longest(config)):
        raise UsageError(f"{name} cannot be asked token by token ({wrong}): --backend vllm or a server may run it")
    ends = eos_ids(folder, tokenizer.eos_id)
    return HFBackend(
        adapter,
        tokenizer,
        name,
        digest(weights),
        frozenset(ends),
        spec,
        transformers.__version__,
        revision,
        own.get("prefill_tokens"),
    )


class HFBackend:
    """kleval.types.Timed on an HFModel. ends: token ids that end an answer."""

    name = "hf"

    def __init__(
        self,
        adapter: HFModel,
        tokenizer: ModelTokenizer,
        model: str,
        weights_sha256: str,
        ends: frozenset[int],
        spec: BackendSpec,
        version: str,
        revision: str | None = None,
        prefill_tokens: int | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._adapter, self._ends, self._spec, self._version = adapter, ends, spec, version
        self._sha256, self._revision = weights_sha256, revision
        self.max_ctx = _longest(adapter.model.config.get_text_config())
        self.prefill_tokens = prefill_tokens or PREFILL_TOKENS[adapter.device.type]
        self._max_batch = (spec.batch or MAX_ROWS[adapter.device.type]) if adapter.batched else 1
        self.stats = {"prompt_tokens": 0, "prefilled_tokens": 0}

    def describe(self) -> dict[str, Any]:
        adapter = self._adapter
        return {
            "transformers": self._version,
            "torch": torch.__version__,
            "device": device_name(adapter.device),
            "dtype": str(adapter.dtype).removeprefix("torch."),
            **({"dtype_settled": True} if settle_dtype(self._spec.dtype, adapter.device) != self._spec.dtype else {}),
            "threads": torch.get_num_threads(),
            "weights_sha256": self._sha256,
            "revision": self._revision,
            "tokenizer_sha256": self.tokenizer.digest,
            "architecture": type(adapter.model).__name__,
            "attention": getattr(adapter.model.config, "_attn_implementation", None),
            "parameters": sum(p.numel() for p in adapter.model.parameters()),
            "trust_remote_code": self._spec.trust_remote_code,
            "eos_ids": sorted(self._ends),
            "prefill_chunk": self.prefill_tokens if adapter.chunked else None,
            "batches": adapter.batched,
            "padded_batches": adapter.padded,
            "share_prefixes": self._spec.share_prefixes and adapter.copied,
            **({"whole_and_alone": BY_LENGTH.format(adapter.by_length)} if adapter.by_length else {}),
            "max_batch": self._max_batch,
            "memory_budget_bytes": self._spec.memory_budget,
        }

    def close(self) -> None:
        self._adapter = None  # type: ignore[assignment]  # frees the weights; a closed backend is not used again
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        jobs: list[Job] = []
        for position, request in enumerate(requests):
            job = self._job(position, request)
            if isinstance(job, Failure):
                yield position, job
            else:
                jobs.append(job)
        self.stats["prompt_tokens"] += sum(len(job.inputs) for job in jobs)
        serving = self._serving(self._ends)
        share = self._spec.share_prefixes and self._adapter.copied
        try:
            for job, outcome in serving.run(plan_parts(jobs, share)):
                yield job.position, outcome
        finally:
            self.stats["prefilled_tokens"] += serving.prefilled_tokens

    def _job(self, position: int, request: Request) -> Job | Failure:
        return make_job(position, request, self.tokenizer, self._adapter.vocab_size, self.max_ctx or _UNBOUNDED)

    def _serving(self, ends: frozenset[int], weighs: bool = False) -> Serving[Rows]:
        chunk = self.prefill_tokens if self._adapter.chunked else _UNBOUNDED
        engine = HFEngine(self._adapter, chunk, self._spec.memory_budget)
        return Serving(engine, self.tokenizer, ends, self._max_batch, weighs=weighs)

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> list[Trace]:
        """In batches, without sharing prefixes. Bytes of state are those of the model's own cache."""

        def serve(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            return self._serving(frozenset(), weighs=True).run(plan_parts(jobs, False))

        return time_jobs(requests, self._job, serve, self._adapter.device, self._spec.request_timeout, together)

    def describe_timed(self) -> dict[str, Any]:
        told = self.describe()
        names = ("weights_sha256", "dtype", "attention", "prefill_chunk", "batches", "padded_batches", "max_batch")
        known = {"backend": "hf", "software": "transformers", "prompts": "token ids", "ignore_eos": True}
        return (
            known
            | {name: told[name] for name in names}
            | {"environment": {"software": f"transformers {self._version}"}}
        )

    def vocabulary(self) -> range:
        return ordinary_ids(self._adapter.vocab_size)


def _longest(config: Any) -> int | None:
    """Prompt and answer of a model, as its config says it; None where it does not."""
    found: int | None = getattr(config, "max_position_embeddings", None)
    return found


def _folder(spec: BackendSpec) -> tuple[Path, str, str | None]:
    """Where the model lies, fetched if it is a hub id; the name that is printed; the commit that was fetched."""
    path = Path(spec.model).expanduser()
    check_place(path)
    if path.is_dir():
        return path, spec.model, None
    if is_hub_id(spec.model):
        fetched = fetch(spec.model, weights=True, code=spec.trust_remote_code)
        return fetched, spec.model, fetched.name
    if f"{spec.model}@nano" in MODELS or spec.model in MODELS:
        found = resolve(spec.model)
        raise UsageError(f"{found.name} is kleval's own model: --backend native runs it")
    raise UsageError(f"there is no folder {spec.model}, and a hub id has the form org/name")


def _load(transformers: Any, folder: Path, name: str, spec: BackendSpec, device: torch.device) -> Any:
    values = read_json(folder / "config.json")
    check_weights(folder / "config.json", values, packed=True)
    packed = values.get("quantization_config") is not None
    dtype = spec.dtype if packed else settle_dtype(spec.dtype, device)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with _torch_only(device):
            kind = _class(transformers, values)
            _check_size(transformers, kind, folder, name, spec)
            model, loading = kind.from_pretrained(
                folder,
                dtype=dtype,
                **({"trust_remote_code": spec.trust_remote_code} if _is_auto(kind) else {}),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below: transformers' own error does not name the tensor
            )
    except UsageError:
        raise
    except Exception as error:  # whatever a model's configuration, weights or own code may raise
        said = " ".join(str(error).split())
        if "trust_remote_code" in said:
            raise UsageError(
                f"{name} needs code that comes with it: add --trust-remote-code if you trust it"
            ) from error
        raise UsageError(f"transformers cannot load {name}: {said[:300] or type(error).__name__}") from error
    if other := sorted(loading.get("mismatched_keys") or ()):
        tensor, stored, asked = other[0]
        more = f" (and {len(other) - 1} more like it)" if len(other) > 1 else ""
        raise UsageError(f"{name}: {tensor} has shape {list(stored)}, its config.json asks for {list(asked)}{more}")
    if missing := sorted(loading["missing_keys"]):
        # transformers would go on with random ones.
        raise UsageError(
            f"{name} lacks {len(missing)} of the weights that its config.json asks for, {missing[0]} first"
        )
    try:
        return model.eval().to(device)
    except torch.OutOfMemoryError as error:
        raise UsageError(f"{name} does not fit on {device}: choose another --dtype or device") from error


def _class(transformers: Any, values: Mapping[str, Any]) -> Any:
    """What loads a model: the class that its config.json names, where that is one for text and pictures (…ForConditionalGeneration),
    which transformers does not list among causal models; else whatever transformers has for causal models."""
    named = values.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    if isinstance(name, str) and name.endswith("ForConditionalGeneration") and not values.get("is_encoder_decoder"):
        remote = values.get("auto_map")
        for auto in ("AutoModelForCausalLM", "AutoModelForImageTextToText"):
            if isinstance(remote, dict) and auto in remote:
                return getattr(transformers, auto)
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModelForCausalLM


def _is_auto(kind: Any) -> bool:
    return str(kind.__name__).startswith("Auto")


def _check_size(transformers: Any, kind: Any, folder: Path, name: str, spec: BackendSpec) -> None:
    """UsageError when the files hold far less than the config.json asks for: the rest would be made up, and may fill the memory
    before it can be told which weights are missing. Tied and packed weights count for more than they hold."""
    code = {"trust_remote_code": spec.trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **code)
    if getattr(config, "quantization_config", None) is not None:
        return
    with torch.device("meta"):
        empty = kind.from_config(config, **code) if _is_auto(kind) else kind(config)
    wanted = sum(p.numel() for p in empty.parameters())
    held = sum(math.prod(tensor.shape) for tensor in stored_tensors(folder))
    if held < wanted * _HELD_SHARE:
        raise UsageError(
            f"{name} lacks weights that its config.json asks for: it holds {held:,} numbers of {wanted:,}; they do not belong together"
        )


@contextlib.contextmanager
def _torch_only(device: torch.device) -> Iterator[None]:
    """Without a GPU transformers must not find fla-core and causal-conv1d: it would call their Triton and CUDA kernels, which crash.

    Which functions a model calls is settled when its module is imported, as it is loaded.
    """
    hidden = () if device.type == "cuda" else ("fla", "causal_conv1d")
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] in hidden}
    for name in kept:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        sys.modules.update(kept)
