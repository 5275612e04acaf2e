"""Profile of a served model: open a backend, plan rounds, measure, store; safe to kill and to run again, as kleval.profiler.run."""

from __future__ import annotations

import dataclasses
import platform
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import kleval
from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.profiler import events as ev
from kleval.profiler.plan import Plan
from kleval.profiler.points import PlannedPoint, point_id
from kleval.profiler.result import ProfileResult, close, result, to_the_end
from kleval.profiler.served.prompts import Prompts
from kleval.profiler.served.session import Session
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.profiler.workload import unique_lengths
from kleval.store import Point, RunStore
from kleval.store.machine import commit, cpu_name
from kleval.store.manifest import now
from kleval.store.settings import check
from kleval.types import Timed, UsageError

SEVERAL_TOKENS = 1.05  # tokens per arrival from which on inter-token times are those of groups
LENGTH_NOTE = 0.01
OnEvent = Callable[[ev.Event], None]


def profile_served(
    spec: ServedSpec, on_event: OnEvent = lambda event: None, backend: Timed | None = None
) -> ProfileResult:
    """Measure what spec says, continuing what its run directory holds. Prints nothing; see kleval.profiler.events.

    backend: an object to measure in place of the one that spec.engine names; the caller closes it.
    A KeyboardInterrupt ends the profile with its state saved and is not raised again (exit code 130). UsageError: the model cannot
    be reached or measured (told before anything is), or the directory belongs to another command.
    """
    spec.check()
    old = None
    if spec.out is not None:
        RunStore.check_place(spec.out, "profile")
        if RunStore.exists(spec.out):
            old = RunStore.open(spec.out).manifest
            check(old["settings"], asked_settings(spec), spec.out, partial=True)
    if backend is not None:
        return _run(spec, on_event, backend, old)
    opened = open_timed(spec)
    try:
        return _run(spec, on_event, opened, old)
    finally:
        opened.close()


def open_timed(spec: ServedSpec) -> Timed:
    """The backend that spec.engine names, without shared prefixes. UsageError for one that cannot be timed."""
    engine = dataclasses.replace(spec.engine, share_prefixes=False)
    if engine.backend in ("openai", "vllm") and engine.tokenizer is None:
        engine = dataclasses.replace(engine, tokenizer="words")  # random ids need none
    if engine.batch is None and engine.backend not in ("openai", "vllm"):
        engine = dataclasses.replace(engine, batch=max(spec.concurrencies))
    backend = open_backend(engine.model, **engine.settings())
    if not hasattr(backend, "timed"):
        backend.close()
        raise UsageError(f"--backend {engine.backend} cannot be timed: it has no method `timed` (kleval.types.Timed)")
    return cast("Timed", backend)


def _run(spec: ServedSpec, on_event: OnEvent, backend: Timed, old: Mapping[str, Any] | None) -> ProfileResult:
    described, environment = describe(backend, spec.engine)
    prompts = Prompts(backend, described["prompts"], secrets.token_hex(8))
    settings = asked_settings(spec) | {f"served.{name}": value for name, value in described.items() if name != "server"}
    plan = make_plan(spec, backend)
    if old is not None:
        check(old["settings"], settings, spec.out)
    on_event(ev.Started(spec, (backend.model,), environment, settings, continued=old is not None))
    if spec.dry_run:
        on_event(ev.Planned(plan, 0))
        return _finish(on_event, result("complete", spec.out, plan, {"planned": len(plan.points)}))
    assert spec.out is not None
    prompt_seed = f"{spec.seed}-{secrets.token_hex(6)}"
    manifest = make_manifest(spec, backend.model, described, plan, settings, environment, prompt_seed)
    shared = {**described, "decode_tokens": spec.decode_tokens}
    with RunStore.create(spec.out, manifest) as store:
        session = Session(backend, prompts, plan, store, on_event, shared, environment, prompt_seed)
        on_event(ev.Planned(plan, session.n_before, tuple(store.repaired)))
        ended = to_the_end(
            session.run, lambda status: close(store, plan, status, caveats(list(store.points())), more=session.gave_up)
        )
    return _finish(on_event, ended)


