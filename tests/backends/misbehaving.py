"""A small OpenAI-compatible server on this machine that answers from ids alone, and misbehaves where a test says so.

Its model is a function: the k-th new token of a prompt is a hash of the prompt's bytes and k, and so is the log-probability of a
token after those before it. One byte is one token. Requests are known by their prompt; how often each came, and with what success,
is counted.
"""

from __future__ import annotations

import hashlib
import json
import math
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from local_server import serving

Fault = str | tuple[str, Any]  # a name of Handler.fault_*, with what it needs
LETTERS = b"abcdefghijklmnopqrstuvwxyz .,"


def write_byte_tokenizer(folder: Path) -> Path:
    """A tokenizer.json whose ids are the bytes of the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(names, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def next_token(ids: Sequence[int]) -> int:
    return LETTERS[hashlib.sha256(bytes(i % 256 for i in ids)).digest()[0] % len(LETTERS)]


def new_tokens(ids: Sequence[int], n: int) -> list[int]:
    """What the model answers. A prompt that ends in "!" ends the answer at once."""
    out: list[int] = []
    while len(out) < n and not (ids and ids[-1] == ord("!")):
        out.append(next_token([*ids, *out]))
    return out


def logprob(before: Sequence[int], token: int) -> tuple[float, int]:
    """(natural-log probability, rank): the next token has half of it, all others share the rest."""
    return (math.log(0.5), 1) if token == next_token(before) else (math.log(0.5 / 255), 2)


@dataclass
class Behaviour:
    """What the server is like. software: vllm has token ids, /tokenize and prompt_logprobs; llama.cpp and other have not.
    scores_prompts: whether it tells log-probabilities of a prompt's tokens.

    plan: the faults of a prompt's first requests, in order; then it is answered. Counted by prompt: came, succeeded, and again
    after it had succeeded. refuses: fields of a request that are not taken.
    """

    model: str = "tiny"
    software: str = "vllm"
    max_model_len: int = 4096
    key: str | None = None
    plan: Callable[[str], Sequence[Fault]] = lambda prompt: ()
    counts_usage_in_streams: bool = True
    has: frozenset[str] = frozenset({"/completions", "/chat/completions", "/models"})
    template: str | None = None
    answers_as: str | None = None
    entry: dict[str, Any] | None = None
    version: str = "0.0"
    refuses: tuple[str, ...] = ()
    scores_prompts: bool = True
    again: Counter[str] = field(default_factory=Counter)
    came: Counter[str] = field(default_factory=Counter)
    succeeded: Counter[str] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    behaviour: Behaviour

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        b, path = self.behaviour, self.path.partition("?")[0]
        if not self._allowed():
            return
        if path == "/v1/models" and "/models" in b.has:
            owner = {"vllm": "vllm", "llama.cpp": "llamacpp"}.get(b.software, "someone")
            entry = {"id": b.model, "object": "model", "owned_by": owner, "root": "/weights/of/it"}
            entry |= {"max_model_len": b.max_model_len} if b.software == "vllm" else {}
            self._json(200, {"data": [b.entry or entry]})
        elif path == "/version" and b.software == "vllm":
            self._json(200, {"version": b.version})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        b, path = self.behaviour, self.path.partition("?")[0]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            return
        if path in ("/tokenize", "/detokenize") and b.software == "vllm":
            self._tokenize(path, body)
            return
        endpoint = path.removeprefix("/v1")
        if endpoint not in b.has:
            self._json(404, {"detail": "Not Found"})
            return
        with b.lock:
            b.bodies.append(body)
            b.in_flight += 1
            b.most_in_flight = max(b.most_in_flight, b.in_flight)
        try:
            self._answer(body, "messages" in body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with b.lock:
                b.in_flight -= 1

    def _allowed(self) -> bool:
        given = self.headers.get("Authorization")
        self.behaviour.authorizations.append(given)
        if self.behaviour.key is None or given == f"Bearer {self.behaviour.key}":
            return True
        self._json(401, {"error": {"message": f"Incorrect API key provided: {given}", "code": "invalid_api_key"}})
        return False

    def _tokenize(self, path: str, body: dict[str, Any]) -> None:
        if path == "/detokenize":
            self._json(200, {"prompt": bytes(body["tokens"]).decode("utf-8", "replace")})
        elif "messages" in body and self.behaviour.template is None:
            self._json(400, {"error": {"message": "no chat template"}})
        else:
            text = body["prompt"] if "prompt" in body else self._render(body["messages"])
            self._json(200, {"tokens": list(text.encode()), "count": len(text.encode())})

    def _render(self, messages: list[dict[str, str]]) -> str:
        return "".join((self.behaviour.template or "{role}:{content}\n").format(**m) for m in messages) + "assistant:"

    def _answer(self, body: dict[str, Any], chat: bool) -> None:
        b, prompt = self.behaviour, body["messages"] if chat else body["prompt"]
        if isinstance(prompt, list) and not chat and b.software != "vllm":
            self._json(500, {"error": {"message": "prompt: Input should be a valid string"}})
            return
        text = self._render(prompt) if chat else prompt if isinstance(prompt, str) else bytes(prompt).decode()
        with b.lock:
            number = b.came[text]
            b.came[text] += 1
            b.again[text] += b.succeeded[text] > 0
        if body["model"] != b.model:
            self._json(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return
        for name in b.refuses:
            if name in body:
                self._json(
                    400, {"error": {"message": f"Unsupported parameter: '{name}' is not supported with this model."}}
                )
                return
        faults = list(b.plan(text))
        name, value = "", None
        if number < len(faults):
            fault = faults[number]
            name, value = fault if isinstance(fault, tuple) else (fault, None)
            if getattr(self, f"fault_{name}")(value):
                return
        ids = list(text.encode())
        asked = body.get("max_tokens") or body.get("max_completion_tokens")
        room = b.max_model_len - len(ids)
        if room <= 0:
            self.fault_overflow(None)
            return
        new = new_tokens(ids, min(asked, room))
        reply = _Reply(body, ids, new, len(new) < min(asked, room), b, chat)
        if name == "wrong_model":
            reply.model = value or "another"
        raw = reply.stream() if body.get("stream") else [json.dumps(reply.whole()).encode()]
        if name == "half":
            raw = raw[: max(1, len(raw) // 2)] if body.get("stream") else [raw[0][: len(raw[0]) // 2]]
        if name == "malformed":
            raw = [raw[0].replace(b'"choices"', b'"choices')]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if body.get("stream") else "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in raw:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if name != "half":
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True
        if name not in ("half", "malformed", "wrong_model", "slow"):
            with b.lock:
                b.succeeded[text] += 1

    def _json(self, status: int, body: dict[str, Any], **headers: str) -> None:
        self._send(status, json.dumps(body).encode(), **headers)

    def _send(self, status: int, raw: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(raw)

    # Faults return whether they have answered.

    def fault_429(self, retry_after: str | None) -> bool:
        headers = {"Retry_After": retry_after} if retry_after else {}
        self._json(429, {"error": {"message": "too many requests"}}, **headers)
        return True

    def fault_status(self, status_and_body: tuple[int, dict[str, Any]]) -> bool:
        self._json(*status_and_body)
        return True

    def fault_raw(self, raw: bytes) -> bool:
        self._send(200, raw)
        return True

    def fault_endless(self, piece: bytes, status: int = 200) -> bool:
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while True:
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def fault_endless_error(self, piece: bytes) -> bool:
        return self.fault_endless(piece, 500)

    def fault_unwanted(self, _: Any) -> bool:
        self._json(422, {"detail": [{"loc": ["body"], "msg": "Extra inputs are not permitted"}]})
        return True

    def fault_500(self, _: Any) -> bool:
        self._json(500, {"error": {"message": "something broke"}})
        return True

    def fault_slow(self, seconds: float) -> bool:
        time.sleep(seconds)
        return False

    def fault_reset(self, _: Any) -> bool:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RD)
        self.connection.close()
        raise ConnectionResetError

    def fault_overflow(self, _: Any) -> bool:
        said = f"This model's maximum context length is {self.behaviour.max_model_len} tokens. However, your prompt contains more."
        self._json(400, {"error": {"message": said, "type": "BadRequestError", "code": 400}})
        return True

    def fault_half(self, _: Any) -> bool:
        return False

    fault_malformed = fault_wrong_model = fault_half


class _Reply:
    def __init__(
        self, body: dict[str, Any], ids: list[int], new: list[int], ended: bool, behaviour: Behaviour, chat: bool
    ) -> None:
        self.body, self.ids, self.new, self.chat, self.behaviour = body, ids, new, chat, behaviour
        self.model = behaviour.answers_as or body["model"]
        self.finish = "stop" if ended else "length"
        n = len(new) + ended
        self.usage = {"prompt_tokens": len(ids), "completion_tokens": n, "total_tokens": len(ids) + n}
        text = bytes(new).decode()
        cut = min((at for stop in body.get("stop", ()) if (at := text.find(stop)) >= 0), default=None)
        self.text = text if cut is None else text[:cut]
        if cut is not None:
            self.finish = "stop"
        self.token_ids = [*new, *([0] if ended else [])] if body.get("return_token_ids") else []

    def whole(self) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish}
        choice |= {"message": {"role": "assistant", "content": self.text}} if self.chat else {"text": self.text}
        if self.token_ids:
            choice["token_ids"] = self.token_ids
        if not self.behaviour.scores_prompts:
            return {"model": self.model, "choices": [choice], "usage": self.usage}
        if self.body.get("echo"):
            choice["logprobs"] = self._echoed()
        if "prompt_logprobs" in self.body:
            tables: list[Any] = [None]
            for at in range(1, len(self.ids)):
                value, rank = logprob(self.ids[:at], self.ids[at])
                tables.append({str(self.ids[at]): {"logprob": value, "rank": rank, "decoded_token": "?"}})
            choice["prompt_logprobs"] = tables
        return {"model": self.model, "choices": [choice], "usage": self.usage}

    def _echoed(self) -> dict[str, Any]:
        everything = [*self.ids, *self.new]
        scored = [logprob(everything[:at], token) for at, token in enumerate(everything)]
        best = math.log(0.5)
        return {
            "tokens": [chr(token) for token in everything],
            "token_logprobs": [None, *(value for value, _ in scored[1:])],
            "top_logprobs": [
                None,
                *({"best": best, chr(t): v} for t, (v, _) in zip(everything[1:], scored[1:], strict=True)),
            ],
        }

    def stream(self) -> list[bytes]:
        """One event per two characters, ids along with them where asked for, usage last."""
        pieces = [self.text[i : i + 2] for i in range(0, len(self.text), 2)] or [""]
        out = []
        for number, text in enumerate(pieces):
            last = number == len(pieces) - 1
            choice: dict[str, Any] = {"index": 0, "finish_reason": self.finish if last else None}
            choice |= {"delta": {"content": text}} if self.chat else {"text": text}
            if self.token_ids:
                choice["token_ids"] = self.token_ids[2 * number : None if last else 2 * number + 2]
            out.append({"model": self.model, "choices": [choice]})
        if self.behaviour.counts_usage_in_streams:
            out.append({"model": self.model, "choices": [], "usage": self.usage})
        return [f"data: {json.dumps(event)}\n\n".encode() for event in out] + [b"data: [DONE]\n\n"]


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """The base URL of a server that behaves so, while the block runs."""
    with serving(Handler, behaviour=behaviour) as root:
        yield f"{root}/v1"
