"""Servers that mean no good or are badly broken: answers without end, bytes one by one, numbers that are none, keys repeated."""

import asyncio
import json
import math
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from harness_fakes import loader, spec
from misbehaving import Behaviour, serve, write_byte_tokenizer
from test_openai_faults import Bytes

from kleval.backends import server_asking, server_http, server_opening, server_wire
from kleval.backends.registry import open_backend
from kleval.harness import run
from kleval.types import Completion, Failure, Request, UsageError

KEY = "sesame-0123-4567-open"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def with_key(monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    return {"api_key_env": "MY_KEY"}


def opened(url, folder, **changes):
    return open_backend("tiny", base_url=url, **{"tokenizer": f"hf:{folder}", **changes})


def answered(url, folder, request, **changes):
    [(_, got)] = opened(url, folder, **changes).run([request])
    return got


def ask(text="question", n=8):
    return Request("generate", text, max_new_tokens=n)


def scoring():
    return Request("loglikelihood", "question", continuation="??")


def only(fault):
    """The fault for the request that is asked, none for those that find out how the server is spoken to."""
    return Behaviour(plan=lambda prompt: [fault] * 9 if "question" in prompt else ())


def reply(text="abcdefgh", counted=(8, 8), **choice):
    said = {"text": text, "finish_reason": "length", **choice}
    used = {"prompt_tokens": counted[0], "completion_tokens": counted[1]}
    return ("raw", json.dumps({"model": "tiny", "choices": [said], "usage": used}).encode())


@contextmanager
def plain_server(behave):
    """The address of a server that leaves each connection to `behave(connection)` once its first bytes have come."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def one(connection):
            with connection:
                try:
                    connection.recv(65536)
                    behave(connection)
                except OSError:
                    pass

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("piece", [b'data: {"model": "tiny", "choices": [{"text": "x"}]}\n\n', b"x" * 1000])
def test_an_answer_without_end_is_cut_off(folder, monkeypatch, piece):
    monkeypatch.setattr(server_wire, "LONGEST_ANSWER", 1 << 20)
    with serve(only(("endless", piece))) as url:
        got = answered(url, folder, ask())
    assert (got.kind, got.retryable) == ("server", True)
    assert "more than 1 MiB" in got.message


def test_an_error_without_end_is_cut_off(folder, monkeypatch):
    monkeypatch.setattr(server_wire, "LONGEST_ANSWER", 1 << 20)
    with serve(only(("endless_error", b"x" * 1000))) as url:
        got = answered(url, folder, ask())
    assert "more than 1 MiB" in got.message


def test_a_list_of_models_without_end_is_cut_off(monkeypatch):
    monkeypatch.setattr(server_http, "LONGEST_REPLY", 1 << 20)

    def behave(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"3e8\r\n" + b"[" * 1000 + b"\r\n")

    with plain_server(behave) as url, pytest.raises(UsageError, match="more than 1 MiB"):
        open_backend("tiny", base_url=url, tokenizer="words")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data": [{"id": "tinier", "aliases": 5}]}',
        b'{"data": [{"id": "tiny", "aliases": 5, "root": 5, "max_model_len": "x", "owned_by": [1]}]}',
        b"<html>please log in</html>",
        b"\xff",
    ],
    ids=["deep", "aliases", "fields", "page", "bytes"],
)
def test_nonsense_in_place_of_a_list_of_models_is_one_line(body):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with plain_server(lambda connection: connection.sendall(answer)) as url, pytest.raises(UsageError) as told:
        open_backend("tiny", base_url=url, tokenizer="words")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 700


@pytest.mark.parametrize("sent", [b"HTTP/1.1 2", HEAD], ids=["header", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(monkeypatch, sent):
    monkeypatch.setattr(server_opening, "LOOK_SECONDS", 0.5)
    over = threading.Event()

    def behave(connection):
        connection.sendall(sent)
        while not over.wait(0.05):
            connection.sendall(b"0")

    began = time.monotonic()
    with plain_server(behave) as url, pytest.raises(UsageError, match="it is connected but does not answer"):
        open_backend("tiny", base_url=url, tokenizer="words")
    over.set()
    assert time.monotonic() - began < 60  # for ever, without a limit of the whole


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_log_probabilities_that_are_no_numbers_are_a_failure(folder, value):
    tables = [None] + [{str(byte): {"logprob": value, "rank": 1}} for byte in b"uestion??"]
    with serve(only(reply(counted=(10, 1), prompt_logprobs=tables))) as url:
        got = answered(url, folder, scoring())
    assert isinstance(got, Failure)
    assert (got.kind, got.retryable) == ("server", False)
    assert str(value) in got.message


def test_no_limit_of_time_is_a_time_too(folder):
    with serve(Behaviour()) as url:
        got = answered(url, folder, ask(), request_timeout=math.inf)
    assert isinstance(got, Completion)


def test_more_tokens_than_asked_are_a_failure_and_one_for_the_end_is_none(folder):
    with serve(only(reply(counted=(8, 10)))) as url:
        more = answered(url, folder, ask())
    with serve(only(reply(counted=(8, 9)))) as url:
        end = answered(url, folder, ask())
    assert more == Failure("server", "the server generated 10 tokens where at most 8 were asked")
    assert isinstance(end, Completion)


@pytest.mark.parametrize(
    "fault",
    [
        reply(text=f"it is {KEY}"),
        reply(finish_reason=f"by {KEY}"),
        ("wrong_model", KEY),
        ("raw", json.dumps({"error": {"message": f"not {KEY}"}}).encode()),
        ("raw", json.dumps({"choices": KEY}).encode()),
        ("status", (429, {"error": {"message": KEY}})),
        ("status", (500, {"error": {"code": KEY, KEY: KEY}})),
    ],
    ids=["text", "finish_reason", "model", "error", "fields", "429", "500"],
)
def test_a_key_that_is_repeated_is_nowhere_in_a_run(tmp_path, folder, with_key, fault):
    task = Bytes()
    events = []
    with serve(only(fault)) as url:
        result = run(
            spec(
                tmp_path / "run", models=("tiny",), tasks=(task.id,), ctxs=(128,), limit=2, retries=1, retry_seconds=0.0
            ),
            lambda name: opened(url, folder, request_timeout=1.5, **with_key),
            loader(task),
            events.append,
        )
    assert result.counts["failed"] == 2
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert [file for file in files if KEY.encode() in file.read_bytes()] == []
    assert KEY not in repr(events)
    assert KEY not in repr(result)


def test_a_key_that_the_ids_spell_is_not_kept(folder, with_key):
    spelt = reply(text="x" * len(KEY), counted=(8, len(KEY)), token_ids=list(KEY.encode()))
    with serve(only(spelt)) as url:
        got = answered(url, folder, ask(n=len(KEY)), **with_key)
    assert got == Failure("bad_request", "the answer repeats the key it was asked with, and is not kept")


def test_a_key_in_what_the_server_says_of_itself_is_not_told(folder, with_key):
    entry = {"id": "tiny", "owned_by": "vllm", "root": f"/models/{KEY}", "max_model_len": 4096}
    behaviour = Behaviour(entry=entry, version=f"1 {KEY}")
    with serve(behaviour) as url:
        told = json.dumps(opened(url, folder, **with_key).describe())
        behaviour.entry = {"id": f"other-{KEY}"}
        with pytest.raises(UsageError, match=r"--model is one of other-\*\*\*") as error:
            opened(url, folder, **with_key)
    assert KEY not in told
    assert KEY not in str(error.value)


def test_a_model_whose_name_looks_like_a_key_is_told_by_its_name(folder):
    with serve(Behaviour(entry={"id": "tiny", "root": "hf-internal-testing/tiny-random"})) as url:
        assert opened(url, folder).describe()["served_from"] == "hf-internal-testing/tiny-random"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch, proxy):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(UsageError) as told:
        open_backend("tiny", base_url="http://served.invalid/v1", tokenizer="words")
    assert "\n" not in str(told.value)
    assert "proxy" in str(told.value)


def test_where_no_loop_can_be_made_it_is_said_and_nothing_waits(folder, monkeypatch):
    def refuse():
        raise OSError(24, "Too many open files")

    with serve(Behaviour()) as url:
        backend = opened(url, folder)
        monkeypatch.setattr(asyncio.events, "new_event_loop", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            list(backend.run([ask()]))
    assert not [thread for thread in threading.enumerate() if thread.name == "kleval-server"]


def test_where_no_client_can_be_made_it_is_said_and_nothing_waits(folder, monkeypatch):
    def refuse(self):
        raise OSError(24, "Too many open files")

    with serve(Behaviour()) as url:
        backend = opened(url, folder)
        monkeypatch.setattr(server_asking.Asker, "client", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            list(backend.run([ask()]))
