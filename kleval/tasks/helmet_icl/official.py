"""The tasks (`tables.toml`), and what HELMET's code does (princeton-nlp/HELMET @ 4526dfb): which examples and label numbers an item
has, how many at a length, what is cut, and how an answer scores.

`data.py:load_icl`, random state for random state: per test item a seed from the sha256 of its text; with it a state that draws the
examples, balanced over labels, and another that shuffles the numbers. `Dataset.shuffle` and `train_test_split` of the package datasets
are a permutation by numpy's default generator. Scores: `utils.py` and `eval.py`.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kleval.tasks import packaged
from kleval.tasks.answers import normalize_answer
from kleval.tasks.fitting import longest
from kleval.types import Prompt, Tokenizer

ITEMS = "helmet_icl/items.toml"
_TABLES = packaged.load("helmet_icl/tables.toml")
LENGTHS: tuple[int, ...] = tuple(_TABLES["lengths"])
TEST_ITEMS = 500
TEST_SHARE = 0.1
INSTRUCTION = (
    "Use the provided mapping from the text to label to assign a label to the text."
    ' Only output "label: {label}" and nothing else. '
)
ANSWER_PREFIX = "label:"
_AFTER_PREFIX = re.compile(r"label:(.*)(?:\n|$)", re.IGNORECASE)
_FIRST_LINE = re.compile(r"^(.*)(?:\n|$)")
_REPEATED_PREFIX = re.compile(r"^label:", re.IGNORECASE)

Rule = Literal["table", "interpolated", "extrapolated"]


@dataclass(frozen=True, slots=True)
class Spec:
    """Of one task, as `tables.toml` has it. labels: the key of their names in `items.toml`."""

    folder: str
    files: tuple[str, ...]
    splits: tuple[str, ...]
    labels: str
    n_labels: int
    field: str
    shots: tuple[int, ...]
    shape: tuple[int, int, bool]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the labels, in the order of their numbers."""
        return packaged.words(ITEMS, "labels", self.labels)


def _spec(name: str) -> Spec:
    facts: dict[str, Any] = _TABLES["tasks"][name]
    return Spec(**facts | {key: tuple(value) for key, value in facts.items() if isinstance(value, list)})


SPECS = {name: _spec(name) for name in _TABLES["tasks"]}


@dataclass(frozen=True, slots=True)
class Item:
    """label: its number."""

    text: str
    label: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Items to draw from, by label, labels in the order in which they first come."""

    by_label: dict[int, list[Item]] = field(repr=False)

    @classmethod
    def of(cls, items: Sequence[Item]) -> Pool:
        by_label: dict[int, list[Item]] = {}
        for item in items:
            by_label.setdefault(item.label, []).append(item)
        return cls(by_label)

    def balanced(self, n: int, seed: int) -> list[Item]:
        """n items in rounds: each round has one of every label, in random order; the last round may be cut short.

        No item comes twice before all of its label have come.
        """
        rng = random.Random(seed)
        n_rounds = math.ceil(n / len(self.by_label))
        columns = []
        for items in self.by_label.values():
            drawn = rng.sample(items, n_rounds % len(items))
            while len(drawn) < n_rounds:
                drawn += rng.sample(items, min(n_rounds - len(drawn), len(items)))
            columns.append(drawn)
        rounds = [list(one) for one in zip(*columns, strict=True)]
        for one in rounds:
            rng.shuffle(one)
        return [item for one in rounds for item in one][:n]


def item_seed(text: str, seed: int) -> int:
    """31 bits from the item's text and the run's seed."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return (int(digest, 16) + seed) % 2**31


def label_numbers(n_labels: int, seed: int) -> list[int]:
    """Label -> the number that stands for it."""
    numbers = list(range(n_labels))
    random.Random(seed).shuffle(numbers)
    return numbers


def permutation(n: int, seed: int) -> list[int]:
    import numpy as np

    return [int(position) for position in np.random.default_rng(seed).permutation(n)]


def chosen_items(items: Sequence[Item], seed: int, n: int = TEST_ITEMS) -> tuple[Item, ...]:
    """All of them, or n balanced over labels where there are more."""
    if len(items) <= n:
        return tuple(items)
    return tuple(Pool.of([items[position] for position in permutation(len(items), seed)]).balanced(n, seed))


