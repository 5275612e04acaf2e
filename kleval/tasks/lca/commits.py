"""Invented commits (`commits.toml`) and their messages.

A commit makes one change to one function or constant of an invented project; some of its callers follow, and files of
recorded numbers are written anew, which is what fills a long context. The message says what the one change is; all that
it says stands in the diff. The change lies somewhere among the files.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.lca import prompts
from kleval.tasks.plain_editions import Asked
from kleval.types import Prompt, Tokenizer

VERSION = "commits-1"
_MOST_CALLERS = 4
_KINDS = packaged.load("lca/commits.toml")


class Diff(Asked):
    """A message asked for by its diff; where there is a chat template, the system speaks first."""

    def prompt(self, tokenizer: Tokenizer, pieces: Sequence[str] = ()) -> Prompt:
        return prompts.commit_prompt(str(self.build(pieces)), bool(tokenizer.chat_template_digest))


def commit(
    rng: random.Random,
    with_callers: bool = True,
    simple: bool = False,
    places: Sequence[str] = lx.PLACES,
    nouns: Sequence[str] = lx.THINGS,
) -> Diff:
    """A commit drawn from `rng`. with_callers: let callers follow the change. places: modules; nouns: what functions are about. Its
    pieces are diffs of recorded files."""
    kind = rng.choice(tuple(_KINDS))
    form, modules, things, verbs = _KINDS[kind], rng.sample(places, 3), rng.sample(nouns, 4), rng.sample(lx.VERBS, 2)
    number = rng.randint(2, 40)
    project = f"{things[2]}{modules[2]}"
    names = {
        "project": project,
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
    diff, call = ([text.format_map(names) for text in form.get(part, ())] for part in ("diff", "call"))
    hunk, moved = _hunk(rng.randint(4, 300), diff), form.get("new_path", "").format_map(names)
    mods = [_mod(f"{project}/{modules[0]}.py", "" if moved else hunk, moved)]
    for _ in range(rng.randint(1, _MOST_CALLERS) if with_callers and call else 0):
        mods.append(_caller(project, call, rng))
    records, seed = _records(rng), rng.getrandbits(64)
    message, ours = (form["message"].format_map(names),), len(mods)
    return Diff(
        lambda recorded: prompts.commit_text(prompts.commit_diff(_among(recorded, mods, seed)), simple),
        message,
        pieces=records,
        told=lambda n: (message, {"repo": project, "kind": kind, "files": ours + n, "files_of_the_change": ours}),
    )


def _among(recorded: Sequence[str], mods: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The commit's files: the change and its callers, somewhere among recorded files with those diffs."""
    rng = random.Random(seed)
    places = sorted(rng.sample(range(len(mods) + len(recorded)), len(mods)))
    found = [_mod(f"tests/recorded/{rng.choice(lx.THINGS)}_{number}.txt", diff) for number, diff in enumerate(recorded)]
    for place, mod in zip(places, mods, strict=True):
        found.insert(place, mod)
    return found


def _mod(path: str, diff: str, moved: str = "") -> dict[str, Any]:
    """A file of a commit, as the official data have it."""
    return {"change_type": "RENAME" if moved else "MODIFY", "old_path": path, "new_path": moved or path, "diff": diff}


def _hunk(line: int, lines: Sequence[str]) -> str:
    old, new = (sum(not text.startswith(mark) for text in lines) for mark in "+-")
    return f"@@ -{line},{old} +{line},{new} @@\n" + "\n".join(lines) + "\n"


def _caller(project: str, call: Sequence[str], rng: random.Random) -> dict[str, Any]:
    path = f"{project}/{rng.choice(lx.PLACES)}_{rng.choice(lx.THINGS)}.py"
    before = "" if call[0].startswith("from ") else f"    {rng.choice(lx.ABSTRACTS)} = "
    return _mod(path, _hunk(rng.randint(3, 400), [f"-{before}{call[0]}", f"+{before}{call[1]}"]))


def _records(rng: random.Random) -> Iterator[str]:
    """Diffs of files of recorded numbers, a few lines each."""

    def label() -> str:
        return f"{rng.choice(lx.ADJECTIVES)} {rng.choice(lx.THINGS)}"

    while True:
        n, start = rng.randint(1, 8), rng.randint(1, 900)
        lines = []
        for _ in range(n):
            name, value = label(), rng.randint(10, 9999)
            lines += [f"-{name}: {value}", f"+{name}: {value + rng.randint(1, 50)}"]
        yield _hunk(start, [f" {label()}: {rng.randint(10, 9999)}", *lines])
