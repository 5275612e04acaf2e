"""Profile of a model whose requests are timed: rounds of them on a backend, each on the disk before the next begins. A Job."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import platform
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import kleval
from kleval.backends.registry import open_backend
from kleval.backends.server_address import parse_address
from kleval.backends.spec import BackendSpec
from kleval.backends.timing import generator
from kleval.profiler.energy import Counter, Meter, counters, round_energy
from kleval.profiler.plan import Plan
from kleval.profiler.points import Outcome, PlannedPoint, point_verdict
from kleval.profiler.served.caveats import caveats
from kleval.profiler.served.figures import round_failure, round_values, ttft, why_not
from kleval.profiler.served.load_rounds import load_round
from kleval.profiler.served.prompts import Prompts
from kleval.profiler.served.reuse import reuse_round
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.profiler.workload import unique_lengths
from kleval.store import Point, RunStore
from kleval.store.machine import commit, cpu_name
from kleval.types import Failure, Request, Timed, TimedRequest, Trace, UsageError
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

WARMUP_TOKENS = 8
HOPELESS = ("context_overflow", "bad_request", "prompt_length")  # the next round would end the same way
MOST_DEAD_ROUNDS = 3  # rounds in succession that ended without any answer


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
        self._dead = self._answered = 0  # rounds without an answer in succession; answers of the last

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
            self._meter = Meter(self._counters())
            self._prompts = Prompts(self._backend, self._described["prompts"], secrets.token_hex(8))
            self._prompt_seed = f"{self.spec.seed}-{secrets.token_hex(6)}"
            self.models = {self._backend.model: {}}
            self._plan = make_plan(self.spec, self._backend)
            if old is not None and old.manifest.get("plan", {}).get("n_first"):
                self._plan = Plan.from_record(old.manifest["plan"])
            if old is not None and self.spec.append:
                self._plan = self._plan.another_session(old)
            yield

    def _counters(self) -> list[Counter]:
        """Of this process's device, or of this machine where a server runs on it; of another machine nothing is known."""
        engine = self.spec.engine
        if "server" not in self._described:
            from kleval.profiler.environment import resolve_device

            return counters(str(resolve_device(engine.device)))
        if engine.base_url is None or not parse_address(engine.base_url, engine.api_key_env).is_local:
            return []
        return counters("cpu", everything=True)

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
        shared |= self._meter.describe()
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
        if planned.protocol.startswith("reuse-"):
            return self._counted(self._reuse(planned))
        if not planned.protocol.startswith("concurrency-"):
            return self._counted(
                load_round(planned, self.spec, lambda *how: self._send(planned, planned.steps, *how), warm)
            )
        traces, failures = self._ask(planned, str(planned.repeat), planned.steps)
        failure = round_failure(failures)
        if failure is not None:
            return self._counted(Outcome({}, failure=failure))
        values, estimate = round_values(traces)
        values |= round_energy(traces, self._meter)
        first = [ttft(trace) for trace in warm if trace.arrivals]
        if first:
            values["warmup_ttft_ms"] = 1000 * max(first)
        return self._counted(Outcome(values, estimate=estimate))

    def _reuse(self, planned: PlannedPoint) -> Outcome:
        share = float(planned.protocol.removeprefix("reuse-"))
        rngs = (
            generator(self._prompt_seed, planned.ctx, planned.protocol, planned.repeat, at) for at in itertools.count()
        )

        def ask(request: Request) -> tuple[Trace, Failure | None]:
            traces, failures = self._time([request], [0.0], planned, planned.steps, None)
            return traces[0], failures[0]

        def make(other: Request | None) -> Request:
            size, rng = (planned.ctx, planned.steps), next(rngs)
            return (
                self._prompts.make(*size, rng)
                if other is None
                else self._prompts.beginning_as(other, share, *size, rng)
            )

        return reuse_round(share, ask, make)

    def _counted(self, outcome: Outcome) -> Outcome:
        """Rounds in succession that had no answer are counted."""
        dead = outcome.failure is not None and self._answered == 0
        self._dead = self._dead + 1 if dead else 0
        return outcome

    def _ask(self, planned: PlannedPoint, label: str, n_out: int) -> tuple[list[Trace], list[Failure | None]]:
        """A round of requests that are sent together, one for a load that has no number of its own."""
        return self._send(planned, n_out, label, [0.0] * max(planned.batch, 1), None)

    def _send(
        self, planned: PlannedPoint, n_out: int, label: str, delays: Sequence[float], together: int | None
    ) -> tuple[list[Trace], list[Failure | None]]:
        """Requests with a prompt each of its own, in the order of sending; and what is wrong with each."""
        load = planned.batch if planned.protocol.startswith("concurrency-") else planned.protocol
        place = (self._prompt_seed, planned.ctx, load, label)
        requests = [self._prompts.make(planned.ctx, n_out, generator(*place, at)) for at in range(len(delays))]
        return self._time(requests, delays, planned, n_out, together)

    def _time(
        self,
        requests: Sequence[Request],
        delays: Sequence[float],
        planned: PlannedPoint,
        n_out: int,
        together: int | None,
    ) -> tuple[list[Trace], list[Failure | None]]:
        timed = [TimedRequest(request, delay) for request, delay in zip(requests, delays, strict=True)]
        how = {} if together is None else {"together": together}
        with self._meter.running():
            traces = list(self._backend.timed(timed, **how))
        self._prompts.learn(requests, traces)
        failures = [why_not(t, n_out, planned.ctx, "server" in self._described) for t in traces]
        self._answered = sum(failure is None or failure.kind not in ("server", "timeout") for failure in failures)
        return traces, failures


