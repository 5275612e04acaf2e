"""The tasks `helmet_icl/trec_coarse`, `trec_fine`, `banking77`, `clinic150` and `nlu`: one call each.

Protocols. `helmet-4526dfb`: text without a chat template, ending in `label:`, as the official configuration has it even for
instruction-tuned models. `helmet-4526dfb-chat`: the user's message, as the official code with use_chat_template. Of the
official edition both take the six lengths of the table of shots alone; with `-any-length` behind it they take every length,
by the rule in `shots`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall
from kleval.tasks.helmet_icl import dataset, intents, scoring
from kleval.tasks.helmet_icl.drawing import ANSWER_PREFIX, TEST_ITEMS, user_message
from kleval.tasks.helmet_icl.editions import OFFICIAL_BUDGET, Builtin, Form, Official, Question
from kleval.tasks.helmet_icl.shots import LENGTHS, SHOTS
from kleval.tasks.registry import check_protocol
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Sample, Score

VERSION = "1"
PROTOCOL = "helmet-4526dfb"
CHAT = "helmet-4526dfb-chat"
ANY_LENGTH = "-any-length"
_SOURCE = "princeton-nlp/HELMET @ 4526dfb (MIT), arXiv 2410.02694"
_DATA = {
    "trec": "CogComp/trec (TREC question classification; no licence stated)",
    "banking77": "PolyAI/banking77 (CC-BY-4.0)",
    "clinc150": "clinc_oos, plus (CC-BY-3.0)",
    "nlu": "xingkunliuxtracta/nlu_evaluation_data (CC-BY-4.0)",
}


class IclTask(OneCall, SizedTask):
    version = VERSION
    own_protocols = (PROTOCOL,)
    without_prefix = CHAT

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        self.id = f"helmet_icl/{name}"
        self.metric = "exact_match"
        self.edition = edition
        known: tuple[str, ...] = (PROTOCOL, CHAT)
        if edition == "official":
            known = (*known, *(one + ANY_LENGTH for one in known))
        self.protocol = check_protocol(self.id, protocol, known)
        self._form = Form(chat=self.protocol.removesuffix(ANY_LENGTH) == CHAT)
        self.description = f"the number of a text's label, by labelled examples: up to {SHOTS[name][-1]} at 128k"
        if edition == "builtin":
            self.description = f"the number of an intent, by examples: up to {dataset.SPECS[name].n_labels} intents"
        self._name = name
        self._open = (
            partial(Builtin, name, VERSION, self._form)
            if edition == "builtin"
            else partial(Official, name, data_dir, self._form, self.protocol.endswith(ANY_LENGTH))
        )
        self.deviations = self._deviations()

    def score(self, sample: Sample, answer: Completion) -> Score:
        metrics, parsed = scoring.score_answer(answer.text, sample.references[0], prefixed=not self._form.chat)
        return Score(metrics, extracted=parsed)

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        official = self.edition == "official"
        spec = dataset.SPECS[self._name]
        message = user_message("{context}", "{question}")
        template = message if self._form.chat else f"{message}\n{ANSWER_PREFIX}"
        return {
            **self.facts(_SOURCE, f"{_SOURCE}; data {_DATA[spec.folder]}"),
            "prompt_sha256": hashlib.sha256(template.encode()).hexdigest(),
            "metric": "exact_match: the answer's first line is the label's number, after lower case, punctuation, articles"
            " and blanks; beside it substring_exact_match and f1. HELMET-ICL is the mean of the five tasks",
            "max_new_tokens": OFFICIAL_BUDGET if official else "longest reference x 1.5 + 16",
            "limits": f"temperature 0, {OFFICIAL_BUDGET} new tokens, {TEST_ITEMS} test items"
            if official
            else "up to ctx",
            "labels": spec.n_labels,
            "shots": dict(zip(map(str, LENGTHS), SHOTS[self._name], strict=True)) if official else "what fits",
            "deviations": list(self.deviations),
            "defects": list(_DEFECTS),
            "unknown": "the Kimi Linear paper names HELMET-ICL and does not say which of its data sets, how many test items"
            " or whether a chat template was used",
        }

    def _sample(self, question: Question, ctx: int, seed: int) -> Sample:
        return Sample(
            id=self.sample_id(question.index, ctx, seed),
            task=self.id,
            ctx=ctx,
            index=question.index,
            prompt=question.prompt,
            references=(question.answer,),
            max_new_tokens=question.budget,
            prompt_tokens=question.tokens,
            answer_prefix=self._form.prefix,
            meta=question.meta,
        )

    def _deviations(self) -> tuple[str, ...]:
        if self.edition == "builtin":
            n_actions, n_things, _ = intents.SHAPES[self._name]
            what = f"{n_actions} kinds of request" + (f" for {n_things} kinds of thing" if n_things else "")
            return (
                f"utterances are written from templates: {what}; the things are drawn anew for every sample",
                "as many examples as fit into ctx, in rounds of one per label; the table of shots is not used",
                f"fewer than {dataset.SPECS[self._name].n_labels} labels where ctx is too short for two examples of each",
            )
        found = [
            "the cut of a context that is too long: a token's leading blank goes with it, and what is still too long is cut"
            " again; the official code leaves both to the tokenizer",
            "--seed takes the place of the official seed, which is 42, kleval's default too",
        ]
        if self._name.startswith("trec"):
            found.append(
                "the copy in trangnt08/q_class_en is 32 bytes shorter than what the hub's script downloads (359,212 bytes by"
                " its card): `sister city` is one word in it, and other texts may differ; a result's revision names the copy"
            )
        if self.protocol.endswith(ANY_LENGTH):
            found.append(
                "lengths that the table of shots does not have: in proportion between two of its entries, as many per"
                " token as at its ends beyond them; a row's shots_rule says which"
            )
        return tuple(found)


Maker = Callable[[str, str | None, Path | None], IclTask]
trec_coarse: Maker = partial(IclTask, "trec_coarse")
trec_fine: Maker = partial(IclTask, "trec_fine")
banking77: Maker = partial(IclTask, "banking77")
clinic150: Maker = partial(IclTask, "clinic150")
nlu: Maker = partial(IclTask, "nlu")

_DEFECTS = (
    "the configurations say stop_new_line, which the argument parser of that revision does not know, so that nothing"
    " stops an answer at its line's end. Kept: the rest of the answer is not read, but costs tokens",
    "an answer that begins with a line break reads as empty, because `label:` is put before it. Kept",
    "answers that a server refuses are left out of the mean. Here they are failures, and counted",
    "what is too long loses its last examples, and with them perhaps all of the asked label. Kept; a row's"
    " tokens_removed, shots_shown and shots_of_the_label say so",
    "results from before 2025-02 (100 test items) are not comparable",
)
