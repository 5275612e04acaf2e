"""A server that knows every right answer, and sends it in the shape of one service or another."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from local_server import serving

Piece = dict[str, Any]  # a choice of an answer
SIZE = 5  # characters of a piece of a stream


def pieces(text: str) -> list[str]:
    return [text[at : at + SIZE] for at in range(0, len(text), SIZE)]


def deltas(text: str) -> list[Piece]:
    return [{"delta": {"role": "assistant", "content": ""}}, *({"delta": {"content": part}} for part in pieces(text))]


def message(text: str) -> list[Piece]:
    return [{"message": {"role": "assistant", "content": text}}]


@dataclass(frozen=True)
class Shape:
    """chat: only /chat/completions is there. streamed, whole: an answer's pieces, of a stream or at once; streams: whether there are
    streams with usage. says: the text that holds the answer. usage: of the counts of prompt and answer. refuses: fields that are not
    taken.
    """

    chat: bool = True
    software: str = "someone"
    streams: bool = True
    streamed: Callable[[str], list[Piece]] = deltas
    whole: Callable[[str], list[Piece]] = message
    says: Callable[[str], str] = lambda right: right
    finish: str = "stop"
    usage: Callable[[int, int], dict[str, Any]] = lambda prompt, new: {
        "prompt_tokens": prompt,
        "completion_tokens": new,
    }
    refuses: tuple[str, ...] = ()
    model: str = "oracle"
    prefix_in_reasoning: bool = False


def tokens(text: str) -> int:
    return len(re.findall(r"\d{1,3}|[A-Za-z]{1,6}|[^\sA-Za-z\d]", text))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    shape: Shape
    answers: dict[str, str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        self._json(
            200 if found else 404, {"data": [{"id": "oracle", "owned_by": self.shape.software}]} if found else {}
        )

    def do_POST(self) -> None:
        shape, body = self.shape, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        chat = self.path == "/v1/chat/completions"
        if not chat and (shape.chat or self.path != "/v1/completions"):
            self._json(404, {"detail": "Not Found"})
            return
        for name in shape.refuses:
            if name in body:
                self._json(400, {"error": {"message": f"Unsupported parameter: '{name}'"}})
                return
        prompt = "\n".join(m["content"] for m in body["messages"]) if chat else body["prompt"]
        if not isinstance(prompt, str):
            self._json(400, {"error": {"message": "prompt must be a text"}})
            return
        right = self.answers.get(prompt, "nobody knows")
        begun = chat and body["messages"][-1]["role"] == "assistant"
        said = shape.says(right)
        stops = [at for stop in body.get("stop", ()) if (at := said.find(stop)) >= 0]
        said = said[: min(stops, default=None)]
        stream = body.get("stream") and shape.streams
        if shape.prefix_in_reasoning and begun:
            choices = [{"message": {"content": None, "reasoning_content": said}}]
            stream = False
        elif not chat:
            choices = [{"text": part} for part in (pieces(said) or [""] if stream else [said])]
        else:
            choices = shape.streamed(said) if stream else shape.whole(said)
        usage = shape.usage(tokens(prompt), tokens(said) // 4 + 1)
        events = [{"model": shape.model, "choices": [{"finish_reason": None, **choice}]} for choice in choices]
        events[-1]["choices"][0]["finish_reason"] = shape.finish
        if not stream:
            self._json(200, {**events[-1], "usage": usage})
            return
        events.append({"model": shape.model, "choices": [], "usage": usage})
        raw = b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"
        self._send(200, raw, "text/event-stream")

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, raw: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def serve_oracle(shape: Shape, answers: dict[str, str]) -> Iterator[str]:
    """The base URL while the block runs. answers: by prompt, messages joined by newlines."""
    with serving(Handler, shape=shape, answers=answers) as root:
        yield f"{root}/v1"


def growing(key: str) -> Callable[[str], list[Piece]]:
    """A stream whose pieces hold all before them."""

    def stream(text: str) -> list[Piece]:
        parts: Sequence[str] = pieces(text)
        return [{key: {"content": "".join(parts[: n + 1])}} for n in range(len(parts))] or [{key: {"content": ""}}]

    return stream


SHAPES: dict[str, Shape] = {
    "text": Shape(chat=False),
    "text, at once": Shape(chat=False, streams=False),
    "text, of llama.cpp": Shape(chat=False, software="llamacpp"),
    "text, reasoning first": Shape(chat=False, says=lambda right: f"<think>no: nothing,\n\nno.</think>\n\n{right}"),
    "chat": Shape(),
    "chat, at once": Shape(streams=False),
    "chat, of vllm": Shape(software="vllm"),
    "parts": Shape(streams=False, whole=lambda text: [{"message": {"content": [{"type": "text", "text": text}]}}]),
    "deltas of parts": Shape(
        streamed=lambda text: [{"delta": {"content": [{"type": "text", "text": part}]}} for part in pieces(text)]
    ),
    "message beside an empty delta": Shape(
        streams=False, whole=lambda text: [{"delta": {"content": ""}, "message": {"content": text}}]
    ),
    "the message once more at the end": Shape(streamed=lambda text: [*deltas(text), *message(text)]),
    "each delta repeats all before": Shape(streamed=growing("delta")),
    "each message repeats all before": Shape(streamed=growing("message")),
    "reasoning first": Shape(says=lambda right: f"<think>no: nothing,\n\nno.</think>\n\n{right}"),
    "reasoning that the template opened": Shape(says=lambda right: f"no: nothing.</think>{right}"),
    "reasoning in its own field": Shape(
        streams=False,
        whole=lambda text: [{"message": {"content": text, "reasoning_content": "no"}}],
        usage=lambda prompt, new: {"prompt_tokens": prompt, "completion_tokens": new + 10_000},
    ),
    "reasoning in its own field, blank lines before the answer": Shape(
        says=lambda right: f"\n\n{right}",
        streamed=lambda text: [{"delta": {"reasoning_content": "no"}}, *deltas(text)],
    ),
    "reasoning of gpt-oss": Shape(
        says=lambda right: f"<|channel|>analysis<|message|>no: nothing,\n\nno.<|channel|>final<|message|>{right}"
    ),
    "an end token left in": Shape(says=lambda right: f"{right}<|im_end|>\n"),
    "counts under other names": Shape(usage=lambda prompt, new: {"input_tokens": prompt, "output_tokens": float(new)}),
    "the prefix continued in the reasoning field": Shape(software="vllm", prefix_in_reasoning=True),
    "finish reason of another service": Shape(finish="end_turn"),
    "no prompt counts": Shape(usage=lambda prompt, new: {"prompt_tokens": 0, "completion_tokens": new}),
    "one shard counted": Shape(usage=lambda prompt, new: {"prompt_tokens": min(prompt, 900), "completion_tokens": new}),
    "fields refused": Shape(refuses=("temperature", "stop")),
    "a gateway's alias": Shape(model="vendor/real-1"),
}
