"""Request bodies for servers, and their server-sent events.

Sampling settings are sent in full to servers that would otherwise take them from the model's generation_config.json (vLLM, SGLang)
or have their own (llama.cpp; llama-cpp-python, whose penalty for repeating holds at temperature 0 too): a greedy request is then
greedy everywhere, without penalties.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from kleval.backends.server_errors import MalformedAnswer
from kleval.types import Message, Request

Software = Literal["vllm", "sglang", "llama.cpp", "llama-cpp-python", "other"]
Prompts = Literal["ids", "text", "messages"]
NEUTRAL: dict[str, dict[str, Any]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False},
    "llama.cpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    "llama-cpp-python": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
    "other": {},
}
MOST_STOPS = 4  # that OpenAI and others take
# Fields of a body that a server may do without, and refuse.
OPTIONAL = (
    *("temperature", "top_p", "seed", "stop", "return_token_ids", "skip_special_tokens"),
    *("top_k", "min_p", "repetition_penalty", "repeat_penalty"),
)
DRAIN_SECONDS = 1.0
LONGEST_ANSWER = 256 << 20  # bytes; the log-probabilities of a million tokens are 100 MiB
CONTINUES_ANSWERS = ("vllm", "sglang")  # with continue_final_message


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
        return self.stream and request.kind != "loglikelihood" and not request.logprobs


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
    if request.logprobs:
        body |= {"logprobs": True, "top_logprobs": request.logprobs} if chat else {"logprobs": request.logprobs}
    if dialect.software == "vllm":
        body["return_token_ids"] = True
    return body | stream_options(dialect.streams(request))


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

    Lines end at newlines alone: other separators, like U+2028 and U+0085, may stand unescaped in an answer's text. What begins as JSON
    is one object and no stream, whatever its header calls it.
    """

    def __init__(self) -> None:
        self.ended = False
        self._pending: list[bytes] = []  # joined once its line has ended: adding piece to piece takes quadratic time
        self._whole: bool | None = None

    def feed(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The JSON objects that this piece completes. MalformedAnswer for what is not JSON."""
        if self.ended:
            return
        self._pending.append(piece)
        if self._whole is None and (begun := piece.removeprefix(codecs.BOM_UTF8).strip()):
            self._whole = begun.startswith(b"{")
        if self._whole or b"\n" not in piece:
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
        """What a last line without its newline holds, or the one object."""
        if not self._whole:
            yield from self.feed(b"\n")
        elif not self.ended:
            self.ended = True
            yield read_object(b"".join(self._pending), "the answer")


async def events(chunks: AsyncIterator[bytes], reader: EventReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an event stream, up to its [DONE] or its end. MalformedAnswer for what is not JSON."""
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
    line = line.removeprefix(codecs.BOM_UTF8).strip(b"\r ")
    if not line.startswith((b"data:", b"error:")):  # the second is older llama.cpp's
        return None
    data = line.partition(b":")[2].strip(b" ")
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
