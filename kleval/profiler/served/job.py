"""Profile of a model whose requests are timed: rounds of them on a backend, each on the disk before the next begins. A Job."""

from __future__ import annotations

import contextlib
import itertools
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from kleval.backends.timing import generator
from kleval.profiler.energy import round_energy
from kleval.profiler.plan import Plan
from kleval.profiler.points import Outcome, PlannedPoint, Values, point_verdict
from kleval.profiler.served.caveats import caveats
from kleval.profiler.served.figures import round_failure, round_values, ttft, why_not, why_not_free
from kleval.profiler.served.load_rounds import Sent, alone_seconds, load_round
from kleval.profiler.served.planning import asked_settings, make_plan
from kleval.profiler.served.reuse import reuse_round
from kleval.profiler.served.spec import Questions, ServedSpec
from kleval.profiler.served.target import open_targets
from kleval.store import Point, RunStore
from kleval.types import ContextTooSmall, Failure, Request, Timed, TimedRequest, Trace
from kleval.types import Outcome as Answer
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

WARMUP_TOKENS = 8
HOPELESS = ("context_overflow", "bad_request", "prompt_length")  # the next round would end the same way
MOST_DEAD_ROUNDS = 3  # rounds in succession that ended without any answer


def profile_served(
    spec: ServedSpec,
    on_event: OnEvent = lambda event: None,
    backend: Timed | None = None,
    questions: Questions | None = None,
) -> Result:
    """Measure what spec says, continuing what its run directory holds: `kleval.work.work` says how it ends.

    backend: an object to measure in place of the one that spec.engine names; the caller closes it. questions: of spec.tasks.
    UsageError besides: the model cannot be reached or measured, told before anything is.
    """
    return work(ServedJob(spec, backend, questions), on_event)


