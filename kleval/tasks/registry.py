"""Registry of tasks: their ids, and the task object of an id.

PROVIDERS has a line per family: how its ids begin, and its package, whose `card.toml` lists the tasks (`kleval.tasks.cards`); or the
module with the members of `Provider`, of tasks too many to be listed. A task that is one file has a line of its own: its id, and
`module:attribute`. The attribute is called with (edition, protocol or None, data_dir or None), that of `module:attribute:NAME` with
NAME before these; TASKS has it for every task that is listed. Other packages add theirs as entry points of the group `kleval.tasks`,
named `family/task`. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol, cast

from kleval.files import family_facts
from kleval.packages import broken, load, plugins
from kleval.tasks import likelihood
from kleval.types import Task, UsageError


class UnknownProtocol(UsageError):
    """A task has no protocol of that name."""


class Provider(Protocol):
    """Tasks that are looked up by name and not listed. HINT: what to do for one who names the provider alone."""

    HINT: str
    OF_DOCUMENTS: bool  # whether its tasks are of the user's own files, so that edition own is theirs

    def expand(self, name: str, edition: str) -> list[str]:
        """Ids of the tasks that a name stands for: itself, or a group's. UsageError with the nearest names."""
        ...

    def load(self, task_id: str, edition: str, protocol: str | None, data_dir: Path | None) -> Task: ...

    def verify(self, name: str, data_dir: Path | None) -> list[Any]:
        """A `kleval.tasks.data.Status` for every file that a task or group reads."""
        ...

    def fetch(self, name: str, data_dir: Path | None, progress: Any) -> list[Any]:
        """The same, after getting what is missing. progress: a `kleval.tasks.download.Progress`, or None."""
        ...


GROUP = "kleval.tasks"
MEMBERS = ("id", "version", "metric", "protocol", "samples", "step")  # of every task
EDITIONS, OWN = ("builtin", "official"), "own"  # own: of the user's documents (--haystack)
PROVIDERS: dict[str, str] = {
    "ruler/": "kleval.tasks.ruler",
    "repoqa/": "kleval.tasks.repoqa",
    "lca/": "kleval.tasks.lca",
    "mrcr/": "kleval.tasks.mrcr",
    "mrcr_v2/": "kleval.tasks.mrcr",
    "longbench2/": "kleval.tasks.longbench2",
    "helmet_icl/": "kleval.tasks.helmet_icl",
    "frames/": "kleval.tasks.frames",
    "graphwalks/": "kleval.tasks.graphwalks",
    "babilong/": "kleval.tasks.babilong",
    "oolong/": "kleval.tasks.oolong",
    "nolima/": "kleval.tasks.nolima",
    "aa_lcr/": "kleval.tasks.aa_lcr",
    "longbench_pro/": "kleval.tasks.longbench_pro",
    "synthetic/": "kleval.tasks.synthetic",
    "short/": "kleval.tasks.short",
    "code/": "kleval.tasks.code",
    "lm_eval/": "kleval.tasks.lm_eval.provider",
    "ppl:": "kleval.tasks.ppl.provider",
}
OWN_FILES = "kleval.tasks.own.provider"  # of ids that are files
_FILE = re.compile(r".+\.py:\w*|.+\.ya?ml")


def listed(begins: str, where: str) -> dict[str, str]:
    """The tasks of a line of PROVIDERS, `module:attribute` by id; empty where its module knows them."""
    if ":" in where:
        return {begins: where}
    tasks: Mapping[str, str] = family_facts(begins.removesuffix("/")).get("tasks", {})
    return {begins + name: f"{where}.{target}" for name, target in tasks.items()}


TASKS: dict[str, str] = {}
OPEN: dict[str, str] = {}  # the lines of PROVIDERS whose modules know their tasks
for _begins, _where in PROVIDERS.items():
    TASKS |= (_found := listed(_begins, _where))
    if not _found:
        OPEN[_begins] = _where


