"""YAML files that show kleval's tasks to lm-eval (`--include_path`): a task each, a group for every family, `kleval_long` for all.

They are made from the registry, of the families whose cards say `lm_eval`, and name the class in `generated`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from kleval.files import family_facts, usage_errors, write_text
from kleval.tasks.registry import families

_BASE = "_generated"
_VERSION = "metadata:\n  version: 1\n"
_MEAN = "aggregate_metric_list:\n  - metric: score\n    aggregation: mean\n    weight_by_size: false\n"


def texts() -> dict[str, str]:
    """Text by name, a path below the folder."""
    found = {_BASE: "class: !function kleval.tasks.lm_eval.generated.GeneratedTask\n"}
    offered = {family: tasks for family, tasks in families().items() if family_facts(family).get("lm_eval")}
    for family, tasks in offered.items():
        for task in tasks:
            text = f"include: ../{_BASE}\ntask: {_named(task)}\n{_VERSION}  kleval_task: {task}\n"
            found[f"{family}/{_named(task)}.yaml"] = text
        found[f"{family}/_{_named(family)}.yaml"] = _group(_named(family), tasks, _MEAN)
    return found | {"_kleval_long.yaml": _group("kleval_long", list(offered))}


def folder(parent: Path | None = None) -> Path:
    """The folder with these files, written where it is not there yet; one for each state of the registry, so that several versions of
    kleval do not share it. parent: of it, by default ~/.cache/kleval/lm_eval."""
    made = texts()
    digest = hashlib.sha256(repr(sorted(made.items())).encode()).hexdigest()
    place = (Path.home() / ".cache" / "kleval" / "lm_eval" if parent is None else parent) / digest[:12]
    for name, text in made.items():
        path = place / name
        with usage_errors(path):
            there = path.is_file() and path.read_bytes() == text.encode()
        if not there:
            write_text(path, text)
    return place


def _named(name: str) -> str:
    """A task's or family's name in lm-eval."""
    return f"kleval_{name.replace('/', '_')}"


def _group(name: str, members: Sequence[str], mean: str = "") -> str:
    lines = "".join(f"  - {_named(member)}\n" for member in members)
    return f"group: {name}\ntask:\n{lines}{mean}{_VERSION}"
