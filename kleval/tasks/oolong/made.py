"""Windows of kleval's own in the form of OOLONG's: lines that are counted, and questions about any number of them from the first on.

synth: messages with a day and a sender, their topics to be read out of what they say. real: the transcript of a game, where rolls and
spells stand among talk. Of both, `lines` come without end, `text` frames the first n of them, `ask` asks about these, the same for the
same random numbers, and `longest` are answers that are as long as any.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any, NamedTuple

from kleval.tasks import lexicon, packaged, prose

WINDOWS_VERSION = "oolong-windows-1"
BANK = packaged.load("oolong/bank.toml")
LABELS: tuple[str, ...] = tuple(BANK["synth"]["labels"])
_FIRST_DAY, _DAYS, _USERS = date(2022, 1, 1), 1400, 6
_KINDS = {"Label": "LABEL", "User": "USER", "Date": "DATE", "Answer": "NUMERIC"}  # by how the answer begins
_ROLLS, _SPELLS = 0.15, 0.28  # shares of a transcript's lines: rolls, and rolls and spells


class Asked(NamedTuple):
    """gold: as a row has it. said: the answer as the question wants it. group, kind: of the question."""

    question: str
    gold: str
    said: str
    group: str
    kind: str


class Message(NamedTuple):
    day: date
    user: int
    label: str


class Messages:
    """Topics and senders are of unlike frequency, so that there is a most common one."""

    longest: tuple[str, ...] = (
        "Label: weather",
        "User: 99999",
        "Date: 2024-12-30",
        "Answer: same frequency as",
        "Answer: 99999",
    )

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._made = rng, list[Message]()
        self._users = rng.sample(range(10_000, 100_000), _USERS)
        self._weights = [rng.randint(1, 6) for _ in LABELS]

    def lines(self) -> Iterator[str]:
        words, rng = BANK["synth"], self._rng
        while True:
            (label,) = rng.choices(LABELS, self._weights)
            user = self._users[min(rng.randrange(_USERS), rng.randrange(_USERS))]
            made = Message(_FIRST_DAY + timedelta(rng.randrange(_DAYS)), user, label)
            self._made.append(made)
            place, thing, name = map(rng.choice, (lexicon.PLACES, lexicon.THINGS, lexicon.NAMES))
            text = rng.choice(words["messages"][label]).format(place=place, thing=thing, name=name)
            yield words["line"].format(date=_written(made.day), user=user, text=text)

    def text(self, lines: str, n: int) -> str:
        words, labels = BANK["synth"], ", ".join(LABELS)
        return f"{words['preamble'].format(n=n, labels=labels)}{lines}{words['recall'].format(n=n, labels=labels)}"

    def ask(self, n: int, rng: random.Random) -> Asked:
        made, forms = self._made[:n], BANK["synth"]["questions"]
        labels = Counter(each.label for each in made)
        while True:
            group = rng.choice(tuple(forms))
            name = rng.choice(tuple(forms[group]))
            label, other = rng.sample(LABELS, 2)
            one, more = rng.choice(made), labels[label] - labels[other]
            theirs = [each for each in made if each.label == label]
            found: Any = {
                "most": _most(labels),
                "least": _most(Counter({each: -labels[each] for each in LABELS})),
                "number": len(theirs),
                "compare": "more common than" if more > 0 else "less common than" if more else "same frequency as",
                "sender": _most(Counter(each.user for each in theirs)),
                "of_user": sum(each.user == one.user for each in theirs),
                "topic": _most(Counter(each.label for each in made if each.user == one.user)),
                "first": min((each.day for each in theirs), default=None),
                "after": sum(each.day > one.day for each in theirs),
            }[name]
            if found is not None:
                form, asked = forms[group][name]
                kind = "COMPARISON" if name == "compare" else _KINDS[form.partition(":")[0]]
                words = {"label": label, "other": other, "user": one.user, "date": _written(one.day)}
                question = asked.format(labels=", ".join(LABELS), **words)
                return Asked(question, f"[{found!r}]", form.format(found), group, f"ANSWER_TYPE.{kind}")


def _most(counts: Counter[Any]) -> Any:
    """None where there is none or more than one."""
    (found, n), *rest = counts.most_common(2) or [(None, 0)]
    return None if rest and rest[0][1] == n else found


def _written(day: date) -> str:
    return f"{day:%b %d, %Y}"


class Move(NamedTuple):
    """A roll of `what`, with its value; a spell, with 0; talk, with -1."""

    who: str
    what: str
    value: int


class Transcript:
    longest: tuple[str, ...] = (
        r"\boxed{Still Water, Long Shadow}",
        r"\boxed{stealth, insight, balance, persuasion, attack}",
    )

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._made = rng, list[Move]()
        self._talk = prose.sentences(rng.getrandbits(64))

    def lines(self) -> Iterator[str]:
        words, rng = BANK["real"], self._rng
        while True:
            who, chance = rng.choice(words["players"]), rng.random()
            if chance < _ROLLS:
                made = Move(who, rng.choice(words["rolls"]), rng.randint(1, 20))
                line = rng.choice(words["roll"]).format(who=who, kind=made.what, value=made.value)
            elif chance < _SPELLS:
                made = Move(who, rng.choice(words["spells"]), 0)
                line = rng.choice(words["cast"]).format(who=who, spell=made.what)
            else:
                made = Move(who, "", -1)
                line = words["talk"].format(who=who, said=next(self._talk))
            self._made.append(made)
            yield line

    def text(self, lines: str, n: int) -> str:
        return f"{BANK['real']['preamble']}{lines}{BANK['real']['end']}"

    def ask(self, n: int, rng: random.Random) -> Asked:
        forms = BANK["real"]["questions"]
        rolls = [move for move in self._made[:n] if move.value > 0]
        spells = [move for move in self._made[:n] if not move.value]
        while True:
            group = rng.choice(tuple(forms))
            name, who = rng.choice(tuple(forms[group])), rng.choice(BANK["real"]["players"])
            kind = rng.choice(BANK["real"]["rolls"])
            kinds = Counter(move.what for move in rolls)
            common = [each for each in kinds if kinds[each] == max(kinds.values())]
            two = list(dict.fromkeys(move.what for move in spells[:2]))
            found = {
                "rolls": len(rolls),
                "by": sum(move.who == who for move in rolls),
                "kind": kinds[kind],
                "twenties": sum(move.value == 20 for move in rolls),
                "common": ", ".join(common),
                "spells": len(spells),
                "caster": sum(move.who == who for move in spells),
                "last": spells[-1].what if spells else "",
                "first": ", ".join(two) if len(two) > 1 else "",
            }[name]
            if found != "":
                question = forms[group][name].format(who=who, kind=kind)
                return Asked(question, str(found), rf"\boxed{{{found}}}", group, "")
