"""Worker processes that make samples while the model answers: a task at a length is one job, which fills the sample cache.

Processes are started afresh (spawn), so that threads of the model's process do not matter. A job whose tokenizer or task
cannot be carried over, or whose process dies, is made here instead: the samples are the same.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from kleval.tasks.registry import all_tasks, load_task
from kleval.tasks.sample_cache import Made, SampleCache
from kleval.types import Task, Tokenizer

Cell = tuple[Task, Tokenizer, int]  # task, tokenizer, ctx


@dataclass(slots=True)
class Makers:
    """workers: processes; 0 makes everything here, when it is asked for. A cache without a folder needs no workers."""

    cache: SampleCache
    n: int
    seed: int
    workers: int = 0
    data_dir: Path | None = None
    _pool: ProcessPoolExecutor | None = None
    _jobs: dict[tuple[str, str, int], Future[None]] = field(default_factory=dict)

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Have these made, in this order. What is there already, or is not a task of the registry, is left alone."""
        if not self.workers or self.cache.folder is None:
            return
        for task, tokenizer, ctx in cells:
            place = _place(task, tokenizer, ctx)
            if place in self._jobs or task.id not in all_tasks():
                continue
            if self.cache.has(task, tokenizer, ctx, self.n, self.seed):
                continue
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self.workers, mp_context=context)
            named = (task.id, task.edition, task.protocol, self.data_dir)
            self._jobs[place] = self._pool.submit(_make, self.cache, named, tokenizer, ctx, self.n, self.seed)

    def samples(self, task: Task, tokenizer: Tokenizer, ctx: int) -> Iterator[Made]:
        """The samples of a cell, waited for where they are being made. Raises as `task.samples` does."""
        job = self._jobs.pop(_place(task, tokenizer, ctx), None)
        if job is not None and not job.cancel():
            job.exception()
        return self.cache.samples(task, tokenizer, ctx, self.n, self.seed)

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


def _place(task: Task, tokenizer: Tokenizer, ctx: int) -> tuple[str, str, int]:
    return task.id, tokenizer.digest + tokenizer.chat_template_digest, ctx


def _make(
    cache: SampleCache,
    named: tuple[str, str, str, Path | None],
    tokenizer: Tokenizer,
    ctx: int,
    n: int,
    seed: int,
) -> None:
    """In another process: fill the cache. What goes wrong here goes wrong again, and is told, where the samples are asked for."""
    task = load_task(*named)
    for _ in cache.samples(task, tokenizer, ctx, n, seed):
        pass
