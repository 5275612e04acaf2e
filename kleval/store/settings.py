"""Comparison of a command with a stored run: it may continue the run unless a setting that changes results differs.

Settings are one flat mapping from a readable name to a JSON value. Five of them may grow, and only when the user says
so (amend): `models`, `tasks` and `ctx`, lists whose order means nothing, and the numbers `limit` and `repeats`. Growing
keeps every row valid: it only asks for more. `models.NAME.*` and `tasks.ID.*` belong to an entry of those lists and
come and go with it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.text import digest
from kleval.types import UsageError

LISTS = ("models", "tasks", "ctx")
NUMBERS = ("limit", "repeats")
CODE = (
    "asked_by",
    "scored_by",
)  # of a task of the user's: digests of the code that makes and asks samples, and scores them
SCORING = ("scored_by", "metric")
UNSET = "(not set)"


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs. grows: whether nothing but more is asked for."""

    setting: str
    old: str
    new: str
    grows: bool

    def __str__(self) -> str:
        return f"{self.setting}: {self.old} -> {self.new}"


def compare(old: Mapping[str, Any], new: Mapping[str, Any], partial: bool = False) -> list[Change]:
    """What differs between two commands' settings, in a fixed order; empty when a run may simply continue.

    partial: new holds only part of the settings (the models are not open yet); what it does not have is not compared.
    """
    changes = []
    for name in dict.fromkeys([*LISTS, *NUMBERS, *sorted({*old, *new})]):
        if partial and name not in new:
            continue
        if name not in old and name not in new:
            continue
        before, after = old.get(name, UNSET), new.get(name, UNSET)
        if name in LISTS:
            changes += _list_change(name, before, after)
        elif before != after and not _belongs_to_one_side(name, old, new):
            grows = name in NUMBERS and isinstance(before, int) and isinstance(after, int) and after > before
            changes.append(Change(name, _show(before), _show(after), grows))
    return changes


def check(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: object,
    amend: bool = False,
    partial: bool = False,
    answered: Container[str] = (),
) -> list[Change]:
    """The changes that amend allows, to be recorded; UsageError with all that stand in the way otherwise. answered: tasks that have
    answers: the code of the others may change."""
    changes = [change for change in compare(old, new, partial) if not _is_free(change.setting, old, answered)]
    refused = [change for change in changes if not (amend and change.grows)]
    if not refused:
        return changes
    diff = "; ".join(str(change) for change in refused)
    if all(change.grows for change in refused):
        advice = "add --amend to extend this run, or give another --out"
    elif all(change.setting.rpartition(".")[2] in SCORING for change in refused):
        metric = f" --metric {new['metric']}" if "metric" in new else " --metric none" if "metric" in old else ""
        score = f"`kleval score {where}{metric}` scores the stored answers again without asking"
        raise UsageError(f"{where} holds answers that were scored otherwise ({diff}): {score}; or give another --out")
    else:
        advice = "give another --out, or run the command as it was"
    raise UsageError(f"{where} holds a run of another command ({diff}): {advice}")


def _is_free(setting: str, old: Mapping[str, Any], answered: Container[str]) -> bool:
    """Whether it is the code of a task that has no answers, or that was not recorded."""
    place, _, name = setting.rpartition(".")
    return name in CODE and (setting not in old or place.removeprefix("tasks.") not in answered)


def _list_change(name: str, before: Any, after: Any) -> list[Change]:
    old = before if isinstance(before, Sequence) and not isinstance(before, str) else []
    new = after if isinstance(after, Sequence) and not isinstance(after, str) else []
    if set(old) == set(new):
        return []
    return [Change(name, _show(old), _show(new), set(old) < set(new))]


def _belongs_to_one_side(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a setting belongs to a model or task that only one side has, where the list itself already says so."""
    for kind in ("models", "tasks"):
        sides = [[e for e in settings.get(kind, ()) if name.startswith(f"{kind}.{e}.")] for settings in (old, new)]
        if bool(sides[0]) != bool(sides[1]):
            return True
    return False


def _show(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(v) for v in value) or "(none)"
    return "(none)" if value is None else digest(value) if value else str(value)
