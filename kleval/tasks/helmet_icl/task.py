"""The tasks `helmet_icl/trec_coarse`, `trec_fine`, `banking77`, `clinic150` and `nlu`: one call each.

Protocols. `helmet-4526dfb`: text without a chat template, ending in `label:`, as the official configuration has it even for
instruction-tuned models. `helmet-4526dfb-chat`: the user's message, as the official code with use_chat_template. Of the
official edition both take the six lengths of the table of shots alone; with `-any-length` behind it they take every length,
by the rule in `shots`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall
from kleval.tasks.helmet_icl import dataset, intents, scoring
from kleval.tasks.helmet_icl.drawing import ANSWER_PREFIX, TEST_ITEMS, user_message
from kleval.tasks.helmet_icl.editions import OFFICIAL_BUDGET, Builtin, Form, Official
from kleval.tasks.helmet_icl.shots import LENGTHS, SHOTS
from kleval.tasks.likelihood import without
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score

PROTOCOL = "helmet-4526dfb"
CHAT = "helmet-4526dfb-chat"
ANY_LENGTH = "-any-length"


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
        n_actions, n_things, _ = intents.SHAPES[name]
        values = {
            "most_shots": SHOTS[name][-1],
            "n_labels": dataset.SPECS[name].n_labels,
            "requests": f"{n_actions} kinds of request" + (f" for {n_things} kinds of thing" if n_things else ""),
            "budget": OFFICIAL_BUDGET,
            "items": TEST_ITEMS,
        }
        super().__init__(f"helmet_icl/{name}", edition, protocol, known, values)
        self._name = name
        self._form = Form(chat=self.protocol.removesuffix(ANY_LENGTH) == CHAT)
        self._open = (
            partial(Builtin, name, self.version, self._form)
            if edition == "builtin"
            else partial(Official, name, data_dir, self._form, self.protocol.endswith(ANY_LENGTH))
        )

    def score(self, sample: Sample, answer: Completion) -> Score:
        metrics, parsed = scoring.score_answer(answer.text, sample.references[0], prefixed=not self._form.chat)
        return Score(metrics, extracted=parsed)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its examples, which alone say what the labels stand for."""
        return without(sample.prompt, user_message("{context}", "{question}"), "{context}")

    def _template(self) -> str:
        message = user_message("{context}", "{question}")
        return message if self._form.chat else f"{message}\n{ANSWER_PREFIX}"

    def _facts(self) -> Mapping[str, Any]:
        shots = dict(zip(map(str, LENGTHS), SHOTS[self._name], strict=True))
        return {
            "labels": dataset.SPECS[self._name].n_labels,
            "shots": shots if self.edition == "official" else "what fits",
        }


trec_coarse, trec_fine, banking77, clinic150, nlu = (partial(IclTask, name) for name in SHOTS)
