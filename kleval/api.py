"""kleval in two calls: `evaluate` does what `kleval run` does, `load_backend` opens what answers.

Both take objects of your own where they take names: a `kleval.types.Task` beside task ids, a `kleval.types.Backend` in
place of a model's name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from kleval.backends.registry import open_backend as load_backend
from kleval.backends.spec import BackendSpec
from kleval.harness import RunSpec
from kleval.harness import run as run_spec
from kleval.lengths import parse_lengths
from kleval.store import Row, RunStore
from kleval.suites import suite as find_suite
from kleval.tables.leaderboard import to_rows
from kleval.tasks.registry import expand, groups, loader, themselves
from kleval.types import Backend, Task, UsageError
from kleval.work import Result
from kleval.work.events import Event

__all__ = ["Evaluation", "evaluate", "load_backend"]

_ENGINE = {f.name for f in fields(BackendSpec)} - {"model"}
_RUN = {f.name for f in fields(RunSpec)} - {
    "models",
    "tasks",
    "ctxs",
    "out",
    "suite",
    "groups",
    "named",
    "judge_model",
    "dry_run",
}
_PATHS = ("data_dir", "sample_cache")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation came to. out: its run directory, which `kleval report` and `kleval leaderboard` read."""

    result: Result
    out: Path

    @property
    def rows(self) -> list[Row]:
        """Every answer as it is stored: score, failure, outcomes, what was extracted."""
        return list(RunStore.open(self.out).rows())

    @property
    def scores(self) -> list[dict[str, Any]]:
        """One dict per model, task, length and metric, as in leaderboard.csv: `value` with interval, n, failures."""
        return to_rows([RunStore.open(self.out)])


def evaluate(
    model: str | Backend | Sequence[str | Backend],
    tasks: str | Task | Sequence[str | Task] | None = None,
    ctx: int | str | Iterable[int | str] | None = None,
    *,
    suite: str | None = None,
    out: Path | str | None = None,
    judge: str | Backend | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **settings: Any,
) -> Evaluation:
    """Models on tasks at lengths (tokens), as `kleval run`; nothing is printed.

    tasks: ids, families or objects; else those of `suite`, `long` unless named. ctx: tokens, or texts as `--ctx` takes them
    ("4k,128k"); the suite's, else 4096, unless given.
    out: a run directory, which the same call continues; None: a new temporary one. judge: answers `judge` requests; settings
    are not for it. settings: fields of `kleval.harness.RunSpec` (limit, repeats, seed, temperature, edition, protocol,
    data_dir, max_errors …) and of `kleval.backends.spec.BackendSpec` (backend, device, dtype, base_url, engine_args …).
    Failed requests are failures in the rows, never exceptions. UsageError: what is asked cannot be done.
    """
    if unknown := set(settings) - _ENGINE - _RUN:
        raise UsageError(f"evaluate takes no {', '.join(sorted(unknown))}: see RunSpec and BackendSpec")
    models = _by_name("model", _listed(model), _name)
    settings = {k: v for k, v in settings.items() if not (k == "limit" and v is None)}
    settings |= {name: Path(settings[name]) for name in _PATHS if isinstance(settings.get(name), str)}
    if tasks is not None and suite is not None:
        raise UsageError("give tasks or a suite, not both")
    if tasks is None:
        found = find_suite(suite or "long")
        settings.setdefault("limit", found.limit or RunSpec.__dataclass_fields__["limit"].default)
        if found.edition is not None and settings.setdefault("edition", found.edition) != found.edition:
            raise UsageError(f"suite {found.name} is of the {found.edition} edition: leave out edition")
        if found.temperature is not None:
            settings.setdefault("temperature", found.temperature)
        tasks, suite = found.tasks, found.name
        if ctx is None and (lengths := found.lengths(settings.get("edition", "builtin"))):
            ctx = parse_lengths(lengths)
    ctx = 4096 if ctx is None else ctx
    edition = settings.get("edition", "builtin")
    given_tasks = _listed(tasks)
    named = [task for task in given_tasks if isinstance(task, str)]
    own = _by_name("task", [task for task in given_tasks if not isinstance(task, str)], _id)
    kept = {*expand(named, edition), *own}
    ids = dict.fromkeys(
        name
        for task in given_tasks
        if not (isinstance(task, str) and task.startswith("-"))
        for name in (expand([task], edition) if isinstance(task, str) else [task.id])
        if name in kept
    )
    spec = RunSpec(
        models=tuple(models),
        tasks=tuple(ids),
        ctxs=_lengths(ctx),
        out=None if out is None else Path(out),
        suite=suite,
        named=() if suite else (*themselves(named), *own),
        groups=groups(named, edition),
        judge_model=None if judge is None else _name(judge),
        **{key: value for key, value in settings.items() if key in _RUN},
    )
    engine = {key: value for key, value in settings.items() if key in _ENGINE}
    load = loader([name for name in ids if name not in own], spec.edition, spec.protocol, spec.data_dir)

    def opened(name: str) -> Backend:
        given = models.get(name, name)
        return load_backend(name, **engine) if isinstance(given, str) else _Lent(given)

    def opened_judge(name: str) -> Backend:
        assert judge is not None
        return load_backend(judge) if isinstance(judge, str) else _Lent(judge)

    def task(name: str) -> Task:
        return own[name] if name in own else load(name)

    folder = Path(tempfile.mkdtemp(prefix="kleval-") if spec.out is None else spec.out)
    try:
        result = run_spec(replace(spec, out=folder), opened, task, on_event, open_judge=opened_judge)
    except UsageError:
        if out is None and not RunStore.exists(folder):
            shutil.rmtree(folder)
        raise
    return Evaluation(result, folder)


class _Lent:
    """A backend that its owner closes, not the run."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        pass


def _listed(given: Any) -> list[Any]:
    one = (
        isinstance(given, str) or hasattr(given, "run") or hasattr(given, "samples") or not isinstance(given, Iterable)
    )
    return [given] if one else list(given)


def _lengths(ctx: int | str | Iterable[int | str]) -> tuple[int, ...]:
    """Lengths in tokens, texts read as `--ctx` reads them; RunSpec.check refuses what is no length."""
    found = [parse_lengths(one) if isinstance(one, str) else (one,) for one in _listed(ctx)]
    return tuple(dict.fromkeys(length for lengths in found for length in lengths))


def _by_name(what: str, given: Iterable[Any], name: Callable[[Any], str]) -> dict[str, Any]:
    """By name, each once. UsageError when two different ones have the same, under which rows could not be told apart."""
    found: dict[str, Any] = {}
    for one in given:
        if found.setdefault(name(one), one) is not one and not isinstance(one, str):
            raise UsageError(f"two {what}s are called {name(one)!r}: give each a name of its own")
    return found


def _name(model: Any) -> str:
    if isinstance(model, str):
        return model
    if isinstance(model, type) or not (hasattr(model, "run") and isinstance(getattr(model, "model", None), str)):
        raise UsageError(f"{model!r} is no model: give a name or an object that is a kleval.types.Backend")
    return str(model.model)


def _id(task: Any) -> str:
    if isinstance(task, type) or not (hasattr(task, "step") and isinstance(getattr(task, "id", None), str)):
        raise UsageError(f"{task!r} is no task: give an id or an object that is a kleval.types.Task")
    return str(task.id)
