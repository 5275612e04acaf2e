"""The official prompts of LongBench v2 (`prompts.toml`) and its middle truncation.

Source: THUDM/LongBench @ 2e00731, pred.py. Markers are replaced one after another, so that a marker inside a document or a
question is replaced as well: kept, as the official numbers have it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kleval.tasks import packaged
from kleval.tokenization import Rendered
from kleval.types import Tokenizer

ZERO_SHOT, COT, COT_ANSWER = packaged.load("longbench2/prompts.toml").values()
_SEGMENT_CHARS = 4096


def filled(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """The template with document, question and choices A to D, each without white space around. `$COT$` stays."""
    markers = ("$DOC$", "$Q$", "$C_A$", "$C_B$", "$C_C$", "$C_D$")
    for marker, value in zip(markers, (context, question, *choices), strict=True):
        template = template.replace(marker, value.strip())
    return template


def after_document(template: str, context: str, question: str, choices: Sequence[str]) -> str:
    """What the prompt holds behind its document."""
    return filled(template.partition("$DOC$")[2], context, question, choices)


def with_reasoning(answer_template: str, reasoning: str) -> str:
    """The second prompt of chain of thought: `filled` of COT_ANSWER, and what the model said to the first."""
    return answer_template.replace("$COT$", reasoning.strip())


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
    end = len(text) - _chars(tokenizer, text, max_len - head, at_end=True)
    return text[: _chars(tokenizer, text, head)] + text[end:], len(ids) - max_len


def _chars(tokenizer: Tokenizer, text: str, tokens: int, at_end: bool = False) -> int:
    """About how long its longest beginning, or end, of at most that many tokens is, counted segment by segment."""
    taken = 0

    def count(n: int) -> int:
        """Tokens of the n characters that follow those taken."""
        at = len(text) - taken - n if at_end else taken
        return tokenizer.count(text[at : at + n])

    while taken < len(text):
        good, bad = 0, min(_SEGMENT_CHARS, len(text) - taken)
        counted = count(bad)
        if counted > tokens:
            while bad - good > 1:
                middle = (good + bad) // 2
                good, bad = (middle, bad) if count(middle) <= tokens else (good, middle)
            return taken + good
        tokens -= counted
        taken += bad
    return taken
