"""Plan of a run: models x tasks x lengths, what does not fit, and how much work it is.

A task is tried at the shortest length first, with one sample, in the tokenizer that counts its samples; lengths at which
it does not fit (ContextTooSmall) are skipped with the reason, and the first at which it fits ends the search, since a task
that fits into ctx fits into more. (Should one not, that length is skipped when the run comes to it.) A task that fits at none is
skipped too, unless it was named itself or nothing fits: then a UsageError names every such task with its minimum. Tokens are
estimated as ctx per answer: an upper bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from kleval.harness.makers import with_budget
from kleval.harness.parts import Part
from kleval.harness.shards import deal
from kleval.harness.spec import RunSpec
from kleval.text import format_length
from kleval.types import Backend, ContextTooSmall, Sample, Task, TextTooShort, Tokenizer, Unfit, UsageError

SAY_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the plan and the manifest need of a backend, so that it need not stay open.

    name: backend.model. given: as the user named it. counter: the tokenizer that makes the samples; its own unless the
    run names another. continues_answers: whether the model can be made to go on from an answer prefix. paid: asking may cost money.
    """

    name: str
    given: str
    backend: str
    max_ctx: int | None
    tokenizer: Tokenizer
    counter: Tokenizer
    describe: Mapping[str, Any]
    continues_answers: bool = True
    paid: bool = False


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A task at a length for a model: a unit of n answers (samples x repeats), n_done of them by earlier sessions. part: a shard's."""

    model: str
    task: str
    ctx: int
    n: int
    n_done: int
    part: Part | None = None

    optional: ClassVar[bool] = False
    prompt: ClassVar[None] = None

    @property
    def id(self) -> str:
        return f"{self.model}/{self.task}/{self.ctx}"

    @property
    def label(self) -> str:
        return f"{self.model}, {self.task} at {format_length(self.ctx)}"

    @property
    def group(self) -> str:
        return self.model

    @property
    def weight(self) -> float:
        return float(self.ctx)


@dataclass(frozen=True, slots=True)
class Plan:
    """cells: in the order in which they run. skips: what does not fit. samples: by model and task with something to ask, the first
    sample that fits. shards: how many answers each shard has, of a run that is one."""

    cells: tuple[PlannedCell, ...]
    skips: tuple[dict[str, Any], ...]
    samples: Mapping[tuple[str, str], Sample]
    shards: tuple[int, ...] = ()


def model_facts(given: str, backend: Backend, counter: Tokenizer | None) -> ModelFacts:
    return ModelFacts(
        backend.model,
        given,
        backend.name,
        backend.max_ctx,
        backend.tokenizer,
        counter or backend.tokenizer,
        backend.describe(),
        getattr(backend, "continues_answers", True),
        getattr(backend, "paid", False),
    )


