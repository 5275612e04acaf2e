"""Provider of tasks that are named by their file (see `kleval.tasks.registry.Provider`): `./my.py:Task` and `./my.yaml`.

A Python name is a task object, or a class or function that makes one, called with the edition, the protocol and the data folder, or
with nothing. What it does not say has a default: id `own/NAME`, version 1, edition own, protocol own-1.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from kleval.tasks.own.files import attribute, said
from kleval.tasks.own.plain import PlainTask
from kleval.types import Task, UsageError

HINT = "name a file: ./my.py:Task or ./my.yaml"
OF_DOCUMENTS = True
DEFAULTS = {"version": "1", "edition": "own", "protocol": "own-1", "data_revision": "generated", "data_digest": ""}
_ID = re.compile(r"[\w.-]+/[\w./-]+")


def expand(name: str, edition: str) -> list[str]:
    return [name]


def load(name: str, edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    """The task of a file. UsageError for anything that is none, with what it lacks."""
    if not name.rpartition(":")[0].endswith(".py"):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UsageError(f"{name}: there is no file {path}")
        return _checked(PlainTask(path), name)
    found = attribute(name)
    if isinstance(found, type) or inspect.isroutine(found):
        try:
            signature = inspect.signature(found)
            given: tuple[Any, ...] = ("own", protocol, data_dir)
            try:
                signature.bind(*given)
            except TypeError:
                given = ()
            found = found(*given)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{name} cannot be made: {said(error)}") from error
    return _checked(found, name)


def _checked(task: Any, name: str) -> Task:
    """The task, with what it does not say itself. UsageError for what it lacks."""
    if missing := [method for method in ("samples", "step") if not callable(getattr(task, method, None))]:
        takes = {"samples": "samples(tokenizer, ctx, n, seed)", "step": "step(sample, outcomes)"}
        raise UsageError(
            f"{name} is no task, it has no {' and no '.join(takes[one] for one in missing)}: see docs/your_task.md"
        )
    own = name.rpartition(":")[2] if ".py:" in name else Path(name).stem
    for field, default in {"id": f"own/{own}", **DEFAULTS}.items():
        if not isinstance(getattr(task, field, None), str):
            setattr(task, field, default)
    if not isinstance(getattr(task, "metric", None), str):
        raise UsageError(
            f'{name} has no metric: say which of its score\'s metrics is the headline, like metric = "exact"'
        )
    if "/" not in task.id:
        task.id = f"own/{task.id}"
    if not _ID.fullmatch(task.id):
        raise UsageError(f"{name} is called {task.id!r}: an id is family/task, of letters, digits, '.', '_' and '-'")
    from kleval.tasks.registry import TASKS

    if task.id in TASKS:
        raise UsageError(f"{name} is called {task.id}, as one of kleval's own tasks is: give it another id")
    made: Task = task
    return made


def verify(name: str, data_dir: Path | None) -> list[Any]:
    raise UsageError(f"{name} is a file of your own: there is nothing to verify")


def fetch(name: str, data_dir: Path | None, progress: Any) -> list[Any]:
    raise UsageError(f"{name} is a file of your own: there is nothing to fetch")
