"""Invented commits and their messages.

A commit makes one change to one function or constant of an invented project; some of its callers follow, and files of
recorded numbers are written anew, which is what fills a long context. The message says what the one change is; all that
it says stands in the diff. The change lies somewhere among the files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged

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


def commit(
    rng: random.Random,
    with_callers: bool = True,
    places: Sequence[str] = lx.PLACES,
    nouns: Sequence[str] = lx.THINGS,
) -> Commit:
    """A commit drawn from `rng`. with_callers: let callers follow the change. places: modules; nouns: what functions are about."""
    kind = rng.choice(_KINDS)
    modules = rng.sample(places, 3)
    things = rng.sample(nouns, 4)
    verbs = rng.sample(lx.VERBS, 2)
    number = rng.randint(2, 40)
    names = {
        "project": f"{things[2]}{modules[2]}",
        "module": modules[0],
        "f": f"{verbs[0]}_{things[0]}",
        "other": f"{verbs[1]}_{things[0]}",
        "thing": things[0],
        "parameter": rng.choice(lx.PARAMETERS),
        "number": number,
        "larger": number + rng.randint(3, 60),
        "constant": f"MAX_{things[1].upper()}S",
        "elsewhere": modules[1],
    }
    project = str(names["project"])
    message, changed, caller = _change(kind, names, rng)
    n_callers = rng.randint(1, _MOST_CALLERS) if with_callers and caller else 0
    callers = tuple(_caller(project, caller, rng) for _ in range(n_callers))
    return Commit(kind, project, message, (changed, *callers), _records(rng), rng.getrandbits(64))


def _change(kind: str, names: Mapping[str, object], rng: random.Random) -> tuple[str, dict[str, Any], list[str]]:
    """Message, the file that changes, and how a call looks before and after (empty where calls stay as they are)."""
    line = rng.randint(4, 300)
    form = packaged.load("lca/commits.toml")[kind]

    def filled(part: str) -> list[str]:
        return [text.format_map(names) for text in form.get(part, ())]

    old, new = (form.get(part, "{project}/{module}.py").format_map(names) for part in ("path", "new_path"))
    diff = "" if old != new else _hunk(line, filled("before"), filled("after"), filled("context"))
    changed = _mod("MODIFY" if old == new else "RENAME", old, new, diff)
    return form["message"].format_map(names), changed, filled("call")


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


def _caller(project: str, call: Sequence[str], rng: random.Random) -> dict[str, Any]:
    path = f"{project}/{rng.choice(lx.PLACES)}_{rng.choice(lx.THINGS)}.py"
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
