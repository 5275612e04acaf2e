"""The task `longbench2/mcq`: multiple choice in one call, or in two with chain of thought.

Protocols: `longbench-2e00731` (0-shot: one answer) and `longbench-2e00731-cot` (reasoning first; the second call does not
show the document again).

Official: the rows of `data.json` in their order, their fields checked when they are read, since no hash of the file is known. A prompt
that is too long loses its middle, as the official script has it: up to a ctx of 131,072 (its server's max_model_len) at most 120,000
tokens are kept, with a longer ctx what that leaves. A row whose question itself would be cut is passed over. Builtin: the six domains
in turn, at three lengths: a quarter, half and all of ctx; nothing is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data, lexicon, tables
from kleval.tasks.base import as_prompt
from kleval.tasks.fitting import budget_for
from kleval.tasks.likelihood import without
from kleval.tasks.longbench2 import exams, official
from kleval.tasks.longbench2.official import LETTERS
from kleval.tasks.plain_editions import Asked, Filling
from kleval.tasks.prose import SENTENCES_VERSION
from kleval.tasks.sized import OfficialData, Question, SizedTask
from kleval.tokenization import count_given
from kleval.types import Completion, ContextTooSmall, Prompt, Request, Sample, Score, Tokenizer, Unfit, UsageError

PROTOCOL = "longbench-2e00731"
COT = "longbench-2e00731-cot"
OFFICIAL_TEMPERATURE = 0.1
OFFICIAL_BUDGET = 128
COT_BUDGET = 1024
OFFICIAL_MAX_LEN = 120_000
OFFICIAL_CTX = 131_072
SHARES = {"short": 0.25, "medium": 0.5, "long": 1.0}
DIFFICULTIES, LENGTHS = ("easy", "hard"), tuple(SHARES)
_TOLD = ("domain", "sub_domain", "difficulty", "length", "answer")
_KNOWN = {"difficulty": DIFFICULTIES, "length": LENGTHS, "answer": LETTERS}
_COT_PART = 4  # builtin: at most this part of ctx for the reasoning
_REASONING_SLACK = 1.1  # a text may take more tokens when it is read than when it was written
_ROUNDS = 8


def reference(letter: str) -> str:
    """A right answer in the form that the prompt asks for."""
    return f"The correct answer is ({letter})."


_VALUES = {
    "difficulties": ", ".join(DIFFICULTIES),
    "lengths": ", ".join(LENGTHS),
    "temperature": OFFICIAL_TEMPERATURE,
    "max_len": OFFICIAL_MAX_LEN,
    "official_ctx": OFFICIAL_CTX,
    "cot_budget": COT_BUDGET,
    "answer": reference("A"),
}


class LongBench2Task(SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "accuracy"

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        super().__init__("longbench2/mcq", edition, protocol, (PROTOCOL, COT), _VALUES)
        self._cot = self.protocol == COT
        self._temperature = 0.0 if edition == "builtin" else OFFICIAL_TEMPERATURE
        self.official_budget = f"{COT_BUDGET}, then {OFFICIAL_BUDGET}" if self._cot else str(OFFICIAL_BUDGET)
        made = partial(Builtin, self.id, self.version, self._cot)
        self._open = made if edition == "builtin" else partial(Official, self.id, data_dir, self._cot)

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if not outcomes:
            return (self._request(sample, sample.prompt, sample.max_new_tokens),)
        # An empty reasoning ends it, as in the official script, which then writes no row.
        if self._cot and len(outcomes) == 1 and outcomes[0].text != "":
            text = official.with_reasoning(sample.meta["answer_prompt"], outcomes[0].text)
            prompt: Prompt = text if isinstance(sample.prompt, str) else ({"role": "user", "content": text},)
            return (self._request(sample, prompt, sample.meta["answer_budget"]),)
        return self.score(sample, outcomes[-1])

    def score(self, sample: Sample, answer: Completion) -> Score:
        """accuracy: an empty answer is wrong. `accuracy of non-empty`: not scored there, as the official script has it."""
        meta = sample.meta
        empty = answer.text == ""
        letter = official.extract(answer.text)
        right = float(letter == meta["answer"])
        metrics = {
            "accuracy": right,
            f"accuracy {meta['difficulty']}": right,
            f"accuracy {meta['length']}": right,
            "accuracy of non-empty": math.nan if empty else right,
            "empty": float(empty),
        }
        return Score(metrics, extracted=letter)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its document; the choices stay."""
        return without(sample.prompt, _template(self._cot), "$DOC$")

    def _template(self) -> str:
        return _template(self._cot) + (official.COT_ANSWER if self._cot else "")

    def _request(self, sample: Sample, prompt: Prompt, budget: int) -> Request:
        return Request("generate", prompt, max_new_tokens=budget, stop=sample.stop, temperature=self._temperature)


def _template(cot: bool) -> str:
    return official.COT if cot else official.ZERO_SHOT


def _second_call(
    tokenizer: Tokenizer, question: str, choices: Sequence[str], budget: int, answer_budget: int
) -> tuple[dict[str, Any], int]:
    """What meta holds for the second call of chain of thought (`answer_prompt`, with `$COT$` for what the first one says, and
    `answer_budget`), and how many tokens it takes at most, its answer included."""
    text = official.filled(official.COT_ANSWER, "", question, choices)
    tokens = tokenizer.count(tokenizer.render(as_prompt(tokenizer, official.with_reasoning(text, ""))))
    needed = tokens + int(budget * _REASONING_SLACK) + answer_budget
    return {"answer_prompt": text, "answer_budget": answer_budget}, needed


