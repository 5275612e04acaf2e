"""Sources of RepoQA questions, official and builtin, each sized to ctx.

Official: the needles in the data's order, needle i of n wanted at (i + 0.5) / n of the context. Builtin: functions of
the standard library in a shuffled order of their own per seed, among its files in an order of their own per sample; the
other nine that an answer is compared with are functions of the same context, as far as it has them.

The code's budget is what ctx leaves beside instruction, description, chat template and generation budget. Tokens
counted line by line are not quite those of the whole, so the budget is corrected a few times by the whole's count.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from kleval.tasks import sized
from kleval.tasks.base import as_prompt
from kleval.tasks.fitting import budget_for
from kleval.tasks.languages import COMMENT_PREFIX
from kleval.tasks.repoqa import context, dataset, stdlib
from kleval.tasks.repoqa.context import Context, Needle
from kleval.tasks.repoqa.scoring import Candidate
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question
from kleval.types import Prompt, Tokenizer, Unfit

INSTRUCTION = (
    "Based on the function description and code context, please retrieve and repeat the exact described function from"
    " the code context in a code block wrapped by ```:"
)
OFFICIAL_BUDGET = 1024
NEEDLES = 10
_PART = 8  # builtin: a needle and its description take at most this part of ctx each
_ROUNDS = 5
_CLOSE = 0.01
_PROBE_CHARS = 40_000


class Edition(sized.Edition, Protocol):
    def candidates(self, meta: Mapping[str, Any]) -> Sequence[Candidate]:
        """What an answer to the question of that meta is compared with."""
        ...


def prompt_text(code: str, description: str) -> str:
    """Instruction, code, description, instruction: the official template, with nothing in between."""
    return f"{INSTRUCTION}{code}\nFunction Description:{description}\n{INSTRUCTION}"


@dataclass(frozen=True, slots=True)
class Fitted:
    context: Context
    prompt: Prompt
    tokens: int
    size_tokens: int


def fit(
    make: Callable[[int], Context],
    description: str,
    tokenizer: Tokenizer,
    room: int,
    ratio: float = 1.0,
    size_tokens: int | None = None,
) -> Fitted | int:
    """The question with as much code as `room` tokens hold, or how many it needs at least.

    make: code budget -> context. ratio: tokens of a text as a whole per token counted line by line, as a first guess.
    size_tokens: this code budget and no other.
    """

    def at(size: int) -> Fitted:
        made = make(size)
        prompt = as_prompt(tokenizer, prompt_text(made.text, description))
        return Fitted(made, prompt, tokenizer.count(tokenizer.render(prompt)), size)

    if size_tokens is not None:
        only = at(size_tokens)
        return only if only.tokens <= room else only.tokens
    bare = tokenizer.count(tokenizer.render(as_prompt(tokenizer, prompt_text("", description))))
    best: Fitted | None = None
    least, most = 0, None
    size = max(0, int((room - bare) / ratio))
    for _ in range(_ROUNDS):
        tried = at(size)
        left = room - tried.tokens
        if left >= 0:
            if best is None or tried.tokens > best.tokens:
                best = tried
            least = max(least, size)
            if tried.context.complete or left <= max(8, _CLOSE * room):
                break
        else:
            most = size if most is None else min(most, size)
        code_tokens = max(1, tried.tokens - bare)
        # Aimed a little below: one round too long costs more than a few tokens left over.
        aim = int(size * max(0.0, room - bare - 0.25 * _CLOSE * room) / code_tokens) if size else left
        size = min(max(aim, least + 1), most - 1 if most is not None else max(aim, least + 1))
        if size <= least:
            break
    if best is None:
        smallest = at(0)
        if smallest.tokens > room:
            return smallest.tokens
        best = smallest
    return best


def _meta(fitted: Fitted, position: float) -> dict[str, Any]:
    before, needle, after = fitted.context.tokens
    total = max(1, before + needle + after)
    return {
        "position_wanted": round(position, 4),
        "position": round(before / total, 4),
        "code_context_size": fitted.size_tokens,
        "code_context_tokens": total,
        "needle_tokens": needle,
        "files": len(fitted.context.paths),
        "repository_exhausted": fitted.context.complete,
    }


class Official(OfficialData):
    """code_context_size: a fixed code budget, as the official script has it; None fills ctx."""

    def __init__(self, task_id: str, data_dir: Path | None, code_context_size: int | None) -> None:
        self._source = dataset.find(task_id, data_dir)
        self._size = code_context_size
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        index = 0
        for repository in dataset.read(self._source):
            count = cache(tokenizer.count)  # lines come again
            for i, needle in enumerate(repository.needles):
                position = (i + 0.5) / len(repository.needles)
                yield self._question(index, repository, needle, position, tokenizer, count, ctx)
                index += 1

    def candidates(self, meta: Mapping[str, Any]) -> Sequence[Candidate]:
        for repository in dataset.read(self._source):
            if (repository.language, repository.name) == (meta["language"], meta["repo"]):
                return [(needle.name, needle.code) for needle in repository.needles]
        raise KeyError(meta["repo"])

    def _question(
        self,
        index: int,
        repository: dataset.Repository,
        needle: Needle,
        position: float,
        tokenizer: Tokenizer,
        count: Callable[[str], int],
        ctx: int,
    ) -> Question | Unfit:
        order, content = repository.order, repository.content
        at = order.index(needle.path)
        text = content[needle.path]
        cut = context.cut_out(needle.path, text, needle.start_byte, needle.end_byte)

        def make(size: int) -> Context:
            before = ((path, content[path]) for path in reversed(order[:at]))
            after = ((path, content[path]) for path in order[at + 1 :])
            return context.build(cut, before, after, position, size, count, COMMENT_PREFIX[repository.language])

        fitted = fit(make, needle.description, tokenizer, ctx - OFFICIAL_BUDGET, size_tokens=self._size)
        if isinstance(fitted, int):
            minimum = fitted + OFFICIAL_BUDGET
            reason = (
                f"repoqa needle {repository.language} {repository.name} {needle.name} takes {fitted} tokens and"
                f" {OFFICIAL_BUDGET} for the answer, ctx is {ctx}"
            )
            return Unfit(index, reason, minimum)
        # Where they differ, the official prompt shows other code than the function asked for.
        shifted = cut != context.cut_out(needle.path, text, needle.start_byte, needle.end_byte, official_offsets=True)
        meta = {
            "language": repository.language,
            "repo": repository.name,
            "path": needle.path,
            "name": needle.name,
            **_meta(fitted, position),
            "official_offset_defect": shifted,
        }
        return Question(index, fitted.prompt, (needle.code,), fitted.tokens, OFFICIAL_BUDGET, meta)


class Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str) -> None:
        super().__init__(task_id, task_version, *stdlib.identity())
        self._counted: dict[str, tuple[Callable[[str], int], float, list[tuple[int, Needle]]]] = {}

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        count, ratio, sizes = self._counts(tokenizer)
        pool = [function for size, function in sizes if size * _PART <= ctx]
        if len(pool) < NEEDLES:
            raise self._too_small(ctx, sizes[NEEDLES - 1][0] * _PART)
        budget = budget_for(max(tokenizer.count(function.code) for function in pool))
        order = sorted(pool, key=lambda function: self._draws(ctx, seed, function.name).seed)
        for index in indices:
            asked = order[index % len(order)]
            rng = self._draws(ctx, seed, index).rng
            yield self._question(index, asked, pool, rng, tokenizer, count, ratio, ctx, budget)

    def candidates(self, meta: Mapping[str, Any]) -> Sequence[Candidate]:
        known = stdlib.corpus().by_name
        return [(name, known[name].code) for name in meta["candidates"]]

    def _counts(self, tokenizer: Tokenizer) -> tuple[Callable[[str], int], float, list[tuple[int, Needle]]]:
        """Line counts, tokens of a whole per token of its lines, and the functions by the tokens they take."""
        key = tokenizer.digest
        if key not in self._counted:
            self._counted.clear()
            corpus = stdlib.corpus()
            count = cache(tokenizer.count)
            probe = "\n".join(function.code for function in corpus.functions)[:_PROBE_CHARS]
            by_line = sum(count(line + "\n") for line in probe.split("\n"))
            sizes = [(max(map(tokenizer.count, (f.code, f.description))), f) for f in corpus.functions]
            sizes.sort(key=lambda pair: (pair[0], pair[1].name))
            self._counted[key] = (count, tokenizer.count(probe) / max(1, by_line), sizes)
        return self._counted[key]

    def _question(
        self,
        index: int,
        asked: Needle,
        pool: Sequence[Needle],
        rng: random.Random,
        tokenizer: Tokenizer,
        count: Callable[[str], int],
        ratio: float,
        ctx: int,
        budget: int,
    ) -> Question:
        position, corpus = ((index * 7 + 3) % NEEDLES + 0.5) / NEEDLES, stdlib.corpus()
        cut = context.cut_out(asked.path, corpus.files[asked.path], asked.start_byte, asked.end_byte)
        others = [path for path in corpus.files if path != asked.path]
        rng.shuffle(others)
        split = math.floor(len(others) * position)

        def make(size: int) -> Context:
            before = ((path, corpus.files[path]) for path in reversed(others[:split]))
            after = ((path, corpus.files[path]) for path in others[split:])
            return context.build(cut, before, after, position, size, count, COMMENT_PREFIX["python"])

        fitted = fit(make, asked.description, tokenizer, ctx - budget, ratio)
        if isinstance(fitted, int):
            raise self._too_small(ctx, fitted + budget)
        rivals = self._rivals(asked, fitted.context, pool, rng)
        meta = {
            "language": "python",
            "repo": "Python standard library",
            "path": asked.path,
            "name": asked.name,
            **_meta(fitted, position),
            "candidates": sorted([asked.name, *rivals]),
        }
        return Question(index, fitted.prompt, (asked.code,), fitted.tokens, budget, meta)

    @staticmethod
    def _rivals(
        asked: Needle,
        shown: Context,
        pool: Sequence[Needle],
        rng: random.Random,
    ) -> list[str]:
        """Names of nine other functions, those of the context first."""
        paths = set(shown.paths)
        near = [
            function for function in stdlib.corpus().functions if function.path in paths and function.name != asked.name
        ]
        rng.shuffle(near)
        text = (shown.before, shown.after)
        found: dict[str, None] = {}
        for function in near:
            if len(found) == NEEDLES - 1:
                break
            if any(function.code in part for part in text):
                found[function.name] = None
        rest = [function.name for function in pool if function.name != asked.name]
        rng.shuffle(rest)
        for name in rest:
            if len(found) == NEEDLES - 1:
                break
            found[name] = None
        return list(found)
