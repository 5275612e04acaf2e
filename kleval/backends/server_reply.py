"""An answer put together from what a server sent: whole or in pieces, in the forms of many services.

Content is a text or a list of parts; pieces come as `delta` or as `message`, alone or beside each other, each new or with all before
it; reasoning stands apart from the text under several names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from kleval.backends.server_errors import MalformedAnswer

SHORTEST_REPEATED = 8  # characters of the last of pieces that repeat: less may be a text that does
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_ALSO_CALLED = {"prompt_tokens": ("input_tokens",), "completion_tokens": ("output_tokens",)}
PARTS = ("text", "content", "value", "thinking", "reasoning", "summary")


@dataclass(slots=True)
class Answer:
    """What has come of an answer, whole or in pieces. has_text: a text has come, be it empty; None and no text are not that.

    texts, thoughts: pieces of the answer and of the reasoning that the server told apart. messages: texts of whole messages that came
    beside the pieces, which say the same. repeats: whether each piece holds all before it, as some services send them.
    ended: whether all of it has come (a stream's [DONE], or an answer that is no stream).
    """

    model: str | None = None
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    has_text: bool = False
    repeats: bool = False
    token_ids: list[int] = field(default_factory=list)
    finish: str | None = None
    stopped_by: Any = None
    tells_stop: bool = False
    ended: bool = False
    usage: Mapping[str, Any] | None = None
    choice: Mapping[str, Any] | None = None
    error: Any = None

    @property
    def text(self) -> str:
        return _joined(self.texts if any(self.texts) else self.messages, self.repeats)

    @property
    def reasoning(self) -> str:
        """What the server told apart from the answer; where it only counts it, that in words."""
        said = _joined(self.thoughts, self.repeats)
        return said or (f"({n} tokens that the server does not show)" if (n := self._hidden_tokens()) else "")

    def _hidden_tokens(self) -> int:
        """Tokens of reasoning that are counted: as such, or where there is no text in the total alone."""
        told = _whole_number(self.usage, "completion_tokens_details", "reasoning_tokens")
        total, prompt, new = (self.count(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens"))
        rest = total - prompt - new if total and prompt and new is not None and not self.text else 0
        return max(told or 0, self.count("reasoning_tokens") or 0, rest)

    @property
    def unseen_tokens(self) -> int:
        """Tokens of reasoning that are among the answer's and that the server does not show."""
        told = _whole_number(self.usage, "completion_tokens_details", "reasoning_tokens")
        total, prompt, new = (self.count(name) for name in ("total_tokens", "prompt_tokens", "completion_tokens"))
        beside = bool(total and total > (prompt or 0) + (new or 0))
        return 0 if beside or any(self.thoughts) else max(told or 0, self.count("reasoning_tokens") or 0)

    def feed(self, piece: Mapping[str, Any]) -> None:
        """Take a whole answer, or one event of a stream. MalformedAnswer for fields of another type."""
        if error := _error(piece):
            self.error = error
            return
        try:
            self._feed(piece)
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise MalformedAnswer(
                f"the answer has not the fields of the API ({type(error).__name__}: {error})"
            ) from error

    def _feed(self, piece: Mapping[str, Any]) -> None:
        if piece.get("model") and isinstance(piece["model"], str):
            self.model = piece["model"]
        self._take_usage(piece.get("usage"))
        if not piece.get("choices"):
            return
        choice = self.choice = piece["choices"][0]
        self._take_usage(choice.get("usage"))  # Moonshot's streams have it there
        delta, message = choice.get("delta"), choice.get("message")
        if delta is None and message is None:
            self._take(choice.get("text"), self.texts)
        for said, kept in ((delta, self.texts), (message, self.messages)):
            if said is not None:
                self._take(said.get("content"), kept)
        thought = next(
            (_words(said[key]) for said in (delta, message) if said for key in REASONING if said.get(key)), None
        )
        self.thoughts += ["".join(thought)] if thought else []
        self.token_ids += choice.get("token_ids") or ()
        self.tells_stop = self.tells_stop or "stop_reason" in choice
        if choice.get("finish_reason"):
            self.finish, self.stopped_by = str(choice["finish_reason"]), choice.get("stop_reason")

    def _take_usage(self, usage: Any) -> None:
        """The latest of each number: some services tell the prompt's in the first event and the answer's in the last."""
        if usage:
            self.usage = {**(self.usage or {}), **{k: n for k, n in usage.items() if n is not None}}

    def _take(self, content: Any, kept: list[str]) -> None:
        if content is None or content == []:
            return
        text, thought = _words(content)
        self.has_text = self.has_text or bool(text) or not thought
        kept.append(text)
        self.thoughts += [thought] if thought else []

    def count(self, name: str) -> int | None:
        """A number of the usage (`prompt_tokens`, `completion_tokens`), None where the server does not tell it."""
        names = (name, *_ALSO_CALLED.get(name, ()))
        told = next((n for one in names if (n := _whole_number(self.usage, one)) is not None), None)
        if told is None and name == "completion_tokens":
            total, prompt = self.count("total_tokens"), self.count("prompt_tokens")
            told = total - prompt if total and prompt and total >= prompt else None
        return told

    @property
    def cached_tokens(self) -> int | None:
        return _whole_number(self.usage, "prompt_tokens_details", "cached_tokens")


def repeat_all_before(pieces: Sequence[str]) -> bool:
    """Whether each piece of a stream holds all before it. Of a few short ones that cannot be said."""
    said = [piece for piece in pieces if piece]
    if len(set(said)) < 3 or len(said[-1]) < SHORTEST_REPEATED:
        return False
    return all(after.startswith(before) for before, after in pairwise(said))


def _joined(pieces: Sequence[str], repeats: bool) -> str:
    """The text of the pieces; a character that was cut in two (a surrogate pair) is whole again."""
    said = [piece for piece in pieces if piece]
    if repeat_all_before(said) or (repeats and all(after.startswith(before) for before, after in pairwise(said))):
        said = said[-1:]
    elif len(said) > 2 and len(said[-1]) >= SHORTEST_REPEATED and said[-1] == "".join(said[:-1]):
        said = said[:-1]  # the whole once more at the end
    return "".join(said).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _words(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a content: a text, a part, or a list of them. MalformedAnswer for a part of another type."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list):
        found = [_words(part) for part in content]
        return "".join(text for text, _ in found), "".join(thought for _, thought in found)
    kind = str(content.get("type", "text")) if isinstance(content, Mapping) else type(content).__name__
    thinks = any(word in kind for word in ("think", "reason", "summary"))
    inner = (
        next((content[key] for key in PARTS if content.get(key) is not None), None)
        if isinstance(content, Mapping)
        else None
    )
    if inner is None or not (thinks or kind.endswith("text")):
        raise MalformedAnswer(f"the answer's content holds {kind[:40]!r}, which is no text")
    text, thought = _words(inner)
    return ("", text + thought) if thinks else (text, thought)


def _error(piece: Mapping[str, Any]) -> Any:
    """What an object says went wrong: under the name that the API has for it, or as the object itself, with a code; else None."""
    if piece.get("error") or piece.get("choices"):
        return piece.get("error")
    said = any(isinstance(piece.get(name), str) and piece[name] for name in ("message", "detail", "msg", "text"))
    coded = any(piece.get(name) not in (None, "", 0, "0", 200, "200") for name in ("code", "error_code", "status_code"))
    return dict(piece) if said and (coded or piece.get("object") == "error") else None


def _whole_number(usage: Mapping[str, Any] | None, *names: str) -> int | None:
    found: Any = usage or {}
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, float) and found.is_integer():  # of gateways whose language has no other numbers
        found = int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
