"""The tasks `longbench_pro/english` and `longbench_pro/chinese`: one call, the document and then the question as the user's message.

Official: the rows of that language whose documents are of the longest length of at most ctx. Builtin: a journal of kleval's own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kleval.tasks import data, packaged, tables
from kleval.tasks.base import OneCall
from kleval.tasks.likelihood import without
from kleval.tasks.longbench_pro import scoring
from kleval.tasks.plain_editions import Asked, Made, Rows, as_it_is, longest_within, spread
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score, UsageError

PROTOCOLS = {"longbench-pro-88fbeb8": "question_nonthinking", "longbench-pro-88fbeb8-thinking": "question_thinking"}
BUDGETS = dict(zip(PROTOCOLS, (1024, 8192), strict=True))
LENGTHS = {f"{1 << power}k": 1 << power + 10 for power in range(3, 9)}
FILES = ("longbench_pro.json",)
JOURNALS_VERSION = "journals-1"
BANK = packaged.load("longbench_pro/bank.toml")
_TEMPLATE = "{context}\n\n\n\n{question}"
_FACTS = 12


def prompt(context: str, question: str) -> str:
    return _TEMPLATE.replace("{question}", question).replace("{context}", context).strip()


class LongBenchProTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (next(iter(PROTOCOLS)),)
    metric = "score"

    def __init__(self, language: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = tuple(PROTOCOLS) if edition == "official" else self.own_protocols
        budget = BUDGETS.get(protocol or known[0], 0)
        values = {"budget": budget, "facts": _FACTS}
        super().__init__(f"longbench_pro/{language.lower()}", edition, protocol, known, values)
        self.official_budget, self._language = budget, language
        made = partial(Made, self.id, self.version, partial(_asked, language), JOURNALS_VERSION, BANK[language])
        self._open = made if edition == "builtin" else partial(self._official, data_dir)

    def _official(self, data_dir: Path | None) -> Rows:
        source = data.find("longbench_pro", FILES, f"{self.id} (official)", data_dir, "LongBench-Pro")
        return Rows(self.id, source, partial(self._rows, source.path), BUDGETS[self.protocol])

    def _rows(self, path: Path, ctx: int) -> Iterator[Asked]:
        length = longest_within(LENGTHS, ctx, f"{self.id} (official) has no document")
        for where, row in tables.rows(path):
            kind = tables.text(where, row, "secondary_task").partition(" ")[0]
            if (row.get("language"), row.get("token_length")) != (self._language, length) or kind.startswith("T4."):
                continue
            if kind not in scoring.KINDS:
                raise UsageError(f"{where}: field 'secondary_task' is of no kind that can be scored: {kind[:40]!r}")
            context, question = (tables.text(where, row, name) for name in ("context", PROTOCOLS[self.protocol]))
            right = tables.texts(where, row, "answer")
            told = {name: tables.text(where, row, name) for name in ("id", "difficulty", "contextual_requirement")}
            meta = {"question": question, "kind": kind, "right": right, "length": length, **told}
            yield Asked(as_it_is(prompt(context, question)), (_said(self._language, right),), meta)

    def score(self, sample: Sample, answer: Completion) -> Score:
        meta = sample.meta
        value = scoring.score(meta["kind"], meta["right"], answer.text)
        by = [meta["kind"].partition(".")[0], *(meta[name] for name in ("difficulty", "length") if name in meta)]
        return Score(
            {"score": value, **{f"score {name}": value for name in by}}, extracted=scoring.extract(answer.text)
        )

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its document."""
        if isinstance(sample.prompt, str):
            return without(sample.prompt, f"{{context}}\n\n\n\n{sample.meta['question'].strip()}", "{context}")
        return ({"role": "user", "content": sample.meta["question"]},)

    def _template(self) -> str:
        return _TEMPLATE


def _said(language: str, right: Sequence[str]) -> str:
    return "\n".join((scoring.MARKS[language == "Chinese"], *right))


def _asked(language: str, rng: random.Random, index: int) -> Asked:
    words = BANK[language]
    names, things, places, skies = (words[key].split() for key in ("names", "things", "places", "skies"))

    def delivery(n: int) -> tuple[str, int, str, str]:
        who, count, thing = rng.choice(names), rng.randint(2, 60), rng.choice(things)
        return who, count, thing, places[n] if n < len(places) else rng.choice(places)

    rows = [delivery(n) for n in range(_FACTS)]
    rng.shuffle(rows)
    facts = [words["fact"].format(n=n, name=a, count=b, thing=c, place=d) for n, (a, b, c, d) in enumerate(rows, 1)]
    kind, n, place = rng.choice(tuple(words["questions"])), rng.randrange(_FACTS), rng.choice(places)
    thing = rows[n][2]
    right = {
        "T3.2": [rows[n][0]],
        "T6.2": [str(at) for at, row in enumerate(rows, 1) if row[3] == place],
        "T8.2": [str(sum(row[1] for row in rows if row[2] == thing))],
        "T2.1": list(dict.fromkeys(row[3] for row in rows)),
    }[kind]
    question = f"{words['questions'][kind].format(n=n + 1, place=place, thing=thing, places=', '.join(places))} {words['form']}"
    at = sorted(rng.random() for _ in facts)

    def notes() -> Iterator[str]:
        while True:
            sky, other = rng.sample(skies, 2)
            yield words["note"].format(sky=sky, other=other, place=rng.choice(places))

    def build(taken: Sequence[str]) -> str:
        return prompt("\n".join(spread(facts, at, taken)), question)

    meta = {"question": question, "kind": kind, "right": right, "facts": facts}
    return Asked(build, (_said(language, right),), meta, notes())


english, chinese = (partial(LongBenchProTask, language) for language in BANK)
