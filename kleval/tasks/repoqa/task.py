"""The task `repoqa/snf` (Search Needle Function): one call, scored by which needle the answer is most like.

Protocols. `repoqa-ae876de`: the official prompt and scorer, the code budget being what ctx leaves.
`repoqa-ae876de-16384`: the official default code budget whatever ctx is (official edition only).
`repoqa-ae876de-ignore-comments`: as the first, comments taken out of answer and needles before they are compared.

Official: the needles in the data's order, needle i of n wanted at (i + 0.5) / n of the context. Builtin: functions of
the standard library in a shuffled order of their own per seed, among its files in an order of their own per sample; the
other nine that an answer is compared with are functions of the same context, as far as it has them.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast

from kleval.tasks.base import OneCall, as_prompt
from kleval.tasks.fitting import budget_for
from kleval.tasks.languages import LANGUAGES
from kleval.tasks.likelihood import without
from kleval.tasks.repoqa import dataset, scoring, stdlib
from kleval.tasks.repoqa.context import Asked, Context, LineCount, Needle
from kleval.tasks.repoqa.scoring import Candidate
from kleval.tasks.sized import BuiltinData, OfficialData, Question, SizedTask
from kleval.types import Completion, Prompt, Sample, Score, Tokenizer, Unfit

PROTOCOL = "repoqa-ae876de"
FIXED_SIZE = "repoqa-ae876de-16384"
IGNORE_COMMENTS = "repoqa-ae876de-ignore-comments"
CODE_CONTEXT_SIZE = 16384
OFFICIAL_BUDGET = 1024
NEEDLES = 10
INSTRUCTION = (
    "Based on the function description and code context, please retrieve and repeat the exact described function from"
    " the code context in a code block wrapped by ```:"
)
_PART = 8  # builtin: a needle and its description take at most this part of ctx each
_ROUNDS = 5
_CLOSE = 0.01
_PROBE_CHARS = 40_000
Counts = tuple[LineCount, float, list[tuple[int, Needle]]]


class RepoQaTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = f"pass@{scoring.HEADLINE}"
    official_budget = OFFICIAL_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (PROTOCOL, IGNORE_COMMENTS) if edition == "builtin" else (PROTOCOL, FIXED_SIZE, IGNORE_COMMENTS)
        values = {"threshold": scoring.HEADLINE, "budget": OFFICIAL_BUDGET, "code_context_size": CODE_CONTEXT_SIZE}
        super().__init__("repoqa/snf", edition, protocol, known, values)
        self._open = (
            partial(Builtin, self.id, self.version)
            if edition == "builtin"
            else partial(Official, self.id, data_dir, CODE_CONTEXT_SIZE if self.protocol == FIXED_SIZE else None)
        )

    def score(self, sample: Sample, answer: Completion) -> Score:
        language = sample.meta["language"]
        candidates = cast(Official | Builtin, self._made).candidates(sample.meta)
        ignore = self.protocol == IGNORE_COMMENTS
        verdict = scoring.judge(answer.text, sample.meta["name"], candidates, language, ignore_comments=ignore)
        metrics = {f"pass@{t}": float(verdict.passes(t)) for t in scoring.THRESHOLDS}
        # A BLEU of a copy may come out an ulp above 1.
        metrics["similarity"] = min(1.0, verdict.similarity) if verdict.found else 0.0
        if self.edition == "official":
            metrics[f"{self.metric} {language}"] = metrics[self.metric]
        return Score(metrics, extracted={"best": verdict.best, "similarity": verdict.similarity})

    def question_alone(self, sample: Sample) -> Prompt:
        """Without the code: the function's description and the instruction."""
        return without(sample.prompt, self._template(), "{code}")

    def _template(self) -> str:
        return prompt_text("{code}", "{description}")

    def _facts(self) -> Mapping[str, Any]:
        return {"languages": list(LANGUAGES) if self.edition == "official" else ["python"]}


def prompt_text(code: str, description: str) -> str:
    """Instruction, code, description, instruction: the official template, with nothing in between."""
    return f"{INSTRUCTION}{code}\nFunction Description:{description}\n{INSTRUCTION}"


@dataclass(frozen=True, slots=True)
class Fitted:
    """tokens: of the rendered prompt. size_tokens: the code budget."""

    prompt: Prompt
    tokens: int
    context: Context
    size_tokens: int

    def question(self, index: int, asked: Asked, budget: int, more: Mapping[str, Any]) -> Question:
        """more: of meta, beside what both editions tell."""
        before, needle, after = self.context.tokens
        total = max(1, before + needle + after)
        meta = {
            "language": asked.language,
            "repo": asked.repository,
            "path": asked.needle.path,
            "name": asked.needle.name,
            "position_wanted": round(asked.position, 4),
            "position": round(before / total, 4),
            "code_context_size": self.size_tokens,
            "code_context_tokens": total,
            "needle_tokens": needle,
            "files": len(self.context.paths),
            "repository_exhausted": self.context.complete,
            **more,
        }
        return Question(index, self.prompt, (asked.needle.code,), self.tokens, budget, meta)


