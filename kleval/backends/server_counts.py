"""Prompt token counts of a server: whether it read the whole of each prompt, by what it counted of the others.

Where prompts go as text or messages the server's count differs from this side's estimate by its tokenizer and its template, so
a single count shows little. Several do: a server that cuts (Ollama's num_ctx) counts the same for prompts of different lengths,
or suddenly far less per estimated token than before. Compared are prompts of the same make-up alone (a tokenizer takes three times as
many tokens for a UUID as for words of the same length), and by their bytes too: words may be long and short.

A gateway whose prefill runs on another machine counts less than it read. An answer can prove that: it holds a number that stands
only where a cut prompt would lack it. Doubted answers wait until those asked together are there.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from kleval.types import Completion, Failure, Outcome, Prompt, Request

SAME_COUNT = 0.01
OTHER_LENGTH = 1.25
SHORTEST_TOKENS = 100  # by which two estimates must differ: a template's own tokens are the same in both
ENOUGH_ANSWERS = 3
LOST_HALF = 0.5
WORTH_SAYING = 0.8
REMEMBERED = 512
SAME_MAKE_UP = 0.08  # by which the shares of digits, of other ASCII signs and of characters beyond ASCII may differ
_LOOKED_AT = 4096  # characters of a prompt, evenly spread
_WORD = re.compile(r"[0-9A-Za-z]{6,}")
_DIGITS = 4  # of a word that nobody writes by chance
_MARGIN = 0.9  # of what must have been lost: characters and tokens are not spread evenly


class _Count(NamedTuple):
    estimate: int
    counted: int
    size: int
    make_up: tuple[float, ...]

    @classmethod
    def of(cls, estimate: int, counted: int, text: str) -> _Count:
        return cls(estimate, counted, len(text.encode("utf-8", "replace")) or estimate, _make_up(text))

    @property
    def ratio(self) -> float:
        return self.counted / self.estimate


@dataclass(frozen=True, slots=True)
class Doubted(Failure):
    """A prompt that the counts alone call cut. answer: what holds where another answer proves that less is counted than is read."""

    answer: Completion = field(kw_only=True)

    @property
    def failure(self) -> Failure:
        return Failure(self.kind, self.message)


class PromptCounts:
    """The counts of one server and model. Safe to use from several threads.

    proven: whether an answer has shown that less is counted than is read.
    """

    def __init__(self) -> None:
        self.proven = False
        self._known: deque[_Count] = deque(maxlen=REMEMBERED)
        self._cut: deque[_Count] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()

    def judge(self, estimate: int, counted: int, prompt: Prompt = "") -> Failure | str | None:
        """Whether a prompt was cut: a failure where the counts prove it, a remark where they only look like it, else None.

        estimate: tokens of the prompt as this side counts them. counted: as the server does; 0 says nothing.
        """
        if counted <= 0 or estimate <= 0:
            return None
        new = _Count.of(estimate, counted, text_of(prompt))
        with self._lock:
            known = self._alike(new)
            twin = next((one for one in known if _same_count_of_another_length(one, new)), None)
            if twin is not None:
                self._cut.append(new)
                return Failure(
                    "context_overflow",
                    f"the server counted {counted} prompt tokens here and {twin.counted} of a prompt that is "
                    f"{twin.estimate / estimate:.2g} times as long: it cuts prompts at its own limit (num_ctx or the like)",
                )
            # An answer whose prompt was cut is no yardstick for others; one that may have been is.
            long = [one for one in known if one.estimate >= SHORTEST_TOKENS]
            enough = len(long) >= ENOUGH_ANSWERS and estimate >= SHORTEST_TOKENS
            usual = median(one.ratio for one in long) if enough else None
            lost = enough and counted / new.size < LOST_HALF * median(one.counted / one.size for one in long)
            if lost and usual is not None and new.ratio < LOST_HALF * usual:
                self._cut.append(new)
                return Failure(
                    "context_overflow",
                    f"the server counted {counted} prompt tokens where about {round(usual * estimate)} were expected from its other "
                    "answers: it cut the prompt",
                )
            self._known.append(new)
        if usual is not None and new.ratio < WORTH_SAYING * usual:
            return f"the server counted {counted} prompt tokens where about {round(usual * estimate)} were expected"
        return None

    def refutes(self, request: Request, answer: Completion, estimate: int, counted: int) -> bool:
        """Whether an answer holds against its count: it proves that its prompt was read, or one before it proved that of its own."""
        prompt = text_of(request.prompt)
        with self._lock:
            alike = self._alike(_Count.of(estimate, counted, prompt))
            # The least that the prompt can have had: what was counted is the most of it that can have been read.
            share = counted / estimate / min((one.ratio for one in alike), default=1.0)
            at = _lost_and_said(prompt, answer.text, share)
            # Of a prompt whose middle is taken out the first words are there; what stands behind them proves it for all prompts.
            self.proven = self.proven or (at is not None and at >= share / 2)
        return self.proven or at is not None

    def was_cut(self, estimate: int, counted: int, prompt: Prompt) -> None:
        """Remember a prompt of which that is known."""
        with self._lock:
            self._cut.append(_Count.of(estimate, counted, text_of(prompt)))

    def cut_like(self, estimate: int, counted: int, prompt: Prompt) -> bool:
        """Whether a longer prompt was counted the same and so cut, as this one was then."""
        one = _Count.of(estimate, counted, text_of(prompt))
        with self._lock:
            return any(_same_count_of_another_length(one, other) for other in self._cut if _is_alike(one, other))

    def _alike(self, new: _Count) -> list[_Count]:
        return [one for one in self._known if _is_alike(one, new)]


class Shorter:
    """Answers to the shorter prompts of one call: they wait for a longer one's count. Where that is the same, both were cut."""

    def __init__(self, counts: PromptCounts, estimates: Iterable[int]) -> None:
        self._counts = counts
        self._longest, self._most = max(estimates, default=0), 0
        self._waiting: list[tuple[int, Request, int, Completion]] = []

    def take(self, key: int, request: Request, estimate: int, outcome: Outcome) -> Iterator[tuple[int, Outcome]]:
        """What can be told now that this has come, by key. estimate: tokens of its prompt; 0: sent as such, none was cut."""
        if isinstance(outcome, Failure) or not estimate:
            yield key, outcome
            return
        self._most = max(self._most, outcome.prompt_tokens)
        waiting = [*self._waiting, (key, request, estimate, outcome)]
        self._waiting = []
        for one in waiting:
            if one[3].prompt_tokens * (1 + SAME_COUNT) >= self._most and one[2] * OTHER_LENGTH <= self._longest:
                self._waiting.append(one)
            else:
                yield one[0], one[3]

    def rest(self) -> Iterator[tuple[int, Outcome]]:
        """The others, when all have come."""
        for key, request, estimate, answer in self._waiting:
            cut = self._counts.cut_like(estimate, answer.prompt_tokens, request.prompt)
            if not cut or self._counts.refutes(request, answer, estimate, answer.prompt_tokens):
                yield key, answer
                continue
            said = f"the server counted {answer.prompt_tokens} prompt tokens here and of longer prompts: it cuts them"
            yield key, Failure("context_overflow", said)