# Tasks that the user's documents may be the haystack of (`--haystack`, edition `own`).
TAKE_DOCUMENTS = tuple(
    begins + name for begins in PROVIDERS for name in family_facts(begins.removesuffix("/")).get("documents", ())
)


@cache
def all_tasks() -> dict[str, str]:
    """TASKS and the entry points of other packages; a name of ours cannot be taken over."""
    return {**{name: plugin.value for name, plugin in plugins(GROUP).items()}, **TASKS}


def provider(name: str) -> Provider | None:
    """The provider of a task id or group, by how it begins, or of a file; None for what is listed in TASKS."""
    module = next((module for prefix, module in OPEN.items() if name.startswith(prefix)), None)
    if module is None and _FILE.fullmatch(name):
        module = OWN_FILES
    return None if module is None else cast(Provider, import_module(module))


def families() -> dict[str, list[str]]:
    """Family -> its task ids, in registry order."""
    grouped: dict[str, list[str]] = {}
    for task_id in all_tasks():
        grouped.setdefault(task_id.partition("/")[0], []).append(task_id)
    return grouped


def expand(names: Sequence[str], edition: str = "builtin") -> list[str]:
    """Task ids for names of tasks and families and for patterns (`ruler/niah_*`), order kept, duplicates dropped; without those of
    names that begin with `-`. UsageError with the nearest names, and for a `-` name that takes nothing away.

    edition: the one they are for: a provider's group may be one task in the builtin edition, and many in the official one.
    """
    without = {task: name for name in names if name.startswith("-") for task in _ids(name[1:], edition)}
    found = dict.fromkeys(task for name in names if not name.startswith("-") for task in _ids(name, edition))
    if idle := set(without.values()) - {without[task] for task in found if task in without}:
        raise UsageError(
            f"{' '.join(sorted(idle))} takes no task away: write it beside what it belongs to, like ruler,-ruler/cwe"
        )
    left = [task for task in found if task not in without]
    if names and not left:
        raise UsageError(f"{','.join(names)} leaves no task")
    return left


