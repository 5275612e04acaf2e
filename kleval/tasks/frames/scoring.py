"""Scoring of FRAMES: exact match without a judge (modelscope/evalscope @ fde259d), or a judge's decision."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleval.tasks.answers import normalize_answer

_MARK = "the answer is"
# The pattern of the request itself, "TRUE" or "FALSE", is no decision.
_DECISION = re.compile(r"decision[\W_]{0,20}(true|false)\b(?![\W_]{0,5}or\b)", re.IGNORECASE)
_BARE = re.compile(r"[\W_]*(true|false)[\W_]*", re.IGNORECASE)
_LONGEST_BARE_CHARS = 40


def extract_answer(text: str) -> str:
    """What follows the last `the answer is`, asterisks left out, without full stops around it; "" where it does not stand."""
    text = text.replace("*", "")
    return text.rsplit(_MARK, 1)[-1].strip().strip(".").strip() if _MARK in text else ""


def exact_match(extracted: str, references: Sequence[str]) -> float:
    """1 when it equals a reference but for case, punctuation, articles and blanks. What is empty then never does."""
    answer = normalize_answer(extracted)
    return float(bool(answer) and any(answer == normalize_answer(reference) for reference in references))


def decision(reply: str) -> bool | None:
    """The last decision in a judge's reply, or a reply that is nothing but TRUE or FALSE. None when there is none."""
    found = _DECISION.findall(reply)
    if found:
        return str(found[-1]).lower() == "true"
    bare = _BARE.fullmatch(reply.strip()[: _LONGEST_BARE_CHARS + 1])
    return bare[1].lower() == "true" if bare else None
