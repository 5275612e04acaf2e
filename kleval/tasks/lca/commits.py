"""Invented commits and their messages.

A commit makes one change to one function or constant of an invented project; some of its callers follow, and files of
recorded numbers are written anew, which is what fills a long context. The message says what the one change is; all that
it says stands in the diff. The change lies somewhere among the files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval.tasks import lexicon as lx

COMMITS_VERSION = "commits-1"
_MOST_CALLERS = 4
_KINDS = ("rename", "parameter", "constant", "remove", "guard", "add", "move")


@dataclass(frozen=True, slots=True)
class Commit:
    """mods: the change and its callers, as the official data have them. records: diffs of recorded files, without end."""

    kind: str
    project: str
    message: str
    mods: tuple[dict[str, Any], ...] = field(repr=False)
    records: Iterator[str] = field(repr=False)
    seed: int

    def all_mods(self, records: Sequence[str]) -> list[dict[str, Any]]:
        """The commit's files with `records` among them; the same for the same records."""
        rng = random.Random(self.seed)
        total = len(self.mods) + len(records)
        places = set(rng.sample(range(total), len(self.mods)))
        ours, others = iter(self.mods), iter(enumerate(records))
        merged = []
        for i in range(total):
            if i in places:
                merged.append(next(ours))
                continue
            number, diff = next(others)
            path = f"tests/recorded/{rng.choice(lx.THINGS)}_{number}.txt"
            merged.append(_mod("MODIFY", path, path, diff))
        return merged


def _mod(kind: str, old: str | None, new: str | None, diff: str) -> dict[str, Any]:
    return {"change_type": kind, "old_path": old, "new_path": new, "diff": diff}


@dataclass(frozen=True, slots=True)
class _Names:
    """What a commit is about."""

    project: str
    module: str
    function: str
    other: str
    parameter: str
    number: int
    larger: int
    constant: str
    elsewhere: str

    @property
    def path(self) -> str:
        return f"{self.project}/{self.module}.py"


def commit(rng: random.Random, with_callers: bool = True) -> Commit:
    """A commit drawn from `rng`. with_callers: let callers follow the change."""
    kind = rng.choice(_KINDS)
    modules = rng.sample(lx.PLACES, 3)
    things = rng.sample(lx.THINGS, 4)
    verbs = rng.sample(lx.VERBS, 2)
    number = rng.randint(2, 40)
    names = _Names(
        project=f"{things[2]}{modules[2]}",
        module=modules[0],
        function=f"{verbs[0]}_{things[0]}",
        other=f"{verbs[1]}_{things[0]}",
        parameter=rng.choice(lx.PARAMETERS),
        number=number,
        larger=number + rng.randint(3, 60),
        constant=f"MAX_{things[1].upper()}S",
        elsewhere=modules[1],
    )
    message, changed, caller = _change(kind, names, rng)
    n_callers = rng.randint(1, _MOST_CALLERS) if with_callers and caller is not None else 0
    callers = tuple(_caller(names, caller, rng) for _ in range(n_callers)) if caller is not None else ()
    return Commit(kind, names.project, message, (*changed, *callers), _records(rng), rng.getrandbits(64))


def _change(kind: str, n: _Names, rng: random.Random) -> tuple[str, tuple[dict[str, Any], ...], tuple[str, str] | None]:
    """Message, the file that changes, and how a call looks before and after (None where calls stay as they are)."""
    line = rng.randint(4, 300)
    path, f, thing = n.path, n.function, n.function.partition("_")[2]

    def hunk(before: Sequence[str], after: Sequence[str], context: Sequence[str] = ()) -> dict[str, Any]:
        return _mod("MODIFY", path, path, _hunk(line, before, after, context))

    if kind == "rename":
        mod = hunk([f"def {f}({thing}):"], [f"def {n.other}({thing}):"], [f"    return {thing}.total() * {n.number}"])
        return f"Rename {f} to {n.other} in {n.module}", (mod,), (f"{f}({thing})", f"{n.other}({thing})")
    if kind == "parameter":
        mod = hunk(
            [f"def {f}({thing}):", f"    return {thing}.total()"],
            [f"def {f}({thing}, {n.parameter}={n.number}):", f"    return {thing}.total() * {n.parameter}"],
        )
        after = f"{f}({thing}, {n.parameter}={n.larger})"
        return f"Add {n.parameter} parameter to {f} in {n.module}", (mod,), (f"{f}({thing})", after)
    if kind == "constant":
        mod = hunk([f"{n.constant} = {n.number}"], [f"{n.constant} = {n.larger}"])
        return f"Raise {n.constant} from {n.number} to {n.larger}", (mod,), None
    if kind == "remove":
        mod = hunk([f"def {f}({thing}):", "    # deprecated", f"    return {n.other}({thing})", ""], [])
        return f"Remove deprecated {f}, use {n.other}", (mod,), (f"{f}({thing})", f"{n.other}({thing})")
    if kind == "guard":
        mod = hunk(
            [], [f"    if {thing} is None:", "        return 0"], [f"def {f}({thing}):", f"    return {thing}.total()"]
        )
        return f"Return 0 from {f} when {thing} is None", (mod,), None
    if kind == "add":
        mod = hunk([], [f"def {f}({thing}):", f"    return {thing}.total() + {n.number}", "", ""], ["", ""])
        return f"Add {f} to {n.module}", (mod,), None
    moved = f"{n.project}/{n.elsewhere}.py"
    mod = _mod("RENAME", path, moved, "")
    old, new = (f"from {n.project}.{module} import {f}" for module in (n.module, n.elsewhere))
    return f"Move {n.module} module to {n.elsewhere}", (mod,), (old, new)


def _hunk(line: int, before: Sequence[str], after: Sequence[str], context: Sequence[str] = ()) -> str:
    """One hunk; the context's first line comes before the change, its others after."""
    head, tail = context[:1], context[1:]
    n = len(context)
    lines = [*(f" {t}" for t in head), *(f"-{t}" for t in before), *(f"+{t}" for t in after), *(f" {t}" for t in tail)]
    if not before and not after:
        raise ValueError("a hunk changes something")
    if before and len(context) == 1:
        lines = [*lines[1:], lines[0]]
    return f"@@ -{line},{len(before) + n} +{line},{len(after) + n} @@\n" + "\n".join(lines) + "\n"


def _caller(n: _Names, call: tuple[str, str], rng: random.Random) -> dict[str, Any]:
    path = f"{n.project}/{rng.choice(lx.PLACES)}_{rng.choice(lx.THINGS)}.py"
    before, after = call
    if not before.startswith("from "):
        name = rng.choice(lx.ABSTRACTS)
        before, after = (f"    {name} = {text}" for text in call)
    return _mod("MODIFY", path, path, _hunk(rng.randint(3, 400), [before], [after]))


def _records(rng: random.Random) -> Iterator[str]:
    """Diffs of files of recorded numbers, a few lines each."""
    while True:
        n = rng.randint(1, 8)
        start = rng.randint(1, 900)
        lines = []
        for _ in range(n):
            label = f"{rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"
            value = rng.randint(10, 9999)
            lines += [f"-{label}: {value}", f"+{label}: {value + rng.randint(1, 50)}"]
        lines.insert(0, f" {rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}: {rng.randint(10, 9999)}")
        yield f"@@ -{start},{n + 1} +{start},{n + 1} @@\n" + "\n".join(lines) + "\n"
