"""The tasks `helmet_icl/trec_coarse`, `trec_fine`, `banking77`, `clinic150` and `nlu`: one call each.

Protocols. `helmet-4526dfb`: text without a chat template, ending in `label:`, as the official configuration has it even for
instruction-tuned models. `helmet-4526dfb-chat`: the user's message, as the official code with use_chat_template. Of the
official edition both take the six lengths of the table of shots alone; with `-any-length` behind it they take every length,
by the rule of `shots_at`.

Official: the test items in HELMET's order, each with the examples and label numbers of its own random states, and cut as
HELMET cuts where that is too long for ctx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall
from kleval.tasks.helmet_icl import dataset, official
from kleval.tasks.helmet_icl.intents import Builtin
from kleval.tasks.helmet_icl.official import ANSWER_PREFIX, LENGTHS, SPECS, Form, Item, Pool, example, user_message
from kleval.tasks.likelihood import without
from kleval.tasks.sized import OfficialData, Question, SizedTask
from kleval.types import Completion, ContextTooSmall, Prompt, Sample, Score, Tokenizer, Unfit

PROTOCOL = "helmet-4526dfb"
CHAT = "helmet-4526dfb-chat"
ANY_LENGTH = "-any-length"
OFFICIAL_BUDGET = 20
_CUTS = 8


class IclTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    without_prefix = CHAT
    metric = "exact_match"
    official_budget = OFFICIAL_BUDGET

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known: tuple[str, ...] = (PROTOCOL, CHAT)
        if edition == "official":
            known = (*known, *(one + ANY_LENGTH for one in known))
        spec = SPECS[name]
        n_actions, n_things, _ = spec.shape
        values = {
            "most_shots": spec.shots[-1],
            "n_labels": spec.n_labels,
            "requests": f"{n_actions} kinds of request" + (f" for {n_things} kinds of thing" if n_things else ""),
            "budget": OFFICIAL_BUDGET,
            "items": official.TEST_ITEMS,
        }
        super().__init__(f"helmet_icl/{name}", edition, protocol, known, values)
        self._spec, self._form = spec, Form(chat=self.protocol.removesuffix(ANY_LENGTH) == CHAT)
        rows = partial(Official, name, data_dir, self._form, self.protocol.endswith(ANY_LENGTH))
        self._open = partial(Builtin, name, self.version, self._form) if edition == "builtin" else rows

    def score(self, sample: Sample, answer: Completion) -> Score:
        metrics, parsed = official.score_answer(answer.text, sample.references[0], prefixed=not self._form.chat)
        return Score(metrics, extracted=parsed)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its examples, which alone say what the labels stand for."""
        return without(sample.prompt, user_message("{context}", "{question}"), "{context}")

    def _template(self) -> str:
        message = user_message("{context}", "{question}")
        return message if self._form.chat else f"{message}\n{ANSWER_PREFIX}"

    def _facts(self) -> Mapping[str, Any]:
        shots = dict(zip(map(str, LENGTHS), self._spec.shots, strict=True))
        return {"labels": self._spec.n_labels, "shots": shots if self.edition == "official" else "what fits"}


class Official(OfficialData):
    """any_length: kleval's rule where the table of shots has no entry; else ContextTooSmall there."""

    def __init__(self, name: str, data_dir: Path | None, form: Form, any_length: bool) -> None:
        self._name, self._form, self._any_length = name, form, any_length
        self._source = dataset.find(name, data_dir)
        super().__init__(f"helmet_icl/{name}", self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        shots, rule = official.shots_at(self._name, ctx)
        if rule != "table" and not self._any_length:
            raise _not_in_the_table(self._name, ctx)
        splits = dataset.read(self._source)
        train, test = splits if len(splits) == 2 else official.split(splits[0], seed)
        pool = Pool.of(train)
        for index, item in enumerate(official.chosen_items(test, seed)):
            yield self._question(index, item, pool, shots, rule, tokenizer, ctx, seed)

    def _question(
        self, index: int, item: Item, pool: Pool, shots: int, rule: str, tokenizer: Tokenizer, ctx: int, seed: int
    ) -> Question | Unfit:
        own_seed = official.item_seed(item.text, seed)
        numbers = official.label_numbers(SPECS[self._name].n_labels, own_seed)
        drawn = pool.balanced(shots, own_seed)
        texts = [example(one.text, numbers[one.label]) for one in drawn]
        context = "\n\n".join(texts)
        whole = tokens = self._form.count(tokenizer, user_message(context, item.text))
        cuts = cut = 0
        while tokens + OFFICIAL_BUDGET > ctx and cuts < _CUTS and context:
            cut = tokens + OFFICIAL_BUDGET - ctx
            context = official.head(tokenizer, context, cut)
            tokens = self._form.count(tokenizer, user_message(context, item.text))
            cuts += 1
        if tokens + OFFICIAL_BUDGET > ctx:
            reason = f"{self._task_id} item {index} takes {tokens} tokens without any example, ctx is {ctx}"
            return Unfit(index, reason, tokens + OFFICIAL_BUDGET)
        # Those that the context still holds to their end.
        ends = accumulate(texts, lambda at, text: at + len("\n\n") + len(text), initial=-len("\n\n"))
        shown = drawn[: sum(end <= len(context) for end in ends) - 1]
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


def _not_in_the_table(name: str, ctx: int) -> ContextTooSmall:
    above = next((length for length in LENGTHS if length > ctx), LENGTHS[-1])
    return ContextTooSmall(
        f"helmet_icl/{name} (official) has no number of examples for ctx {ctx}: there is one for"
        f" {', '.join(map(str, LENGTHS))}, and a protocol ending in -any-length takes every other",
        above,
    )


trec_coarse, trec_fine, banking77, clinic150, nlu = (partial(IclTask, name) for name in SPECS)
