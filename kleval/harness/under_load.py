"""Prompts of a load that are samples of tasks, and the rows of what is answered under it: quality and times from the same answers.

A round takes the next samples of the tasks at its length, in turn; where their data end it begins with the first again, as a further
repeat. What a sample asks first is sent under the load; what follows (a second step, an answer that must be asked for again without
its stop strings) is asked as in any run, and timed by nobody. Nothing is asked again because it failed: that a server fails under
load is what is measured, and such a row is a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle, islice
from random import Random
from typing import Any

from kleval.backends.reasoning import tags
from kleval.harness.asking import finish
from kleval.harness.filing import make_row
from kleval.harness.manifest import engine_settings, run_facts, task_record
from kleval.harness.opening import check_permissions, load_tasks
from kleval.harness.plan import LoadTask, ModelFacts, make_plan, model_facts
from kleval.harness.preparing import Asked, Policy, encode
from kleval.harness.spec import RunSpec
from kleval.store import RunStore
from kleval.types import ContextTooSmall, Failure, Outcome, Request, Sample, Score, Task, Timed, Unfit, UsageError

ALL = 1 << 31  # samples: as many as there are
Send = Callable[[Sequence[Request]], Sequence[Outcome]]


class Questions:
    """kleval.profiler.served.spec.Questions of the tasks that spec names. UsageError when made: data are missing, or a task cannot be
    asked under load."""

    def __init__(self, spec: RunSpec, load_task: LoadTask) -> None:
        spec.check()
        named = load_tasks(spec, load_task)
        self._tasks = {task.id: task for task in named.values()}
        self._sources = {task.id: given for given, task in named.items() if given != task.id}
        called = {given: task.id for given, task in named.items()}
        themselves = spec.named and tuple(called.get(name, name) for name in spec.named)
        self._spec = replace(spec, tasks=tuple(self._tasks), named=themselves)
        for task_id, task in self._tasks.items():
            if getattr(task, "needs_judge", False):
                raise UsageError(
                    f"{task_id} is scored by a judge, which is no load on the model: use kleval run for it"
                )
        check_permissions(self._spec, self._tasks)
        self._policy = Policy(
            seed=spec.seed, temperature=spec.temperature, top_p=spec.top_p, retries=0, reasoning=tags(spec.reasoning)
        )
        self._streams: dict[tuple[str, str, int], Iterator[tuple[int, Sample]]] = {}
        self._facts: dict[str, ModelFacts] = {}
        self._skips: dict[str, Sequence[Mapping[str, Any]]] = {}  # by model: tasks that do not fit, and where

    def open(self, backend: Timed) -> None:
        """UsageError for a backend whose timed answers are no answers of evaluation, for tasks that fit at no length, and for one that
        asks anything but one answer first."""
        if not getattr(backend, "times_answers", False):
            raise UsageError(
                f"--tasks under load is for servers: the requests that --backend {backend.name} times have a fixed length"
            )
        facts = model_facts(backend.model, backend, None)
        plan = make_plan(self._spec, [facts], self._tasks, {})
        for (_, task_id), sample in plan.samples.items():
            _check_first(self._tasks[task_id], sample)
        self._facts[backend.model], self._skips[backend.model] = facts, plan.skips

    def unfit(self, backend: Timed, ctx: int) -> str:
        """Why no task has a sample at a length; "" where one has."""
        reasons = {one["task"]: one["reason"] for one in self._skips[backend.model] if one["ctx"] == ctx}
        return "; ".join(reasons.values()) if len(reasons) == len(self._tasks) else ""

    def settings(self) -> dict[str, Any]:
        """What must be the same for a profile to go on."""
        found: dict[str, Any] = {"tasks": list(self._tasks), "temperature": self._spec.temperature}
        for task_id, task in self._tasks.items():
            found |= {f"tasks.{task_id}.{name}": value for name, value in task_record(task).items()}
        for name, facts in self._facts.items():
            found |= engine_settings(f"models.{name}", facts)
        return found

    def facts(self) -> dict[str, Any]:
        """Of run.json, as a run has them, with what is left out."""
        found = run_facts(self._spec, self._tasks, list(self._facts.values()), self._sources)
        skips = [one for of in self._skips.values() for one in of]
        left_out = dict.fromkeys(f"Left out: {one['reason']}." for one in skips)
        return {**found, "caveats": [*found["caveats"], *left_out], "skips": skips}

    def ask(
        self, backend: Timed, place: tuple[str, int], n: int | None, send: Send, store: RunStore
    ) -> list[float | None]:
        """Send the next n samples (None: one of each task), file their rows, and tell their scores; None for what failed or is not
        scored.

        place: load and length. send: what comes first of each, in the order of sending; what was answered. ContextTooSmall where no
        sample fits into the length.
        """
        load, ctx = place
        window = self._next(backend, ctx, n, store)
        scores: list[float | None] = []
        first = _FirstUnderLoad(backend, send, Random(f"{self._spec.seed}/{load}/{ctx}"))
        for asked, end in finish(window, first, None, self._policy):
            row = make_row(backend.model, asked, end)
            store.append(replace(row, meta={**row.meta, "load": load}), asked.sample.prompt)
            scores.append(row.score)
        store.sync()
        return scores

    def _next(self, backend: Timed, ctx: int, n: int | None, store: RunStore) -> list[Asked]:
        """Samples that were never asked here, of the tasks in turn."""
        found: list[Asked] = []
        tasks = [task for task in self._tasks if self._peek(backend, task, ctx)]
        if not tasks:
            raise ContextTooSmall(f"no sample of {', '.join(self._tasks)} fits into {ctx} tokens", ctx)
        for task in islice(cycle(tasks), len(tasks) if n is None else n):
            repeat, sample = next(
                one
                for one in self._streams[backend.model, task, ctx]
                if (backend.model, one[1].id, one[0]) not in store.index
            )
            _check_first(self._tasks[task], sample)
            ids = encode(backend.tokenizer, sample.prompt, sample.answer_prefix)
            found.append(Asked(self._tasks[task], sample, repeat, ids, model=backend.model))
        return found

    def _peek(self, backend: Timed, task: str, ctx: int) -> bool:
        """Whether a task has samples at a length."""
        place = (backend.model, task, ctx)
        if place not in self._streams:
            stream = self._samples(backend, task, ctx)
            first = next(stream, None)
            if first is None:
                return False
            self._streams[place] = _before(first, stream)
        return True

    def _samples(self, backend: Timed, task: str, ctx: int) -> Iterator[tuple[int, Sample]]:
        """Without end, each with how often it came before; none where none fits."""
        repeat = 0
        while True:
            n = 0
            try:
                for made in self._tasks[task].samples(backend.tokenizer, ctx, ALL, self._spec.seed):
                    if not isinstance(made, Unfit):
                        n += 1
                        yield repeat, made
            except ContextTooSmall:
                pass
            if n == 0:
                return
            repeat += 1


def _check_first(task: Task, sample: Sample) -> None:
    """UsageError unless what a sample asks first is one answer."""
    try:
        step = task.step(sample, ())
        kinds = [] if isinstance(step, Score | Failure) else [request.kind for request in step]
    except Exception:
        return  # told in its row
    if kinds and kinds != ["generate"]:
        what = f"{len(kinds)} requests" if len(kinds) > 1 else "for no answer that is written"
        raise UsageError(
            f"{task.id} asks {what} at first, where a load is made of single answers: leave it out, kleval run asks it"
        )


def _before(first: tuple[int, Sample], rest: Iterator[tuple[int, Sample]]) -> Iterator[tuple[int, Sample]]:
    yield first
    yield from rest


class _FirstUnderLoad:
    """A backend whose first requests are sent under load, in an order of their own: by length they would come sorted."""

    def __init__(self, backend: Timed, send: Send, rng: Random) -> None:
        self._backend, self._rng = backend, rng
        self._send: Send | None = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        if self._send is None:
            yield from self._backend.run(requests)
            return
        send, self._send = self._send, None
        order = list(range(len(requests)))
        self._rng.shuffle(order)
        yield from zip(order, send([requests[at] for at in order]), strict=True)