def themselves(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that are a task and no family, pattern or exclusion: what was asked for by its own name."""
    return tuple(
        name
        for name in names
        if not name.startswith("-") and (provider(name) is not None or ("/" in name and not _is_pattern(name)))
    )


def _is_pattern(name: str) -> bool:
    return any(mark in name for mark in "*?[")


def _ids(name: str, edition: str) -> Sequence[str]:
    """Of the tasks that one name stands for; of a family those that take the user's documents, in that edition."""
    found = _every(name, edition)
    if edition != OWN or ((provided := provider(name)) is not None and provided.OF_DOCUMENTS):
        return found
    taking = [task for task in found if task in TAKE_DOCUMENTS]
    if taking and (name not in all_tasks() or name in TAKE_DOCUMENTS):
        return taking
    raise UsageError(f"{name} has no haystack of prose: --haystack is for {', '.join(TAKE_DOCUMENTS)}")


def _every(name: str, edition: str) -> Sequence[str]:
    """Ids of the tasks that a name stands for in any edition."""
    if (provided := provider(name)) is not None:
        return provided.expand(name, edition)
    if _is_pattern(name):
        if found := [task for task in all_tasks() if fnmatch.fnmatchcase(task, name)]:
            return found
        raise UsageError(f"no task is called like {name!r}: `kleval ls tasks` lists them")
    ids = [name] if name in all_tasks() else families().get(name)
    if ids is None:
        raise UsageError(f"unknown task {name!r}: {_nearest(name)}")
    return ids


def groups(names: Sequence[str], edition: str = "builtin") -> dict[str, tuple[str, ...]]:
    """Those of the names that are groups of a provider's, and so have a mean, with their tasks."""
    left = set(expand(names, edition))
    found = {name: tuple(_every(name, edition)) for name in names if provider(name) is not None}
    return {name: tasks for name, tasks in found.items() if tasks != (name,) and left.issuperset(tasks)}


def load_task(
    task_id: str, edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None
) -> Task:
    """The task object, ready to make samples.

    data_dir: where the files of the official edition lie (`kleval data fetch FAMILY` puts them there).
    UsageError for an unknown task, edition or protocol and for a missing file, naming what gets it.
    """
    task = make_task(task_id, edition, protocol, data_dir)
    _ = task.data_digest  # some look for their files only when they are asked about them
    return task


def make_task(
    task_id: str, edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None
) -> Task:
    """As `load_task`, but what the official edition reads need not be here where a task's card can be shown without."""
    if (own := likelihood.inner(protocol)) is not None:
        return cast(Task, likelihood.Likelihood(make_task(task_id, edition, own or None, data_dir)))
    if edition not in EDITIONS and edition != OWN:
        raise UsageError(f"unknown edition {edition!r}: {_did_you_mean(edition, EDITIONS)}")
    if (provided := provider(task_id)) is not None:
        return provided.load(task_id, edition, protocol, data_dir)
    target = all_tasks().get(task_id)
    if target is None:
        if task_id in families():
            raise UsageError(f"{task_id!r} is a family: name one of {', '.join(families()[task_id])}")
        raise UsageError(f"unknown task {task_id!r}: {_nearest(task_id)}")
    if task_id not in TASKS:
        return _of_plugin(plugins(GROUP)[task_id], edition, protocol, data_dir)
    module, attribute, *name = target.split(":")
    return cast(Task, getattr(import_module(module), attribute)(*name, edition, protocol, data_dir))


def _of_plugin(plugin: metadata.EntryPoint, edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    """The task that another package brings. UsageError that names the package where it cannot be made or is none."""
    make = load(plugin)
    try:
        task = make(edition, protocol, data_dir)
        if lacking := [name for name in MEMBERS if not hasattr(task, name)]:
            raise TypeError(f"what it points to makes no task: it has no {', '.join(lacking)}")
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise broken(plugin, error) from error
    return cast(Task, task)


def loader(
    task_ids: Sequence[str],
    edition: str = "builtin",
    protocol: str | None = None,
    data_dir: Path | None = None,
    load_one: Callable[[str, str, str | None, Path | None], Task] = load_task,
) -> Callable[[str], Task]:
    """`load_one` for the tasks of one run, of several families: a protocol (of several, by commas, the first) is for those that
    know it, and one that none of them knows is the UsageError of `load_one`. `likelihood` is for all, of what the others name."""
    named = [None] if protocol is None else [name.strip() for name in protocol.split(",")]
    default = None
    if likelihood.PROTOCOL in named:
        default = likelihood.PROTOCOL
        named = [f"{default}:{name}" for name in named if name and name != default] or [default]
    refused: set[tuple[str, str | None]] = set()

    def load(task_id: str) -> Task:
        for one in named:
            try:
                return load_one(task_id, edition, one, data_dir)
            except UnknownProtocol:
                refused.add((task_id, one))
                if sum(name == one for _, name in refused) == len(set(task_ids)):
                    raise
        return load_one(task_id, edition, default, data_dir)

    return load


def check_protocol(task_id: str, protocol: str | None, known: Sequence[str]) -> str:
    """The protocol to use: the first of `known` when none is asked for. UsageError when it is not among them."""
    if protocol is None:
        return known[0]
    if protocol not in known:
        raise UnknownProtocol(f"{task_id} has no protocol {protocol!r}: {_did_you_mean(protocol, known)}")
    return protocol


def _nearest(name: str) -> str:
    if (provided := provider(f"{name}/")) is not None:
        return provided.HINT
    # Short names count too: "niah_single_1" for "ruler/niah_single_1".
    short = {task_id.partition("/")[2]: task_id for task_id in all_tasks()}
    near = [short.get(n, n) for n in difflib.get_close_matches(name, [*families(), *all_tasks(), *short], n=3)]
    near = list(dict.fromkeys(near))
    return f"did you mean {' or '.join(near)}?" if near else "`kleval ls tasks` lists them"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}"
