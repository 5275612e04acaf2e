"""The loop of timed requests, on a server of sockets that sends pieces exactly as a test says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kleval.backends.server_address import parse_address
from kleval.backends.server_exchange import Exchange, Received
from kleval.backends.server_streams import Streams, how_late
from kleval.types import UsageError

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Serve = Callable[[socket.socket, int], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def read_request(connection: socket.socket) -> bytes:
    """Head and body of one request; b"" at the end."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            return b""
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """The address of a server that calls serve(connection, number) for every connection, in a thread each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        number = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=served, args=(connection, number), daemon=True).start()
            number += 1

    def served(connection: socket.socket, number: int) -> None:
        with connection:
            serve(connection, number)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


def ask(url: str, n: int = 1, seconds: float = 5.0, together: int | None = None, body: bytes = b"{}") -> list[Received]:
    streams = Streams(parse_address(url), seconds, keep=True)
    try:
        return streams.ask([("/completions", body)] * n, [0.0] * n, together)
    finally:
        streams.close()


def answers(*pieces: bytes, pause: float = 0.02) -> Serve:
    def serve(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)

    return serve


@pytest.mark.parametrize(
    "pieces",
    [
        (HEAD, chunk(b"data: a\n\n"), chunk(b"data: b\n\n"), b"0\r\n\r\n"),
        (HEAD, chunk(b"data: a\r\n\r\n"), chunk(b"data: b\r\n\r\n") + b"0\r\n", b"\r\n"),  # its mark cut in two
        (
            HEAD[:9],
            HEAD[9:] + chunk(b"data: a\n\n"),
            chunk(b"data: b\n\n")[:5],
            chunk(b"data: b\n\n")[5:] + b"0\r\n\r\n",
        ),
        (HEAD, chunk(b"data: a\n\n"), chunk(b"data: b\n\n") + b"0\r\nTrailer: x\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n", b"data: a\n\n", b"data: b\n\n"),
    ],
)
def test_an_answer_ends_where_http_ends_it_however_it_is_cut(pieces: tuple[bytes, ...]) -> None:
    with serving(answers(*pieces)) as url:
        first, second = ask(url, 2, together=1)  # the second on the same connection
    for got in (first, second):
        assert (got.status, got.error) == (200, None)
        assert b"".join(data for _, data in got.pieces).split() == [b"data:", b"a", b"data:", b"b"]
    assert first.connect_seconds is not None
    assert second.connect_seconds is None


def test_an_answer_without_length_ends_with_its_connection() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\ndata: a\n\n")

    with serving(serve) as url:
        (got,) = ask(url)
    assert (got.status, got.error, got.pieces[0][1]) == (200, None, b"data: a\n\n")


def test_pieces_have_the_time_at_which_they_came_though_the_loop_was_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams whose pieces come 50 ms apart; reading either takes 30 ms."""
    take = Exchange.take

    def slow(self: Exchange, now: float, data: bytes, late: float) -> bool:
        time.sleep(0.03)
        return take(self, now, data, late)

    monkeypatch.setattr(Exchange, "take", slow)
    sent: list[float] = []

    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        barrier.wait()
        connection.sendall(HEAD)
        time.sleep(0.1)
        sent.append(time.perf_counter())
        connection.sendall(chunk(b"data: a\n\n"))
        time.sleep(0.1)
        connection.sendall(chunk(b"data: b\n\n") + b"0\r\n\r\n")

    barrier = threading.Barrier(2)
    with serving(serve) as url:
        found = ask(url, 2)
    first = sorted(got.pieces[0][0] for got in found)
    slack = [max(got.late) for got in found]  # where no kernel tells, lateness does
    assert max(abs(a - b) for a, b in zip(first, sorted(sent), strict=True)) < 0.02 + max(slack)


@pytest.mark.parametrize(
    ("looked", "lain", "several", "late"),
    [
        (0.05, None, True, 0.05),  # no kernel tells
        (0.05, 0.02, False, 0.0),  # it tells of the one event
        (0.05, 0.0001, True, 0.0001),  # read at once: sent together
        (0.05, 0.002, True, 0.048),  # read late: the first may have come when the loop had just looked
    ],
)
def test_several_events_that_are_read_late_may_have_come_since_the_loop_looked_last(
    looked: float, lain: float | None, several: bool, late: float
) -> None:
    assert how_late(looked, lain, several) == pytest.approx(late)


def test_no_more_are_under_way_than_may_be_and_each_is_sent_when_another_ends() -> None:
    under_way, most, lock = [0], [0], threading.Lock()

    def serve(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])
            time.sleep(0.03)
            with lock:
                under_way[0] -= 1
            connection.sendall(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")

    with serving(serve) as url:
        found = ask(url, 9, together=3)
    assert most == [3]
    assert [got.error for got in found] == [None] * 9
    assert len({round(got.submitted, 3) for got in found}) >= 3


def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    """The end of the first comes while the second request is on its way to the same connection."""
    asked: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        asked.append(number)
        connection.sendall(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")
        if number == 0:
            read_request(connection)
            asked.append(number)  # and no answer

    with serving(serve) as url:
        found = ask(url, 2, together=1)
    assert [got.error for got in found] == [None, None]
    assert asked == [0, 0, 1]


def test_a_stream_that_breaks_keeps_what_came_and_harms_no_other() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(HEAD + chunk(b"data: a\n\n"))
        if number:
            time.sleep(0.05)
            connection.sendall(b"0\r\n\r\n")

    with serving(serve) as url:
        found = ask(url, 3)
    assert sorted(got.error is None for got in found) == [False, True, True]
    assert all(got.pieces[0][1] == b"data: a\n\n" for got in found)


def test_a_request_that_takes_too_long_is_ended_alone() -> None:
    def serve(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(HEAD)
        time.sleep(0.0 if number else 1.0)
        connection.sendall(chunk(b"data: a\n\n") + b"0\r\n\r\n")

    with serving(serve) as url:
        found = ask(url, 2, seconds=0.3)
    assert sorted(type(got.error).__name__ for got in found) == ["NoneType", "TimeoutError"]


def test_what_is_no_http_is_an_error_of_its_request() -> None:
    with serving(answers(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")) as url:
        (got,) = ask(url)
    assert "no valid HTTP" in str(got.error)


def test_nothing_that_listens_fails_every_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert [type(got.error) for got in ask(url, 3)] == [ConnectionRefusedError] * 3


def test_a_large_request_is_sent_whole() -> None:
    size: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        size.append(len(read_request(connection).partition(b"\r\n\r\n")[2]))
        connection.sendall(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")

    with serving(serve) as url:
        (got,) = ask(url, body=b"x" * 8_000_000)
    assert (size, got.error) == ([8_000_000], None)


def test_the_environments_proxy_stands_between_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def serve(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(HEAD + chunk(b"data: a\n\n") + b"0\r\n\r\n")

    with serving(serve) as url:
        monkeypatch.setenv("http_proxy", url.replace("http://", "http://user:pass@").removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        (got,) = ask("http://far.example:8000/v1")
    assert (got.status, got.error) == (200, None)
    assert seen[0].startswith(b"POST http://far.example:8000/v1/completions HTTP/1.1\r\nHost: far.example:8000\r\n")
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in seen[0]


def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UsageError, match="NO_PROXY"):
        ask("http://far.example:8000/v1")
