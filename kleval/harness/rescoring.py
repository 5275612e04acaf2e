"""Stored answers scored again, without asking: each row's sample and answers go through its task's `step` as they did.

A row whose request failed has no answer and is left alone, as is one that the task would now ask more for; where a task's own code
failed on an answer that is there, the answer gets its score. The rows' files are replaced one by one, each whole or not at all, so
that doing it again after an interruption ends the same. What changed is in run.json, under `amendments`.

A run directory may be somebody else's: no Python file is run because its run.json names it, and no answer is run as code unasked.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kleval.harness.asking import End, checked, fault
from kleval.harness.earlier import stored_completion
from kleval.harness.filing import failure_record, scored
from kleval.harness.manifest import task_record
from kleval.harness.opening import check_code
from kleval.store import Row, RunStore
from kleval.store.manifest import now
from kleval.store.settings import CODE, SCORING
from kleval.tasks.own.metric import Metric, with_metric
from kleval.tasks.registry import load_task
from kleval.text import digest
from kleval.types import Failure, Sample, Score, Task, UsageError

NONE = "none"
FILE = ".py:"


@dataclass(frozen=True, slots=True)
class Rescored:
    """counts: rows that were scored, of them changed, failed (a task's own code) and left (nothing to score). faults: by task, the
    first message of its code. changes: of settings, in words."""

    counts: Mapping[str, int]
    faults: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[str, ...] = ()


def rescore(
    out: Path,
    tasks: Mapping[str, Task] | None = None,
    metric: str | Metric | None = None,
    say: Callable[[str], None] = lambda text: None,
    allow_code_execution: bool = False,
    named: Collection[str] = (),
) -> Rescored:
    """Score the answers in a run directory again.

    tasks: by id, in the place of those that its command named. metric: in the place of theirs (NONE: theirs after all), else the one
    that its command named. UsageError for a task that cannot be loaded, that would be asked otherwise now, or that would run code
    (the answers, unless allowed; a Python file that nobody named here or among `named`).
    """
    store = RunStore.open(out)
    if not store.is_run:
        raise UsageError(f"{out} holds a profile, and no answers to score")
    spec = store.manifest.get("spec", {})
    used = spec.get("metric") if metric is None else None if metric == NONE else metric
    _check_named(store, tasks or {}, used if metric is None else None, {_place(one) for one in named})
    load = with_metric(lambda task_id: _loaded(store, task_id, tasks or {}), used)
    found = {task_id: load(task_id) for task_id in sorted(store.answered_tasks() | _failed_tasks(store))}
    if not found:
        raise UsageError(f"{out} has no answers yet: run its command again to continue it")
    for task_id, task in found.items():
        check_code(task_id, task, allow_code_execution)
        _check_asked(store, task_id, task)
    counts: Counter[str] = Counter(scored=0, changed=0, failed=0, left=0)
    faults: dict[str, str] = {}

    def again(row: Row) -> Row:
        end = _end(store, row, found[row.task])
        if end is None:
            counts["left"] += 1
            return row
        counts["scored"] += 1
        if isinstance(end, Failure):
            counts["failed"] += 1
            faults.setdefault(row.task, end.message)
            made = replace(row, score=None, metrics={}, extracted=None, failure=failure_record(end))
        else:
            made = replace(row, failure=None, **scored(end, found[row.task].metric))
        made = replace(made, metric=found[row.task].metric)
        counts["changed"] += (made.score, made.metrics, made.failed) != (row.score, row.metrics, row.failed)
        return made

    with RunStore.reopen(out) as writer:
        writer.rewrite(again, say)
        changes = _changes(writer.manifest["settings"], found)
        name = used if isinstance(used, str | None) else str(getattr(used, "__name__", "metric"))
        writer.update(**_fields(writer, found, changes, counts, name))
    return Rescored(dict(counts), faults, tuple(_spelled(changes)))


def _spelled(changes: Mapping[str, tuple[Any, Any]]) -> list[str]:
    return [f"{name}: {digest(old)} -> {digest(new)}" for name, (old, new) in changes.items()]


def _loaded(store: RunStore, task_id: str, given: Mapping[str, Task]) -> Task:
    if task_id in given:
        return given[task_id]
    spec, about = store.manifest.get("spec", {}), store.manifest["tasks"].get(task_id, {})
    place = spec.get("haystack") or spec.get("data_dir")
    source = str(about.get("source", task_id))
    try:
        task = load_task(source, about.get("edition", "builtin"), about.get("protocol"), place and Path(place))
    except UsageError as error:
        raise UsageError(f"{task_id} cannot be loaded to score its answers: {error}") from error
    if task.id != task_id:
        raise UsageError(f"{source} is called {task.id} now, and its answers are of {task_id}: name it as it was")
    return task


def _check_named(store: RunStore, given: Mapping[str, Task], metric: Any, named: Collection[str]) -> None:
    """UsageError for Python files that run.json alone names. metric: where that is from run.json."""
    about = store.manifest["tasks"]
    sources = dict.fromkeys(str(about[task_id].get("source", "")) for task_id in sorted(about) if task_id not in given)
    unnamed = [one for one in (*sources, str(metric)) if FILE in one and _place(one) not in named]
    missing = {
        "--tasks": ",".join(one for one in unnamed if one in sources),
        "--metric": metric if metric in unnamed else "",
    }
    if words := " ".join(f"{option} {shlex.quote(value)}" for option, value in missing.items() if value):
        raise UsageError(f"{store.path} was scored by Python files, which are run when they are named: add {words}")


def _place(name: str) -> str:
    """FILE.py:NAME, wherever it was written."""
    file, _, called = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{called}"


def _failed_tasks(store: RunStore) -> set[str]:
    return {place.task for place in store.index.values()}


def _check_asked(store: RunStore, task_id: str, task: Task) -> None:
    """UsageError where other samples, or other prompts, would be asked now: an answer is to its own question."""
    before = store.manifest["tasks"].get(task_id, {})
    now_is = task_record(task)
    names = [name for name in ("version", "edition", "protocol", "data_digest", CODE[0]) if name in before]
    if other := next((name for name in names if before[name] != now_is.get(name)), None):
        what = "its prompts or samples were changed" if other == CODE[0] else f"its {other} is another"
        raise UsageError(f"{task_id} would be asked otherwise now ({what}): give the run another --out and ask again")


def _end(store: RunStore, row: Row, task: Task) -> End | None:
    """The score, or why its task gives none; None where there is nothing to score."""
    if not row.outcomes or any("failure" in record for record in row.outcomes):
        return None
    sample = Sample(
        id=row.id,
        task=row.task,
        ctx=row.ctx,
        index=row.index,
        prompt=store.read_prompt(row),
        references=row.references,
        max_new_tokens=row.max_new_tokens,
        prompt_tokens=row.prompt_tokens,
        answer_prefix=row.answer_prefix,
        meta=row.meta,
    )
    try:
        end = task.step(sample, tuple(stored_completion(record) for record in row.outcomes))
    except UsageError:
        raise
    except Exception as error:
        return fault(task, error)
    if isinstance(end, Score):
        return checked(end, task)
    return end if isinstance(end, Failure) else None


def _changes(settings: Mapping[str, Any], tasks: Mapping[str, Task]) -> dict[str, tuple[Any, Any]]:
    """By name, what scores otherwise than before."""
    found = {
        f"tasks.{task_id}.{name}": value for task_id, task in tasks.items() for name, value in task_record(task).items()
    }
    gone = {f"tasks.{task_id}.{name}" for task_id in tasks for name in SCORING} & set(settings) - set(found)
    new = {**dict.fromkeys(gone), **found}
    return {name: (settings.get(name), value) for name, value in new.items() if settings.get(name) != value}


def _fields(
    store: RunStore,
    tasks: Mapping[str, Task],
    changes: Mapping[str, tuple[Any, Any]],
    counts: Mapping[str, int],
    metric: str | None,
) -> dict[str, Any]:
    """The manifest's fields after it."""
    manifest = store.manifest
    settings = {**manifest["settings"], **{name: new for name, (_, new) in changes.items()}}
    settings = {name: value for name, value in settings.items() if value is not None or name not in changes}
    settings.pop("metric", None)
    if metric is not None:
        settings["metric"] = metric
    known = {task_id: {**manifest["tasks"].get(task_id, {}), **task_record(task)} for task_id, task in tasks.items()}
    said = [f"scored again: {counts['changed']} of {counts['scored']} answers have another score"]
    said += _spelled(changes)
    totals = {**manifest["counts"], **store.counts()}
    whole = totals["finished"] >= totals.get("planned", totals["finished"]) and not totals["failed"]
    status = "complete" if whole and not manifest.get("errors") else manifest["status"]
    return {
        "settings": settings,
        "spec": {**manifest.get("spec", {}), "metric": metric},
        "tasks": {**manifest["tasks"], **known},
        "counts": totals,
        "status": status,
        "amendments": [*manifest["amendments"], {"at": now(), "changes": said}],
    }
