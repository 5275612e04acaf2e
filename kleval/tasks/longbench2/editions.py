"""Sources of LongBench v2 questions, official and builtin, each sized to ctx.

Official: the rows {_id, domain, sub_domain, difficulty, length, question, choice_A … choice_D, answer, context} in the order of
`data.json` as published, or of another format. No hash of it is known here: every row's fields are checked when it is read, and the
file's own hash is the data digest of every result. A prompt that is too long loses its middle, as the official script has it: up to a
ctx of 131,072 (its server's max_model_len) at most 120,000 tokens are kept, with a longer ctx what that leaves. A row whose
question itself would be cut is passed over. Builtin: the six domains in turn, at three lengths: a quarter, half and all
of ctx; nothing is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks import data, lexicon, tables
from kleval.tasks.base import as_prompt
from kleval.tasks.fitting import budget_for, fill_by_characters
from kleval.tasks.longbench2 import exams, prompts
from kleval.tasks.longbench2.scoring import LETTERS
from kleval.tasks.prose import SENTENCES_VERSION
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question, digest_of
from kleval.tokenization import count_given
from kleval.types import Prompt, Tokenizer, Unfit, UsageError

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


def _overhead(tokenizer: Tokenizer) -> int:
    """Tokens of the chat template around a message."""
    return max(0, count_given(tokenizer, as_prompt(tokenizer, "x")) - tokenizer.count("x"))


def _second_call(
    tokenizer: Tokenizer, question: str, choices: Sequence[str], budget: int, answer_budget: int
) -> tuple[dict[str, Any], int]:
    """What meta holds for the second call of chain of thought (`answer_prompt`, with `$COT$` for what the first one says, and
    `answer_budget`), and how many tokens it takes at most, its answer included."""
    text = prompts.filled(prompts.COT_ANSWER, "", question, choices)
    tokens = tokenizer.count(tokenizer.render(as_prompt(tokenizer, prompts.with_reasoning(text, ""))))
    needed = tokens + int(budget * _REASONING_SLACK) + answer_budget
    return {"answer_prompt": text, "answer_budget": answer_budget}, needed


class Official(OfficialData):
    def __init__(self, task_id: str, data_dir: Path | None, cot: bool) -> None:
        self._cot = cot
        status = data.need("longbench2", "data.json", f"{task_id} (official)", data_dir)
        self._path = status.path
        revision = f"LongBench-v2 unpinned {status.path.name} sha256:{status.sha256[:16]}"
        super().__init__(task_id, revision, status.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for index, (where, row) in enumerate(tables.rows(self._path)):
            yield self._question(index, where, row, tokenizer, ctx)

    def _question(
        self, index: int, where: str, row: dict[str, Any], tokenizer: Tokenizer, ctx: int
    ) -> Question | Unfit:
        told = {"row": tables.text(where, row, "_id"), **{name: _told(where, row, name) for name in _TOLD}}
        context, asked = tables.text(where, row, "context"), tables.text(where, row, "question")
        choices = [tables.text(where, row, f"choice_{letter}") for letter in LETTERS]
        template = prompts.COT if self._cot else prompts.ZERO_SHOT
        budget = COT_BUDGET if self._cot else OFFICIAL_BUDGET
        more: dict[str, Any] = {}
        if self._cot:
            more, needed = _second_call(tokenizer, asked, choices, budget, OFFICIAL_BUDGET)
            if needed > ctx:
                return self._passed_over(index, f"needs {needed} tokens for its second call", needed, ctx)
        text = prompts.filled(template, context, asked, choices)
        behind = prompts.after_document(template, context, asked, choices)
        room = ctx - budget - _overhead(tokenizer)
        max_len = min(room, OFFICIAL_MAX_LEN) if ctx <= OFFICIAL_CTX else room
        removed, tokens, prompt = 0, 0, as_prompt(tokenizer, "")
        for _ in range(_ROUNDS):
            if max_len < 1:
                break
            cut, removed = prompts.truncated(tokenizer, text, max_len)
            if not cut.endswith(behind):
                break
            prompt = as_prompt(tokenizer, cut)
            tokens = tokenizer.count(tokenizer.render(prompt))
            if tokens + budget <= ctx:
                meta = {**told, "max_len": max_len, "removed_tokens": removed, **more}
                return Question(index, prompt, (reference(told["answer"]),), tokens, budget, meta)
            # Ends of two halves, put together, may be more tokens than they were apart.
            max_len -= tokens + budget - ctx
        least = 2 * (tokenizer.count(behind) + 1) + budget + _overhead(tokenizer)
        return self._passed_over(index, f"needs {least} tokens so that its question is not cut", least, ctx)

    def _passed_over(self, index: int, why: str, minimum_tokens: int, ctx: int) -> Unfit:
        return Unfit(index, f"{self._task_id} row {index} {why}, ctx is {ctx}", max(minimum_tokens, ctx + 1))


class Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str, cot: bool) -> None:
        self._cot = cot
        words = (lexicon.NAMES, lexicon.THINGS, lexicon.PLACES, lexicon.ADJECTIVES, tuple(exams.DOMAINS))
        digest = digest_of(exams.EXAMS_VERSION, SENTENCES_VERSION, words)
        super().__init__(task_id, task_version, f"kleval {exams.EXAMS_VERSION}", digest)

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        answer_budget = budget_for(max(tokenizer.count(reference(letter)) for letter in LETTERS))
        for index in indices:
            yield self._question(index, tokenizer, ctx, seed, answer_budget)

    def _question(self, index: int, tokenizer: Tokenizer, ctx: int, seed: int, answer_budget: int) -> Question:
        domain, length, hard = kind_of(index)
        made = exams.exam(self._draws(ctx, seed, index).rng, domain, hard)
        asked = made.material.question
        budget = min(COT_BUDGET, max(answer_budget, ctx // _COT_PART)) if self._cot else answer_budget
        more: dict[str, Any] = {}
        if self._cot:
            more, needed = _second_call(tokenizer, asked, made.choices, budget, answer_budget)
            if needed > ctx:
                raise self._too_small(ctx, needed)
        template = prompts.COT if self._cot else prompts.ZERO_SHOT

        def build(fillers: Sequence[str]) -> Prompt:
            return as_prompt(tokenizer, prompts.filled(template, made.document(fillers), asked, made.choices))

        fillers = made.material.fillers
        filled = fill_by_characters(build, fillers, tokenizer, int(SHARES[length] * ctx) - budget)
        if isinstance(filled, int):
            # A quarter of a short ctx does not hold the question: it gets what it takes and little more.
            filled = fill_by_characters(build, fillers, tokenizer, min(filled, ctx - budget))
        if isinstance(filled, int):
            raise self._too_small(ctx, filled + budget)
        meta = {
            "domain": domain,
            "sub_domain": made.material.sub_domain,
            "difficulty": made.difficulty,
            "length": length,
            "answer": made.answer,
            "records": filled.n_pieces + len(made.places),
            "places": [round(place, 4) for place in made.places],
            "removed_tokens": 0,
            **more,
        }
        return Question(index, filled.prompt, (reference(made.answer),), filled.tokens, budget, meta)


def _told(where: str, row: dict[str, Any], name: str) -> str:
    found, known = tables.text(where, row, name), _KNOWN.get(name)
    if known and found not in known:
        raise UsageError(f"{where}: field {name!r} must be one of {', '.join(known)}, is {found[:40]!r}")
    return found


def kind_of(index: int) -> tuple[str, str, bool]:
    """Domain, length and whether it is hard: domains in turn, and after 36 questions each with each."""
    domains = tuple(exams.DOMAINS)
    turn, at = divmod(index, len(domains))
    return domains[at], LENGTHS[(turn + at + 2) % len(LENGTHS)], (turn // len(LENGTHS) + at) % 2 == 1
