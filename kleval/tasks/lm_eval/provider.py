"""Provider of the task ids that begin with `lm_eval/` (see `kleval.tasks.registry.Provider`): lm-eval's tasks by name.

The builtin edition is made of kleval's own items (`kleval.tasks.short`) and needs no lm-eval; the official one is lm-eval's task.
"""

from __future__ import annotations

from pathlib import Path

from kleval.tasks.lm_eval import fetch as data_sets
from kleval.tasks.lm_eval import task_index
from kleval.tasks.lm_eval.task import LmEvalTask
from kleval.tasks.lm_eval.task_index import PREFIX
from kleval.tasks.short import builtin
from kleval.types import Task

HINT = f"name one of lm-eval's tasks, as {PREFIX}gsm8k; `lm-eval ls tasks` lists them"
OF_DOCUMENTS = False


def expand(name: str, edition: str) -> list[str]:
    """A group's tasks; in the builtin edition, and where there is no lm-eval, a group is one task."""
    if builtin.has(name) and (edition == "builtin" or not task_index.installed()):
        return [name]
    return task_index.expand(name)


def load(task_id: str, edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    if edition == "builtin":
        return builtin.load(task_id, protocol)
    return LmEvalTask(task_id, protocol, data_dir)


verify, fetch = data_sets.verify, data_sets.fetch
