"""The tasks `synthetic/palindrome`, `synthetic/mqar` and `synthetic/stack`.

score: `accuracy`, the share of what was asked for that stands at its place in the answer (0 to 1), as the paper's accuracy is the
share of positions; `exact`, whether all of it does. An answer goes on from its own words, where a trained mixer is shown the right
ones: the two accuracies are alike, not the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall, as_prompt
from kleval.tasks.fitting import budget_for, fill_by_characters
from kleval.tasks.likelihood import without
from kleval.tasks.sized import BuiltinData, Question, SizedTask, digest_of
from kleval.tasks.synthetic.puzzles import ASKED, PUZZLES, PUZZLES_VERSION, STACKS
from kleval.types import Completion, Prompt, Sample, Score, Tokenizer, UsageError

PROTOCOL = "synthetic-1"
LEAST_ITEMS = 4
_SPARE = 16
_ITEM = re.compile(r"\d+|[a-z]+")


class SyntheticTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "accuracy"
    official_budget = "none"

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        if edition != "builtin":
            raise UsageError(f"synthetic/{name} is made by kleval and has no {edition} edition: leave --edition out")
        super().__init__(f"synthetic/{name}", edition, protocol, (PROTOCOL,), {"asked": ASKED, "stacks": STACKS})
        self._name = name
        self._open = partial(Builtin, self.id, self.version, name)

    def score(self, sample: Sample, answer: Completion) -> Score:
        found = read(answer.text, len(sample.references))
        right = sum(a == b for a, b in zip(found, sample.references, strict=False))
        metrics = {"accuracy": right / len(sample.references), "exact": float(right == len(sample.references))}
        return Score(metrics, extracted=" ".join(found))

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its items."""
        puzzle = PUZZLES[self._name]
        return without(sample.prompt, f"{puzzle.head}\n\n{{items}}{puzzle.asks}", "{items}")

    def whole_answer(self, sample: Sample) -> str:
        """The answers in the order that is asked for."""
        return PUZZLES[self._name].joins.join(sample.references)

    def _template(self) -> str:
        return PUZZLES[self._name].ask((), 0).message


def read(text: str, n: int) -> list[str]:
    """The first n numbers or words of small letters in an answer."""
    return _ITEM.findall(text.lower())[:n]


class Builtin(BuiltinData):
    """As many items as ctx has room for."""

    def __init__(self, task_id: str, task_version: str, name: str) -> None:
        self._puzzle, self._all_asked = PUZZLES[name], name == "palindrome"
        super().__init__(task_id, task_version, "generated", digest_of(PUZZLES_VERSION, name))

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        return partial(self._question, tokenizer, ctx, seed)

    def _question(self, tokenizer: Tokenizer, ctx: int, seed: int, index: int) -> Question:
        draws = self._draws(ctx, seed, index)
        drawn, chosen = self._puzzle.items(draws.rng), draws.seed
        pool = list(islice(drawn, ASKED))

        def pieces() -> Iterator[str]:
            yield from pool[:ASKED]
            for item in drawn:
                pool.append(item)
                yield item

        def build(items: Sequence[str]) -> Prompt:
            """Where all is asked for, the answer grows with the items: it is counted with the prompt."""
            asked = self._puzzle.ask(items, chosen)
            answer = f"\n{' '.join(asked.answers)}" if self._all_asked else ""
            return as_prompt(tokenizer, f"{asked.message}\n{asked.prefix}{answer}")

        lasts = tuple(item.rpartition(" ")[2] for item in pool)  # an item's last word is what may be asked for
        spare = _SPARE if self._all_asked else budget_for(_counted(tokenizer, lasts))
        filled = fill_by_characters(build, pieces(), tokenizer, ctx - spare)
        if isinstance(filled, int) or filled.n_pieces < LEAST_ITEMS:
            least = tokenizer.count(tokenizer.render(build(pool[:LEAST_ITEMS]))) + spare
            raise self._too_small(ctx, max(least, ctx + 1))
        asked = self._puzzle.ask(pool[: filled.n_pieces], chosen)
        prompt = as_prompt(tokenizer, asked.message)
        tokens = tokenizer.count(tokenizer.render(prompt, asked.prefix))
        budget = _SPARE + _counted(tokenizer, asked.answers) if self._all_asked else spare
        meta: dict[str, Any] = {"items": filled.n_pieces, "asked": len(asked.answers)}
        if asked.depths:
            meta["depth_percent"] = list(asked.depths)
        return Question(index, prompt, asked.answers, tokens, min(budget, ctx - tokens), meta, asked.prefix)


def _counted(tokenizer: Tokenizer, answers: Sequence[str]) -> int:
    return tokenizer.count(f" {', '.join(answers)}")


Maker = Callable[[str, str | None, Path | None], SyntheticTask]
palindrome: Maker = partial(SyntheticTask, "palindrome")
mqar: Maker = partial(SyntheticTask, "mqar")
stack: Maker = partial(SyntheticTask, "stack")
