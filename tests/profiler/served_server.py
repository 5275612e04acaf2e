"""A server of the OpenAI API on this machine whose delays, chunks and faults are known: for tests of what is measured on it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import local_server

FIRST_SECONDS, STEP_SECONDS = 0.03, 0.008


@dataclass
class Manner:
    """How the server behaves; a test changes it while the server runs. It counts 2 tokens per word and 3 more in a text.

    roles_before: how often the assistant's role is named at once, long before the first token.
    faulty: numbers of requests of more than 2 tokens (0 is the first) that meet fault, which is an HTTP status, `error`
    (in the stream) or `cut` (the connection ends in the middle).
    """

    model: str = "tiny"
    owner: str = "vllm"
    max_model_len: int | None = 4096
    first_seconds: float = FIRST_SECONDS
    step_seconds: float = STEP_SECONDS
    tokens_per_event: int = 1
    takes_ids: bool = True
    takes_ignore_eos: bool = True
    usage: bool = True
    stops_after: int | None = None
    buffers: bool = False
    cached: int | None = None
    hits: int | None = None
    hits_per_request: int = 0
    metrics: str = ""
    answers_as: str | None = None
    cuts_prompts_to: int | None = None
    key: str | None = None
    faulty: frozenset[int] = frozenset()
    fault: int | str = 500
    reasons: bool = False
    roles_before: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    under_way: int = 0
    most_under_way: int = 0
    lock: Any = field(default_factory=threading.Lock)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """Requests other than the short ones that only find out how the server is spoken to."""
        return [body for body in self.bodies if limit(body) > 2 and limit(body) != 16]


def limit(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a piece would wait for the one before to be acknowledged
    manner: Manner

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        manner = self.manner
        if manner.key is not None and self.headers.get("Authorization") != f"Bearer {manner.key}":
            self.plain(401, {"error": {"message": "wrong key"}})
        elif self.path == "/v1/models":
            entry = {"id": manner.model, "owned_by": manner.owner, "max_model_len": manner.max_model_len}
            self.plain(200, {"data": [entry]})
        elif self.path == "/version":
            self.plain(200, {"version": "1.2.3"})
        elif self.path == "/metrics" and (manner.hits is not None or manner.metrics):
            hits = 0 if manner.hits is None else manner.hits
            text = f'# HELP x\nvllm:prefix_cache_hits_total{{engine="0",model_name="tiny"}} {float(hits)}\n'
            self.plain(200, text + manner.metrics)
        else:
            self.plain(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        manner = self.manner
        if self.path == "/tokenize":
            ids = [1000 + len(word) * 7 + ord(word[0]) for word in body["prompt"].split()]
            self.plain(200 if manner.takes_ids else 404, {"tokens": ids})
            return
        with manner.lock:
            manner.bodies.append(body)
            manner.under_way += 1
            manner.most_under_way = max(manner.most_under_way, manner.under_way)
            number = manner.asked
            manner.asked += limit(body) > 2
        try:
            self.answer(body, manner.fault if number in manner.faulty and limit(body) > 2 else None)
        finally:
            with manner.lock:
                manner.under_way -= 1

    def answer(self, body: dict[str, Any], fault: int | str | None) -> None:
        manner, chat = self.manner, "messages" in body
        prompt = body["messages"][0]["content"] if chat else body["prompt"]
        if isinstance(prompt, list) and not manner.takes_ids:
            return self.plain(400, {"error": {"message": "a prompt is a string"}})
        if "ignore_eos" in body and not manner.takes_ignore_eos:
            return self.plain(400, {"error": {"message": "unknown field ignore_eos"}})
        if isinstance(fault, int):
            return self.plain(fault, {"error": {"message": "planned"}})
        n_prompt = len(prompt) if isinstance(prompt, list) else 2 * len(prompt.split()) + 3
        n_prompt = min(n_prompt, manner.cuts_prompts_to or n_prompt)
        n_out = limit(body)
        if manner.max_model_len is not None and n_prompt + n_out > manner.max_model_len:
            return self.plain(400, {"error": {"message": f"maximum context length is {manner.max_model_len} tokens"}})
        if manner.stops_after is not None and not (manner.takes_ignore_eos and body.get("ignore_eos")):
            n_out = min(n_out, manner.stops_after)
        if manner.hits is not None:
            with manner.lock:
                manner.hits += manner.hits_per_request
        options = body.get("stream_options") or {}
        each = bool(options.get("continuous_usage_stats"))
        usage = {"prompt_tokens": n_prompt, "completion_tokens": n_out}
        if manner.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": manner.cached}
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "length", "text": "x" * n_out, "message": {"content": "x" * n_out}}
            return self.plain(200, {"model": manner.model, "choices": [choice], "usage": usage})
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        role = {"delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        for _ in range(manner.roles_before if chat else 0):
            self.send(self.event(body, role))
            time.sleep(manner.step_seconds)
        time.sleep(manner.first_seconds)
        held = [self.event(body, role)] if chat else []
        done, ended = 0, "length" if n_out == limit(body) else "stop"
        while done < n_out:
            new = min(manner.tokens_per_event, n_out - done)
            if done:
                time.sleep(manner.step_seconds)
            done += new
            if fault is not None and done > 3:
                if fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                held.append(b'data: {"error": {"message": "planned", "code": 500}}\n\n')
                n_out = 0
                break
            word = "reasoning_content" if manner.reasons else "content"
            choice: dict[str, Any] = {"delta": {word: "x" * new}} if chat else {"text": "x" * new}
            choice["finish_reason"] = ended if done == n_out else None
            counted = usage | {"completion_tokens": done} if each and manner.usage else None
            held.append(self.event(body, choice, counted))
            if not manner.buffers:
                self.send(b"".join(held))
                held = []
        if manner.usage and options.get("include_usage") and n_out:
            held.append(
                b"data: " + json.dumps({"model": self.name(body), "choices": [], "usage": usage}).encode() + b"\n\n"
            )
        self.send(b"".join(held) + b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def name(self, body: dict[str, Any]) -> str:
        return self.manner.answers_as if self.manner.answers_as and limit(body) > 16 else self.manner.model

    def event(self, body: dict[str, Any], choice: dict[str, Any], usage: dict[str, Any] | None = None) -> bytes:
        said = {"model": self.name(body), "choices": [{"index": 0, **choice}]} | ({"usage": usage} if usage else {})
        return b"data: " + json.dumps(said).encode() + b"\n\n"

    def send(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def plain(self, status: int, content: Any) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving(manner: Manner) -> Iterator[str]:
    """The address of a server that behaves so."""
    with local_server.serving(Handler, manner=manner) as root:
        yield f"{root}/v1"
