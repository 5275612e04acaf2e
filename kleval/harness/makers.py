"""Worker processes that make samples while the model answers: a task at a length is one job, which fills the sample cache.

Processes are started afresh (spawn), so that threads of the model's process do not matter. A job whose tokenizer or task
cannot be carried over, or whose process dies, is made here instead: the samples are the same.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from kleval.harness.parts import Part
from kleval.harness.sample_cache import Made, SampleCache
from kleval.tasks.registry import all_tasks, load_task
from kleval.types import ContextTooSmall, Task, Tokenizer, Unfit


class Cell(NamedTuple):
    """Samples of a task at a length. part: those alone."""

    task: Task
    tokenizer: Tokenizer
    ctx: int
    part: Part | None = None


def _end_with_parent() -> None:
    """A maker ends with whoever started it, however that ends."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@dataclass(slots=True)
class Makers:
    """workers: processes; 0 makes everything here, when it is asked for. A cache without a folder needs no workers. budget: that
    generation budgets are raised to, as `with_budget` does it."""

    cache: SampleCache
    n: int
    seed: int
    workers: int = 0
    data_dir: Path | None = None
    budget: int = 0
    _pool: ProcessPoolExecutor | None = None
    _jobs: dict[tuple[str, str, int], Future[None]] = field(default_factory=dict)

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Have these made, in this order. What is there already, or is not a task of the registry, is left alone."""
        if not self.workers or self.cache.folder is None:
            return
        for task, tokenizer, length, part in cells:
            ctx = length - self.budget
            place = _place(task, tokenizer, ctx)
            if place in self._jobs or task.id not in all_tasks():
                continue
            if self.cache.has(task, tokenizer, ctx, self.n, self.seed):
                continue
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=_end_with_parent)
            named = (task.id, task.edition, task.protocol, self.data_dir)
            self._jobs[place] = self._pool.submit(_make, self.cache, named, tokenizer, ctx, self.n, self.seed, part)

    def samples(self, task: Task, tokenizer: Tokenizer, ctx: int, part: Part | None = None) -> Iterator[Made]:
        """The samples of a cell, waited for where they are being made. Raises as `task.samples` does."""
        job = self._jobs.pop(_place(task, tokenizer, ctx - self.budget), None)
        if job is not None and not job.cancel():
            job.exception()
        cached = partial(self.cache.samples, task, tokenizer, n=self.n, seed=self.seed, part=part)
        return with_budget(cached, ctx, self.budget)

    def __enter__(self) -> Makers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def with_budget(make: Callable[[int], Iterator[Made]], ctx: int, budget: int) -> Iterator[Made]:
    """Samples made for `budget` tokens less than ctx, with a generation budget of at least so many: together they fit into ctx."""
    if not budget:
        yield from make(ctx)
        return
    try:
        for made in make(max(1, ctx - budget)):
            if isinstance(made, Unfit):
                yield replace(made, minimum_tokens=made.minimum_tokens + budget)
                continue
            own = {"max_new_tokens_of_task": made.max_new_tokens}
            yield replace(made, ctx=ctx, max_new_tokens=max(made.max_new_tokens, budget), meta={**made.meta, **own})
    except ContextTooSmall as error:
        why = f"{error} (and {budget} tokens of --max-new-tokens)"
        raise ContextTooSmall(why, error.minimum_tokens + budget) from None


def _place(task: Task, tokenizer: Tokenizer, ctx: int) -> tuple[str, str, int]:
    return task.id, tokenizer.digest + tokenizer.chat_template_digest, ctx


def _make(
    cache: SampleCache,
    named: tuple[str, str, str, Path | None],
    tokenizer: Tokenizer,
    ctx: int,
    n: int,
    seed: int,
    part: Part | None,
) -> None:
    """In another process: fill the cache. What goes wrong here goes wrong again, and is told, where the samples are asked for."""
    task = load_task(*named)
    for _ in cache.samples(task, tokenizer, ctx, n, seed, part):
        pass