class Official(OfficialData):
    def __init__(self, task_id: str, data_dir: Path | None, cot: bool) -> None:
        status = data.need("longbench2", "data.json", f"{task_id} (official)", data_dir)
        revision = f"LongBench-v2 unpinned {status.path.name} sha256:{status.sha256[:16]}"
        super().__init__(task_id, revision, status.sha256)
        self._path, self._cot = status.path, cot

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for index, (where, row) in enumerate(tables.rows(self._path)):
            yield self._question(index, where, row, tokenizer, ctx)

    def _question(
        self, index: int, where: str, row: dict[str, Any], tokenizer: Tokenizer, ctx: int
    ) -> Question | Unfit:
        told = {"row": tables.text(where, row, "_id"), **{name: _told(where, row, name) for name in _TOLD}}
        context, asked = tables.text(where, row, "context"), tables.text(where, row, "question")
        choices = [tables.text(where, row, f"choice_{letter}") for letter in LETTERS]
        template, budget = _template(self._cot), COT_BUDGET if self._cot else OFFICIAL_BUDGET
        more: dict[str, Any] = {}
        if self._cot:
            more, needed = _second_call(tokenizer, asked, choices, budget, OFFICIAL_BUDGET)
            if needed > ctx:
                return self._passed_over(index, f"needs {needed} tokens for its second call", needed, ctx)
        text = official.filled(template, context, asked, choices)
        behind = official.after_document(template, context, asked, choices)
        # Tokens of the chat template around a message, and of the answer.
        beside = max(0, count_given(tokenizer, as_prompt(tokenizer, "x")) - tokenizer.count("x")) + budget
        max_len = min(ctx - beside, OFFICIAL_MAX_LEN) if ctx <= OFFICIAL_CTX else ctx - beside
        for _ in range(_ROUNDS):
            if max_len < 1:
                break
            cut, removed = official.truncated(tokenizer, text, max_len)
            if not cut.endswith(behind):
                break
            prompt = as_prompt(tokenizer, cut)
            tokens = tokenizer.count(tokenizer.render(prompt))
            if tokens + budget <= ctx:
                meta = {**told, "max_len": max_len, "removed_tokens": removed, **more}
                return Question(index, prompt, (reference(told["answer"]),), tokens, budget, meta)
            # Ends of two halves, put together, may be more tokens than they were apart.
            max_len -= tokens + budget - ctx
        least = 2 * (tokenizer.count(behind) + 1) + beside
        return self._passed_over(index, f"needs {least} tokens so that its question is not cut", least, ctx)

    def _passed_over(self, index: int, why: str, minimum_tokens: int, ctx: int) -> Unfit:
        return Unfit(index, f"{self._task_id} row {index} {why}, ctx is {ctx}", max(minimum_tokens, ctx + 1))


def _told(where: str, row: dict[str, Any], name: str) -> str:
    found, known = tables.text(where, row, name), _KNOWN.get(name)
    if known and found not in known:
        raise UsageError(f"{where}: field {name!r} must be one of {', '.join(known)}, is {found[:40]!r}")
    return found


class Builtin(Filling):
    def __init__(self, task_id: str, task_version: str, cot: bool) -> None:
        words = (lexicon.NAMES, lexicon.THINGS, lexicon.PLACES, lexicon.ADJECTIVES, tuple(exams.DOMAINS))
        super().__init__(task_id, task_version, exams.EXAMS_VERSION, SENTENCES_VERSION, words)
        self._cot = cot

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        answer_budget = budget_for(max(tokenizer.count(reference(letter)) for letter in LETTERS))
        budget = min(COT_BUDGET, max(answer_budget, ctx // _COT_PART)) if self._cot else answer_budget

        def question(index: int) -> Question:
            domain, length, hard = kind_of(index)
            made, more = exams.exam(self._draws(ctx, seed, index).rng, domain, hard), dict[str, Any]()
            if self._cot:
                more, needed = _second_call(tokenizer, made.question, made.choices, budget, answer_budget)
                if needed > ctx:
                    raise self._too_small(ctx, needed)
            asked = _asked(made, domain, length, _template(self._cot), more)
            try:
                return self._sized(index, asked, tokenizer, int(SHARES[length] * ctx), budget)
            except ContextTooSmall as error:
                # A quarter of a short ctx does not hold the question: it gets what it takes and little more.
                return self._sized(index, asked, tokenizer, min(error.minimum_tokens, ctx), budget)

        return question


def _asked(made: exams.Exam, domain: str, length: str, template: str, more: Mapping[str, Any]) -> Asked:
    """more: of meta."""
    references = (reference(made.answer),)

    def build(fillers: Sequence[str]) -> str:
        return official.filled(template, made.document(fillers), made.question, made.choices)

    def told(n_fillers: int) -> tuple[tuple[str, ...], dict[str, Any]]:
        meta = {
            "domain": domain,
            "sub_domain": made.sub_domain,
            "difficulty": made.difficulty,
            "length": length,
            "answer": made.answer,
            "records": n_fillers + len(made.places),
            "places": [round(place, 4) for place in made.places],
            "removed_tokens": 0,
            **more,
        }
        return references, meta

    return Asked(build, references, pieces=made.fillers, told=told)


def kind_of(index: int) -> tuple[str, str, bool]:
    """Domain, length and whether it is hard: domains in turn, and after 36 questions each with each."""
    domains = tuple(exams.DOMAINS)
    turn, at = divmod(index, len(domains))
    return domains[at], LENGTHS[(turn + at + 2) % len(LENGTHS)], (turn // len(LENGTHS) + at) % 2 == 1


mcq = LongBench2Task
