"""Scoring of generated code: chrF with the reference, and the share of its library calls that the code makes.

Source: JetBrains-Research/lca-baselines @ 5b1b564, library_based_code_generation/src (evaluation/evaluate.py,
metrics/chrf.py, metrics/overlap.py, context/parsed_file.py). Known and kept: only the literal fence ```python is taken
off whole (```py leaves `py`); a fence inside a string cuts the code; calls are compared by bare name, so any `x.load()`
counts as `load`; a name listed twice in the reference can be found only once. Calls are looked for in the first 32 KiB of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kleval.tasks.languages import captures, parse
from kleval.tasks.lca.commit_scoring import chrf_metric

_CALLS = """
(call function: (identifier) @found)
(call function: (attribute attribute: (identifier) @found))
"""


def extract_code(message: str) -> str:
    """The first block fenced by ```python, else by ```, else in <code>, else all; stripped."""
    for opening, closing in (("```python", "```"), ("```", "```"), ("<code>", "</code>")):
        if opening in message:
            return message.split(opening, 2)[1].split(closing, 1)[0].strip()
    return message.strip()


def called_names(code: str) -> set[str]:
    """Names that are called, as functions or as attributes."""
    root = parse(code.encode("utf-8", "surrogatepass"), "python").root_node
    return {node.text.decode("utf-8", "replace") for node in captures(root, "python", _CALLS) if node.text is not None}


def api_recall(code: str, apis: Sequence[str]) -> float:
    """NaN when the reference calls nothing of the library (the official code divides by zero)."""
    return len(called_names(code) & set(apis)) / len(apis) if apis else math.nan


def chrf(hypothesis: str, reference: str) -> float:
    """sacrebleu's sentence chrF2 (character 6-grams), in [0, 1]."""
    return min(1.0, float(chrf_metric().sentence_score(hypothesis, [reference]).score) / 100)
