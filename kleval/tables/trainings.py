"""Curves of trainings and results of studies, as `kleval train` leaves them: `log.jsonl` per training, `results.jsonl` per study.

A folder of a training has log.jsonl with a line per report: name, step, tokens, length, loss, accuracy by kind, seconds. A study's
results.jsonl has a line per training that ended: `peak` (accuracy, 0 to 1) of a synthetic test by task, model and length, with the
paper's where settings match; or `loss` of an ablation or a ladder. A last line that was being written is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOG, RESULTS, MADE = "log.jsonl", "results.jsonl", "training.json"


@dataclass(frozen=True, slots=True)
class Training:
    """label: its name, with its seed where others have the same name. points: of the log, in order. settings: of training.json, empty
    while the training goes on."""

    path: Path
    label: str
    points: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        return bool(self.settings)

    @property
    def kinds(self) -> list[str]:
        return list(self.points[-1]["accuracy"])

    def thinned(self, most: int) -> list[Mapping[str, Any]]:
        """At most so many points, evenly chosen, the last one among them."""
        n = len(self.points)
        places = range(n) if n <= most else [round(i * (n - 1) / (most - 1)) for i in range(most)]
        return [self.points[i] for i in places]


@dataclass(frozen=True, slots=True)
class Studies:
    """What lies below some folders. tests: results of synthetic tests; losses: of ablations and ladders."""

    trainings: tuple[Training, ...] = ()
    tests: tuple[Mapping[str, Any], ...] = ()
    losses: tuple[Mapping[str, Any], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.trainings or self.tests or self.losses)

    @property
    def families(self) -> list[Training]:
        """Trainings of models; those of a test or a study are in its results."""
        return [one for one in self.trainings if len(one.kinds) > 1]


def studies(places: Iterable[Path]) -> Studies:
    """All below the places; nothing where there is none."""
    found = list(dict.fromkeys(path for place in places for path in _files(place)))
    logs = [path for path in found if path.name == LOG]
    rows = [row for path in found if path.name == RESULTS for row in _lines(path)]
    return Studies(
        tuple(_labelled([one for path in logs if (one := _training(path))])),
        tuple(row for row in rows if {"peak", "task", "model", "length"} <= row.keys()),
        tuple(row for row in rows if {"loss", "name", "parameters", "tokens"} <= row.keys()),
    )


def best(tests: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of each task, model and length the result of the learning rate that reached most, in order."""
    found: dict[tuple[str, str, int], Mapping[str, Any]] = {}
    for row in tests:
        key = (row["task"], row["model"], row["length"])
        if key not in found or row["peak"] > found[key]["peak"]:
            found[key] = row
    return [found[key] for key in sorted(found)]


def _files(place: Path) -> Iterator[Path]:
    """Logs and results below a folder, hidden ones and symbolic links left out; none where it is not there."""
    for folder, inside, names in os.walk(place):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        yield from (Path(folder, name) for name in (LOG, RESULTS) if name in names)


def _training(path: Path) -> Training | None:
    points = tuple(row for row in _lines(path) if {"name", "tokens", "loss", "accuracy"} <= row.keys())
    if not points:
        return None
    made = path.parent / MADE
    settings = next(iter(_lines(made, whole=True)), {})
    return Training(path.parent, str(points[-1]["name"]), points, settings)


def _labelled(found: Sequence[Training]) -> Iterable[Training]:
    for one in found:
        alike = [other for other in found if other.label == one.label]
        told = f"seed {one.settings['seed']}" if "seed" in one.settings else str(one.path.parent.name or one.path)
        label = f"{one.label}, {told}" if len(alike) > 1 else one.label
        yield Training(one.path, label, one.points, one.settings)


def _lines(path: Path, whole: bool = False) -> list[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    found = []
    for line in [text] if whole else text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, Mapping):
            found.append(row)
    return found
