"""Prompts of FRAMES: the model's (modelscope/evalscope @ fde259d, frames_adapter.py) and the judge's (the paper's autorater)."""

from __future__ import annotations

from collections.abc import Sequence

Document = tuple[str, str]  # title, text


def context(documents: Sequence[Document]) -> str:
    return "\n".join(f"{title}\n{text}" for title, text in documents)


def question_prompt(text: str, question: str) -> str:
    return (
        "Please read the following text and answer the question below.\n\n"
        f"<text>\n{text}\n</text>\n\n"
        f"{question}\n\n"
        'Format your response as follows: "Therefore, the answer is (insert answer here)".'
    )


def answer_sentence(answer: str) -> str:
    """How a model that does as it is told says it."""
    return f"Therefore, the answer is {answer}."


def judge_prompt(question: str, predicted: str, truth: str) -> str:
    return (
        "===Task===\n"
        "I need your help in evaluating an answer provided by an LLM against a ground truth answer. Your task is to determine"
        " if the ground truth answer is present in the LLM's response. Please analyze the provided data and make a decision.\n"
        "===Instructions===\n"
        '1. Carefully compare the "Predicted Answer" with the "Ground Truth Answer".\n'
        "2. Consider the substance of the answers – look for equivalent information or correct answers. Do not focus on exact"
        " wording unless the exact wording is crucial to the meaning.\n"
        '3. Your final decision should be based on whether the meaning and the vital facts of the "Ground Truth Answer" are'
        ' present in the "Predicted Answer:"\n'
        "===Input Data===\n"
        f"- Question: {question}\n"
        f"- Predicted Answer: {predicted}\n"
        f"- Ground Truth Answer: {truth}\n"
        "===Output Format===\n"
        "Provide your final evaluation in the following format:\n"
        '"Explanation:" (How you made the decision?)\n'
        '"Decision:" ("TRUE" or "FALSE" )\n'
        "Please proceed with the evaluation."
    )
