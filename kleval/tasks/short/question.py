"""Parts of a short benchmark: items, the shape in which they are asked, and the reading of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Reading = tuple[dict[str, float], Any]  # metric -> value, and what was read out of the answer


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    text: as it is asked, up to where its answer begins. answer: what a shot shows behind it, with the blank or line break
    between them; also the longest right answer, from which budgets come. references: right answers. group: the subject
    or level, which decides its shots and has a metric of its own.
    choices, gold: for likelihoods, what may follow `text` (without the blank) and which of them is right.
    texts: where the choices are other texts and what follows is the same (Winogrande): one per choice; `text` is the first.
    """

    text: str
    answer: str
    references: tuple[str, ...]
    group: str = ""
    choices: tuple[str, ...] = ()
    gold: int = 0
    texts: tuple[str, ...] = ()

    def as_shot(self) -> str:
        return (self.texts[self.gold] if self.texts else self.text) + self.answer


@dataclass(frozen=True, slots=True)
class Shape:
    """How a benchmark asks and reads.

    metric: the headline. read: an answer and the references -> metrics and what was extracted; None where the likelihood
    of choices decides. describe: what stands before the shots, with `{about}` for what `about` says of the group, else its name.
    shots: how many when a task id names none. by_group: groups get metrics of their own. max_new_tokens, temperature: of the
    official edition.
    """

    metric: str
    read: Callable[[str, Sequence[str]], Reading] | None = None
    describe: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    shots: int = 0
    by_group: bool = False
    max_new_tokens: int = 0
    temperature: float = 0.0

    def description(self, group: str) -> str:
        return self.describe.format(about=self.about.get(group, group.replace("_", " ")))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A task's form and data. name: its task id without shots. source: whose form it is. shots: items that are only
    shown, never asked; those without a group before every item."""

    name: str
    title: str
    source: str
    shape: Shape
    items: tuple[Item, ...] = field(repr=False)
    shots: tuple[Item, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()

    def pool(self, item: Item) -> list[Item]:
        """What may be shown before `item`: the shots of its group, then the group's other items."""
        own = [shot for shot in self.shots if shot.group in ("", item.group)]
        return own + [other for other in self.items if other.group == item.group and other is not item]

    def most_shots(self) -> int:
        return min(len(self.pool(item)) for item in self.items)

    def serialised(self) -> bytes:
        """Everything a result depends on."""
        records = [asdict(item) for item in (*self.shots, *self.items)]
        return json.dumps([self.name, records], ensure_ascii=False, sort_keys=True).encode()