def open_timed(spec: ServedSpec) -> Timed:
    """The backend that spec.engine names, without shared prefixes. UsageError for one that cannot be timed."""
    engine = dataclasses.replace(spec.engine, share_prefixes=bool(spec.reuse))
    if spec.reuse and engine.backend in ("native", "hf"):
        raise UsageError(
            f"--reuse is for servers and vLLM: --backend {engine.backend} keeps nothing between timed requests"
        )
    if engine.backend in ("openai", "vllm") and engine.tokenizer is None:
        engine = dataclasses.replace(engine, tokenizer="words")  # random ids need none
    if engine.batch is None and engine.backend not in ("openai", "vllm"):
        engine = dataclasses.replace(engine, batch=max((*spec.concurrencies, *spec.steady, 1)))
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


def loads(spec: ServedSpec) -> list[tuple[str, int]]:
    """Protocols in the order of measuring, and how many requests each has together; 0 where nothing but a rate says."""
    found = [(f"concurrency-{n}", n) for n in sorted(set(spec.concurrencies))]
    found += [(f"steady-{n}", n) for n in sorted(set(spec.steady))]
    found += [(f"rate-{rate:g}", 0) for rate in sorted(set(spec.rates))]
    found += [("best-rate", 0)] if spec.best_rate else []
    return [*found, *((f"reuse-{share:g}", 1) for share in sorted(set(spec.reuse)))]


def make_plan(spec: ServedSpec, backend: Timed) -> Plan:
    """By length, then load, then repeat. UsageError when the model takes no length that was asked for."""
    points, unmeasured = [], []
    for ctx, (protocol, n) in itertools.product(unique_lengths(spec.ctxs), loads(spec)):
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
    load = (
        {}
        if not spec.is_more
        else {"load": [name for name, _ in loads(spec)], "slo": spec.slo, "requests": spec.requests}
    )
    known: dict[str, Any] = {
        "models": [engine.model],
        "backend": engine.backend,
        "ctx": list(unique_lengths(spec.ctxs)),
        "concurrency": sorted(set(spec.concurrencies)),
        **load,
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