def split(items: Sequence[Item], seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(train, test) of data that come without a split: a tenth, rounded up, is for testing."""
    order = permutation(len(items), seed)
    n_test = math.ceil(TEST_SHARE * len(items))
    return tuple(items[i] for i in order[n_test:]), tuple(items[i] for i in order[:n_test])


@dataclass(frozen=True, slots=True)
class Form:
    """How a question is put. chat: as the user's message, nothing before the answer; else as text that ends in `label:`."""

    chat: bool

    def prompt(self, message: str) -> Prompt:
        return ({"role": "user", "content": message},) if self.chat else f"{message}\n"

    @property
    def prefix(self) -> str:
        return "" if self.chat else ANSWER_PREFIX

    def count(self, tokenizer: Tokenizer, message: str) -> int:
        return tokenizer.count(tokenizer.render(self.prompt(message), self.prefix))


def example(text: str, number: int) -> str:
    return f"{text}\nlabel: {number}"


def user_message(context: str, question: str) -> str:
    return f"{INSTRUCTION}\n\n{context}\n\n{question}"


def shots_at(name: str, ctx: int) -> tuple[int, Rule]:
    """(number of examples, where it is from). configs/icl.yaml and icl_short.yaml have six lengths; kleval's rule for all others: in
    proportion to the length between two of them, rounded down, as many per token as there below the first and above the last."""
    table, above = SPECS[name].shots, bisect_left(LENGTHS, ctx)
    if ctx in LENGTHS:
        return table[above], "table"
    if not 0 < above < len(LENGTHS):
        end = -1 if above else 0
        return max(1, ctx * table[end] // LENGTHS[end]), "extrapolated"
    low, high = LENGTHS[above - 1], LENGTHS[above]
    more = (ctx - low) * (table[above] - table[above - 1]) // (high - low)
    return table[above - 1] + more, "interpolated"


def head(tokenizer: Tokenizer, text: str, n_removed: int) -> str:
    """text without its last n_removed tokens.

    As `model_utils.py:tokenize`, which takes the character where the k-th last token begins; here by decoding the tokens before it, or
    where a tokenizer cannot give a text back as it was, by the longest beginning that has so many tokens. The blank before a token
    belongs to it (some tokenizers' offsets leave it standing).
    """
    ids = tokenizer.encode(text)
    kept = len(ids) - n_removed
    if kept <= 0:
        return ""
    # The first half of a character that two tokens share decodes to U+FFFD.
    decoded = tokenizer.decode(ids[:kept]).rstrip("\ufffd")
    if text.startswith(decoded):
        return decoded
    return text[: longest(lambda n: tokenizer.count(text[:n]), kept, len(text))]


def parse_output(output: str) -> str:
    """What stands after the first `label:` to the end of its line, else the first line; a repeated prefix is dropped once."""
    found = _AFTER_PREFIX.search(output) or _FIRST_LINE.search(output)
    if found is None:
        return ""
    return _REPEATED_PREFIX.sub("", found[1].strip()).strip()


def score_answer(completion: str, gold: str, prefixed: bool = True) -> tuple[dict[str, float], str]:
    """(metrics, what was read). prefixed: the prompt ended in `label:`, which then counts as the answer's beginning."""
    parsed = parse_output(ANSWER_PREFIX + completion if prefixed else completion)
    answer, wanted = normalize_answer(parsed), normalize_answer(gold)
    metrics = {
        "exact_match": float(answer == wanted),
        "substring_exact_match": float(wanted in answer),
        "f1": _f1(answer, wanted),
    }
    return metrics, parsed


def _f1(answer: str, wanted: str) -> float:
    if answer != wanted and ({answer, wanted} & {"yes", "no", "noanswer"}):
        return 0.0
    answer_words, wanted_words = answer.split(), wanted.split()
    same = sum((Counter(answer_words) & Counter(wanted_words)).values())
    if not same:
        return 0.0
    precision, recall = same / len(answer_words), same / len(wanted_words)
    return 2 * precision * recall / (precision + recall)
