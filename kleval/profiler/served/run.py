"""Open the model, plan rounds, measure, store, go on: one command, safe to kill and to run again, as kleval.profiler.run."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import kleval
from kleval.profiler import events as ev
from kleval.profiler.plan import Plan
from kleval.profiler.points import PlannedPoint, point_id
from kleval.profiler.result import ProfileResult, close, result, to_the_end
from kleval.profiler.served.session import Session, Target
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.profiler.workload import unique_lengths
from kleval.store import Point, RunStore
from kleval.store.machine import commit, cpu_name
from kleval.store.manifest import now
from kleval.store.settings import check
from kleval.types import UsageError

SEVERAL_TOKENS = 1.05  # tokens per arrival from which on inter-token times are those of groups
LENGTH_NOTE = 0.01
OnEvent = Callable[[ev.Event], None]


def profile_served(
    spec: ServedSpec, on_event: OnEvent = lambda event: None, open_target: Callable[[ServedSpec], Target] | None = None
) -> ProfileResult:
    """Measure what spec says, continuing what its run directory holds. Prints nothing; see kleval.profiler.events.

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
    target = (open_target or open_served)(spec)
    try:
        return _run(spec, on_event, target, old)
    finally:
        target.close()


def open_served(spec: ServedSpec) -> Target:
    """The server at the address, or vLLM in this process."""
    if spec.engine.backend == "openai":
        from kleval.profiler.served.server import open_server

        return open_server(spec.engine, secrets.token_hex(8))
    from kleval.profiler.served.engine import open_engine

    return open_engine(spec.engine)


def _run(spec: ServedSpec, on_event: OnEvent, target: Target, old: Mapping[str, Any] | None) -> ProfileResult:
    described = target.describe()
    settings = asked_settings(spec) | {f"served.{name}": value for name, value in described.items() if name != "server"}
    environment = client_environment() | target.environment()
    plan = make_plan(spec, target)
    if old is not None:
        check(old["settings"], settings, spec.out)
    on_event(ev.Started(spec, (target.model,), environment, settings, continued=old is not None))
    if spec.dry_run:
        on_event(ev.Planned(plan, 0))
        return _finish(on_event, result("complete", spec.out, plan, {"planned": len(plan.points)}))
    assert spec.out is not None
    prompt_seed = f"{spec.seed}-{secrets.token_hex(6)}"
    manifest = make_manifest(spec, target, plan, settings, environment, prompt_seed)
    shared = {**described, "decode_tokens": spec.decode_tokens}
    with RunStore.create(spec.out, manifest) as store:
        session = Session(target, plan, store, on_event, shared, environment, prompt_seed)
        on_event(ev.Planned(plan, session.n_before, tuple(store.repaired)))
        ended = to_the_end(
            session.run, lambda status: close(store, plan, status, caveats(list(store.points())), more=session.gave_up)
        )
    return _finish(on_event, ended)


def make_plan(spec: ServedSpec, target: Target) -> Plan:
    """By length, then concurrency, then repeat. UsageError when the model takes no length that was asked for."""
    points, unmeasured = [], []
    for ctx in unique_lengths(spec.ctxs):
        for n in sorted(set(spec.concurrencies)):
            protocol = f"concurrency-{n}"
            need = ctx + spec.decode_tokens
            if target.max_ctx is not None and need > target.max_ctx:
                reason = f"{ctx} + {spec.decode_tokens} tokens, the model takes {target.max_ctx}"
                unmeasured.append({"model": target.model, "ctx": ctx, "protocol": protocol, "reason": reason})
                continue
            for repeat in range(spec.repeats):
                name = point_id("served", protocol, target.model, ctx, n, repeat)
                points.append(
                    PlannedPoint(name, "served", target.model, ctx, n, protocol, repeat, steps=spec.decode_tokens)
                )
    if not points:
        raise UsageError(
            f"{target.model} takes {target.max_ctx} tokens, prompt and answer together: the shortest asked for is "
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
    return known | {
        "dtype": engine.dtype,
        "tp": engine.tp,
        "max_model_len": engine.max_model_len,
        "engine_args": engine.shown_engine_args(),
    }


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
    target: Target,
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
        "models": {target.model: {"name": target.model, "weights": "served", **target.describe()}},
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
        if good[0].settings.get("backend") == "vllm"
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
