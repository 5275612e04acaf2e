"""Invented intents and utterances: kleval's own data for the tasks.

An intent is something to be done with one kind of thing (`borrow` a ladder), and is said in several ways, with adjectives,
times, places and names that mean nothing for it. Of `trec_coarse`'s shape an intent is what is to be done alone, whatever
the thing; of `clinic150`'s one intent is to say something else altogether, sentences of `prose`. Which things there are
is drawn anew for every sample, so that labels can only be learnt from the examples shown. There are examples up to ctx, at least one of
each label; where ctx is short there are fewer labels, about two examples for each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.fitting import Filled, budget_for, fill
from kleval.tasks.helmet_icl.official import ITEMS, SPECS, Form, example, label_numbers, user_message
from kleval.tasks.plain_editions import Filling
from kleval.tasks.prose import Split, sentences
from kleval.tasks.sized import Question
from kleval.types import Prompt, Tokenizer

INTENTS_VERSION = "intents-1"
_TRIES = 20

ACTIONS: dict[str, tuple[str, ...]] = {name: tuple(said) for name, said in packaged.load(ITEMS)["actions"].items()}
_PROBES, _EXAMPLES_PER_LABEL = 64, 2
_WORDS = (lx.THINGS, lx.ADJECTIVES, lx.TIMES, lx.PLACES, lx.NAMES)


@dataclass(frozen=True, slots=True)
class Intent:
    """action "": anything that is none of the others. thing "": whatever thing."""

    action: str
    thing: str


class Speaker:
    """Says things, from one random state. actions: how each is said; split: of the prose that is no intent."""

    def __init__(
        self, rng: random.Random, actions: Mapping[str, Sequence[str]] = ACTIONS, split: Split = "eval"
    ) -> None:
        self._rng, self._actions, self._split = rng, actions, split
        self._other: Iterator[str] | None = None

    def utterance(self, intent: Intent) -> str:
        rng = self._rng
        if not intent.action:
            if self._other is None:
                self._other = sentences(rng.getrandbits(48), self._split)
            return next(self._other).lower().rstrip(".!?")
        thing = intent.thing or rng.choice(lx.THINGS)
        adjective = f"{rng.choice(lx.ADJECTIVES)} " if rng.random() < 0.7 else ""
        return rng.choice(self._actions[intent.action]).format(
            o=f"the {adjective}{thing}",
            t=rng.choice(lx.TIMES),
            p=rng.choice(lx.PLACES),
            n=rng.choice(lx.NAMES).lower(),
        )

    def another(self, intent: Intent, said: set[str]) -> str:
        """An utterance that is not in `said` as far as trying helps, added to it."""
        text = self.utterance(intent)
        for _ in range(_TRIES):
            if text not in said:
                break
            text = self.utterance(intent)
        said.add(text)
        return text


def draw_intents(rng: random.Random, task: str, n: int) -> list[Intent]:
    """n intents of a task's shape, in random order; n is at most what the shape has."""
    n_actions, n_things, other = SPECS[task].shape
    actions = rng.sample(list(ACTIONS), n_actions)
    things = rng.sample(lx.THINGS, n_things) if n_things else [""]
    found = [Intent(action, thing) for action in actions for thing in things]
    if other:
        found.append(Intent("", ""))
    rng.shuffle(found)
    return found[:n]


def rounds(
    rng: random.Random, speaker: Speaker, intents: Sequence[Intent], said: set[str]
) -> Iterator[tuple[int, str]]:
    """(position of the intent, utterance) without end; each round has one of every intent, in random order."""
    while True:
        order = list(range(len(intents)))
        rng.shuffle(order)
        for which in order:
            yield which, speaker.another(intents[which], said)


class Builtin(Filling):
    def __init__(self, name: str, task_version: str, form: Form) -> None:
        parts = INTENTS_VERSION, name, SPECS[name].shape, ACTIONS, _WORDS
        super().__init__(f"helmet_icl/{name}", task_version, *parts)
        self._name, self._form, self._all = name, form, SPECS[name].n_labels

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        budget = budget_for(max(tokenizer.count(f" {n}") for n in range(self._all)))
        # As many labels as leave so many examples for each, at least 2.
        pieces = list(islice(self._start(0, seed, "probe", self._all)[2], _PROBES))
        each = sum(map(tokenizer.count, pieces)) / _PROBES * _EXAMPLES_PER_LABEL
        bare = self._form.count(tokenizer, user_message("", ""))
        most = max(2, min(self._all, int((ctx - budget - bare) / each)))
        # One more than alone: what stands before it may keep it from being merged as it is alone.
        room = ctx - budget - tokenizer.count(self._form.prefix) - 1

        def question(index: int) -> Question:
            n_labels = most
            while True:
                text, number, pieces = self._start(ctx, seed, index, n_labels)

                def build(taken: Sequence[str], text: str = text) -> Prompt:
                    return self._form.prompt(user_message("".join(taken)[: -len("\n\n")], text))

                filled = fill(build, pieces, tokenizer, room)
                shown = filled.n_pieces if isinstance(filled, Filled) else 0
                if isinstance(filled, Filled) and shown >= n_labels:
                    break
                if n_labels == 2:
                    # What an example of each of two labels takes.
                    text, _, pieces = self._start(ctx, seed, index, 2)
                    bare = self._form.count(tokenizer, user_message("".join(islice(pieces, 2)).strip(), text))
                    raise self._too_small(ctx, max(ctx + 1, bare + budget))
                n_labels = max(2, min(n_labels - 1, shown))
            tokens = tokenizer.count(tokenizer.render(filled.prompt, self._form.prefix))
            meta = {"labels": n_labels, "shots": shown}
            return Question(index, filled.prompt, (str(number),), tokens, budget, meta, self._form.prefix)

        return question

    def _start(self, ctx: int, seed: int, index: object, n_labels: int) -> tuple[str, int, Iterator[str]]:
        """(question, number of its label, examples without end, each with what separates it from the next)."""
        rng = self._draws(ctx, seed, index).rng
        chosen = draw_intents(rng, self._name, n_labels)
        numbers = label_numbers(self._all, rng.getrandbits(31))
        speaker, said = Speaker(rng), set[str]()
        asked = rng.randrange(len(chosen))
        question = speaker.another(chosen[asked], said)
        shown = rounds(rng, speaker, chosen, said)
        return question, numbers[asked], (example(text, numbers[which]) + "\n\n" for which, text in shown)
