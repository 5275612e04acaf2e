"""Completion of the names that options and arguments take: models, tasks, suites, backends, in comma lists too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _models() -> Iterable[str]:
    from kleval.models.registry import MODELS

    return dict.fromkeys(part for name in MODELS for part in (name.partition("@")[0], name))


def _shapes() -> Iterable[str]:
    from kleval.models.published import PUBLISHED

    return [*PUBLISHED, *_models()]


def _tasks() -> Iterable[str]:
    from kleval.tasks.registry import all_tasks, families

    return [*families(), *all_tasks()]


def _suites() -> Iterable[str]:
    from kleval.suites import SUITES

    return SUITES


def _backends() -> Iterable[str]:
    from kleval.backends.registry import all_backends

    return ["auto", *all_backends()]


def _data() -> Iterable[str]:
    from kleval.tasks.assets import ASSETS

    return ASSETS


def _of(names: Callable[[], Iterable[str]], lists: bool = False, files: bool = False) -> Complete:
    """lists: several, by commas, those of `--tasks` with a `-` before what is left out. files: a path is one too."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if lists else ("", "", incomplete)
        minus = "-" if comma and last.startswith("-") else ""
        taken = set(before.split(","))
        found = [name for name in names() if name.startswith(last.removeprefix(minus)) and name not in taken]
        if files and not found and not comma:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(f"{before}{comma}{minus}{name}") for name in found]

    return complete


models = _of(_models, lists=True, files=True)
shapes = _of(_shapes, lists=True, files=True)
one_shape = _of(_shapes, files=True)
tasks = _of(_tasks, lists=True)
one_task = _of(_tasks)
suites = _of(_suites)
backends = _of(_backends)
data = _of(_data)
editions = _of(lambda: ("builtin", "official"))