class ServedJob(Job):
    """Rounds of timed requests.

    A group is one length under one load. It begins with a round that is not counted (what is compiled, captured or allocated for
    the first time is in it), every session anew. A round is as many requests as the concurrency says, submitted together, each
    with a prompt of its own. A round in which any request failed is a failed point: fewer requests were under way than it is
    labelled with. Under load a round is more requests, of which few may fail. Several servers are measured in turn, round by round.
    """

    spec: ServedSpec

    def __init__(self, spec: ServedSpec, backend: Timed | None = None, questions: Questions | None = None) -> None:
        super().__init__(spec)
        self._given, self._questions = backend, questions
        self._dead: dict[str, int] = {}  # by model: rounds without an answer in succession
        self._answered = 0  # of the last round
        self._alone: dict[tuple[str, int], Sent] = {}  # by model and length: requests while no other was under way

    def settings(self) -> dict[str, Any]:
        """How the backend is spoken to included; nothing of that before it is reached."""
        asked = {} if self._questions is None else self._questions.settings()
        return {**asked_settings(self.spec), **asked, **self.told}

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            targets = open_targets(self.spec, self._given, secrets.token_hex(8), stack)
            self._targets = {target.name: target for target in targets}
            if self._questions is not None:
                for target in targets:
                    self._questions.open(target.backend)
            self.told = targets[0].settings() | {f"served.{t.name}": t.settings() for t in targets[1:]}
            self.environment = targets[0].environment
            self._prompt_seed = f"{self.spec.seed}-{secrets.token_hex(6)}"
            self.models = {name: {} for name in self._targets}
            self._plan = make_plan(self.spec, [target.backend for target in targets], self._unfit)
            if old is not None and old.manifest.get("plan", {}).get("n_first"):
                self._plan = Plan.from_record(old.manifest["plan"])
            if old is not None and self.spec.append:
                self._plan = self._plan.another_session(old)
            yield

    def units(self, say: Callable[[str], None]) -> tuple[PlannedPoint, ...]:
        return self._plan.points

    def facts(self) -> dict[str, Any]:
        asked = {} if self._questions is None else self._questions.facts()
        models = {
            name: {**asked.get("models", {}).get(name, {}), "name": name, "weights": "served", **target.described}
            for name, target in self._targets.items()
        }
        return {
            **asked,
            "models": models,
            "plan": self._plan.record(),
            "unmeasured": list(self._plan.unmeasured),
            "seeds": {**asked.get("seeds", {}), "seed": self.spec.seed},
            "session": {"prompt_seed": self._prompt_seed},
        }

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        warm: dict[str, tuple[list[Trace], list[Failure]]] = {}
        for planned in group:
            target = self._targets[planned.model]
            if planned.model not in warm:
                session.progress(planned, more=" (warming up)")
                traces, failures = self._ask(planned, "warm-up", WARMUP_TOKENS)
                hopeless = [one for one in failures if one is not None and one.kind in HOPELESS]
                # Those of tasks are other prompts.
                warm[planned.model] = traces, [] if self.spec.tasks else hopeless[:1]
            session.progress(planned)
            traces, hopeless = warm[planned.model]
            if self._dead.get(planned.model) == MOST_DEAD_ROUNDS:
                continue  # its share of what is left, of several
            outcome = (
                Outcome({}, failure=round_failure(hopeless)) if hopeless else self._round(planned, traces, session)
            )
            own = {"tasks": list(self.spec.tasks)} if self.spec.tasks else {"decode_tokens": self.spec.decode_tokens}
            shared = {**target.described, **own, "prompt_seed": self._prompt_seed}
            if outcome.failure is None:
                values, formula = target.memory.values(), target.memory.formula.get(planned.ctx, {})
                outcome = replace(outcome, values={**outcome.values, **values}, closed_form=formula)
            yield planned, planned.point(outcome, shared | target.meter.describe(), target.environment)
            if all(self._dead.get(name) == MOST_DEAD_ROUNDS for name in self._targets):
                session.stop(f"{MOST_DEAD_ROUNDS} rounds in succession had no answer: the rest was not asked")
                return

    def verdict(self, session: Session) -> Verdict:
        asked = {} if self._questions is None else self._questions.facts()
        found = caveats(list(session.store.points()))
        memory = [text for target in self._targets.values() for text in target.memory.said]
        told = point_verdict(session, caveats=[*found, *memory, *asked.get("caveats", ())])
        if not asked:
            return told
        answers = {name: n for name, n in session.store.counts().items() if name != "failed"}
        return replace(told, counts={**told.counts, **answers})

    def _unfit(self, backend: Timed, ctx: int) -> str:
        """Why nothing can be asked at a length; "" where something can."""
        return "" if self._questions is None else self._questions.unfit(backend, ctx)

    def _round(self, planned: PlannedPoint, warm: Sequence[Trace], session: Session) -> Outcome:
        outcome = self._measured(planned, warm, session)
        dead = outcome.failure is not None and self._answered == 0
        self._dead[planned.model] = self._dead.get(planned.model, 0) + 1 if dead else 0
        return outcome

    def _measured(self, planned: PlannedPoint, warm: Sequence[Trace], session: Session) -> Outcome:
        if planned.protocol.startswith("reuse-"):
            return self._reuse(planned)
        if not planned.protocol.startswith("concurrency-"):

            def send(label: str, delays: Sequence[float], together: int | None) -> Sent:
                if self._questions is not None:
                    return self._question(planned, planned.protocol, delays, together, session.store)
                return (*self._send(planned, self._lengths(planned, label, len(delays)), label, delays, together), {})

            return load_round(planned, self.spec, send, lambda: self._by_itself(planned, session.store))
        lengths = self._lengths(planned, str(planned.repeat), planned.batch)
        traces, failures = self._send(planned, lengths, str(planned.repeat), [0.0] * planned.batch, None)
        failure = round_failure(failures)
        if failure is not None:
            return Outcome({}, failure=failure)
        values, estimate = round_values(traces)
        values |= round_energy(traces, self._targets[planned.model].meter)
        first = [ttft(trace) for trace in warm if trace.arrivals]
        if first:
            values["warmup_ttft_ms"] = 1000 * max(first)
        return Outcome(values, estimate=estimate)

    def _reuse(self, planned: PlannedPoint) -> Outcome:
        share = float(planned.protocol.removeprefix("reuse-"))
        prompts = self._targets[planned.model].prompts
        rngs = (
            generator(self._prompt_seed, planned.ctx, planned.protocol, planned.repeat, at) for at in itertools.count()
        )

        def tokens(of: float) -> int:
            return max(round(of * planned.ctx), 1)

        def ask(request: Request, of: float) -> tuple[Trace, Failure | None]:
            traces, failures = self._time([request], [0.0], planned, None, n_prompt=tokens(of))
            return traces[0], failures[0]

        def make(other: Request | None, of: float) -> Request:
            size, rng = (tokens(of), planned.steps), next(rngs)
            return prompts.make(*size, rng) if other is None else prompts.beginning_as(other, share, *size, rng)

        return reuse_round(share, ask, make)

    def _ask(self, planned: PlannedPoint, label: str, n_out: int) -> tuple[list[Trace], list[Failure | None]]:
        """A round of requests that are sent together, one for a load that has no number of its own."""
        n = max(planned.batch, 1)
        return self._send(planned, [min(planned.steps, n_out)] * n, label, [0.0] * n, None)

    def _lengths(self, planned: PlannedPoint, label: str, n: int) -> list[int]:
        """Tokens that the answers of a round have, the same for the same --seed."""
        rng = generator(self.spec.seed, "lengths", planned.ctx, planned.protocol, label)
        return [self.spec.output.draw(rng) for _ in range(n)]

    def _by_itself(self, planned: PlannedPoint, store: RunStore) -> Sent:
        """Requests as a round has them, one after the other: a sample of each task, or one answer of middling length. Asked once per
        model and length, until one is answered."""
        place = planned.model, planned.ctx
        sent = self._alone.get(place)
        if sent is None:
            if self._questions is not None:
                sent = self._question(planned, "alone", None, 1, store)
            else:
                sent = (*self._send(planned, [self.spec.output.average], "alone", [0.0], None), {})
            if alone_seconds(sent):
                self._alone[place] = sent
        return sent

    def _question(
        self, planned: PlannedPoint, load: str, delays: Sequence[float] | None, together: int | None, store: RunStore
    ) -> Sent:
        """Requests whose prompts are a task's, with the scores of their answers. load: that the rows name. delays: one for each
        request; None: one of each task, at once."""
        assert self._questions is not None
        found: list[tuple[list[Trace], list[Failure | None]]] = []

        def send(requests: Sequence[Request]) -> list[Answer]:
            due = [0.0] * len(requests) if delays is None else delays[: len(requests)]
            found.append(self._time(requests, due, planned, together, free=True))
            return [trace.outcome or Failure("internal", "no outcome") for trace in found[0][0]]

        backend, n = self._targets[planned.model].backend, None if delays is None else len(delays)
        try:
            scores = self._questions.ask(backend, (load, planned.ctx), n, send, store)
        except ContextTooSmall as error:
            return [], [Failure("context_overflow", str(error))], {}
        known = [score for score in scores if score is not None]
        values: Values = {"score": math.fsum(known) / len(known), "scored": len(known)} if known else {}
        return (*found[0], values) if found else ([], [Failure("context_overflow", "no prompt fits the model")], {})

    def _send(
        self, planned: PlannedPoint, lengths: Sequence[int], label: str, delays: Sequence[float], together: int | None
    ) -> tuple[list[Trace], list[Failure | None]]:
        """Requests with a prompt each of its own, in the order of sending; and what is wrong with each. Where tasks are asked, a length
        is that of prompt and answer."""
        load = planned.batch if planned.protocol.startswith("concurrency-") else planned.protocol
        place, prompts = (self._prompt_seed, planned.ctx, load, label), self._targets[planned.model].prompts
        n_prompt = max(planned.ctx - max(lengths), 1) if self.spec.tasks else planned.ctx
        requests = [prompts.make(n_prompt, n_out, generator(*place, at)) for at, n_out in enumerate(lengths)]
        return self._time(requests, delays, planned, together)

    def _time(
        self,
        requests: Sequence[Request],
        delays: Sequence[float],
        planned: PlannedPoint,
        together: int | None,
        free: bool = False,
        n_prompt: int | None = None,
    ) -> tuple[list[Trace], list[Failure | None]]:
        """free: the answers end where the model ends them, and none is too short. n_prompt: tokens of each prompt, else the point's."""
        target = self._targets[planned.model]
        timed = [TimedRequest(request, delay, free) for request, delay in zip(requests, delays, strict=True)]
        how = {} if together is None else {"together": together}
        with target.meter.running():
            traces = list(target.backend.timed(timed, **how))
        if free:
            failures = [why_not_free(trace, target.is_server) for trace in traces]
        else:
            target.prompts.learn(requests, traces)
            length = n_prompt or planned.ctx
            failures = [
                why_not(
                    trace, request.max_new_tokens, length, target.is_server, not request.prompt
                )  # ids alone, no text
                for request, trace in zip(requests, traces, strict=True)
            ]
        self._answered = sum(failure is None or failure.kind not in ("server", "timeout") for failure in failures)
        return traces, failures