def fit(
    asked: Asked,
    tokenizer: Tokenizer,
    count: LineCount,
    room: int,
    ratio: float = 1.0,
    size_tokens: int | None = None,
) -> Fitted:
    """The question with as much code as `room` tokens hold; with the least there can be where that is more.

    count: tokens of a line. ratio: tokens of a text as a whole per token counted line by line, as a first guess, which the whole's
    count corrects a few times. size_tokens: this code budget and no other.
    """

    def counted(code: str) -> tuple[Prompt, int]:
        prompt = as_prompt(tokenizer, prompt_text(code, asked.needle.description))
        return prompt, tokenizer.count(tokenizer.render(prompt))

    def at(size: int) -> Fitted:
        made = asked.code(size, count)
        return Fitted(*counted(made.text), made, size)

    if size_tokens is not None:
        return at(size_tokens)
    _, bare = counted("")
    best: Fitted | None = None
    least, most = 0, sys.maxsize  # between these sizes the best one lies
    size = max(0, int((room - bare) / ratio))
    for _ in range(_ROUNDS):
        tried = at(size)
        left = room - tried.tokens
        if left >= 0:
            least = size
            if best is None or tried.tokens > best.tokens:
                best = tried
            if tried.context.complete or left <= max(8, _CLOSE * room):
                break
        else:
            most = size
        # Aimed a little below: one round too long costs more than a few tokens left over.
        code_tokens = max(1, tried.tokens - bare)
        aim = int(size * max(0.0, room - bare - 0.25 * _CLOSE * room) / code_tokens) if size else left
        size = min(max(aim, least + 1), most - 1)
        if size <= least:
            break
    return best or at(0)


class Official(OfficialData):
    """code_context_size: a fixed code budget, as the official script has it; None fills ctx."""

    def __init__(self, task_id: str, data_dir: Path | None, code_context_size: int | None) -> None:
        self._source, self._size = dataset.find(task_id, data_dir), code_context_size
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        room = ctx - OFFICIAL_BUDGET
        for _, needles in groupby(enumerate(dataset.read(self._source)), key=lambda one: one[1].repository):
            count = cache(tokenizer.count)  # a repository's lines come again
            for index, asked in needles:
                fitted = fit(asked, tokenizer, count, room, size_tokens=self._size)
                if fitted.tokens > room:
                    yield self._unfit(index, fitted.tokens, OFFICIAL_BUDGET, ctx)
                else:
                    more = {"official_offset_defect": asked.is_shifted()}
                    yield fitted.question(index, asked, OFFICIAL_BUDGET, more)

    def candidates(self, meta: Mapping[str, Any]) -> list[Candidate]:
        """What an answer to the question of that meta is compared with."""
        of = meta["language"], meta["repo"]
        everything = dataset.read(self._source)
        return [(one.needle.name, one.needle.code) for one in everything if (one.language, one.repository) == of]


class Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str) -> None:
        super().__init__(task_id, task_version, *stdlib.identity())
        self._counted: dict[str, Counts] = {}

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        if tokenizer.digest not in self._counted:
            self._counted = {tokenizer.digest: _counts(tokenizer)}
        count, ratio, sizes = self._counted[tokenizer.digest]
        pool = [function for size, function in sizes if size * _PART <= ctx]
        if len(pool) < NEEDLES:
            raise self._too_small(ctx, sizes[NEEDLES - 1][0] * _PART)
        budget = budget_for(max(tokenizer.count(function.code) for function in pool))
        order = sorted(pool, key=lambda function: self._draws(ctx, seed, function.name).seed)

        def question(index: int) -> Question:
            rng = self._draws(ctx, seed, index).rng
            asked = _among_files(order[index % len(order)], index, rng)
            fitted = fit(asked, tokenizer, count, ctx - budget, ratio)
            if fitted.tokens > ctx - budget:
                raise self._too_small(ctx, fitted.tokens + budget)
            names = sorted([asked.needle.name, *_rivals(asked.needle, fitted.context, pool, rng)])
            return fitted.question(index, asked, budget, {"candidates": names})

        return question

    def candidates(self, meta: Mapping[str, Any]) -> list[Candidate]:
        """As of the official edition."""
        known = {function.name: function.code for function in stdlib.corpus().functions}
        return [(name, known[name]) for name in meta["candidates"]]


def _among_files(needle: Needle, index: int, rng: random.Random) -> Asked:
    """The question of that index: the standard library's files in an order of its own."""
    position, files = ((index * 7 + 3) % NEEDLES + 0.5) / NEEDLES, stdlib.corpus().files
    order = [path for path in files if path != needle.path]
    rng.shuffle(order)
    order.insert(math.floor(len(order) * position), needle.path)
    return Asked("python", "Python standard library", needle, files, order, position)


def _counts(tokenizer: Tokenizer) -> Counts:
    """Line counts, tokens of a whole per token of its lines, and the functions by the tokens they take."""
    functions, count = stdlib.corpus().functions, cache(tokenizer.count)
    probe = "\n".join(function.code for function in functions)[:_PROBE_CHARS]
    by_line = sum(count(line + "\n") for line in probe.split("\n"))
    sizes = [(max(map(tokenizer.count, (f.code, f.description))), f) for f in functions]
    sizes.sort(key=lambda pair: (pair[0], pair[1].name))
    return count, tokenizer.count(probe) / max(1, by_line), sizes


def _rivals(asked: Needle, shown: Context, pool: Sequence[Needle], rng: random.Random) -> list[str]:
    """Names of nine other functions, those of the context first."""
    paths = set(shown.paths)
    near = [one for one in stdlib.corpus().functions if one.path in paths and one.name != asked.name]
    rest = [one.name for one in pool if one.name != asked.name]
    rng.shuffle(near)
    rng.shuffle(rest)
    standing = (one.name for one in near if one.code in shown.before or one.code in shown.after)
    return list(dict.fromkeys([*islice(standing, NEEDLES - 1), *rest]))[: NEEDLES - 1]


snf = RepoQaTask
