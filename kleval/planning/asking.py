"""Requests of a plan, model by model: counted as cards and `counts.toml` say of the official edition, or rehearsed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from kleval.harness.forecast import Load, Rehearsed, loads
from kleval.harness.plan import ModelFacts, make_plan
from kleval.harness.spec import RunSpec
from kleval.models.registry import load_model_tokenizer
from kleval.tasks.counts import EVERY, Counts, named
from kleval.tasks.data import MissingData
from kleval.tasks.registry import expand
from kleval.text import few, format_lengths
from kleval.types import Task, Tokenizer, UsageError

STAND_IN = "kimi-linear@nano"  # whose tokenizer counts where a model has none here


def task_ids(names: Sequence[str], edition: str, protocol: str | None) -> tuple[str, ...]:
    """Ids as a run has them, but a group that is counted by its name stays one: nothing need know its tasks here."""
    if any(name.startswith("-") for name in names):
        return tuple(expand(names, edition))
    found = ([name] if _named(name, edition, protocol) else expand([name], edition) for name in names)
    return tuple(dict.fromkeys(task for tasks in found for task in tasks))


class Asking:
    """assumed, sources: of the counts, by family or task, in words. skips: what is asked nothing, with the reason."""

    def __init__(
        self,
        spec: RunSpec,
        load_task: Callable[[str], Task],
        every: bool,
        load_tokenizer: Callable[[str], Tokenizer] | None,
    ) -> None:
        self._spec, self._every = spec, every
        self._load_tokenizer = load_tokenizer
        self.assumed: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.skips: list[dict[str, Any]] = []
        self.notes: list[str] = []
        by_name = {name: _named(name, spec.edition, spec.protocol) for name in spec.tasks}
        self._tasks = {name: _known(load_task, name) for name, counts in by_name.items() if counts is None}
        found = {name: counts or _counts(self._tasks[name]) for name, counts in by_name.items()}
        self._counts = {name: counts for name, counts in found.items() if counts is not None}
        self._made = [name for name in found if name not in self._counts]
        if every and self._made:
            raise UsageError(
                f"--limit all: how many samples {few(self._made)} have is not known: give a number, --limit 100"
            )

    def loads(self, model: str, given: str) -> tuple[Load, ...]:
        return (*self._counted(model), *(self._rehearsed(model, given) if self._made else ()))

    def _counted(self, model: str) -> list[Load]:
        found = []
        limit = EVERY if self._every else self._spec.limit
        ctxs = sorted(set(self._spec.ctxs))
        for ctx in ctxs:
            for name, counts in self._counts.items():
                if not self._spec.ctxs_given and ctx != ctxs[-1] and not self._grows(name):
                    continue
                self._tell(name, counts.source, counts.assumed)
                classes = counts.at(ctx, limit)
                if not classes:
                    only = "its official data are of " + format_lengths(counts.only) + " alone"
                    reason = only if counts.only else "none of its official prompts fits with its answer"
                    self.skips.append({"model": model, "task": name, "ctx": ctx, "reason": reason})
                for n, tokens in classes:
                    read, requests = tokens, []
                    for budget in counts.written:
                        requests += [Rehearsed(False, read, budget, ctx)] * counts.times
                        read += budget
                    if counts.judge:
                        read, written = counts.judge
                        requests.append(Rehearsed(True, read, written, ctx))
                    found.append(Load(model, name, ctx, n * self._spec.repeats, tuple(requests)))
        return found

    def _grows(self, name: str) -> bool:
        """Whether prompts get longer with ctx, as `kleval.harness.plan` asks; none does that is counted by its name."""
        return name in self._tasks and getattr(self._tasks[name], "grows", True)

    def _tell(self, task: str, source: str, assumed: str) -> None:
        """Of a family, or of a task that is counted by its name or whose family has another already."""
        for told, text in ((self.sources, source), (self.assumed, assumed)):
            family = task.partition("/")[0]
            told[family if task in self._tasks and told.get(family, text) == text else task] = text

    def _rehearsed(self, model: str, given: str) -> Sequence[Load]:
        counter = self._counter(model, given)
        facts = ModelFacts(model, given, "", None, counter, counter, {})
        tasks = {name: self._tasks[name] for name in self._made}
        spec = replace(self._spec, tasks=tuple(tasks))
        try:
            plan = make_plan(spec, [facts], tasks, {})
        except MissingData as error:
            raise _unknown(error) from error
        self.skips += plan.skips
        for name in self._made:
            self._tell(
                name, f"--limit {spec.limit}, one sample made here", "every sample asks as its task's first one does"
            )
        return loads(plan, [facts], tasks)

    def _counter(self, model: str, given: str) -> Tokenizer:
        if self._spec.tokenizer is not None:
            from kleval.tokenization import load_tokenizer

            return (self._load_tokenizer or load_tokenizer)(self._spec.tokenizer)
        try:
            return load_model_tokenizer(given)
        except UsageError:
            note = (
                f"{model} has no tokenizer here: samples are counted in tokens of {STAND_IN}; --tokenizer names another"
            )
            self.notes += [note] if note not in self.notes else []
            return load_model_tokenizer(STAND_IN)


def _known(load_task: Callable[[str], Task], name: str) -> Task:
    try:
        return load_task(name)
    except MissingData as error:
        raise _unknown(error) from error


def _unknown(error: MissingData) -> UsageError:
    return UsageError(f"its counts are not known without its data: {error}")


def _named(name: str, edition: str, protocol: str | None) -> Counts | None:
    return named(name) if edition == "official" and protocol is None else None


def _counts(task: Task) -> Counts | None:
    found = getattr(task, "counts", None)
    return found() if found is not None and task.edition == "official" else None
