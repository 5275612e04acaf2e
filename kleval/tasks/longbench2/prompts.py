"""The official prompts of LongBench v2 and its middle truncation.

Source: THUDM/LongBench @ 2e00731, prompts/0shot.txt, 0shot_cot.txt, 0shot_cot_ans.txt and pred.py. Markers are replaced one
after another, so that a marker inside a document or a question is replaced as well: kept, as the official numbers have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kleval.tokenization import Rendered
from kleval.types import Tokenizer

_CHOICES = "Choices:\n(A) $C_A$\n(B) $C_B$\n(C) $C_C$\n(D) $C_D$\n\n"
_QUESTION = f"What is the correct answer to this question: $Q$\n{_CHOICES}"
_FORMAT = 'Format your response as follows: "The correct answer is (insert answer here)".'
_STEPS = "Let\u2019s think step by step:"
ZERO_SHOT = (
    "Please read the following text and answer the question below.\n\n"
    f"<text>\n$DOC$\n</text>\n\n{_QUESTION}{_FORMAT}"
)  # fmt: skip
COT = (
    "Please read the following text and answer the questions below.\n\n"
    f"<text>\n$DOC$\n</text>\n\n{_QUESTION}{_STEPS}"
)  # fmt: skip
COT_ANSWER = (
    "Please read the following text and answer the questions below.\n\n"
    f"The text is too long and omitted here.\n\n{_QUESTION}{_STEPS} $COT$\n\n"
    f"Based on the above, what is the single, most likely answer choice? {_FORMAT}"
)
_SEGMENT_CHARS = 4096


def filled(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """The template with document, question and choices A to D, each without white space around. `$COT$` stays."""
    values = {
        "$DOC$": context,
        "$Q$": question,
        **dict(zip(("$C_A$", "$C_B$", "$C_C$", "$C_D$"), choices, strict=True)),
    }
    return _replaced(template, values)


def after_document(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """What the prompt holds behind its document."""
    return filled(template.partition("$DOC$")[2], context, question, choices)


def with_reasoning(answer_template: str, reasoning: str) -> str:
    """The second prompt of chain of thought: `filled` of COT_ANSWER, and what the model said to the first."""
    return answer_template.replace("$COT$", reasoning.strip())


def _replaced(template: str, values: Mapping[str, str]) -> str:
    for marker, value in values.items():
        template = template.replace(marker, value.strip())
    return template


def truncated_ids(ids: Sequence[int], max_len: int) -> list[int]:
    """The first and the last half of max_len tokens, the last one longer where max_len is odd; all of them for 0."""
    if len(ids) <= max_len:
        return list(ids)
    return [*ids[: max_len // 2], *ids[-max_len // 2 :]]


def truncated(tokenizer: Tokenizer, text: str, max_len: int) -> tuple[str, int]:
    """The text without its middle, and how many tokens that takes away; max_len >= 1.

    Official: decode the ids that are kept. Deviation: with a tokenizer that cannot give the text back, the text is cut
    at the characters where those ids begin and end.
    """
    begin: str = getattr(tokenizer, "begin", "")
    ids = tokenizer.encode(
        Rendered.of(begin, text)
    )  # the official `tokenizer.encode` adds it, `skip_special_tokens` takes it off again
    if len(ids) <= max_len:
        return text, 0
    if tokenizer.decode(ids) == begin + text:
        return tokenizer.decode(truncated_ids(ids, max_len)).removeprefix(begin), len(ids) - max_len
    head = max_len // 2
    return _head(tokenizer, text, head) + _tail(tokenizer, text, max_len - head), len(ids) - max_len


def _head(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """About the longest beginning of at most that many tokens, counted segment by segment."""
    at = 0
    while at < len(text):
        segment = text[at : at + _SEGMENT_CHARS]
        counted = tokenizer.count(segment)
        if counted > tokens:
            good, bad = 0, len(segment)
            while bad - good > 1:
                middle = (good + bad) // 2
                if tokenizer.count(segment[:middle]) <= tokens:
                    good = middle
                else:
                    bad = middle
            return text[: at + good]
        tokens -= counted
        at += len(segment)
    return text


def _tail(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    end = len(text)
    while end > 0:
        segment = text[max(0, end - _SEGMENT_CHARS) : end]
        counted = tokenizer.count(segment)
        if counted > tokens:
            good, bad = 0, len(segment)
            while bad - good > 1:
                middle = (good + bad) // 2
                if tokenizer.count(segment[-middle:]) <= tokens:
                    good = middle
                else:
                    bad = middle
            return text[end - good :]
        tokens -= counted
        end -= len(segment)
    return text
