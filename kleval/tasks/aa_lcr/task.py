"""The task `aa_lcr/qa`: one call, and one to a judge.

Protocols. `aa-lcr-1.1` and `aa-lcr-1.0`: the judge's prompt of that version of the data; an empty answer is wrong without asking
it. `contains`: no judge, the reference's words stand in the answer; the builtin edition's default, whose answers are a name or number.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kleval.tasks import packaged, prose
from kleval.tasks.aa_lcr import dataset, reports
from kleval.tasks.answers import contains
from kleval.tasks.base import JUDGE_BUDGET, Judged
from kleval.tasks.data import Source
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Made, Rows, as_it_is
from kleval.tasks.sized import SizedTask
from kleval.types import Prompt, Sample, Score

JUDGED = ("aa-lcr-1.1", "aa-lcr-1.0")
CONTAINS = "contains"
OFFICIAL_BUDGET = 4096
PROMPTS = packaged.load("aa_lcr/prompts.toml")
_VERDICT = re.compile(r'"verdict"\s*:\s*"((?:IN)?CORRECT)"', re.IGNORECASE)
_WORD = re.compile(r"\b(?:IN)?CORRECT\b")


def prompt(documents: Sequence[str], question: str) -> str:
    shown = (PROMPTS["document"].format(number=n, text=text) for n, text in enumerate(documents, 1))
    return str(PROMPTS["model"].format(documents="\n\n".join(shown), question=question))


def judge_prompt(protocol: str, question: str, answer: str, candidate: str) -> Prompt:
    ask = PROMPTS[protocol]
    user = {"role": "user", "content": ask["user"].format(question=question, answer=answer, candidate=candidate)}
    return ({"role": "system", "content": ask["system"]}, user) if "system" in ask else (user,)


def verdict(reply: str) -> bool | None:
    """Of the last verdict in JSON, else of the words in capitals, where there are no two that differ. None where there is none."""
    found = {one.upper() for one in _VERDICT.findall(reply)[-1:] or _WORD.findall(reply)}
    return found == {"CORRECT"} if len(found) == 1 else None


class AaLcrTask(Judged, SizedTask):
    version = "1"
    reply_says = "verdict"
    own_protocols = (CONTAINS,)
    official_budget = OFFICIAL_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (*JUDGED, CONTAINS) if edition == "official" else (CONTAINS, *JUDGED)
        values = {"budget": OFFICIAL_BUDGET, "judge_budget": JUDGE_BUDGET}
        super().__init__("aa_lcr/qa", edition, protocol, known, values)
        self.metric = "accuracy" if self.needs_judge else CONTAINS
        made = partial(
            Made, self.id, self.version, _asked, reports.REPORTS_VERSION, reports.BANK, prose.SENTENCES_VERSION
        )
        self._open = made if edition == "builtin" else partial(self._official, data_dir)

    def _official(self, data_dir: Path | None) -> Rows:
        source = dataset.find(self.id, data_dir)
        return Rows(self.id, source, partial(_rows, source), OFFICIAL_BUDGET)

    def _judge_prompt(self, sample: Sample, answer: str) -> Prompt:
        return judge_prompt(self.protocol, sample.meta["question"], sample.references[0], answer)

    def _verdict(self, reply: str) -> bool | None:
        return verdict(reply)

    def _score(self, sample: Sample, answer: str, right: bool | None) -> Score:
        metrics = {CONTAINS: contains(answer, sample.references)}
        if right is not None:
            value = float(right)
            metrics = {"accuracy": value, **metrics, f"accuracy {sample.meta['kind']}": value}
        return Score(metrics, extracted=answer.strip())

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its documents."""
        return without(sample.prompt, PROMPTS["model"], "{documents}")

    def _template(self) -> str:
        ask = PROMPTS[self.protocol] if self.needs_judge else {}
        return "\0".join((PROMPTS["document"], PROMPTS["model"], *ask.values()))


def _rows(source: Source, ctx: int) -> Iterator[Asked]:
    for row in dataset.read(source):
        meta = {"question": row.question, "kind": row.category, "row": row.id, "documents": len(row.documents)}
        yield Asked(as_it_is(prompt(row.documents, row.question)), (row.answer,), meta)


def _asked(rng: random.Random, index: int) -> Asked:
    made = reports.report_set(rng)

    def build(taken: Sequence[str]) -> str:
        return prompt(made.documents(taken), made.question)

    meta = {"question": made.question, "kind": made.kind, "documents": len(made.reports)}
    return Asked(build, (made.answer,), meta, prose.sentences(rng.getrandbits(64)))


qa = AaLcrTask
