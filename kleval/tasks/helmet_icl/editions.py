"""Sources of HELMET-ICL questions, official and builtin, each sized to ctx.

Official: the test items in HELMET's order, each with the examples and label numbers of its own random states, and cut as
HELMET cuts where that is too long for ctx. Builtin: examples up to ctx, at least one of each label; where ctx is short
there are fewer labels, about two examples for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from kleval.tasks import lexicon
from kleval.tasks.fitting import Filled, budget_for, fill
from kleval.tasks.helmet_icl import dataset, intents
from kleval.tasks.helmet_icl.drawing import (
    ANSWER_PREFIX,
    Item,
    Pool,
    chosen_items,
    example,
    item_seed,
    label_numbers,
    split,
    user_message,
)
from kleval.tasks.helmet_icl.shots import LENGTHS, shots_at
from kleval.tasks.helmet_icl.truncation import head
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question, digest_of
from kleval.types import ContextTooSmall, Prompt, Tokenizer, Unfit

OFFICIAL_BUDGET = 20
PROBES = 64
_EXAMPLES_PER_LABEL = 2
_CUTS = 8


@dataclass(frozen=True, slots=True)
class Form:
    """How a question is put. chat: as the user's message, nothing before the answer; else as text that ends in `label:`."""

    chat: bool

    def prompt(self, message: str) -> Prompt:
        return ({"role": "user", "content": message},) if self.chat else f"{message}\n"

    @property
    def prefix(self) -> str:
        return "" if self.chat else ANSWER_PREFIX

    def count(self, tokenizer: Tokenizer, message: str) -> int:
        return tokenizer.count(tokenizer.render(self.prompt(message), self.prefix))


