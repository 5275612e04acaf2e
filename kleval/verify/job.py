"""The Job of `kleval verify`: one unit for each law, each with its verdict as a point; the exit code says what they come to.

Harmless variations are measured first, in a fifth of the time; what is left is shared among the laws that are left, so that what one
does not need is the next one's. Verdicts are filed as they are reached: a server that dies in the middle leaves those before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from kleval.backends.registry import choose, open_backend
from kleval.backends.server_address import parse_address
from kleval.backends.spec import BackendSpec
from kleval.store import Point, RunStore
from kleval.store.machine import cpu_name
from kleval.store.manifest import now
from kleval.types import INTERNAL, INTERRUPTED, OK, REGRESSION, UNDECIDED, Backend, UsageError
from kleval.verify.engine import Dead, Engine
from kleval.verify.judge import Finding, Judge, finite
from kleval.verify.laws import LAWS, Law, harmless
from kleval.verify.plan import Plan
from kleval.verify.spec import VerifySpec
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent

YARDSTICK_SHARE = 0.2  # of the time
MOST_TEXT = 2000  # characters of a prompt that a record shows
COUNTS = ("holds", "broken", "undecided", "not testable")


def verify(
    spec: VerifySpec,
    on_event: OnEvent = lambda event: None,
    backend: Backend | None = None,
    reference: Backend | None = None,
) -> Result:
    """Try the laws of spec, continuing what its directory holds. backend, reference: objects in place of those that spec names.

    The exit code is 4 where a law is broken, 5 where one is undecided or none could be tried; what ended the command otherwise keeps
    its own. UsageError: the engine or the reference cannot be asked, or they do not belong together.
    """
    job = VerifyJob(spec, backend, reference)
    result = work(job, on_event)
    code = job.exit_code(result)
    return dataclasses.replace(result, exit_code=code)


@dataclass(frozen=True, slots=True)
class PlannedLaw:
    """A law to come."""

    law: Law
    model: str
    ctx: int

    n: ClassVar[int] = 1
    n_done: ClassVar[int] = 0
    prompt: ClassVar[None] = None
    weight: ClassVar[float] = 1.0
    optional: ClassVar[bool] = False

    @property
    def id(self) -> str:
        return f"law/{self.law.name}/{self.model}/{self.ctx}"

    @property
    def group(self) -> Hashable:
        return "laws"

    @property
    def label(self) -> str:
        return self.law.title


class VerifyJob(Job):
    """Laws, one after the other, on one engine."""

    spec: VerifySpec
    command = "verify"
    done_word = "tried"

    def __init__(self, spec: VerifySpec, backend: Backend | None = None, reference: Backend | None = None) -> None:
        super().__init__(spec)
        self._given, self._reference = backend, reference
        self._dead = ""

    def settings(self) -> dict[str, Any]:
        spec = self.spec
        known: dict[str, Any] = {
            "command": "verify",
            "models": [spec.engine.model],
            "ctx": [spec.ctx],
            "backend": spec.engine.backend,
            "laws": list(spec.laws or LAWS),
            "time_budget": spec.time_budget,
            "alpha": spec.alpha,
            "seed": spec.seed,
            "reference": spec.reference and spec.reference.model,
        }
        return known | dict(self.told)

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        if unknown := [name for name in self.spec.laws if name not in LAWS]:
            raise UsageError(f"there is no law {unknown[0]!r}: choose of {', '.join(LAWS)}")
        with contextlib.ExitStack() as stack:
            self.backend = self._given or stack.enter_context(contextlib.closing(self._opened(self.spec.engine)))
            self._engine = _asked(self.backend, "")
            described = dict(self.backend.describe())
            self.told = {f"engine.{k}": described[k] for k in ("dtype", "weights_sha256", "software") if k in described}
            if self.spec.reference is not None or self._reference is not None:
                self._open_reference(stack)
            self._longest = min(self.spec.ctx, self.backend.max_ctx or self.spec.ctx)
            self._plan = Plan(self._longest, self.spec.seed)
            self.models = {self.backend.model: {"name": self.backend.model, "describe": described}}
            self.environment = {"cpu": cpu_name()}
            yield

    def _opened(self, spec: BackendSpec) -> Backend:
        """An engine of which no answer is waited for longer than all laws may take."""
        if (choose(spec) if spec.backend == "auto" else spec.backend) == "openai" and spec.base_url is not None:
            parse_address(spec.base_url, spec.api_key_env)
        spec = dataclasses.replace(spec, request_timeout=min(spec.request_timeout, self.spec.time_budget))
        return open_backend(spec.model, **spec.settings())

    def _open_reference(self, stack: contextlib.ExitStack) -> None:
        spec = self.spec.reference
        if self._reference is None:
            assert spec is not None
            self._reference = stack.enter_context(contextlib.closing(self._opened(spec)))
        other = self._reference
        here, there = self.backend.tokenizer, other.tokenizer
        known = [vocabulary_of(backend) for backend in (self.backend, other)]
        sizes = {
            len(ids) for ids in known if isinstance(ids, range)
        }  # a server tells ids that it knows, not all of them
        probe = "The quick brown fox, 1234."
        if here.encode(probe) != there.encode(probe) or len(sizes) > 1:
            raise UsageError(
                f"the reference {other.model} has another vocabulary than {self.backend.model}: name one with the same tokenizer"
            )
        self._engine.reference = _asked(other, "the reference ")

    def units(self, say: Callable[[str], None]) -> tuple[PlannedLaw, ...]:
        names = self.spec.laws or tuple(LAWS)
        return tuple(PlannedLaw(LAWS[n], self.backend.model, self._longest) for n in LAWS if n in names)

    def facts(self) -> dict[str, Any]:
        engine, plan = self._engine, self._plan
        left = {name: why for name, law in LAWS.items() if (why := law.why_not(engine, plan))}
        reads = "scores of prompts" if engine.scores else "log-probabilities of answers" if engine.tells else "texts"
        notes = [f"not testable: {LAWS[name].title} ({why})" for name, why in left.items()]
        return {
            "models": self.models,
            "dtype": engine.dtype,
            "seeds": {"seed": self.spec.seed},
            "plan": {"notes": [f"read: {reads}", *notes], "unmeasured": [], "reads": reads},
        }

    def measure(self, group: Sequence[PlannedLaw], session: Session) -> Iterator[tuple[PlannedLaw, Point]]:
        engine, began = self._engine, time.monotonic()
        end = began + self.spec.time_budget
        doing: list[PlannedLaw] = [group[0]]
        judge = Judge(engine, self._plan, self.spec.alpha)
        judge.say = lambda case: session.progress(doing[0], more=f": {case.label}")
        judge.n_checks = sum(
            len(law.cases(engine, self._plan)) for law in LAWS.values() if not law.why_not(engine, self._plan)
        )
        session.say("measuring legal rounding")
        engine.deadline = began + YARDSTICK_SHARE * self.spec.time_budget
        try:
            judge.measure(harmless.cases(engine, self._plan))
            for number, unit in enumerate(group):
                doing[0] = unit
                engine.deadline = time.monotonic() + (end - time.monotonic()) / (len(group) - number)
                yield unit, self._point(unit, judge.try_law(unit.law))
        except Dead as error:
            self._dead = f"the engine gives no answers any more ({error}): {len(session.done)} verdicts were reached"
            session.stop(self._dead)

    def _point(self, unit: PlannedLaw, found: Finding) -> Point:
        values: dict[str, float | int | None] = {
            "tried": found.tried,
            "planned": found.planned,
            "broken_cases": len(found.broken),
            "deviation": None if found.worst is None else finite(found.worst.size),
            "legal": found.held.legal,
            "limit": found.held.limit,
            "seconds": round(found.seconds, 3),
        }
        told: dict[str, Any] = {"verdict": found.verdict, "title": unit.law.title, "why": found.why}
        if found.broken:
            smallest = found.smallest or found.broken[0]
            values["prompt_tokens"] = len(smallest.ids)
            told |= {
                "cause": found.cause,
                "cases": [trial.case.label for trial in found.broken],
                "at_token": found.broken[0].deviation.at,
                "finite": found.broken[0].size != float("inf"),
                "prompt": {
                    "case": smallest.case.label,
                    "token_ids": list(smallest.ids),
                    "text": self.backend.tokenizer.decode(smallest.ids)[:MOST_TEXT],
                },
            }
        return Point(
            id=unit.id,
            kind="law",
            model=unit.model,
            ctx=unit.ctx,
            batch=0,
            protocol=unit.law.name,
            repeat=0,
            values=values,
            settings=told,
            environment=dict(self.environment),
            finished=now(),
        )

    def verdict(self, session: Session) -> Verdict:
        points = list(session.store.points())
        verdicts = [point.settings["verdict"] for point in points]
        counts = {"planned": len(session.units), "measured": len(points)}
        counts |= {name.replace(" ", "_"): verdicts.count(name) for name in COUNTS}
        missing = len(session.units) - len(points)
        problem = self._dead or (f"{missing} of {len(session.units)} laws were not tried" if missing else "")
        return Verdict(counts, problem, {"verify": verdict_of(points)})

    def exit_code(self, result: Result) -> int:
        """4 and 5 for laws that are broken or undecided, 5 where none could be tried, if nothing worse ended the command."""
        if result.counts.get("broken") and result.exit_code not in (INTERNAL, INTERRUPTED):
            return REGRESSION
        tried = bool(result.counts.get("holds")) and not result.counts.get("undecided")
        if result.exit_code == OK and result.counts.get("measured") and not tried:
            return UNDECIDED
        return result.exit_code


def verdict_of(points: Sequence[Point]) -> dict[str, Any]:
    """What a manifest keeps, by model: the verdict on the engine and on each law."""
    told: dict[str, Any] = {}
    for model in dict.fromkeys(point.model for point in points):
        laws = {point.protocol: point.settings["verdict"] for point in points if point.model == model}
        found = [name for name in ("broken", "undecided", "holds") if name in laws.values()]
        told[model] = {"verdict": found[0] if found else "not testable", "laws": laws}
    return told


def _asked(backend: Backend, which: str) -> Engine:
    """UsageError where it answers nothing."""
    try:
        return Engine.of(backend)
    except Dead as error:
        raise UsageError(f"{which}{backend.model} cannot be verified, it answers nothing: {error}") from error


def vocabulary_of(backend: Any) -> Sequence[int] | None:
    """Token ids that may be asked; None where the engine does not tell: a server is tried for that with a stream, which not every one
    has, and the laws need none."""
    try:
        return backend.vocabulary() if hasattr(backend, "vocabulary") else None
    except UsageError:
        return None
