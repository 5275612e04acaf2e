"""Counts of an official edition as far as they are known without its data: samples, and tokens of their prompts and answers.

They are the `counts` of a family's `card.toml`: of its official part, of a task, of a protocol, the more particular over the rest; or,
of the short benchmarks, `counts.toml`, by task or group. What is assumed there is said in words, and so is where the counts are from.
Tokens of prompts are estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from kleval.tasks import packaged

EVERY = 1 << 40  # more samples than any data hold: a limit that is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """classes: (tokens of a prompt, samples), where prompts have lengths of their own; else `rows` samples fill any ctx.

    written: generation budgets of a sample's requests, one after the other, each reading what the ones before it wrote. cut: whether
    a prompt that is too long is cut, rather than passed over. most: tokens that prompts are cut to, as long as ctx is no more than
    `most_until`. only: the lengths that it is asked at, () for any. judge: tokens read and written by a judge per sample, () for
    none. times: how often a prompt is read, by a choice or an answer each. tasks: of a group, whose limit is of each. assumed, source:
    in words.
    """

    rows: int = 0
    classes: tuple[tuple[int, int], ...] = ()
    written: tuple[int, ...]
    cut: bool = False
    most: int = 0
    most_until: int = 0
    only: tuple[int, ...] = ()
    judge: tuple[int, ...] = ()
    times: int = 1
    tasks: int = 1
    assumed: str = ""
    source: str = ""

    @classmethod
    def of(cls, table: Mapping[str, Any], written: int | str) -> Counts | None:
        """Of a `counts` table, None for an empty one. written: the task's budget, where the table has none."""
        if not table:
            return None
        lists = {name: tuple(value) for name, value in table.items() if isinstance(value, list)}
        classes = tuple((tokens, rows) for tokens, rows in table.get("classes", ()))
        return cls(**{"written": (written,), **table, **lists, "classes": classes})

    def at(self, ctx: int, limit: int = EVERY) -> list[tuple[int, int]]:
        """(samples, tokens of their prompts) at ctx, classes kept in proportion where the limit leaves some out."""
        room = ctx - sum(self.written)
        if room < 1 or (self.only and ctx not in self.only):
            return []
        longest = min(room, self.most) if self.most and ctx <= self.most_until else room
        classes = [(min(n, longest), rows) for n, rows in self.classes if self.cut or n <= room]
        if not self.classes:
            classes = [(longest, self.rows)]
        total, before, found = sum(rows for _, rows in classes), 0, []
        for tokens, rows in classes:
            ends = [at * min(limit * self.tasks, total) // total for at in (before, before + rows)]
            found.append((ends[1] - ends[0], tokens))
            before += rows
        return [(n, tokens) for n, tokens in found if n]


@cache
def named(name: str) -> Counts | None:
    """Of a task or a group by its name, None where only its family knows. A choice writes one token."""
    whole = packaged.load("counts.toml")
    table = dict(whole["counts"].get(name, {}))
    if table:
        table["source"] = whole["sources"].get(table["source"], table["source"])
    return Counts.of(table, 1)
