"""Profile of a model whose requests are timed: rounds of them on a backend, each on the disk before the next begins. A Job."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import kleval
from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.backends.timing import generator
from kleval.profiler.plan import Plan
from kleval.profiler.points import Outcome, PlannedPoint, point_verdict
from kleval.profiler.served.figures import LATE_SHARE, round_failure, round_values, ttft, why_not
from kleval.profiler.served.prompts import Prompts
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.profiler.workload import unique_lengths
from kleval.store import Point, RunStore
from kleval.store.machine import commit, cpu_name
from kleval.types import Failure, Timed, TimedRequest, Trace, UsageError
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

WARMUP_TOKENS = 8
HOPELESS = ("context_overflow", "bad_request", "prompt_length")  # the next round would end the same way
MOST_DEAD_ROUNDS = 3  # rounds in succession that ended without any answer
SEVERAL_TOKENS = 1.05  # tokens per arrival from which on inter-token times are those of groups
LENGTH_NOTE = 0.01
STALLED = 1.5  # times TPOT from which on the prefill of neighbours is said to stall


def profile_served(spec: ServedSpec, on_event: OnEvent = lambda event: None, backend: Timed | None = None) -> Result:
    """Measure what spec says, continuing what its run directory holds: `kleval.work.work` says how it ends.

    backend: an object to measure in place of the one that spec.engine names; the caller closes it.
    UsageError besides: the model cannot be reached or measured, told before anything is.
    """
    return work(ServedJob(spec, backend), on_event)


class ServedJob(Job):
    """Rounds of timed requests.

    A group is one length at one concurrency. It begins with a round that is not counted (what is compiled, captured or allocated for
    the first time is in it), every session anew. A round is as many requests as the concurrency says, submitted together, each
    with a prompt of its own. A round in which any request failed is a failed point: fewer requests were under way than it is
    labelled with.
    """

    spec: ServedSpec

    def __init__(self, spec: ServedSpec, backend: Timed | None = None) -> None:
        super().__init__(spec)
        self._given = backend
        self._dead = 0

    def settings(self) -> dict[str, Any]:
        """How the backend is spoken to included; nothing of that before it is reached."""
        return asked_settings(self.spec) | dict(self.told)

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self._given is None:
                self._backend = open_timed(self.spec)
                stack.callback(self._backend.close)
            else:
                self._backend = self._given
            self._described, self.environment = describe(self._backend, self.spec.engine)
            self.told = {f"served.{name}": value for name, value in self._described.items() if name != "server"}
            self._prompts = Prompts(self._backend, self._described["prompts"], secrets.token_hex(8))
            self._prompt_seed = f"{self.spec.seed}-{secrets.token_hex(6)}"
            self.models = {self._backend.model: {}}
            self._plan = make_plan(self.spec, self._backend)
            if old is not None and old.manifest.get("plan", {}).get("n_first"):
                self._plan = Plan.from_record(old.manifest["plan"])
            if old is not None and self.spec.append:
                self._plan = self._plan.another_session(old)
            yield

    def units(self, say: Callable[[str], None]) -> tuple[PlannedPoint, ...]:
        return self._plan.points

    def facts(self) -> dict[str, Any]:
        name = self._backend.model
        return {
            "models": {name: {"name": name, "weights": "served", **self._described}},
            "plan": self._plan.record(),
            "unmeasured": list(self._plan.unmeasured),
            "seeds": {"seed": self.spec.seed},
            "session": {"prompt_seed": self._prompt_seed},
        }

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        shared = {**self._described, "decode_tokens": self.spec.decode_tokens, "prompt_seed": self._prompt_seed}
        session.progress(group[0], more=" (warming up)")
        warm, failures = self._ask(group[0], "warm-up", min(group[0].steps, WARMUP_TOKENS))
        hopeless = [failure for failure in failures if failure is not None and failure.kind in HOPELESS]
        for planned in group:
            session.progress(planned)
            outcome = Outcome({}, failure=round_failure(hopeless[:1])) if hopeless else self._round(planned, warm)
            yield planned, planned.point(outcome, shared, self.environment)
            if self._dead == MOST_DEAD_ROUNDS:
                session.stop(f"{self._dead} rounds in succession had no answer: the rest was not asked")
                return

    def verdict(self, session: Session) -> Verdict:
        return point_verdict(session, caveats=caveats(list(session.store.points())))

    def _round(self, planned: PlannedPoint, warm: Sequence[Trace]) -> Outcome:
        traces, failures = self._ask(planned, str(planned.repeat), planned.steps)
        dead = all(failure is not None and failure.kind in ("server", "timeout") for failure in failures)
        self._dead = self._dead + 1 if dead else 0
        failure = round_failure(failures)
        if failure is not None:
            return Outcome({}, failure=failure)
        values, estimate = round_values(traces)
        first = [ttft(trace) for trace in warm if trace.arrivals]
        if first:
            values["warmup_ttft_ms"] = 1000 * max(first)
        return Outcome(values, estimate=estimate)

    def _ask(self, planned: PlannedPoint, label: str, n_out: int) -> tuple[list[Trace], list[Failure | None]]:
        """A round of planned.batch requests, each with a prompt of its own; and what is wrong with each."""
        place = (self._prompt_seed, planned.ctx, planned.batch, label)
        requests = [self._prompts.make(planned.ctx, n_out, generator(*place, at)) for at in range(planned.batch)]
        traces = list(self._backend.timed([TimedRequest(request) for request in requests]))
        self._prompts.learn(requests, traces)
        return traces, [why_not(t, n_out, planned.ctx, "server" in self._described) for t in traces]


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
        raise UsageError(
            f"--backend {engine.backend} cannot be timed: it has no method `timed(requests)`, see kleval.types.Timed"
        )
    return cast("Timed", backend)


def describe(backend: Timed, engine: BackendSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What shapes a backend's times, and what it runs on: of a server only where its requests come from."""
    told = backend.describe_timed() if hasattr(backend, "describe_timed") else backend.describe()
    described = {"backend": engine.backend, "prompts": "token ids", "ignore_eos": True, **told}
    environment = client_environment() | dict(described.pop("environment", {}))
    if "server" not in described:
        from kleval.profiler.environment import fingerprint, resolve_device

        machine = fingerprint(resolve_device(engine.device))
        del machine["kernels"]  # of kleval's own operators, which the backend names if it uses them
        environment = machine | {"software": described.get("software", engine.backend)} | environment
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
                place = (protocol, backend.model, ctx, n, repeat)
                points.append(PlannedPoint.of("served", *place, steps=spec.decode_tokens))
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
    found += dict.fromkeys(point.settings["caveat"] for point in good if "caveat" in point.settings)
    limited = [point for point in good if point.values.get("client_limited")]
    if limited:
        found.append(
            f"Limited by the client: in {len(limited)} of {len(good)} rounds this machine noted arrivals later than "
            f"{LATE_SHARE:.0%} of TTFT or TPOT. Those are no figures of the server, and no gate takes them: measure on a quieter "
            "machine, or fewer requests together."
        )
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
            "TPOT is an estimate: how many tokens the pieces of an answer held is not told, one in the first is assumed."
        )
    if any(point.values.get("common_steps") == 0 for point in good):
        found.append("Requests sent together did not decode together in some rounds: their TPOT is that of each alone.")
    waits = [
        (p.values["stalled_tpot_ms"] or 0) / (p.values["tpot_ms"] or 1) for p in good if "stalled_tpot_ms" in p.values
    ]
    if waits and max(waits) > STALLED:
        found.append(
            f"Prefill of a request stalls the decoding of its neighbours: a token takes up to {max(waits):.1f} times as long "
            "meanwhile (stalled_tpot_ms). TPOT is of the steps in which all decode."
        )
    off = max(abs((point.values["prompt_tokens"] or 0) / point.ctx - 1) for point in good)
    if off > LENGTH_NOTE:
        found.append(
            f"Prompts were sent as text and are up to {off:.1%} off the length asked for; the server's count is beside it."
        )
    if not good[0].settings.get("ignore_eos"):
        found.append("The server does not take ignore_eos: a round in which an answer ended early is a failure.")
    return found
