"""Groups of answers as columns: what tables keep of the rows of one model, task, length, edition and protocol.

A row takes some 50 bytes here beside its sample's id, 8 more per further metric, whatever its prompt and texts were. What comparisons
ask of whole cells (`Group.answers`, `Group.scores`) is made of the columns when it is asked for, one cell at a time (`ByPlace`).
"""

from __future__ import annotations

import hashlib
import math
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kleval.store import Row
from kleval.tables.answers import BROKEN as AMISS
from kleval.tables.answers import condition

FAILED, CUT, BROKEN = 1, 2, 4  # flags of an answer

Place = tuple[str, int]  # task or family, ctx
GroupKey = tuple[str, str, int, str, str]  # model, task, ctx, edition, protocol
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer, as far as comparisons need it. prompt, text: marks of what was asked and generated; cut: by the budget."""

    prompt: int
    max_new_tokens: int
    answer_prefix: str
    score: float | None
    failed: bool
    cut: bool
    text: int


@dataclass(slots=True)
class Group:
    """What the rows of one model, task, ctx, edition and protocol say, an entry of each column per answer.

    headline: the main metric. samples: ids. prompts, texts: marks, 0 where no text was generated. budgets: tokens an answer may have.
    prefixes: of the answers. flags: FAILED, CUT, BROKEN (`tables.answers`). values: a column per metric, NaN for no score.
    failures: (kind, message) -> failed answers. temperatures: what was sampled at.
    """

    headline: str
    samples: list[str] = field(default_factory=list)
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    texts: array[int] = field(default_factory=lambda: array("Q"))
    budgets: array[int] = field(default_factory=lambda: array("q"))
    prefixes: list[str] = field(default_factory=list)
    flags: bytearray = field(default_factory=bytearray)
    values: dict[str, array[float]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    temperatures: set[float] = field(default_factory=set)

    def add(self, row: Row) -> None:
        found = condition(row.outcomes, row.references)
        self.counts.update(f"n_{name}" for name in found)
        self.temperatures |= {float(o["temperature"]) for o in row.outcomes if o.get("temperature") is not None}
        values: dict[str, float] = {}
        if row.failure is not None:
            self.failures[row.failure.get("kind", "unknown"), row.failure.get("message", "")] += 1
        else:
            scored = {**row.metrics, **({row.metric: row.score} if row.score is not None else {})}
            values = {name: value for name, value in scored.items() if value is not None}
        written = [
            str(o["text"])
            for o in row.outcomes
            if o.get("kind", "generate") == "generate" and o.get("text") is not None
        ]
        self.prompts.append(mark(row.prompt_hash))
        self.texts.append(mark("\0".join(written)) if written else 0)
        self.budgets.append(row.max_new_tokens)
        self.prefixes.append(sys.intern(row.answer_prefix))
        cut = CUT if found & {"cut", "reasoning_cut"} else 0
        self.put(row.id, values, row.failure is not None, cut | (BROKEN if found.intersection(AMISS) else 0))

    def put(self, sample: str, values: Mapping[str, float], failed: bool, flags: int = 0) -> None:
        """Of an answer what its cells need."""
        self.counts.update(("n_total", "n_failed") if failed else ("n_total",))
        for name in values.keys() - self.values.keys():
            self.values[name] = array("d", [math.nan]) * len(self.samples)
        for name, column in self.values.items():
            column.append(values.get(name, math.nan))
        self.samples.append(self.samples[-1] if self.samples and self.samples[-1] == sample else sample)
        self.flags.append(flags | (FAILED if failed else 0))

    @property
    def metrics(self) -> list[str]:
        """The main one and those that some answer has a value of."""
        return [self.headline, *sorted(self.values.keys() - {self.headline})]

    def column(self, metric: str) -> array[float]:
        return self.values.get(metric) or array("d", [math.nan]) * len(self.samples)

    def repeats(self) -> dict[str, list[int]]:
        """Where the answers of each sample stand."""
        found: dict[str, list[int]] = {}
        for at, sample in enumerate(self.samples):
            found.setdefault(sample, []).append(at)
        return found

    def scores(self) -> dict[tuple[str, int], float]:
        """(id, mark of the prompt), which is the text that was asked -> mean headline score over repeats."""
        column = self.column(self.headline)
        return {
            (sample, self.prompts[at[-1]]): math.fsum(values) / len(values)
            for sample, at in self.repeats().items()
            if (values := [column[i] for i in at if column[i] == column[i]])
        }

    @property
    def scored(self) -> bool:
        """Whether some answer has a headline score."""
        return any(value == value for value in self.column(self.headline))

    def answers(self) -> dict[str, Sequence[Asked]]:
        """The answers of each sample."""
        column = self.column(self.headline)
        return {sample: [self._asked(i, column[i]) for i in at] for sample, at in self.repeats().items()}

    def _asked(self, at: int, score: float) -> Asked:
        flags = self.flags[at]
        known = None if math.isnan(score) else score
        how = self.budgets[at], self.prefixes[at], known, bool(flags & FAILED), bool(flags & CUT)
        return Asked(self.prompts[at], *how, self.texts[at])


class ByPlace(Mapping[Place, T], Generic[T]):
    """What is made of the group at each place, when it is asked for; the last one is kept."""

    def __init__(self, make: Callable[[Group], T], groups: Mapping[Place, Group]) -> None:
        self._make, self._groups = make, groups
        self._last: tuple[Place, T] | None = None

    def __getitem__(self, place: Place) -> T:
        if self._last is None or self._last[0] != place:
            group = self._groups[place]
            self._last = None  # never two at a time
            self._last = place, self._make(group)
        return self._last[1]

    def __contains__(self, place: object) -> bool:
        return place in self._groups

    def __iter__(self) -> Iterator[Place]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)


def grouped(rows: Iterable[Row], skips: Iterable[Mapping[str, Any]] = ()) -> dict[GroupKey, Group]:
    """Groups in order. skips: the manifest's `skips`; each is in a group, so that nothing that was asked for disappears."""
    groups: dict[GroupKey, Group] = {}
    for row in rows:
        key = (row.model, row.task, row.ctx, row.edition, row.protocol)
        if key not in groups:
            groups[key] = Group(row.metric)
        groups[key].add(row)
    for skip in skips:
        key = (skip["model"], skip["task"], skip["ctx"], skip["edition"], skip["protocol"])
        groups.setdefault(key, Group(skip["metric"])).counts["n_skipped"] += skip["n"]
    return dict(sorted(groups.items()))


def mark(text: str) -> int:
    """8 bytes that tell a text from others: of a million texts two share one with a probability of 3e-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest())
