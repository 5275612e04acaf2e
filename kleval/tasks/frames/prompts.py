"""Prompts of FRAMES, in `prompts.toml`: the model's (modelscope/evalscope @ fde259d, frames_adapter.py) and the judge's (the paper's
autorater)."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.tasks import packaged

Document = tuple[str, str]  # title, text
_PROMPTS = packaged.load("frames/prompts.toml")


def context(documents: Sequence[Document]) -> str:
    return "\n".join(f"{title}\n{text}" for title, text in documents)


def question_prompt(text: str, question: str) -> str:
    return str(_PROMPTS["question"]).format(text=text, question=question)


def answer_sentence(answer: str) -> str:
    """How a model that does as it is told says it."""
    return f"Therefore, the answer is {answer}."


def judge_prompt(question: str, predicted: str, truth: str) -> str:
    return str(_PROMPTS["judge"]).format(question=question, predicted=predicted, truth=truth)
