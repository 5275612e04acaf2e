"""Answers that are no answers: cut by the token budget, empty, or a loop to the end.

A wrong answer and a broken one score alike, so each answer is also looked at as a text:

- cut: the budget of new tokens ended it (`finish_reason` is `length`), one of them where a sample has several.
- empty: nothing but white space.
- reasoning_cut: nothing but white space behind its reasoning; not counted as cut or empty besides.
- looped: from some point to its end the text repeats one unit of at most MAX_PERIOD characters, as a model does that has lost
  its way or whose logits are NaN (`!!!!!!!!!!!!!!!!`). The loop has at least MIN_REPEATS units and MIN_LOOP characters and is
  more than half of the answer, so that `1111`, `ha ha` and lists of numbers or words are not one; nor is a text that a
  reference holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_PERIOD = 60
MIN_REPEATS = 8
MIN_LOOP = 16


BROKEN = ("cut", "empty", "looped", "reasoning_cut")


def condition(outcomes: Sequence[Mapping[str, Any]], references: Sequence[str] = ()) -> frozenset[str]:
    """Those of BROKEN that hold of a row's outcomes, and `texts` where there are any (a likelihood has none); what a judge said
    is not looked at."""
    answers = [o for o in outcomes if o.get("kind", "generate") == "generate" and isinstance(o.get("text"), str)]
    unfinished = any(
        (o.get("failure") or {}).get("kind") == "reasoning_cut" for o in outcomes if o.get("kind") != "judge"
    )
    thought = [answer for answer in answers if answer.get("reasoning") and not answer["text"].strip()]
    whole = [answer for answer in answers if answer not in thought]
    texts = [answer["text"] for answer in whole]
    holds = {
        "texts": bool(answers) or unfinished,
        "cut": any(answer.get("finish_reason") == "length" for answer in whole),
        "empty": any(not text.strip() for text in texts),
        "looped": any(looped(text) and not any(text.strip() in right for right in references) for text in texts),
        "reasoning_cut": bool(thought) or unfinished,
    }
    return frozenset(name for name, there in holds.items() if there)


def looped(text: str) -> bool:
    """Whether a text ends in a loop that is most of it. White space at its ends does not count."""
    text = text.strip()
    n = len(text)
    if n < MIN_LOOP:
        return False
    least = max(MIN_LOOP, n // 2 + 1)
    for period in range(1, min(MAX_PERIOD, n // MIN_REPEATS) + 1):
        needed = max(least, MIN_REPEATS * period)
        # A suffix has a period when it equals itself shifted by it.
        if text[n - needed : n - period] == text[n - needed + period :]:
            return True
    return False
