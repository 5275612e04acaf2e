"""Index of lm-eval's tasks, groups and tags, and the tasks that `lm_eval/NAME` or `lm_eval/NAME:8shot` stands for.

lm-eval's own TaskManager reads all of its 14,000 files whole, which takes ten seconds; what a name needs is in a few of their
top-level keys, and reading those alone takes a fifth of that. A name is a task, a group (which lists tasks, groups and tags) or a
tag (which tasks carry). `:Nshot` asks with N examples instead of the task's own number.
"""

from __future__ import annotations

import difflib
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from kleval.packages import install_line
from kleval.types import UsageError

PREFIX = "lm_eval/"
_ID = re.compile(r"lm_eval/(?P<name>[^:\s]+)(?::(?P<shots>\d+)shot)?")
# A top-level key that names something, with the lines that belong to it.
_TOP = re.compile(r"^[\"']?(?:task|group|tag|include|class)[\"']?[ \t]*:.*\n?(?:(?:[ \t#-].*)?\n)*", re.MULTILINE)
_SKIPPED = {"__pycache__", ".ipynb_checkpoints"}
# What of a group, or of an entry in its list, says nothing about how its tasks are asked.
_STRUCTURE = {"group", "group_alias", "task", "task_alias", "aggregate_metric_list", "metadata", "tag", "include"}
_asked: dict[str, str] = {}


@dataclass(slots=True)
class Entry:
    """file: the YAML that defines it; None for a tag. tasks: that carry a tag."""

    kind: Literal["task", "group", "tag"]
    file: Path | None
    tasks: set[str] = field(default_factory=set)


def version() -> str:
    """The installed lm-eval's. UsageError with the line that installs it when there is none."""
    try:
        return metadata.version("lm_eval")
    except metadata.PackageNotFoundError:
        raise UsageError(f"tasks named lm_eval/… need lm-eval: {install_line('lm-eval')}") from None


def installed() -> bool:
    return util.find_spec("lm_eval") is not None


def parse(task_id: str) -> tuple[str, int | None]:
    """lm-eval's name and the number of examples asked for, None where the task's own holds."""
    match = _ID.fullmatch(task_id)
    if match is None:
        raise UsageError(
            f"{task_id!r} is no task of lm-eval: write lm_eval/NAME or lm_eval/NAME:5shot, as lm_eval/gsm8k"
        )
    return match["name"], None if match["shots"] is None else int(match["shots"])


def expand(task_id: str) -> list[str]:
    """Ids of the tasks that `lm_eval/NAME` stands for. UsageError with the nearest names when there is no such."""
    name, shots = parse(task_id)
    if find(name).kind == "task":
        return [task_id]
    leaves = [_id(leaf, own if shots is None else shots) for leaf, own in dict(_leaves(name, None, ())).items()]
    _asked.update({leaf: task_id for leaf in leaves if leaf not in _asked})
    return leaves


def asked_as(task_id: str) -> str:
    """The group that brought a task in, where one did: `kleval data fetch` gets all of its data at once."""
    return _asked.get(task_id, task_id)


def find(name: str) -> Entry:
    """The entry of a task, group or tag. UsageError with the nearest names."""
    entries = index()
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.6)
        near = near or sorted((n for n in entries if name and name in n), key=len)[:3]
        hint = f"did you mean {' or '.join(PREFIX + n for n in near)}?" if near else "`lm-eval ls tasks` lists them"
        raise UsageError(f"lm-eval {version()} has no task {name!r}: {hint}")
    return entries[name]


@cache
def index() -> Mapping[str, Entry]:
    """Every name of the installed lm-eval. The first file (by path) that defines a name keeps it, as in TaskManager."""
    version()
    spec = util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"tasks named lm_eval/… need lm-eval, which cannot be imported: {install_line('lm-eval')}")
    entries: dict[str, Entry] = {}
    heads: dict[Path, dict[str, Any]] = {}
    for file in sorted((Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml"), key=Path.as_posix):
        if _SKIPPED.isdisjoint(file.parts):
            head = _names(file, heads)
            kind: Literal["task", "group"] = "group" if "group" in head and "class" not in head else "task"
            name = head.get(kind)
            if not isinstance(name, str) or name in entries:
                continue
            entries[name] = Entry(kind, file)
            if kind == "task":
                for tag in _listed(head.get("tag") or ()):
                    entries.setdefault(tag, Entry("tag", None)).tasks.add(name)
    return entries


def _names(file: Path, known: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """The top-level keys of a file that name something, and below them those of the files that it includes. Empty where it is no
    YAML."""
    import yaml

    if file in known:
        return known[file]
    known[file] = {}  # where it includes itself
    try:
        heads = "".join(_TOP.findall(file.read_text("utf-8", errors="replace") + "\n")).replace("!function ", "")
        own = yaml.load(heads, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except (OSError, yaml.YAMLError):
        return {}
    included = [_names((file.parent / other).resolve(), known) for other in _listed(own.pop("include", None) or ())]
    known[file] = dict(ChainMap(own, *reversed(included)))
    return known[file]


def _listed(value: Any) -> list[str]:
    """A name, or a list of them, as a list."""
    return [value] if isinstance(value, str) else list(value)


def config(name: str) -> dict[str, Any]:
    """The YAML of a task or group with everything it includes; functions as text. UsageError for an unknown name or a tag."""
    return dict(manager(name).task_index[name].cfg or {})


def manager(name: str) -> Any:
    """lm-eval's TaskManager over the folder that a task or group is defined in."""
    file = find(name).file
    if file is None:
        raise UsageError(f"lm_eval/{name} is a tag of tasks, not a task or group of its own")
    return _manager_of(file.parent)


@lru_cache(maxsize=64)
def _manager_of(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


def _leaves(name: str, shots: int | None, above: tuple[str, ...]) -> Iterator[tuple[str, int | None]]:
    """(task, number of examples where a group sets it) of everything that a name stands for."""
    entry = find(name)
    if entry.kind == "task":
        yield name, shots
    elif entry.kind == "tag":
        yield from ((task, shots) for task in sorted(entry.tasks))
    elif name in above:
        raise UsageError(f"lm-eval's group {name!r} contains itself")
    else:
        yield from _members(name, config(name), shots, (*above, name))


def _members(
    group: str, given: Mapping[str, Any], shots: int | None, above: tuple[str, ...]
) -> Iterator[tuple[str, int | None]]:
    """The same of a group, or of an entry of its list. UsageError where it changes more of its tasks than their examples' number."""
    if changed := set(given) - _STRUCTURE - {"num_fewshot"}:
        raise UsageError(
            f"lm-eval's group {group!r} changes {', '.join(sorted(changed))} of its tasks, which kleval does not follow:"
            " name its tasks one by one"
        )
    own = given.get("num_fewshot")
    shots = shots if own is None else int(own)
    inner: Any = given.get("task")
    for item in inner if isinstance(inner, list) else [given.get("group") or str(inner)]:
        if not isinstance(item, str):
            yield from _members(group, item, shots, above)
        elif item in index():
            yield from _leaves(item, shots, above)
        else:
            raise UsageError(
                f"lm-eval's group {group!r} defines tasks of its own ({item}), which have no name to be asked by:"
                " choose another group"
            )


def _id(name: str, shots: int | None) -> str:
    return PREFIX + name + ("" if shots is None else f":{shots}shot")
