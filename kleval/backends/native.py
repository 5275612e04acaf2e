"""Runs kleval's own decoders in this process: what requests share once, in batches of similar length, decoded together.

Prompts are split at the same positions whatever they are batched with, rows never see each other, and a finished row leaves: what
a request answers does not depend on its neighbours. Every row's cached state has room for its own tokens alone. A beginning that
requests of one call have in common is prefilled once and its state forked (`native_parts`, `serving`); that changes answers
by rounding and no more. Memory: a batch holds as many requests as their states, by closed form, and the working memory of one
prefill chunk fit into the budget beside the states that they go on from; if an allocation fails all the same, the batch is halved
and tried again, and a single request that fails becomes Failure(out_of_memory).

`stats` counts over all calls: prompt_tokens, what the requests' inputs are long; prefilled_tokens, what was run of them.

On a CUDA device the kernels in use are compared with the plain recurrent forms when the model is opened (`ops.check`), prompts go
in chunks of PREFILL_TOKENS["cuda"] tokens, and decode steps are replays of a CUDA graph (`models.stepper`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from kleval.backends.devices import device_name, find_device, find_dtype, settle_dtype
from kleval.backends.engine_timing import time_jobs
from kleval.backends.generation import Job, make_job
from kleval.backends.native_engine import NativeEngine
from kleval.backends.native_memory import Memory
from kleval.backends.native_parts import plan_parts
from kleval.backends.serving import Serving
from kleval.backends.spec import BackendSpec, whole_number
from kleval.backends.timing import ordinary_ids
from kleval.models.cache import HybridCache
from kleval.models.checkpoint.config_json import eos_ids
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.registry import config_of, load, resolve, training, weights_digest
from kleval.models.stepper import why_not_recorded
from kleval.ops.available import kernels_in_use
from kleval.ops.native.loading import native
from kleval.tokenization import ModelTokenizer, asked_with
from kleval.types import Failure, Outcome, Request, TimedRequest, Trace

# On a GPU a chunk must fill the experts (16384 x 8 / 256 = 512 rows each) and the KDA kernel keeps 130 KiB per token of it: 2.0 GiB.
PREFILL_TOKENS = {"cpu": 1024, "cuda": 16384}
MAX_ROWS = {"cpu": 16, "cuda": 64}


def open_native(spec: BackendSpec) -> NativeBackend:
    """A backend for a model name or folder. dtype auto: as the weights are stored, float32 on a CPU without bfloat16 units.

    UsageError for what does not exist.
    """
    model = resolve(spec.model)
    own = spec.own_arguments("native", prefill_tokens=whole_number)
    place = find_device(spec.device)
    find_dtype(spec.dtype)
    settled = settle_dtype(spec.dtype, place)
    if place.type == "cuda":
        _check_kernels(place, config_of(model))
    decoder, tokenizer = load(model, place, find_dtype(settled))
    asked_with(tokenizer, spec.add_bos, spec.template_args)
    return NativeBackend(
        decoder,
        tokenizer,
        model.name,
        weights_digest(model),
        spec.batch,
        spec.memory_budget,
        own.get("prefill_tokens"),
        share_prefixes=spec.share_prefixes,
        dtype_settled=settled != spec.dtype,
        ends=() if model.path is None else eos_ids(model.path, tokenizer.eos_id),
        request_timeout=spec.request_timeout,
        training=training(model),
    )


class NativeBackend:
    """kleval.types.Timed on a Decoder. ends: token ids that end an answer. batch: most requests at a time; memory_budget: bytes;
    None: what fits. request_timeout: seconds that a timed request may take. training: how the weights were made, if it is known."""

    name = "native"

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: ModelTokenizer,
        model: str,
        digest: str = "",
        batch: int | None = None,
        memory_budget: int | None = None,
        prefill_tokens: int | None = None,
        share_prefixes: bool = True,
        dtype_settled: bool = False,
        ends: Sequence[int] = (),
        request_timeout: float = 600.0,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        self._settled = dtype_settled
        self._training = dict(training or {})
        self.model = model
        self.tokenizer = tokenizer
        self.config: ModelConfig = decoder.config
        self.max_ctx: int | None = self.config.max_position_embeddings
        self._decoder = decoder
        weight = decoder.model.embed_tokens.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._digest, self._memory_budget, self._share_prefixes = digest, memory_budget, share_prefixes
        self._request_timeout = request_timeout
        self._max_batch = batch or MAX_ROWS[self._device.type]
        self.prefill_tokens = prefill_tokens or PREFILL_TOKENS[self._device.type]
        self._ends = frozenset(ends)
        self.stats = {"prompt_tokens": 0, "prefilled_tokens": 0}

    def describe(self) -> dict[str, Any]:
        return {
            "torch": torch.__version__,
            "device": device_name(self._device),
            "dtype": str(self._dtype).removeprefix("torch."),
            **({"dtype_settled": True} if self._settled else {}),
            "threads": torch.get_num_threads(),
            "weights_sha256": self._digest,
            **({"training": self._training} if self._training else {}),
            **({"eos_ids": sorted(self._ends)} if len(self._ends) > 1 else {}),
            "tokenizer_sha256": self.tokenizer.digest,
            "config": self.config.to_dict(),
            "parameters": self.config.parameters(),
            "prefill_chunk": self.prefill_tokens,
            "decode": "eager" if why_not_recorded(self._decoder, self._device) else "cuda graph",
            "kernels": kernels_in_use(self._device),
            **({"native": str(native() or "torch")} if self._device.type == "cpu" else {}),
            "max_batch": self._max_batch,
            "share_prefixes": self._share_prefixes,
            "memory_budget_bytes": self._memory_budget,
        }

    def close(self) -> None:
        self._decoder = None  # type: ignore[assignment]  # frees the weights; a closed backend is not used again
        if self._device.type == "cuda":
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
        try:
            for job, outcome in serving.run(plan_parts(jobs, self._share_prefixes)):
                yield job.position, outcome
        finally:
            self.stats["prefilled_tokens"] += serving.prefilled_tokens

    def _job(self, position: int, request: Request) -> Job | Failure:
        return make_job(position, request, self.tokenizer, self.config.vocab_size, self.max_ctx or 0)

    def _serving(self, ends: frozenset[int], weighs: bool = False) -> Serving[HybridCache]:
        memory = Memory(self.config, self._device, self._dtype, self.prefill_tokens, self._memory_budget)
        return Serving(NativeEngine(self._decoder, memory), self.tokenizer, ends, self._max_batch, weighs=weighs)

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> list[Trace]:
        """In batches, without sharing prefixes. Bytes of state are those of the tensors that hold tokens."""

        def serve(jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            return self._serving(frozenset(), weighs=True).run(plan_parts(jobs, False))

        return time_jobs(requests, self._job, serve, self._device, self._request_timeout, together)

    def describe_timed(self) -> dict[str, Any]:
        told = self.describe()
        names = ("weights_sha256", "dtype", "prefill_chunk", "decode", "max_batch")
        known = {"backend": "native", "software": "kleval", "prompts": "token ids", "ignore_eos": True}
        return known | {name: told[name] for name in names} | {"environment": {"kernels": told["kernels"]}}

    def vocabulary(self) -> range:
        return ordinary_ids(self.config.vocab_size)


def _check_kernels(device: torch.device, config: ModelConfig) -> None:
    """Those that this model uses, at its shapes, once per process; a kernel that fails is not used, and said so."""
    from kleval.ops.check import Sizes, check_once

    mixers = set(config.layer_mixers)
    names: list[str] = [name for name in ("kda", "gdn") if name in mixers]
    names += ["step"] if names else []
    names += ["mla_decode"] if "mla" in mixers else []
    sizes = Sizes(
        heads=config.kda_num_heads,
        dim=config.kda_head_dim,
        hidden=config.hidden_size,
        attention_heads=config.num_attention_heads,
        rank=config.kv_lora_rank,
        rope=config.qk_rope_head_dim,
    )
    if config.num_experts:
        names += ["router", "experts_decode", "experts"]
        inner, top_k = config.moe_intermediate_size, config.num_experts_per_token
        sizes = replace(sizes, inner=inner, experts=config.num_experts, top_k=top_k)
    check_once(device, sizes, tuple(names))
