"""Spec of a run: a command as data, checked before anything is opened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.backends.reasoning import tags
from kleval.harness.shards import parse
from kleval.types import UsageError
from kleval.work import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec(Spec):
    """A command. Those marked * change results: a run directory belongs to one value of each.

    models*: as `open_backend` takes them. tasks*: task ids, families already expanded, and files. ctxs*: tokens. limit*: samples per
    task and ctx. repeats*: answers per sample. edition*, protocol*: None is each task's default. seed*: of samples and of
    sampling. temperature*, top_p*: None keeps each task's own. judge_model*: answers `judge` requests.
    max_new_tokens*: generation budgets are raised to it, and prompts are made that much shorter than ctx; None keeps each task's own.
    reasoning*: which reasoning is told apart from an answer (`kleval.backends.reasoning.tags`).
    add_bos*, template_args*: of the models' begin token and chat template (`kleval.tokenization.asked_with`).
    metric*: takes the place of the tasks' own (`kleval.tasks.own.metric`). haystack*: the user's documents, which needles are put into.
    tokenizer*: counts the samples' lengths in another tokenizer than the model's; the model still gets its own token ids.
    shard*: `3/8`, the third of eight parts of the run (`kleval.harness.shards`); None is all of it.
    max_errors: None, any failure makes the run incomplete and none ends it early; a count (>= 1) or a share of all
    answers (< 1), up to that many are tolerated and more end the run.
    max_cost, max_requests: all sessions of the run together spend no more (`kleval.harness.spending`). price_per_mtok: of a million
    tokens (read, written) or (read, written, cached); judge_price_per_mtok: the judge's, where it has another.
    retries: how often a request is asked again after a failure that may pass. retry_seconds: the first wait, then doubled.
    sample_cache, workers: where samples are kept (None: nowhere), and how many processes make them ahead.
    window_tokens: about how many tokens of samples are held in memory, and so offered to the backend, at once.
    allow_code_execution: let tasks run what a model writes, in a sandbox.
    amend: let models, tasks, ctxs, limit and repeats grow in an existing run directory.
    ctxs_given: False where the lengths are the command's own: a task whose prompts do not grow is then asked at the longest alone.
    named: those of the tasks that were named themselves; one that fits at no length is refused, where one of a family or suite is
    skipped; None: all of them.
    groups: names that stand for several of the tasks and get a mean over them.
    name, tags: what people call the run and tell it by. suite, command, options (by parameter, as given): for the record.
    executor, devices, ray_address, gpus_per_model: where replicas of the models answer (`kleval.work.executors`).
    backend, device, dtype, batch, memory_budget, data_dir: for whoever opens backends and tasks; recorded, not used here (but a window
    holds at least `batch` samples).
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...]
    ctxs: tuple[int, ...]
    out: Path | None = None
    limit: int = 10
    repeats: int = 1
    edition: str = "builtin"
    protocol: str | None = None
    seed: int = 42
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    reasoning: str = "auto"
    add_bos: str = "auto"
    template_args: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    haystack: Path | None = None
    tokenizer: str | None = None
    judge_model: str | None = None
    shard: str | None = None
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    executor: str = "local"
    devices: tuple[str, ...] = ()
    ray_address: str | None = None
    gpus_per_model: float | None = None
    batch: int | None = None
    memory_budget: int | str | None = None
    data_dir: Path | None = None
    max_errors: float | None = None
    max_cost: float | None = None
    max_requests: int | None = None
    price_per_mtok: tuple[float, ...] | None = None
    judge_price_per_mtok: tuple[float, ...] | None = None
    retries: int = 3
    retry_seconds: float = 1.0
    sample_cache: Path | None = None
    workers: int = 0
    window_tokens: int = 1 << 19
    allow_code_execution: bool = False
    amend: bool = False
    dry_run: bool = False
    suite: str | None = None
    ctxs_given: bool = True
    named: tuple[str, ...] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    verified: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """UsageError for what cannot be run as asked."""
        for name, what in (("models", "model"), ("tasks", "task"), ("ctxs", "context length")):
            if not getattr(self, name):
                raise UsageError(f"no {what} given: name at least one")
        if self.edition == "own" and self.haystack is None:
            raise UsageError("edition own is of documents of your own: name them with --haystack FILE")
        for ctx in self.ctxs:
            if not _whole(ctx):
                raise UsageError(f"a context length is a whole number of at least 1 token, not {ctx!r}")
        for name in ("limit", "repeats"):
            if not _whole(getattr(self, name)):
                raise UsageError(f"--{name} is at least 1, not {getattr(self, name)!r}")
        if not (self.temperature is None or _between(0, self.temperature)):
            raise UsageError(f"--temperature is 0 (greedy) or a number above it, not {self.temperature!r}")
        if not (self.top_p is None or (_between(0, self.top_p, 1) and self.top_p)):
            raise UsageError(f"top_p is above 0 and at most 1, not {self.top_p!r}")
        if not (self.max_new_tokens is None or _whole(self.max_new_tokens)):
            raise UsageError(f"--max-new-tokens is at least 1, not {self.max_new_tokens!r}")
        tags(self.reasoning)
        if self.shard is not None:
            parse(self.shard)
            if self.amend:
                raise UsageError("--amend extends a whole run: merge the shards first, then amend the merged directory")
        if not (self.max_errors is None or _between(0, self.max_errors)):
            raise UsageError(f"--max-errors is a count or a share below 1, not {self.max_errors!r}")
        if not (self.max_requests is None or _whole(self.max_requests)):
            raise UsageError(f"--max-requests is at least 1, not {self.max_requests!r}")
        if not (self.max_cost is None or (_between(0, self.max_cost) and self.max_cost)):
            raise UsageError(f"--max-cost is a number above 0, not {self.max_cost!r}")
        for name in ("price_per_mtok", "judge_price_per_mtok"):
            price = getattr(self, name)
            if not (price is None or (len(price) in (2, 3) and all(_between(0, one) for one in price))):
                option = name.replace("_", "-")
                raise UsageError(f"--{option} is IN,OUT or IN,OUT,CACHED, what a million tokens cost, not {price!r}")
        if self.price_per_mtok is None and (self.max_cost is not None or self.judge_price_per_mtok is not None):
            given = "--judge-price-per-mtok" if self.max_cost is None else "--max-cost"
            raise UsageError(f"{given} needs --price-per-mtok IN,OUT: what a million tokens cost")
        Spec.check(self)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _between(low: float, value: object, high: float = math.inf) -> bool:
    """Whether it is a number in that range, which neither NaN nor infinity is."""
    return isinstance(value, int | float) and math.isfinite(value) and low <= value <= high