class Official(OfficialData):
    """any_length: kleval's rule where the table of shots has no entry; else ContextTooSmall there."""

    def __init__(self, name: str, data_dir: Path | None, form: Form, any_length: bool) -> None:
        self._name, self._form, self._any_length = name, form, any_length
        self._source = dataset.find(name, data_dir)
        super().__init__(f"helmet_icl/{name}", self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        shots, rule = shots_at(self._name, ctx)
        if rule != "table" and not self._any_length:
            raise _not_in_the_table(self._name, ctx)
        splits = dataset.read(self._source)
        train, test = splits if len(splits) == 2 else split(splits[0], seed)
        pool = Pool.of(train)
        for index, item in enumerate(chosen_items(test, seed)):
            yield self._question(index, item, pool, shots, rule, tokenizer, ctx, seed)

    def _question(
        self, index: int, item: Item, pool: Pool, shots: int, rule: str, tokenizer: Tokenizer, ctx: int, seed: int
    ) -> Question | Unfit:
        own_seed = item_seed(item.text, seed)
        numbers = label_numbers(dataset.SPECS[self._name].n_labels, own_seed)
        shown = pool.balanced(shots, own_seed)
        context = "\n\n".join(example(one.text, numbers[one.label]) for one in shown)
        whole = tokens = self._form.count(tokenizer, user_message(context, item.text))
        cuts = cut = 0
        while tokens + OFFICIAL_BUDGET > ctx and cuts < _CUTS and context:
            cut = tokens + OFFICIAL_BUDGET - ctx
            context = head(tokenizer, context, cut)
            tokens = self._form.count(tokenizer, user_message(context, item.text))
            cuts += 1
        if tokens + OFFICIAL_BUDGET > ctx:
            reason = f"{self._task_id} item {index} takes {tokens} tokens without any example, ctx is {ctx}"
            return Unfit(index, reason, tokens + OFFICIAL_BUDGET)
        shown = shown[: _n_whole(context, shown, numbers)]
        meta = {
            "labels": len(pool.by_label),
            "shots": shots,
            "shots_rule": rule,
            "shots_shown": len(shown),
            "shots_of_the_label": sum(one.label == item.label for one in shown),
            "tokens_removed": whole - tokens,
        }
        prompt = self._form.prompt(user_message(context, item.text))
        return Question(index, prompt, (str(numbers[item.label]),), tokens, OFFICIAL_BUDGET, meta, self._form.prefix)


def _n_whole(context: str, shown: Sequence[Item], numbers: Sequence[int]) -> int:
    """How many examples the context still holds to their end."""
    at = 0
    for n, one in enumerate(shown):
        at += len(example(one.text, numbers[one.label]))
        if at > len(context):
            return n
        at += len("\n\n")
    return len(shown)


def _not_in_the_table(name: str, ctx: int) -> ContextTooSmall:
    above = next((length for length in LENGTHS if length > ctx), LENGTHS[-1])
    return ContextTooSmall(
        f"helmet_icl/{name} (official) has no number of examples for ctx {ctx}: there is one for"
        f" {', '.join(map(str, LENGTHS))}, and a protocol ending in -any-length takes every other",
        above,
    )


class Builtin(BuiltinData):
    def __init__(self, name: str, task_version: str, form: Form) -> None:
        self._name, self._form = name, form
        self._n_labels = dataset.SPECS[name].n_labels
        version = intents.INTENTS_VERSION
        words = (lexicon.THINGS, lexicon.ADJECTIVES, lexicon.TIMES, lexicon.PLACES, lexicon.NAMES)
        digest = digest_of(version, name, intents.SHAPES[name], intents.ACTIONS, words)
        super().__init__(f"helmet_icl/{name}", task_version, f"kleval {version}", digest)

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        budget = budget_for(max(tokenizer.count(f" {n}") for n in range(self._n_labels)))
        n_labels = self._labels_at(tokenizer, ctx - budget, seed)
        for index in indices:
            yield self._question(index, tokenizer, ctx, seed, n_labels, budget)

    def _labels_at(self, tokenizer: Tokenizer, room: int, seed: int) -> int:
        """As many labels as leave _EXAMPLES_PER_LABEL examples for each, at least 2."""
        pieces = list(islice(self._start(0, seed, "probe", self._n_labels)[2], PROBES))
        bare = self._form.count(tokenizer, user_message("", ""))
        each = sum(tokenizer.count(piece) for piece in pieces) / PROBES
        return max(2, min(self._n_labels, int((room - bare) / each / _EXAMPLES_PER_LABEL)))

    def _start(self, ctx: int, seed: int, index: object, n_labels: int) -> tuple[str, int, Iterator[str]]:
        """(question, number of its label, examples without end, each with what separates it from the next)."""
        rng = self._draws(ctx, seed, index).rng
        chosen = intents.draw_intents(rng, self._name, n_labels)
        numbers = label_numbers(self._n_labels, rng.getrandbits(31))
        speaker, said = intents.Speaker(rng), set[str]()
        asked = rng.randrange(len(chosen))
        question = speaker.another(chosen[asked], said)
        shown = intents.rounds(rng, speaker, chosen, said)
        return question, numbers[asked], (example(text, numbers[which]) + "\n\n" for which, text in shown)

    def _question(self, index: int, tokenizer: Tokenizer, ctx: int, seed: int, n_labels: int, budget: int) -> Question:
        # One more than alone: what stands before it may keep it from being merged as it is alone.
        prefix_tokens = tokenizer.count(self._form.prefix) + 1
        while True:
            question, number, pieces = self._start(ctx, seed, index, n_labels)

            def build(taken: Sequence[str], question: str = question) -> Prompt:
                return self._form.prompt(user_message("".join(taken)[: -len("\n\n")], question))

            filled = fill(build, pieces, tokenizer, ctx - budget - prefix_tokens)
            short = isinstance(filled, int) or filled.n_pieces < n_labels
            if not short or n_labels == 2:
                break
            n_labels = max(2, min(n_labels - 1, 0 if isinstance(filled, int) else filled.n_pieces))
        if isinstance(filled, int) or short:
            raise self._too_small(ctx, self._least(tokenizer, ctx, seed, index, budget))
        assert isinstance(filled, Filled)
        meta = {"labels": n_labels, "shots": filled.n_pieces}
        tokens = tokenizer.count(tokenizer.render(filled.prompt, self._form.prefix))
        return Question(index, filled.prompt, (str(number),), tokens, budget, meta, self._form.prefix)

    def _least(self, tokenizer: Tokenizer, ctx: int, seed: int, index: int, budget: int) -> int:
        """The ctx that an example of each of two labels takes."""
        question, _, pieces = self._start(ctx, seed, index, 2)
        least = self._form.count(tokenizer, user_message("".join(islice(pieces, 2)).strip(), question)) + budget
        return max(ctx + 1, least)
