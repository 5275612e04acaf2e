"""HELMET's reading and scoring of an answer (princeton-nlp/HELMET @ 4526dfb, `utils.py` and `eval.py`)."""

from __future__ import annotations

import re
from collections import Counter

from kleval.tasks.answers import normalize_answer
from kleval.tasks.helmet_icl.drawing import ANSWER_PREFIX

_AFTER_PREFIX = re.compile(r"label:(.*)(?:\n|$)", re.IGNORECASE)
_FIRST_LINE = re.compile(r"^(.*)(?:\n|$)")
_REPEATED_PREFIX = re.compile(r"^label:", re.IGNORECASE)


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
