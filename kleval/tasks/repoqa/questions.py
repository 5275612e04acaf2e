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
from itertools import islice
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
Counts = tuple[Callable[[str], int], float, list[tuple[int, Needle]]]


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


@dataclass(frozen=True, slots=True)
class Asked:
    """A needle, wanted at `position` (0 to 1) of the code. before, after: paths of the files around its own, from it away."""

    language: str
    repository: str
    needle: Needle
    content: Mapping[str, str]
    before: Sequence[str]
    after: Sequence[str]
    position: float

    def cut(self, official_offsets: bool = False) -> context.Cut:
        path, start, end = self.needle.path, self.needle.start_byte, self.needle.end_byte
        return context.cut_out(path, self.content[path], start, end, official_offsets)

    def code(self, size_tokens: int, count: Callable[[str], int]) -> Context:
        before, after = (((path, self.content[path]) for path in paths) for paths in (self.before, self.after))
        comment = COMMENT_PREFIX[self.language]
        return context.build(self.cut(), before, after, self.position, size_tokens, count, comment)

    def meta(self, fitted: Fitted) -> dict[str, Any]:
        before, needle, after = fitted.context.tokens
        total = max(1, before + needle + after)
        return {
            "language": self.language,
            "repo": self.repository,
            "path": self.needle.path,
            "name": self.needle.name,
            "position_wanted": round(self.position, 4),
            "position": round(before / total, 4),
            "code_context_size": fitted.size_tokens,
            "code_context_tokens": total,
            "needle_tokens": needle,
            "files": len(fitted.context.paths),
            "repository_exhausted": fitted.context.complete,
        }


def fit(
    asked: Asked,
    tokenizer: Tokenizer,
    count: Callable[[str], int],
    room: int,
    ratio: float = 1.0,
    size_tokens: int | None = None,
) -> Fitted | int:
    """The question with as much code as `room` tokens hold, or how many it needs at least.

    count: tokens of a line. ratio: tokens of a text as a whole per token counted line by line, as a first guess.
    size_tokens: this code budget and no other.
    """

    def filled(code: str) -> Prompt:
        return as_prompt(tokenizer, prompt_text(code, asked.needle.description))

    def at(size: int) -> Fitted:
        made = asked.code(size, count)
        prompt = filled(made.text)
        return Fitted(made, prompt, tokenizer.count(tokenizer.render(prompt)), size)

    if size_tokens is not None:
        only = at(size_tokens)
        return only if only.tokens <= room else only.tokens
    bare = tokenizer.count(tokenizer.render(filled("")))
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


class Official(OfficialData):
    """code_context_size: a fixed code budget, as the official script has it; None fills ctx."""

    def __init__(self, task_id: str, data_dir: Path | None, code_context_size: int | None) -> None:
        self._source = dataset.find(task_id, data_dir)
        self._size = code_context_size
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        index = 0
        for repository in dataset.read(self._source):
            count, order = cache(tokenizer.count), repository.order  # lines come again
            for i, needle in enumerate(repository.needles):
                at, position = order.index(needle.path), (i + 0.5) / len(repository.needles)
                around = (repository.content, order[:at][::-1], order[at + 1 :], position)
                asked = Asked(repository.language, repository.name, needle, *around)
                yield self._question(index, asked, tokenizer, count, ctx)
                index += 1

    def candidates(self, meta: Mapping[str, Any]) -> Sequence[Candidate]:
        for repository in dataset.read(self._source):
            if (repository.language, repository.name) == (meta["language"], meta["repo"]):
                return [(needle.name, needle.code) for needle in repository.needles]
        raise KeyError(meta["repo"])

    def _question(
        self, index: int, asked: Asked, tokenizer: Tokenizer, count: Callable[[str], int], ctx: int
    ) -> Question | Unfit:
        fitted = fit(asked, tokenizer, count, ctx - OFFICIAL_BUDGET, size_tokens=self._size)
        if isinstance(fitted, int):
            return self._unfit(index, fitted, OFFICIAL_BUDGET, ctx)
        # Where they differ, the official prompt shows other code than the function asked for.
        shifted = asked.cut() != asked.cut(official_offsets=True)
        meta = {**asked.meta(fitted), "official_offset_defect": shifted}
        return Question(index, fitted.prompt, (asked.needle.code,), fitted.tokens, OFFICIAL_BUDGET, meta)


class Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str) -> None:
        super().__init__(task_id, task_version, *stdlib.identity())
        self._counted: dict[str, Counts] = {}

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        if tokenizer.digest not in self._counted:
            self._counted = {tokenizer.digest: _counts(tokenizer)}
        count, ratio, sizes = self._counted[tokenizer.digest]
        pool = [function for size, function in sizes if size * _PART <= ctx]
        if len(pool) < NEEDLES:
            raise self._too_small(ctx, sizes[NEEDLES - 1][0] * _PART)
        budget = budget_for(max(tokenizer.count(function.code) for function in pool))
        order = sorted(pool, key=lambda function: self._draws(ctx, seed, function.name).seed)
        for index in indices:
            rng = self._draws(ctx, seed, index).rng
            asked = _among_files(order[index % len(order)], index, rng)
            fitted = fit(asked, tokenizer, count, ctx - budget, ratio)
            if isinstance(fitted, int):
                raise self._too_small(ctx, fitted + budget)
            rivals = _rivals(asked.needle, fitted.context, pool, rng)
            meta = {**asked.meta(fitted), "candidates": sorted([asked.needle.name, *rivals])}
            yield Question(index, fitted.prompt, (asked.needle.code,), fitted.tokens, budget, meta)

    def candidates(self, meta: Mapping[str, Any]) -> Sequence[Candidate]:
        known = stdlib.corpus().by_name
        return [(name, known[name].code) for name in meta["candidates"]]


def _among_files(needle: Needle, index: int, rng: random.Random) -> Asked:
    """The question of that index: the standard library's files in an order of its own."""
    position, files = ((index * 7 + 3) % NEEDLES + 0.5) / NEEDLES, stdlib.corpus().files
    others = [path for path in files if path != needle.path]
    rng.shuffle(others)
    split = math.floor(len(others) * position)
    return Asked("python", "Python standard library", needle, files, others[:split][::-1], others[split:], position)


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
    found = dict.fromkeys(islice(standing, NEEDLES - 1)) | dict.fromkeys(rest)
    return list(found)[: NEEDLES - 1]
