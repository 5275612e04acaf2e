"""The official prompts of the two tasks (`prompts.toml`), with the names that BM25 finds and the text of a commit's diffs.

The official BM25 prompt orders names of equal score by numpy's unstable sort; here the later one comes first, as with a stable sort.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kleval.tasks import packaged
from kleval.types import Prompt

PROMPTS = packaged.load("lca/prompts.toml")
UNKNOWN = "UNKNOWN"
N_SELECTED = 20
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_K1, _B, _EPSILON = 1.5, 0.75, 0.25


def library_prompt(instruction: str) -> str:
    return str(PROMPTS["library"].format(instruction=instruction))


def in_context(package: str, code: str, instruction: str) -> str:
    return str(PROMPTS["in_context"].format(package=package, code=code)) + library_prompt(instruction)


def bm25_prompt(instruction: str, names: Sequence[str]) -> str:
    """The instruction and the names of the library that BM25 finds nearest to it."""
    scores = bm25_scores(instruction, names)
    order = sorted(range(len(names)), key=scores.__getitem__)[::-1][:N_SELECTED]
    return library_prompt(instruction + PROMPTS["help"] + ", ".join(names[i] for i in order))


def identifier_words(name: str) -> list[str]:
    """The words of a snake_case or camelCase name, in lower case."""
    return [word.lower() for part in name.split("_") for word in _CAMEL.split(part) if word]


def bm25_scores(instruction: str, names: Sequence[str]) -> list[float]:
    """Okapi BM25 of every name's words against the instruction's (rank_bm25 0.2.2's variant: k1 1.5, b 0.75, the idf of
    words in more than half of the names replaced by a quarter of the average)."""
    documents = [Counter(identifier_words(name)) for name in names]
    lengths = [document.total() for document in documents]
    if not sum(lengths):
        return [0.0] * len(names)
    average_length = sum(lengths) / len(names)
    containing = Counter(word for document in documents for word in document)
    idf = {word: math.log(len(names) - n + 0.5) - math.log(n + 0.5) for word, n in containing.items()}
    floor = _EPSILON * (sum(idf.values()) / len(idf))
    scores = [0.0] * len(names)
    for word in "".join(c for c in instruction if c.isalnum() or c == " ").lower().split(" "):
        weight = idf.get(word, 0.0) if idf.get(word, 0.0) >= 0 else floor
        for i, document in enumerate(documents):
            n = document[word]
            scores[i] += weight * (n * (_K1 + 1) / (n + _K1 * (1 - _B + _B * lengths[i] / average_length)))
    return scores


def commit_diff(mods: Sequence[Mapping[str, Any]]) -> str:
    """The diffs of a commit's files, each behind what happened to it; UNKNOWN changes are left out."""
    known = [mod for mod in mods if mod["change_type"] != UNKNOWN]
    return "\n".join(f"{PROMPTS['headings'][mod['change_type']].format_map(mod)}\n{mod['diff']}" for mod in known)


def commit_text(diff: str, simple: bool = False) -> str:
    """The user's message, and all that a model without a chat template gets."""
    return str(PROMPTS["commit"].format(ask=PROMPTS["simple" if simple else "detailed"], diff=diff))


def commit_prompt(text: str, chat: bool) -> Prompt:
    return ({"role": "system", "content": PROMPTS["system"]}, {"role": "user", "content": text}) if chat else text
