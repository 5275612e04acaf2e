"""What llama.cpp's own server and llama-cpp-python's say, as they said it, and what is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import local_server
import pytest

from kleval.backends.server_address import Server
from kleval.backends.server_exchange import Received
from kleval.backends.server_opening import Served, look
from kleval.backends.server_timing import read_trace
from kleval.backends.server_tokenizer import RemoteTokenizer
from kleval.backends.server_wire import NEUTRAL
from kleval.tokenization import check_growth
from kleval.types import Trace, UsageError

Answer = Callable[[str, dict[str, Any]], Any]


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """A server whose GETs and POSTs are answered by answer(path, body), None being 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or "0")) or "{}")
            said = answer(self.path, body)
            raw = json.dumps({"detail": "Not Found"} if said is None else said).encode()
            self.send_response(404 if said is None else 200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *args: Any) -> None:
            pass

    with local_server.serving(Handler) as root:
        yield Server(f"{root}/v1")


def own_server(path: str, body: dict[str, Any], bos: int | None = None) -> Any:
    """llama-server: /tokenize reads `content`, of any other body it makes no tokens; ids here are bytes."""
    if path == "/tokenize":
        ids = list(body.get("content", "").encode())
        return {"tokens": ([bos] if bos is not None and body.get("add_special") else []) + ids}
    if path == "/detokenize":
        return {"content": "".join("<s>" if token == bos else chr(token) for token in body["tokens"])}
    if path == "/apply-template":
        return {"prompt": "".join(f"<{m['role']}>{m['content']}" for m in body["messages"]) + "<assistant>"}
    return None


def python_server(path: str, body: dict[str, Any], bos: int | None = None) -> Any:
    """llama-cpp-python: /extras/tokenize reads `input` and puts the begin token first where the model has one."""
    if path == "/extras/tokenize":
        return {"tokens": ([] if bos is None else [bos]) + list(body["input"].encode())}
    if path == "/extras/detokenize":
        return {"text": "".join("<s>" if token == bos else chr(token) for token in body["tokens"])}
    return None


@pytest.mark.parametrize("bos", [None, 256])
@pytest.mark.parametrize("kind", [own_server, python_server])
def test_a_text_is_tokenized_as_the_server_does_without_its_begin_token(kind: Any, bos: int | None) -> None:
    with serving(lambda path, body: kind(path, body, bos)) as server:
        tokenizer = RemoteTokenizer.opened(server, "tiny")
        assert tokenizer.encode("hello") == list(b"hello")
        assert tokenizer.decode(list(b"hello")) == "hello"
        assert tokenizer.begin_ids == ([] if bos is None else [bos])
        assert tokenizer.encode(tokenizer.render("hi")) == [*tokenizer.begin_ids, *b"hi"]


def test_messages_are_written_by_the_servers_template_where_it_can_be_asked() -> None:
    messages = [{"role": "user", "content": "hi"}]
    with serving(own_server) as server:
        tokenizer = RemoteTokenizer.opened(server, "tiny")
        assert tokenizer.chat_template_digest
        assert tokenizer.render(messages, "so: ") == "<user>hi<assistant>so: "
    with serving(python_server) as server:
        assert RemoteTokenizer.opened(server, "tiny").chat_template_digest == ""


@pytest.mark.parametrize(("known", "template"), [(True, True), (False, False)])
def test_chatml_that_stands_in_for_a_missing_template_is_none_of_the_models(known: bool, template: bool) -> None:
    """A base model's: llama.cpp writes messages all the same, with marks that the model cuts into letters."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        if path == "/apply-template":
            return {"prompt": "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in body["messages"])}
        if known and path == "/tokenize" and body.get("content") == "<|im_start|>":
            return {"tokens": [1]}
        return own_server(path, body)

    with serving(answer) as server:
        tokenizer = RemoteTokenizer.opened(server, "base")
        written = tokenizer.render([{"role": "user", "content": "hi"}], "so")
    assert (bool(tokenizer.chat_template_digest), "im_start" in written) == (template, template)


@pytest.mark.parametrize(
    "said",
    [{"tokens": []}, {"tokens": [1, 2, 3]}, {"tokens": "no"}, {"tokens": [{"id": 1, "piece": "a"}]}, ["x"], None],
)
def test_what_does_not_grow_with_the_text_is_no_tokenizer(said: Any) -> None:
    with serving(lambda path, body: said) as server, pytest.raises(UsageError, match="--tokenizer hf:PATH"):
        RemoteTokenizer.opened(server, "tiny")


def test_a_tokenizer_with_a_longest_length_is_refused_where_longer_samples_are_asked_for() -> None:
    class Short:
        name = "short"

        def count(self, text: str) -> int:
            return min(len(text), 512)

    check_growth(Short(), 200)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="does not grow"):
        check_growth(Short(), 4096)  # type: ignore[arg-type]


def test_llama_cpp_python_is_known_and_its_penalty_for_repeating_is_turned_off() -> None:
    entry = {"id": "tiny", "object": "model", "owned_by": "me", "permissions": []}
    with serving(lambda path, body: {"object": "list", "data": [entry]}) as server:
        _, served = look(server, "tiny")
    assert served.software == "llama-cpp-python"
    assert NEUTRAL[served.software]["repeat_penalty"] == 1.0


@pytest.mark.parametrize(("owner", "kept"), [("llamacpp", False), ("vllm", True), ("me", True)])
def test_a_connection_is_not_used_again_where_the_server_closes_it_after_a_stream(owner: str, kept: bool) -> None:
    entry = {"id": "tiny", "owned_by": owner, "permissions": []}
    with serving(lambda path, body: {"data": [entry]}) as server:
        assert look(server, "tiny")[1].keeps_connections is kept


def read(events: list[dict[str, Any]]) -> Trace:
    pieces = [(0.1 * at, f"data: {json.dumps(event)}\n\n".encode()) for at, event in enumerate(events)]
    pieces.append((9.0, b"data: [DONE]\n\n"))
    got = Received(0.0, 0.0, 200, pieces, [0.0] * len(pieces), None, None)
    return read_trace(Server("http://127.0.0.1:9/v1"), Served("tiny"), 1.0, got)


def piece(text: str, n: int | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    timings = {} if n is None else {"timings": {"prompt_n": 1, "predicted_n": n}}
    return {"choices": [{"text": text, "index": 0, "finish_reason": finish}], **timings, **more}


USAGE = {"completion_tokens": 4, "prompt_tokens": 1, "total_tokens": 5}


def test_timings_per_token_tell_how_many_tokens_each_piece_held() -> None:
    trace = read([piece("-", 1), piece("by-", 3), piece("date", 4), piece("", 4, "length", usage=USAGE)])
    assert [a.tokens for a in trace.arrivals] == [1, 2, 1]


def test_the_usage_beside_the_end_is_the_whole_answers_and_no_arrival() -> None:
    trace = read([*(piece(text, None) for text in "abcd"), piece("", None, "length", usage=USAGE)])
    assert [a.tokens for a in trace.arrivals] == [None] * 4
    assert trace.output_tokens == 4


@pytest.mark.parametrize(
    "delta",
    [{"reasoning_details": [{"text": "x"}]}, {"thinking": "x"}, {"tool_calls": [{"index": 0}]}, {"content": ""}],
    ids=lambda delta: next(iter(delta)),
)
def test_content_under_any_name_is_an_arrival(delta: dict[str, Any]) -> None:
    head = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    end = {"choices": [{"delta": {"content": ""}, "finish_reason": "stop"}]}
    said = {"choices": [{"delta": delta, "finish_reason": None}]}
    assert len(read([head, said, said, end]).arrivals) == 2
