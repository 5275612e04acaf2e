"""Prompts of FRAMES (`prompts.toml`) and what is read out of replies: the model's prompt and exact match are modelscope/evalscope's
@ fde259d (frames_adapter.py), the judge's prompt is that of the paper's autorater."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleval.tasks import packaged
from kleval.tasks.answers import normalize_answer

Document = tuple[str, str]  # title, text
_PROMPTS = packaged.load("frames/prompts.toml")
_MARK = "the answer is"
# The pattern of the request itself, "TRUE" or "FALSE", is no decision.
_DECISION = re.compile(r"decision[\W_]{0,20}(true|false)\b(?![\W_]{0,5}or\b)", re.IGNORECASE)
_BARE = re.compile(r"[\W_]*(true|false)[\W_]*", re.IGNORECASE)
_LONGEST_BARE_CHARS = 40


def context(documents: Sequence[Document]) -> str:
    return "\n".join(f"{title}\n{text}" for title, text in documents)


def question_prompt(text: str, question: str) -> str:
    return str(_PROMPTS["question"]).format(text=text, question=question)


def answer_sentence(answer: str) -> str:
    """How a model that does as it is told says it."""
    return f"Therefore, the answer is {answer}."


def judge_prompt(question: str, predicted: str, truth: str) -> str:
    return str(_PROMPTS["judge"]).format(question=question, predicted=predicted, truth=truth)


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