def _is_alike(one: _Count, other: _Count) -> bool:
    return all(abs(a - b) <= SAME_MAKE_UP for a, b in zip(one.make_up, other.make_up, strict=True))


def text_of(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def _make_up(text: str) -> tuple[float, ...]:
    """Shares of digits, of other signs than letters and blanks, and of characters beyond ASCII."""
    seen = text[:: max(1, len(text) // _LOOKED_AT)]
    if not seen:
        return (0.0, 0.0, 0.0)
    digits = sum(c.isdigit() for c in seen)
    beyond = sum(not c.isascii() for c in seen)
    signs = sum(c.isascii() and not c.isalnum() and not c.isspace() for c in seen)
    return (digits / len(seen), signs / len(seen), beyond / len(seen))


def _lost_and_said(prompt: str, answer: str, share: float) -> float | None:
    """Where in a prompt the last number of the answer stands that would have been lost if only the last `share` had been read, as a
    share of its length; None where there is none."""
    lost = int(len(prompt) * (1 - share) * _MARGIN)
    told = {word for word in _WORD.findall(answer) if sum(c.isdigit() for c in word) >= _DIGITS}
    places = [prompt.rfind(word) for word in told]
    return max((at / len(prompt) for at in places if 0 <= at < lost), default=None)


def _same_count_of_another_length(known: _Count, new: _Count) -> bool:
    short, long = sorted((known, new), key=lambda one: one.estimate)
    return (
        abs(known.counted - new.counted) <= SAME_COUNT * max(known.counted, new.counted)
        and long.estimate >= OTHER_LENGTH * short.estimate
        and long.size >= OTHER_LENGTH * short.size
        and long.estimate - short.estimate >= SHORTEST_TOKENS
    )
