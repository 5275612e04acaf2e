"""What is sent to a server and what comes back: request bodies, server-sent events, and the pieces of an answer put together.

Sampling settings are sent in full to servers that would otherwise take them from the model's generation_config.json (vLLM, SGLang)
or have their own (llama.cpp): a greedy request is then greedy everywhere, without penalties.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from kleval.backends.server_errors import MalformedAnswer
from kleval.types import Message, Request

Software = Literal["vllm", "sglang", "llama.cpp", "other"]
Prompts = Literal["ids", "text", "messages"]
NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False},
    "llama.cpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    "other": {},
}
MOST_STOPS = 4  # that OpenAI and others take
# Fields of a body that a server may do without, and refuse.
OPTIONAL = (
    *(
        "temperature",
        "top_p",
        "seed",
        "stop",
        "return_token_ids",
        "top_k",
        "min_p",
        "repetition_penalty",
        "repeat_penalty",
    ),
    "skip_special_tokens",
)
DRAIN_SECONDS = 1.0
LONGEST_ANSWER = 256 << 20  # bytes; the log-probabilities of a million tokens are 100 MiB
CONTINUES_ANSWERS = ("vllm", "sglang")  # with continue_final_message
SHORTEST_REPEATED = 8  # characters of the last of pieces that repeat: less may be a text that does
REASONING = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_PART = ("text", "content", "value", "thinking", "reasoning", "summary")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one server is spoken to, as found when it was opened.

    prompts: how prompts are sent: as token ids, text, or chat messages. chats: whether prompts of messages go to the chat endpoint
    though others do not. stream: whether its streams tell token counts; else answers come whole. budget: the name of the field
    that limits the answer. repeats: whether each piece of a stream holds all before it. fields, without: what is put into every body
    and left out of it. template_args: of the server's chat template. adds_begin: whether the server puts the begin token of the
    tokenizer's own rule before a text, as it does unless told otherwise.
    """

    model: str
    software: Software = "other"
    prompts: Prompts = "ids"
    chats: bool = False
    stream: bool = True
    budget: str = "max_tokens"
    repeats: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    template_args: Mapping[str, Any] = field(default_factory=dict)
    adds_begin: bool = True

    def is_chat(self, request: Request) -> bool:
        return self.prompts == "messages" or (self.chats and not isinstance(request.prompt, str))

    def path(self, request: Request) -> str:
        return "/chat/completions" if self.is_chat(request) else "/completions"

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """A body as it is sent."""
        own: dict[str, Any] = {}
        if "messages" in body and self.template_args:
            own["chat_template_kwargs"] = dict(self.template_args)
        elif isinstance(body.get("prompt"), str) and not self.adds_begin:
            own["add_special_tokens"] = False
        whole = {**body, **own, **self.fields}
        return encode_body({name: value for name, value in whole.items() if name not in self.without})

    def streams(self, request: Request) -> bool:
        return self.stream and request.kind != "loglikelihood"


def generation_body(
    dialect: Dialect, request: Request, prompt: str | Sequence[int] | Sequence[Message]
) -> dict[str, Any]:
    """prompt: token ids or text for the completions endpoint, messages for the chat endpoint, answer prefix included."""
    chat = dialect.is_chat(request)
    sampled = request.temperature > 0
    body: dict[str, Any] = {"model": dialect.model, "messages" if chat else "prompt": prompt}
    body |= {
        dialect.budget if chat else "max_tokens": request.max_new_tokens,
        "temperature": max(request.temperature, 0.0),
    }
    body |= NEUTRAL[dialect.software]
    if sampled:
        body |= {"top_p": request.top_p, "seed": request.seed}
    if request.stop:
        # The others are looked for when the answer is there.
        body["stop"] = list(request.stop[: MOST_STOPS if dialect.software == "other" else None])
    if chat and request.answer_prefix:
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if dialect.software == "vllm":
        body["return_token_ids"] = True
    return body | stream_options(dialect.stream)


def stream_options(stream: bool) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {"stream": False}


def likelihood_body(dialect: Dialect, prompt: str | Sequence[int]) -> dict[str, Any]:
    """Prompt and continuation together. One token is generated besides: 0 means "no limit" to some servers."""
    body = {"model": dialect.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0, "stream": False}
    if dialect.software == "vllm":
        return body | NEUTRAL["vllm"] | {"prompt_logprobs": 0}
    return body | {"echo": True, "logprobs": 1}


