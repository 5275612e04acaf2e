"""The official prompts of the two tasks.

Source: JetBrains-Research/lca-baselines @ 5b1b564: library_based_code_generation/src/models (example_generation_model,
utils), commit_message_generation/src/preprocessors/simple_diff_preprocessor and src/prompts. The official BM25 prompt
orders names of equal score by numpy's unstable sort; here the later one comes first, as with a stable sort.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kleval.types import Prompt

N_SELECTED = 20
HELP = "\n\nYou can find the following APIs from the library helpful:\n"
SYSTEM = "You are a helpful programming assistant that generates commit message subjects for given diffs."
_ASK_SIMPLE = "Write a commit message for a given diff."
_ASK_DETAILED = (
    _ASK_SIMPLE + " Start with a heading that serves as a summary of the whole diff: a single sentence in an imperative"
    " form, no more than 50 characters long. If you have details to add, do it after a blank line. Do your best to be"
    " specific, do not use 'refactor' unless you are absolutely sure that this change is ONLY a refactoring. Your goal is"
    " to communicate what the change does without having to look at the source code. Do not go into low-level details"
    " like all the changed files, do not be overly verbose. Avoid adding any external references like issue tags, URLs or"
    " emails."
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_K1, _B, _EPSILON = 1.5, 0.75, 0.25


def library_prompt(instruction: str) -> str:
    return (
        "Generate Python code based on the following instruction. Output ONLY code. DO NOT include explanations or other"
        f" textual content.\nInstruction: {instruction}"
    )


def bm25_prompt(instruction: str, names: Sequence[str], n_selected: int = N_SELECTED) -> str:
    """The instruction and the names of the library that BM25 finds nearest to it."""
    scores = bm25_scores(instruction, names)
    order = sorted(range(len(names)), key=scores.__getitem__)[::-1][:n_selected]
    found = ", ".join(names[i] for i in order)
    return library_prompt(
        f"{instruction}{HELP}{found}",
    )


def identifier_words(name: str) -> list[str]:
    """The words of a snake_case or camelCase name, in lower case."""
    return [word.lower() for part in name.split("_") for word in _CAMEL.split(part) if word]


def bm25_scores(instruction: str, names: Sequence[str]) -> list[float]:
    """Okapi BM25 of every name's words against the instruction's (rank_bm25 0.2.2's variant: k1 1.5, b 0.75, the idf of
    words in more than half of the names replaced by a quarter of the average)."""
    documents = [Counter(identifier_words(name)) for name in names]
    lengths = [sum(document.values()) for document in documents]
    if not sum(lengths):
        return [0.0] * len(names)
    average_length = sum(lengths) / len(names)
    containing: Counter[str] = Counter()
    for document in documents:
        containing.update(document.keys())
    idf = {word: math.log(len(names) - n + 0.5) - math.log(n + 0.5) for word, n in containing.items()}
    floor = _EPSILON * (sum(idf.values()) / len(idf))
    idf = {word: value if value >= 0 else floor for word, value in idf.items()}
    query = "".join(c for c in instruction if c.isalnum() or c == " ").lower().split(" ")
    scores = [0.0] * len(names)
    for word in query:
        weight = idf.get(word) or 0
        for i, document in enumerate(documents):
            n = document.get(word) or 0
            scores[i] += weight * (n * (_K1 + 1) / (n + _K1 * (1 - _B + _B * lengths[i] / average_length)))
    return scores


def commit_diff(mods: Sequence[Mapping[str, Any]], include_path: bool = True) -> str:
    """The diffs of a commit's files behind lines that say what happened to each; UNKNOWN changes are left out."""
    parts = []
    for mod in mods:
        kind, old, new = mod["change_type"], mod["old_path"], mod["new_path"]
        if kind == "UNKNOWN":
            continue
        if include_path:
            headings = {
                "ADD": f"new file {new}",
                "DELETE": f"deleted file {old}",
                "RENAME": f"rename from {old}\nrename to {new}",
                "COPY": f"copy from {old}\ncopy to {new}",
            }
            parts.append(headings.get(kind, f"{new}"))
        parts.append(mod["diff"])
    return "\n".join(parts)


def commit_text(diff: str, simple: bool = False) -> str:
    """The user's message, and all that a model without a chat template gets."""
    return f"{_ASK_SIMPLE if simple else _ASK_DETAILED}\nDiff:\n{diff}\nCommit message:\n"


def commit_prompt(diff: str, simple: bool = False, chat: bool = True) -> Prompt:
    text = commit_text(diff, simple)
    return ({"role": "system", "content": SYSTEM}, {"role": "user", "content": text}) if chat else text
