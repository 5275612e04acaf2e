"""Prompt token counts of a server: whether it read the whole of each prompt, by what it counted of the others.

Where prompts go as text or messages the server's count differs from this side's estimate by its tokenizer and its template, so
a single count shows little. Several do: a server that cuts (Ollama's num_ctx) counts the same for prompts of different lengths,
or suddenly far less per estimated token than before.
"""

from __future__ import annotations

import threading
from collections import deque
from statistics import median

from kleval.types import Failure

SAME_COUNT = 0.01
OTHER_LENGTH = 1.25
SHORTEST_TOKENS = 100  # by which two estimates must differ: a template's own tokens are the same in both
ENOUGH_ANSWERS = 3
LOST_HALF = 0.5
WORTH_SAYING = 0.8
REMEMBERED = 512


class PromptCounts:
    """The counts of one server and model. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)  # estimate, counted
        self._lock = threading.Lock()

    def judge(self, estimate: int, counted: int) -> Failure | str | None:
        """Whether a prompt was cut: a failure where the counts prove it, a remark where they only look like it, else None.

        estimate: tokens of the prompt as this side counts them. counted: as the server does; 0 says nothing.
        """
        if counted <= 0 or estimate <= 0:
            return None
        with self._lock:
            known = list(self._known)
            twin = next((pair for pair in known if _same_count_of_another_length(pair, (estimate, counted))), None)
            if twin is not None:
                return Failure(
                    "context_overflow",
                    f"the server counted {counted} prompt tokens here and {twin[1]} of a prompt that is {twin[0] / estimate:.2g} "
                    "times as long: it cuts prompts at its own limit (num_ctx or the like)",
                )
            # An answer whose prompt was cut is no yardstick for others; one that may have been is.
            ratios = [c / e for e, c in known if e >= SHORTEST_TOKENS]
            usual = median(ratios) if len(ratios) >= ENOUGH_ANSWERS and estimate >= SHORTEST_TOKENS else None
            if usual is not None and counted / estimate < LOST_HALF * usual:
                return Failure(
                    "context_overflow",
                    f"the server counted {counted} prompt tokens where about {round(usual * estimate)} were expected from its other "
                    "answers: it cut the prompt",
                )
            self._known.append((estimate, counted))
        if usual is not None and counted / estimate < WORTH_SAYING * usual:
            return f"the server counted {counted} prompt tokens where about {round(usual * estimate)} were expected"
        return None


def _same_count_of_another_length(known: tuple[int, int], new: tuple[int, int]) -> bool:
    (a, counted_a), (b, counted_b) = known, new
    short, long = sorted((a, b))
    return (
        abs(counted_a - counted_b) <= SAME_COUNT * max(counted_a, counted_b)
        and long >= OTHER_LENGTH * short
        and long - short >= SHORTEST_TOKENS
    )