def chat_messages(request: Request) -> list[dict[str, str]]:
    """The messages of a request; an answer prefix is the beginning of the assistant's."""
    prompt = request.prompt
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    return messages + ([{"role": "assistant", "content": request.answer_prefix}] if request.answer_prefix else [])


def encode_body(body: Mapping[str, Any]) -> bytes:
    """As ASCII, so that half a surrogate pair does not end in an exception here."""
    return json.dumps(body, separators=(",", ":")).encode("ascii")


class EventReader:
    """An event stream read piece by piece, wherever it is cut. ended: its [DONE] has come; what follows is not read.

    Lines end at newlines alone: other separators, like U+2028 and U+0085, may stand unescaped in an answer's text.
    """

    def __init__(self) -> None:
        self.ended = False
        self._pending: list[bytes] = []  # joined once its line has ended: adding piece to piece takes quadratic time

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The JSON objects that this piece completes. MalformedAnswer for what is not JSON."""
        if self.ended:
            return
        self._pending.append(piece)
        if b"\n" not in piece:
            return
        *lines, rest = b"".join(self._pending).split(b"\n")
        self._pending = [rest]
        for line in lines:
            event = _event(line)
            if event == "done":
                self.ended = True
                return
            if isinstance(event, dict):
                yield event

    def finish(self) -> Iterator[dict[str, Any]]:
        """What a last line without its newline holds."""
        return self.feed(b"\n")


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an event stream, up to its [DONE] or its end. MalformedAnswer for what is not JSON."""
    reader = EventReader()
    async for chunk in chunks:
        for event in reader.feed(chunk):
            yield event
        if reader.ended:
            await _drain(chunks)
            return
    for event in reader.finish():
        yield event


async def bounded(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of an answer, unpacked. MalformedAnswer beyond LONGEST_ANSWER: it would fill the memory."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > LONGEST_ANSWER:
            raise MalformedAnswer(f"an answer of more than {LONGEST_ANSWER >> 20} MiB")
        yield chunk


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read to the end, so that the connection can be used again. The answer is whole: nothing that happens now matters."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                pass


def _event(line: bytes) -> dict[str, Any] | Literal["done"] | None:
    line = line.strip(b"\r ")
    if not line.startswith(b"data:"):
        return None
    data = line[5:].strip(b" ")
    if data == b"[DONE]":
        return "done"
    return read_object(data, "an event of the stream")


def read_object(raw: bytes, what: str) -> dict[str, Any]:
    """A JSON object. MalformedAnswer when it is none."""
    try:
        parsed = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedAnswer(f"{what} is not JSON ({len(raw)} bytes)") from error
    if not isinstance(parsed, dict):
        raise MalformedAnswer(f"{what} is JSON but no object")
    return parsed


@dataclass(slots=True)
class Answer:
    """What has come of an answer, whole or in pieces. has_text: a text has come, be it empty; None and no text are not that.

    texts, thoughts: pieces of the answer and of the reasoning that the server told apart. messages: texts of whole messages that came
    beside the pieces, which say the same. repeats: whether each piece holds all before it, as some services send them.
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

    def feed(self, piece: Mapping[str, Any]) -> None:
        """Take a whole answer, or one event of a stream. MalformedAnswer for fields of another type."""
        if piece.get("error"):
            self.error = piece["error"]
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
        if piece.get("usage"):
            self.usage = dict(piece["usage"])
        if not piece.get("choices"):
            return
        choice = self.choice = piece["choices"][0]
        if choice.get("usage"):  # Moonshot's streams have it there
            self.usage = dict(choice["usage"])
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

    def _take(self, content: Any, kept: list[str]) -> None:
        if content is None or content == []:
            return
        text, thought = _words(content)
        self.has_text = self.has_text or bool(text) or not thought
        kept.append(text)
        self.thoughts += [thought] if thought else []

    def count(self, name: str) -> int | None:
        """A number of the usage (`prompt_tokens`, `completion_tokens`), None where the server does not tell it."""
        return _whole_number(self.usage, name)

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
        next((content[key] for key in _PART if content.get(key) is not None), None)
        if isinstance(content, Mapping)
        else None
    )
    if inner is None or not (thinks or kind.endswith("text")):
        raise MalformedAnswer(f"the answer's content holds {kind[:40]!r}, which is no text")
    text, thought = _words(inner)
    return ("", text + thought) if thinks else (text, thought)


def _whole_number(usage: Mapping[str, Any] | None, *names: str) -> int | None:
    found: Any = usage or {}
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
