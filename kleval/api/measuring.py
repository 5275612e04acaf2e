"""`profile`: what contexts cost a model, as `kleval profile`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from kleval.api.models import directory, is_backend, lengths, listed, named, open_object
from kleval.api.progress import watched
from kleval.api.results import Profile
from kleval.backends.spec import BackendSpec
from kleval.profiler import profile as measure
from kleval.profiler.native_job import launched
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.profiler.workload import (
    DEFAULT_MODELS,
    TIME_BUDGET_SECONDS,
    Batch,
    PrefillMode,
    ProfileSpec,
    check_one_process,
)
from kleval.tokenization.given import Numbers
from kleval.types import Timed, UsageError
from kleval.work import Result
from kleval.work.events import Event


def profile(
    model: object = DEFAULT_MODELS,
    tokenizer: object = None,
    *,
    ctx: int | str | Iterable[int | str] = (4096, 16384, 65536),
    batch: Batch | Sequence[Batch] = (1, "max"),
    prefill: PrefillMode = "auto",
    concurrency: int | Sequence[int] = 1,
    decode_tokens: int | None = None,
    repeats: int | None = None,
    memory_budget: int | None = None,
    time_budget: float = TIME_BUDGET_SECONDS,
    chunk_tokens: int | None = None,
    name: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    devices: Sequence[str] = (),
    executor: str = "local",
    ray_address: str | None = None,
    gpus_per_model: float | None = None,
    base_url: str | None = None,
    api: str = "auto",
    api_key_env: str = "OPENAI_API_KEY",
    request_timeout: float = 600.0,
    served_name: str | None = None,
    hardware: str | None = None,
    engine_args: Mapping[str, str] | None = None,
    tp: int = 1,
    max_model_len: int | None = None,
    trust_remote_code: bool = False,
    seed: int = 42,
    out: Path | str | None = None,
    append: bool = False,
    progress: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Profile:
    """What contexts cost, as `kleval profile`: the same points in the same run directory, which the same call continues.

    model: names of kleval's own architectures (random weights: prefill, decode and state bytes against the hardware's bound); or one
        model as its caller sees it (TTFT, time per token, throughput, bytes of its cache): a model object in this process (a
        transformers model, or a torch module `forward(ids) -> logits`, with a cache `forward(ids, cache) -> (logits, cache)`), a
        `kleval.types.Timed` backend, or a name with `backend` or `base_url`.
    tokenizer: of a model object; prompts are random ids and need none.
    ctx: tokens, or texts as `--ctx` takes them. repeats: of each point; decode_tokens: timed steps; None: as the command.
    batch, prefill, memory_budget, time_budget, chunk_tokens: of kleval's own architectures. concurrency: requests sent together, else.
    name, backend, device, dtype, base_url, api, api_key_env, request_timeout, served_name, hardware, engine_args, tp, max_model_len,
        trust_remote_code: see `kleval.load_backend`.
    devices, executor, ray_address, gpus_per_model: of kleval's own architectures, as for `kleval.evaluate`: groups of points are
        measured side by side, one process or actor per device; a script that gives devices keeps its calls below
        `if __name__ == "__main__":`.
    seed: of weights and prompts. out: the run directory, or the remote address (`s3://…`) that gets it; a new temporary one unless
        given. append: measure a finished one again.
    progress: a line on stderr; None shows it in terminals and notebooks. on_event: told every `kleval.work.events.Event`.

    UsageError: what is asked cannot be measured.
    """
    models = named(model, name)
    tell = watched(on_event, progress, "points")
    spread = {
        "devices": tuple(devices),
        "executor": executor,
        "ray_address": ray_address,
        "gpus_per_model": gpus_per_model,
    }
    with directory(out) as folder:
        if base_url is None and backend == "auto" and all(map(_is_own, models.values())):
            spec = ProfileSpec(
                models=tuple(models),
                ctxs=lengths(ctx),
                batches=tuple(listed(batch)),
                prefill=prefill,
                decode_tokens=decode_tokens,
                repeats=repeats,
                memory_budget=memory_budget,
                time_budget=time_budget,
                chunk_tokens=chunk_tokens,
                device=device,
                dtype=dtype,
                **spread,  # type: ignore[arg-type]
                seed=seed,
                append=append,
                out=folder,
            )
            spec.check()
            spec, launcher = launched(spec)
            return Profile(measure(spec, tell, launcher), folder)
        check_one_process(spread)
        if len(models) != 1:
            raise UsageError(f"a profile of a model object or a served model is of one model, not {len(models)}")
        ((called, given),) = models.items()
        engine = BackendSpec(
            model=called,
            backend=_backend(given, backend, base_url),
            device=device,
            dtype=dtype,
            memory_budget=memory_budget,
            base_url=base_url,
            api=api,
            api_key_env=api_key_env,
            request_timeout=request_timeout,
            served_name=served_name,
            hardware=hardware,
            engine_args=engine_args or {},
            tp=tp,
            max_model_len=max_model_len,
            trust_remote_code=trust_remote_code,
        )
        timed = ServedSpec(
            engine=engine,
            ctxs=lengths(ctx),
            concurrencies=tuple(listed(concurrency)),
            **{
                key: value
                for key, value in (("decode_tokens", decode_tokens), ("repeats", repeats))
                if value is not None
            },  # type: ignore[arg-type]
            seed=seed,
            append=append,
            out=folder,
        )
        return Profile(_served(timed, given, tokenizer, called, tell), folder)


def _served(spec: ServedSpec, given: object, tokenizer: object, name: str, tell: Callable[[Event], None]) -> Result:
    if isinstance(given, str):
        return profile_served(spec, tell)
    most = max(spec.concurrencies)
    opened = open_object(
        given, Numbers() if tokenizer is None else tokenizer, name, most, spec.engine.memory_budget, False
    )
    try:
        if not hasattr(opened, "timed"):
            raise UsageError(f"{name} cannot be timed: it has no method `timed(requests)`, see kleval.types.Timed")
        timed: Timed = opened  # type: ignore[assignment]
        return profile_served(spec, tell, timed)
    finally:
        opened.close()


def _is_own(model: object) -> bool:
    from kleval.models.registry import is_native

    return isinstance(model, str) and is_native(model)


def _backend(given: object, backend: str, base_url: str | None) -> str:
    """What a profile says that it measured."""
    if not isinstance(given, str):
        return str(getattr(given, "name", "given")) if is_backend(given) else "given"
    if backend != "auto":
        return backend
    return "openai" if base_url is not None else "hf"