def make_plan(
    spec: RunSpec,
    models: Sequence[ModelFacts],
    tasks: Mapping[str, Task],
    answered: Mapping[tuple[str, str, int], set[tuple[int, int]]],
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """What runs (by model, then ctx, then task), and what does not fit.

    answered: RunStore.answered_by_cell(), empty for a new run. say: told now and then what is being tried. UsageError when nothing
    fits, or a task that was named itself fits at no length.
    """
    fits = _Fitting(spec)
    told = time.monotonic()
    ctxs = sorted(set(spec.ctxs))
    cells, skips = [], []
    refused: dict[str, Task] = {}
    n = spec.limit * spec.repeats
    for model in models:
        for ctx in ctxs:
            for place, (task_id, task) in enumerate(tasks.items()):
                if not spec.ctxs_given and ctx != ctxs[-1] and not getattr(task, "grows", True):
                    continue
                if time.monotonic() - told > SAY_EVERY_SECONDS:
                    told = time.monotonic()
                    what = f"{task_id} at {format_length(ctx)} ({place + 1} of {len(tasks)})"
                    say(f"planning  {what}" if len(models) == 1 else f"planning  {model.name}, {what}")
                too_small = fits.reason(task, model.counter, ctx, answered.get((model.name, task_id, ctx)))
                if not model.continues_answers and fits.prefixed(task, model.counter):
                    refused[task_id] = task
                if too_small is None:
                    done = len(answered.get((model.name, task_id, ctx), ()))
                    cells.append(PlannedCell(model.name, task_id, ctx, n, min(done, n)))
                else:
                    skips.append(skip(model, task, ctx, n, too_small))
    if refused:
        raise _no_prefix(refused)
    named = set(tasks if spec.named is None else spec.named)
    if unfit := [unfit for unfit in fits.nowhere.values() if unfit.task in named or not cells]:
        raise _fits_nowhere(unfit, max(ctxs))
    shards: tuple[int, ...] = ()
    if spec.shard is not None:
        parts, counts = deal(spec.shard, cells, tasks, spec.limit)
        shards = tuple(spec.repeats * count for count in counts)
        cells = [
            replace(cell, n=own, n_done=min(cell.n_done, own), part=part)
            for cell in cells
            if (own := spec.repeats * len((part := parts[cell.id]).positions(spec.limit)))
        ]
        # What fits nowhere is nobody's, and told once.
        skips = skips if spec.shard.startswith("1/") else []
    samples: dict[tuple[str, str], Sample] = {}
    counters = {model.name: model.counter for model in models}
    for cell in cells:
        if cell.n_done < cell.n and (first := fits.first(tasks[cell.task], counters[cell.model])) is not None:
            samples[cell.model, cell.task] = first
    return Plan(tuple(cells), tuple(skips), samples, shards)


def _no_prefix(refused: Mapping[str, Task]) -> UsageError:
    names, more = ", ".join(list(refused)[:4]), f" and {len(refused) - 4} others" if len(refused) > 4 else ""
    protocol = ",".join(dict.fromkeys(p for task in refused.values() if (p := getattr(task, "without_prefix", ""))))
    instead = f"add --protocol {protocol}, which does without" if protocol else "leave them out"
    return UsageError(
        f"the prompts of {names}{more} end with the beginning of the answer, which a chat endpoint cannot be made to continue: "
        f"{instead}, or use a server that answers /completions, with --tokenizer hf:PATH of its model"
    )


def _fits_nowhere(unfit: Sequence[_Nowhere], longest: int) -> UsageError:
    if short := [one.too_short for one in unfit if one.too_short]:
        return UsageError(f"{short[0]}: choose a shorter --ctx")
    nowhere = f"none of the lengths asked for (longest {longest})"
    if len(unfit) == 1:
        needs = f"it needs at least --ctx {unfit[0].minimum} with {unfit[0].counter}"
        return UsageError(f"{unfit[0].task} fits into {nowhere}: {needs}; add a longer --ctx or leave the task out")
    each = ", ".join(f"{one.task} --ctx {one.minimum}" for one in unfit)
    return UsageError(
        f"{len(unfit)} tasks fit into {nowhere}; they need, with {unfit[0].counter}, {each}: add a longer --ctx or leave them out"
    )


def skip(model: ModelFacts, task: Task, ctx: int, n: int, why: ContextTooSmall) -> dict[str, Any]:
    """n answers that are not asked for: the task, or that many samples of it, do not fit into ctx."""
    return {
        "model": model.name,
        "task": task.id,
        "ctx": ctx,
        "edition": task.edition,
        "protocol": task.protocol,
        "metric": task.metric,
        "n": n,
        "reason": str(why),
        "minimum_tokens": why.minimum_tokens,
        **({"too_short": True} if isinstance(why, TextTooShort) else {}),
    }


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A task that fits at none of the lengths; minimum: tokens that it needs, in those of counter; too_short: that its texts are."""

    task: str
    minimum: int
    counter: str
    too_short: str = ""


class _Fitting:
    """Which tasks fit at which lengths; models that count alike share the answers."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self._known: dict[tuple[str, str, str], dict[int, ContextTooSmall]] = {}
        self._first: dict[tuple[str, str, str], Sample] = {}
        self.nowhere: dict[tuple[str, str, str], _Nowhere] = {}

    def reason(self, task: Task, counter: Tokenizer, ctx: int, answered: object) -> ContextTooSmall | None:
        """Why task does not fit into ctx; None when it does, which an answer that is there already shows."""
        if answered:
            return None
        key = _key(task, counter)
        if key not in self._known:
            self._known[key] = small = self._search(task, counter, key)
            if len(small) == len(set(self._spec.ctxs)):
                minimum = max(error.minimum_tokens for error in small.values())
                too_short = next((str(error) for error in small.values() if isinstance(error, TextTooShort)), "")
                self.nowhere[key] = _Nowhere(task.id, minimum, counter.name, too_short)
        return self._known[key].get(ctx)

    def first(self, task: Task, counter: Tokenizer) -> Sample | None:
        """The task's first sample that fits somewhere; None where none could be made."""
        self.reason(task, counter, max(self._spec.ctxs), None)
        return self._first.get(_key(task, counter))

    def prefixed(self, task: Task, counter: Tokenizer) -> bool:
        """Whether that has an answer prefix."""
        first = self.first(task, counter)
        return first is not None and bool(first.answer_prefix)

    def _search(self, task: Task, counter: Tokenizer, key: tuple[str, str, str]) -> dict[int, ContextTooSmall]:
        small: dict[int, ContextTooSmall] = {}
        for ctx in sorted(set(self._spec.ctxs)):
            try:
                first = _first_fitting(task, counter, ctx, self._spec)
                if isinstance(first, ContextTooSmall):
                    raise first
                if first is not None:
                    self._first[key] = first
            except ContextTooSmall as error:
                small[ctx] = error
            except UsageError:
                raise
            except Exception:
                return small  # told as TaskFailed when the run comes to it, which then goes on with the other tasks
            else:
                return small
        return small


def _key(task: Task, counter: Tokenizer) -> tuple[str, str, str]:
    return task.id, counter.digest, counter.chat_template_digest


def _first_fitting(task: Task, counter: Tokenizer, ctx: int, spec: RunSpec) -> Sample | ContextTooSmall | None:
    """The first sample that fits; else why the nearest does not; None for no samples."""
    nearest: Unfit | None = None
    for made in with_budget(lambda ctx: task.samples(counter, ctx, 1, spec.seed), ctx, spec.max_new_tokens or 0):
        if isinstance(made, Sample):
            return made
        if nearest is None or made.minimum_tokens < nearest.minimum_tokens:
            nearest = made
    return None if nearest is None else ContextTooSmall(nearest.reason, nearest.minimum_tokens)


OpenBackend = Callable[[str], Backend]
LoadTask = Callable[[str], Task]
