"""The tasks `babilong/qa1` to `babilong/qa5`: one call, the answer compared as BABILong does it (booydar/babilong @ 7a6efee).

Official: of the published set the longest split of at most ctx (its lengths are thousands of GPT-2's tokens, prompt included).
Builtin: a story of kleval's own among the sentences of its prose, each fact behind a random one, in order. A simulated world: people
walk between places, take and drop things and give them away; what is asked follows from the facts alone. The sentences are kleval's own
(`stories.toml`): no row of bAbI is copied.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

from kleval.tasks import data, datafile, packaged, prose, tables
from kleval.tasks.base import OneCall
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Made, Rows, as_it_is, spread
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score, UsageError

PROTOCOL = "babilong-7a6efee"
OFFICIAL_BUDGET = 20
SPLITS = {f"{n}k": n * 1000 for n in (0, *(1 << i for i in range(10)))} | {"1M": 1_000_000, "10M": 10_000_000}
_SHORTEST_CHARS = 40  # of a sentence of the haystack; officially ten of GPT-2's tokens
_PROMPTS = packaged.load("babilong/prompts.toml")
STORIES_VERSION = "stories-1"
FILE = "babilong/stories.toml"
WORDS = packaged.load(FILE)
_PLACES, _THINGS = packaged.words(FILE, "places"), packaged.words(FILE, "things")


def prompt(name: str, context: str, question: str) -> str:
    filled: str = _PROMPTS["template"].format(**_PROMPTS[name], context=context.strip(), question=question)
    return filled.strip()


def first_sentence(text: str) -> str:
    """In lower case, to the first full stop or the beginning of a further example. (`Question` never ends it: after lower case.)"""
    text = text.lower()
    for end in (".", "<context>", "<example>", "Question"):
        text = text.split(end)[0]
    return text


def right(target: str, output: str, question: str, labels: Sequence[str]) -> bool:
    """Whether the target is the one label in the first sentence, those left out that the question names."""
    said, asked = first_sentence(output), question.lower()
    return {one for one in map(str.lower, labels) if one in said and one not in asked} == {target.lower()}


class BabilongTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "accuracy"
    official_budget = OFFICIAL_BUDGET

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        fewest, most = WORDS["facts"][name]
        values = {"fewest": fewest, "most": most, "budget": OFFICIAL_BUDGET, "shortest": _SHORTEST_CHARS}
        super().__init__(f"babilong/{name}", edition, protocol, (PROTOCOL,), values)
        self._name = name
        made = partial(Made, self.id, self.version, self._make, STORIES_VERSION, prose.SENTENCES_VERSION)
        self._open = made if edition == "builtin" else partial(self._official, data_dir)

    def _make(self, rng: random.Random, index: int) -> Asked:
        told = story(rng, self._name)
        places = sorted(rng.random() for _ in told.facts)
        pieces = (one for one in prose.sentences(rng.getrandbits(64)) if len(one) >= _SHORTEST_CHARS)

        def build(taken: Sequence[str]) -> str:
            return prompt(self._name, " ".join(spread(told.facts, places, taken)), told.question)

        meta = {"question": told.question, "facts": told.facts, "places": [round(place, 4) for place in places]}
        return Asked(build, tuple(dict.fromkeys((told.answer, told.said))), meta, pieces)

    def _official(self, data_dir: Path | None) -> Rows:
        folder = data.data_folder("babilong", data_dir) / "data" / self._name
        files = {split: path for split in SPLITS if (path := datafile.existing(folder / f"{split}.json"))}
        if not files:
            data.need("babilong", f"data/{self._name}/0k.json", f"{self.id} (official)", data_dir)
        source = data.source_of(tuple(files.values()), f"RMT-team/babilong, splits {', '.join(files)}")
        return Rows(self.id, source, partial(self._rows, files), OFFICIAL_BUDGET)

    def _rows(self, files: Mapping[str, Path], ctx: int) -> Iterator[Asked]:
        split = [name for name, tokens in SPLITS.items() if tokens <= ctx][-1]
        if split not in files:
            file = f"data/{self._name}/{split}.json"
            raise UsageError(
                f"{self.id} at ctx {ctx} needs {file} of RMT-team/babilong: docs/babilong.md says where from"
            )
        for where, row in tables.rows(files[split]):
            context, question, target = (tables.text(where, row, name) for name in ("input", "question", "target"))
            asked = as_it_is(prompt(self._name, context, question))
            yield Asked(asked, (target,), {"question": question, "split": split})

    def score(self, sample: Sample, answer: Completion) -> Score:
        known = WORDS["labels"].get(self._name, WORDS["places"]).split()
        found = float(right(sample.references[0], answer.text, sample.meta["question"], known))
        by_split = {f"accuracy {sample.meta['split']}": found} if "split" in sample.meta else {}
        return Score({"accuracy": found, **by_split}, extracted=first_sentence(answer.text))

    def question_alone(self, sample: Sample) -> Prompt:
        """Without the story and what it is hidden in; instruction and examples stay."""
        return without(sample.prompt, self._template(), "{context}")

    def _template(self) -> str:
        return prompt(self._name, "{context}", "{question}")


@dataclass(frozen=True, slots=True)
class Story:
    """answer: the word; said: how the prompt wants it."""

    facts: Sequence[str]
    question: str
    answer: str
    said: str


@dataclass(slots=True)
class _World:
    """at: person -> place; held: thing -> person; seen: thing -> the places that it was in, the latest last."""

    rng: random.Random
    people: Sequence[str]
    facts: list[str] = field(default_factory=list)
    at: dict[str, str] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)
    seen: dict[str, list[str]] = field(default_factory=dict)
    gifts: list[dict[str, str]] = field(default_factory=list)

    def move(self) -> None:
        who = self.rng.choice(self.people)
        self.at[who] = self.rng.choice([one for one in _PLACES if one != self.at.get(who)])
        self.facts.append(self.rng.choice(WORDS["move"]).format(who=who, place=self.at[who]))
        for thing in (thing for thing, holder in self.held.items() if holder == who):
            self.seen[thing].append(self.at[who])

    def handle(self, giving: bool) -> bool:
        """Somebody takes a thing or parts with one; False where nobody can."""
        can = []
        for who, place in self.at.items():
            for thing in _THINGS:
                if self.held.get(thing) == who:
                    near = [one for one in self.people if one != who and self.at.get(one, place) == place]
                    can += [("give", who, thing, whom) for whom in near] if giving else [("drop", who, thing, who)]
                elif thing not in self.held and self.seen.get(thing, [place])[-1] == place:
                    can.append(("take", who, thing, who))
        if not can:
            return False
        kind, who, thing, whom = self.rng.choice(can)
        self.facts.append(self.rng.choice(WORDS[kind]).format(who=who, thing=thing, whom=whom))
        self.seen.setdefault(thing, [self.at[who]])
        if kind == "drop":
            del self.held[thing]
            return True
        self.held[thing], self.at[whom] = whom, self.at[who]
        self.gifts += [{"who": who, "thing": thing, "whom": whom}] if kind == "give" else []
        return True


def story(rng: random.Random, name: str) -> Story:
    """A story of that task, whose question has one answer."""
    while True:
        facts, words = _relations(rng) if name == "qa4" else _lived(rng, name)
        form, answer = rng.choice(WORDS["questions"][name])
        question, said = form.format(**words[-1]), answer.format(**words[-1])
        if {answer.format(**one) for one in words if form.format(**one) == question} == {said}:
            return Story(facts, question, said.rstrip(".").split()[-1], said)


def _lived(rng: random.Random, name: str) -> tuple[list[str], list[dict[str, str]]]:
    """Facts, and the words of what may be asked about, what is asked last; until there is something."""
    while True:
        world = _World(rng, WORDS["givers" if name == "qa5" else "people"].split())
        for _ in range(rng.randint(*WORDS["facts"][name])):
            if name == "qa1" or rng.random() < 0.5 or not world.handle(giving=name == "qa5"):
                world.move()
        who, thing = rng.choice(tuple(world.at)), rng.choice(_THINGS)
        seen = world.seen.get(thing, [])
        words = {"qa1": [{"who": who, "answer": world.at[who]}], "qa5": world.gifts}.get(name, [])
        if name == "qa2" and seen:
            words = [{"thing": thing, "answer": seen[-1]}]
        if name == "qa3" and len(seen) > 1:
            words = [{"thing": thing, "place": now, "answer": before} for before, now in pairwise(seen)]
        if words:
            return world.facts, words


def _relations(rng: random.Random) -> tuple[list[str], list[dict[str, str]]]:
    """Two places on two sides of a third, each said from either end."""
    middle, *others = rng.sample(_PLACES, 3)
    sides = rng.sample(sorted(WORDS["opposite"]), 2)
    words = [
        {"one": one, "middle": middle, "side": side, "back": WORDS["opposite"][side]}
        for one, side in zip(others, sides, strict=True)
    ]
    return [rng.choice(WORDS["relation"]).format(**one) for one in words], rng.sample(words, 2)


qa1, qa2, qa3, qa4, qa5 = (partial(BabilongTask, f"qa{n}") for n in range(1, 6))