def describe(backend: Timed, engine: BackendSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What shapes a backend's times, and what it runs on: of a server only where its requests come from."""
    told = backend.describe_timed() if hasattr(backend, "describe_timed") else backend.describe()
    described = {"backend": engine.backend, "prompts": "token ids", "ignore_eos": True, **told}
    environment = client_environment() | dict(described.pop("environment", {}))
    if "server" not in described:
        from kleval.profiler.environment import fingerprint, resolve_device

        machine = fingerprint(resolve_device(engine.device))
        del machine["kernels"]  # of kleval's own operators, which the backend names if it uses them
        environment = machine | environment
    return described, environment


def make_plan(spec: ServedSpec, backend: Timed) -> Plan:
    """By length, then concurrency, then repeat. UsageError when the model takes no length that was asked for."""
    points, unmeasured = [], []
    for ctx in unique_lengths(spec.ctxs):
        for n in sorted(set(spec.concurrencies)):
            protocol = f"concurrency-{n}"
            need = ctx + spec.decode_tokens
            if backend.max_ctx is not None and need > backend.max_ctx:
                reason = f"{ctx} + {spec.decode_tokens} tokens, the model takes {backend.max_ctx}"
                unmeasured.append({"model": backend.model, "ctx": ctx, "protocol": protocol, "reason": reason})
                continue
            for repeat in range(spec.repeats):
                name = point_id("served", protocol, backend.model, ctx, n, repeat)
                points.append(
                    PlannedPoint(name, "served", backend.model, ctx, n, protocol, repeat, steps=spec.decode_tokens)
                )
    if not points:
        raise UsageError(
            f"{backend.model} takes {backend.max_ctx} tokens, prompt and answer together: the shortest asked for is "
            f"{min(spec.ctxs)} + {spec.decode_tokens}"
        )
    return Plan(tuple(points), 0, 0, tuple(unmeasured))


def asked_settings(spec: ServedSpec) -> dict[str, Any]:
    """What must be the same for a profile to go on, as far as it is known before the model is reached."""
    engine = spec.engine
    known: dict[str, Any] = {
        "models": [engine.model],
        "backend": engine.backend,
        "ctx": list(unique_lengths(spec.ctxs)),
        "concurrency": sorted(set(spec.concurrencies)),
        "decode_tokens": spec.decode_tokens,
        "repeats": spec.repeats,
        "seed": spec.seed,
    }
    if engine.backend == "openai":
        return known | {"base_url": safe_url(engine), "api": engine.api}
    known |= {
        "dtype": engine.dtype,
        "tp": engine.tp,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.shown_engine_args(),
    }
    if engine.backend == "vllm":
        return known
    return known | {"base_url": safe_url(engine), "device": engine.device, "batch": engine.batch}


def client_environment() -> dict[str, Any]:
    """Where the requests come from. What the server runs on is not known here."""
    return {
        "client_cpu": cpu_name(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "kleval": kleval.__version__,
        "commit": commit(),
    }


def make_manifest(
    spec: ServedSpec,
    model: str,
    described: Mapping[str, Any],
    plan: Plan,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    prompt_seed: str,
) -> dict[str, Any]:
    """The fields of run.json (kleval.store.manifest) as they are when a profile begins."""
    started = now()
    version = {"version": kleval.__version__, "commit": environment["commit"]}
    session = {"started": started, "finished": None, "status": "running", "kleval": version, "prompt_seed": prompt_seed}
    return {
        "kind": "profile",
        "command": "profile",
        "status": "running",
        "started": started,
        "finished": None,
        "kleval": version,
        "hardware": dict(environment),
        "spec": spec.record(),
        "settings": dict(settings),
        "models": {model: {"name": model, "weights": "served", **described}},
        "plan": plan.record(),
        "unmeasured": list(plan.unmeasured),
        "seeds": {"seed": spec.seed},
        "counts": {"planned": len(plan.points)},
        "caveats": [],
        "sessions": [session],
    }


def caveats(points: Iterable[Point]) -> list[str]:
    """What a reader must know before believing the figures, one sentence each."""
    good = [point for point in points if not point.failed]
    if not good:
        return []
    where = (
        "in this process, without a server"
        if "server" not in good[0].settings
        else "at the caller: network, scheduling, tokenizing and sampling are in them"
    )
    found = [f"Times are taken {where}; requests of a round are submitted together, each with a prompt of its own."]
    cached = sum(point.values.get("cached_tokens") or 0 for point in good)
    sent = sum((p.values["prompt_tokens"] or 0) * (p.values["requests"] or 0) for p in good)
    if cached:
        found.append(
            f"Cached prompts: {cached:,.0f} of {sent:,.0f} prompt tokens came from the server's prefix cache, though no prompt was "
            "sent twice; TTFT is too short by what they save."
        )
    if any("cached_tokens" not in point.values for point in good):
        found.append("The server does not tell how many prompt tokens came from its cache; no prompt was sent twice.")
    most = max(point.values["tokens_per_arrival"] or 0 for point in good)
    if most > SEVERAL_TOKENS:
        found.append(
            f"Several tokens arrive together (up to {most:.2f} on average): TPOT counts tokens as the server's usage does, times "
            "between tokens are times between arrivals."
        )
    if any(point.estimate for point in good):
        found.append(
            "TPOT is an estimate: how many tokens the first piece of an answer held is not told, one is assumed."
        )
    off = max(abs((point.values["prompt_tokens"] or 0) / point.ctx - 1) for point in good)
    if off > LENGTH_NOTE:
        found.append(
            f"Prompts were sent as text and are up to {off:.1%} off the length asked for; the server's count is beside it."
        )
    if not good[0].settings.get("ignore_eos"):
        found.append("The server does not take ignore_eos: a round in which an answer ended early is a failure.")
    return found


def _finish(on_event: OnEvent, found: ProfileResult) -> ProfileResult:
    on_event(ev.Finished(found))
    return found
