"""Index of lm-eval's tasks, groups and tags, and the tasks that `lm_eval/NAME` or `lm_eval/NAME:8shot` stands for.

lm-eval's own TaskManager reads all of its 14,000 files as YAML, which takes ten seconds; what a name needs is in their
first lines, and reading those alone takes under one. A name is a task, a group (which lists tasks, groups and tags) or a
tag (which tasks carry). `:Nshot` asks with N examples instead of the task's own number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

from kleval.packages import install_line
from kleval.types import UsageError

PREFIX = "lm_eval/"
_ID = re.compile(r"lm_eval/(?P<name>[^:\s]+)(?::(?P<shots>\d+)shot)?")
_TOP = re.compile(r"^[\"']?(task|group|tag|include|class)[\"']?[ \t]*:[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_ITEM = re.compile(r"[ \t]*-[ \t]+(.+?)[ \t]*(?:\n|\Z)")
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
    heads: dict[Path, dict[str, list[str]]] = {}
    for file in sorted((Path(spec.submodule_search_locations[0]) / "tasks").rglob("*.yaml"), key=Path.as_posix):
        if _SKIPPED.isdisjoint(file.parts):
            head = _head(file, heads)
            kind: Literal["task", "group"] = "group" if "group" in head and "class" not in head else "task"
            name = next(iter(head.get(kind, ())), None)
            if name is None or name in entries:
                continue
            entries[name] = Entry(kind, file)
            if kind == "task":
                for tag in head.get("tag", ()):
                    entries.setdefault(tag, Entry("tag", None)).tasks.add(name)
    return entries


def _head(file: Path, heads: dict[Path, dict[str, list[str]]], depth: int = 0) -> dict[str, list[str]]:
    """The names in a file's top-level keys, those of the files it includes below them."""
    if file in heads:
        return heads[file]
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError:
        return {}
    own: dict[str, list[str]] = {}
    for key in _TOP.finditer(text):
        own[key[1]] = _scalars(key[2], text, key.end())
    found: dict[str, list[str]] = {}
    for other in own.pop("include", ()) if depth < 8 else ():
        found |= _head((file.parent / other).resolve(), heads, depth + 1)
    heads[file] = found | own
    return heads[file]


def _scalars(value: str, text: str, end: int) -> list[str]:
    """The value of a key, or the items of its list, inline or in the lines below, without quotes and comments."""
    value = re.sub(r"(^|\s)#.*", "", value).strip()
    if value:
        return [item for part in value.strip("[]").split(",") if (item := part.strip().strip("\"'"))]
    items, position = [], end + 1
    while found := _ITEM.match(text, position):
        items.append(re.sub(r"\s#.*", "", found[1]).strip().strip("\"'"))
        position = found.end()
    return items


def _leaves(name: str, shots: int | None, above: tuple[str, ...]) -> Iterator[tuple[str, int | None]]:
    """(task, number of examples where a group sets it) of everything that a name stands for."""
    entry = find(name)
    if entry.kind == "task":
        yield name, shots
    elif entry.kind == "tag":
        for task in sorted(entry.tasks):
            yield task, shots
    else:
        if name in above:
            raise UsageError(f"lm-eval's group {name!r} contains itself")
        assert entry.file is not None
        yield from _members(name, _yaml(entry.file), shots, (*above, name))


def _members(
    group: str, config: Mapping[str, Any], shots: int | None, above: tuple[str, ...]
) -> Iterator[tuple[str, int | None]]:
    own = _shots_set_by(group, config)
    shots = shots if own is None else own
    for item in config.get("task") or ():
        if isinstance(item, str):
            yield from _leaves(item, shots, above)
            continue
        if isinstance(item.get("task"), list):
            yield from _members(group, item, shots, above)
            continue
        inner = item.get("group") or item.get("task")
        if not isinstance(inner, str) or inner not in index():
            raise UsageError(
                f"lm-eval's group {group!r} defines tasks of its own ({inner}), which have no name to be asked by:"
                " choose another group"
            )
        set_here = _shots_set_by(group, item)
        yield from _leaves(inner, shots if set_here is None else set_here, above)


def _shots_set_by(group: str, config: Mapping[str, Any]) -> int | None:
    changed = set(config) - _STRUCTURE - {"num_fewshot"}
    if changed:
        raise UsageError(
            f"lm-eval's group {group!r} changes {', '.join(sorted(changed))} of its tasks, which kleval does not follow:"
            " name its tasks one by one"
        )
    given = config.get("num_fewshot")
    return None if given is None else int(given)


def _id(name: str, shots: int | None) -> str:
    return PREFIX + name + ("" if shots is None else f":{shots}shot")


def _yaml(file: Path) -> dict[str, Any]:
    """A group's file, included ones below it; what it names of Python is left as text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: str(node.value))
    config = yaml.load(file.read_text("utf-8"), Loader)
    includes = config.pop("include", ())
    merged: dict[str, Any] = {}
    for other in [includes] if isinstance(includes, str) else includes:
        merged |= _yaml((file.parent / other).resolve())
    return merged | config
