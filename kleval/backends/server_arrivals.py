"""Arrivals of an answer's tokens, from the events of its stream and when each came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from kleval.backends.server_reply import PARTS, REASONING, Answer
from kleval.types import Arrival

_TEXTS = ("content", "text")
_CONTENT = (*_TEXTS, *REASONING, "tool_calls")


class _Piece(NamedTuple):
    """One event's content. tokens: None where it is not told how many. blank: whether its text is there and empty."""

    seconds: float
    tokens: int | None
    late: float
    blank: bool


class Arrivals:
    """Pieces of content as they arrive, from the events of one stream.

    Content is text (of reasoning and of calls too), token ids, or a count of output tokens that has grown. The event that names the
    assistant's role is none, nor is that of the usage alone. How many tokens: what the count has grown by, else the ids; not told by a
    count behind content that told none, nor by one that is still 0 beside content.
    A text that is there though empty may be a token, as where a character is made of several, or nothing at all, as where a server
    names the role in every event: see `found`.
    """

    def __init__(self) -> None:
        self.answer = Answer()
        self._pieces: list[_Piece] = []
        self._events = 0
        self._counted: int | None = 0  # tokens so far; None where an arrival did not tell

    def take(self, event: dict[str, Any], seconds: float, late: float = 0.0) -> None:
        self.answer.feed(event)
        if not event.get("choices"):
            return
        choice = event["choices"][0]
        said = choice.get("delta") or choice
        self._events += 1
        speaks = any(_says(said.get(name)) for name in _CONTENT)
        count, ids = self._count(event), len(choice.get("token_ids") or ())
        if count == 0 and speaks:
            count = None
        grown = None if count is None or self._counted is None else max(count - self._counted, 0)
        tokens = ids or None if grown is None else grown or ids
        open_ = self._events > 1 and count is None and not choice.get("finish_reason")
        blank = not speaks and not tokens
        if count is not None:
            self._counted = count
        if blank and not (open_ and any(said.get(name) == "" for name in _TEXTS)):
            return
        if count is None and not blank:
            self._counted = None if tokens is None or self._counted is None else self._counted + tokens
        self._pieces.append(_Piece(seconds, tokens, late, blank))

    def found(self) -> tuple[Arrival, ...]:
        """Events of one piece are one arrival. An empty text is no token before the first that is not empty, nor where all pieces from
        there on are more than the tokens of the answer."""
        first = next((at for at, piece in enumerate(self._pieces) if not piece.blank), 0)
        pieces, n_out = self._pieces[first:], self.answer.count("completion_tokens")
        if n_out is not None and sum(1 if one.tokens is None else one.tokens for one in pieces) > n_out:
            pieces = [one for one in pieces if not one.blank]
        found: list[Arrival] = []
        for seconds, tokens, late, _ in pieces:
            if found and found[-1].seconds == seconds:
                earlier = found.pop().tokens
                tokens = None if earlier is None or tokens is None else earlier + tokens
            found.append(Arrival(seconds, tokens, late))
        return tuple(found)

    def _count(self, event: dict[str, Any]) -> int | None:
        """Output tokens so far, as an event tells them."""
        timings = event.get("timings")
        told = timings.get("predicted_n") if isinstance(timings, dict) else None
        count = self.answer.count("completion_tokens") if event.get("usage") else told
        return count if type(count) is int else None


def _says(content: Any) -> bool:
    """Whether a field of a delta holds anything: the parts of a content may all be empty."""
    if isinstance(content, list):
        return any(map(_says, content))
    texts = [content[name] for name in PARTS if name in content] if isinstance(content, Mapping) else []
    return any(map(_says, texts)) if texts else bool(content)
