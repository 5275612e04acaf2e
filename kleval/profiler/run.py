"""Plan, measure, store, go on: one command, safe to kill and to run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import kleval
from kleval.files import usage_errors
from kleval.profiler import events as ev
from kleval.profiler.building import WEIGHTS, build, check_memory, shared_weight_bytes
from kleval.profiler.environment import FREE_SHARE, fingerprint, free_bytes, resolve_device, resolve_dtype
from kleval.profiler.judge import caveats, checks, noise
from kleval.profiler.plan import Plan, default_memory_budget, fed_tokens, make_plan
from kleval.profiler.result import ProfileResult, close, result, to_the_end
from kleval.profiler.workload import ProfileSpec, unique_lengths
from kleval.store import RunStore
from kleval.store.manifest import Status, now
from kleval.store.settings import check
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.models.config import ModelConfig
    from kleval.models.decoder import Decoder
    from kleval.profiler.rates import Rates

CHUNK_TOKENS = {"cpu": 512, "cuda": 8192}
TRY_OUT_BYTES = 1 << 31  # a dry run builds models up to this size to see how fast they are
OnEvent = Callable[[ev.Event], None]


def profile(spec: ProfileSpec, on_event: OnEvent = lambda event: None) -> ProfileResult:
    """Measure what spec says, continuing what its run directory already holds. Prints nothing; see kleval.profiler.events.

    Points are on the disk when their event comes. A KeyboardInterrupt ends the profile with its state saved and is not raised
    again (exit code 130). UsageError: what is asked cannot be measured (told before anything is allocated), or the directory
    belongs to another command, is in use, damaged or full.
    """
    from kleval.models.registry import config_of, resolve

    spec.check()
    found = [resolve(name) for name in spec.models]
    configs = {model.name: config_of(model) for model in found}
    if spec.out is not None:
        RunStore.check_place(spec.out, "profile")
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    longest = max(spec.ctxs)
    chunk = min(spec.chunk_tokens or CHUNK_TOKENS[device.type], longest)
    environment = fingerprint(device)
    old = RunStore.open(spec.out).manifest if spec.out is not None and RunStore.exists(spec.out) else None
    settings = make_settings(spec, list(configs), device, dtype, chunk, environment)
    if old is not None:
        check(old["settings"], settings, spec.out)
    free = int(FREE_SHARE[device.type] * free_bytes(device))
    check_memory(configs, dtype, longest + fed_tokens(spec, device.type), spec.memory_budget, free, str(device))
    left = free - shared_weight_bytes(configs, dtype)
    budget = spec.memory_budget or default_memory_budget(spec, configs, dtype, left, device.type)
    on_event(ev.Started(spec, tuple(configs), environment, settings, continued=old is not None))
    if spec.out is not None and not spec.dry_run:
        with usage_errors(spec.out):  # before models are built for nothing
            spec.out.mkdir(parents=True, exist_ok=True)
    try:
        plan, models, rates = _prepare(spec, configs, device, dtype, chunk, budget, old, on_event)
    except KeyboardInterrupt:
        return _finish(on_event, result("interrupted", spec.out, Plan((), chunk, budget), {}))
    if spec.dry_run:
        on_event(ev.Planned(plan, 0))
        return _finish(on_event, result("complete", spec.out, plan, {"planned": len(plan.points)}))
    assert spec.out is not None
    from kleval.profiler.bench import Bench
    from kleval.profiler.session import Session

    manifest = make_manifest(spec, configs, plan, rates, settings, environment, dtype)
    shared = {"chunk_tokens": chunk, "dtype": dtype, "device": str(device), "seed": spec.seed, "weights": WEIGHTS}
    with RunStore.create(spec.out, manifest) as store:
        bench = Bench(device, dtype, chunk, spec.seed, configs, models, rates)
        limit = None if spec.repeats else spec.time_budget
        session = Session(bench, plan, store, on_event, shared, environment, limit)
        on_event(ev.Planned(plan, session.n_before, tuple(store.repaired)))
        ended = to_the_end(
            session.run, lambda status: _close(store, plan, status, 0 if status else len(session.left_out))
        )
    return _finish(on_event, ended)


def make_settings(
    spec: ProfileSpec, models: list[str], device: torch.device, dtype: str, chunk: int, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """What must be the same for a profile to go on (kleval.store.settings), the machine included."""
    return {
        "models": models,
        "ctx": list(unique_lengths(spec.ctxs)),
        "batch": [str(batch) for batch in spec.batches],
        "prefill": spec.prefill,
        "decode_tokens": spec.decode_tokens,
        "repeats": spec.repeats,
        "memory_budget": spec.memory_budget,
        "time_budget": spec.time_budget,
        "chunk_tokens": chunk,
        "device": device.type,
        "dtype": dtype,
        "seed": spec.seed,
        "machine.cpu": environment["cpu"],
        "machine.threads": environment["threads"],
        "machine.gpu": environment["gpu"],
        "machine.torch": environment["torch"],
    }


def make_manifest(
    spec: ProfileSpec,
    configs: Mapping[str, ModelConfig],
    plan: Plan,
    rates: Mapping[str, Rates],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    dtype: str,
) -> dict[str, Any]:
    """The fields of run.json (kleval.store.manifest) as they are when a profile begins."""
    started = now()
    version = {"version": kleval.__version__, "commit": environment["commit"]}
    return {
        "kind": "profile",
        "command": "profile",
        "status": "running",
        "started": started,
        "finished": None,
        "kleval": version,
        "hardware": dict(environment),
        "dtype": dtype,
        "spec": spec.record(),
        "settings": dict(settings),
        "models": {
            name: {
                "name": name,
                "weights": WEIGHTS,
                "config": config.to_dict(),
                "parameters": config.parameters(),
                "active_parameters": config.active_parameters(),
                "rates": rates[name].record(),
            }
            for name, config in configs.items()
        },
        "plan": plan.record(),
        "unmeasured": list(plan.unmeasured),
        "seeds": {"seed": spec.seed},
        "counts": {"planned": len(plan.points)},
        "caveats": [*plan.notes, *caveats(configs)],
        "sessions": [{"started": started, "finished": None, "status": "running", "kleval": version}],
    }


def _prepare(
    spec: ProfileSpec,
    configs: Mapping[str, ModelConfig],
    device: torch.device,
    dtype: str,
    chunk: int,
    budget: int,
    old: Mapping[str, Any] | None,
    on_event: OnEvent,
) -> tuple[Plan, dict[str, Decoder], dict[str, Rates]]:
    """Models (none for a dry run of large ones), how fast they are, and the plan: that of the first session if there was one."""
    import torch

    from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate
    from kleval.profiler.rates import from_bound, measured

    kind = getattr(torch, dtype)
    longest = max(spec.ctxs)
    if spec.dry_run and shared_weight_bytes(configs, dtype) > TRY_OUT_BYTES:
        on_event(ev.Phase("measuring the machine; the models are too large to try out in a dry run"))
        bound = Bound(copy_bandwidth(device), matmul_rate(device, kind))
        rates = {name: from_bound(config, bound, chunk, dtype, longest) for name, config in configs.items()}
        return make_plan(spec, configs, rates, dtype, chunk, budget, device.type), {}, rates
    on_event(ev.Phase(f"building {', '.join(configs)} with random weights"))
    models = build(configs, device, kind, spec.seed)
    rates = {}
    for name, decoder in models.items():
        on_event(ev.Phase(f"trying out {name}"))
        began = time.perf_counter()
        rates[name] = measured(decoder, chunk, longest, spec.seed)
        on_event(ev.Phase(f"trying out {name} took {time.perf_counter() - began:.1f} s"))
    if old is not None:
        try:
            return Plan.from_record(old["plan"]), models, rates
        except (KeyError, TypeError) as error:
            raise UsageError(f"{spec.out}/run.json has no plan that can be read: give another --out") from error
    return make_plan(spec, configs, rates, dtype, chunk, budget, device.type), models, rates


def _close(store: RunStore, plan: Plan, status: Status | None, n_left_out: int = 0) -> ProfileResult:
    """As `result.close`, with what the points say of noise. n_left_out: repeats that there was no time for."""
    points = list(store.points())
    noisy, checked = noise(points), checks(points)
    # The plan's own word on sampling makes way for what the checks found.
    stale = ("Noisy", "Sampled", "Slower", *(("sampled prefill",) if checked.caveats else ()))
    kept = [text for text in store.manifest["caveats"] if not text.startswith(stale)]
    if n_left_out:
        kept.append(
            f"Slower than planned: {n_left_out} repeats were left out when the time budget was spent; the same command on this "
            "directory measures them."
        )
    told = [*kept, *noisy.caveats, *checked.caveats]
    return close(store, plan, status, told, n_left_out, noise=noisy.record(), sampling_checks=checked.record())


def _finish(on_event: OnEvent, found: ProfileResult) -> ProfileResult:
    on_event(ev.Finished(found))
    return found
