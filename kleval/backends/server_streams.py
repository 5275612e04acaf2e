"""Requests to a server side by side, in one loop that sends, receives, notes times and reads nothing of an answer but its end.

With many streams what an HTTP client does with every piece that arrives is what would be measured (benchmarks/served_client.py).
Here a piece is put aside, and h11 reads it when the round is over, before that only where an answer may have ended.
Connections are opened before the clock starts, or shortly before a request is due, in a thread of its own.
"""

from __future__ import annotations

import gc
import heapq
import selectors
import time
from collections.abc import Sequence
from urllib.parse import urlencode, urlsplit

import h11

from kleval.backends.server_address import Server
from kleval.backends.server_connection import Connection, Opener
from kleval.backends.server_errors import MalformedAnswer
from kleval.backends.server_exchange import Exchange, Received

AHEAD_SECONDS = 0.25  # before a request is due its connection is opened
SOON_SECONDS = 5e-4  # after bytes came they are read, unless this machine is late
clock = time.perf_counter


class Streams:
    """Requests to one server. seconds: how long one may take. keep: whether connections may be used again."""

    def __init__(self, server: Server, seconds: float, keep: bool) -> None:
        self._server, self._seconds, self._keep = server, seconds, keep
        self._idle: list[Connection] = []

    def ask(
        self, sent: Sequence[tuple[str, bytes]], delays: Sequence[float], together: int | None = None
    ) -> list[Received]:
        """In the order of what is sent, paths and bodies. delays: seconds after the begin. together: no more than so many are under
        way; one that is due waits for another's end. UsageError where the environment names a proxy that cannot be used."""
        exchanges = [self._exchange(path, body) for path, body in sent]
        loop = _Loop(self._server, exchanges, delays, together or len(sent), self._seconds)
        idle, self._idle = self._idle, []
        enabled = gc.isenabled()
        gc.disable()  # a collection stops the clock of every stream
        try:
            loop.run(idle)
        finally:
            if enabled:
                gc.enable()
            self._idle = loop.close(self._keep)
        return [one.received() for one in exchanges]

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle = []

    def _exchange(self, path: str, body: bytes) -> Exchange:
        parts = urlsplit(self._server.url)
        query = f"?{urlencode(self._server.params)}" if self._server.params else ""
        headers = [
            ("Host", parts.netloc.rpartition("@")[2]),
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            *self._server.headers,
        ]
        return Exchange(parts.path + path + query, headers, body)


class _Loop:
    """One round. exchanges are sent in the order of their delays, at most `together` at once."""

    def __init__(
        self, server: Server, exchanges: list[Exchange], delays: Sequence[float], together: int, seconds: float
    ) -> None:
        self._server, self._together, self._seconds = server, together, seconds
        self._waiting = sorted(range(len(exchanges)), key=lambda at: (delays[at], at), reverse=True)
        self._exchanges, self._delays = exchanges, delays
        self._open: set[Exchange] = set()
        self._deadlines: list[tuple[float, int]] = []
        self._start = self._room_since = 0.0  # since when fewer than may be are under way
        self._idle: list[Connection] = []
        self._selector = selectors.DefaultSelector()
        self._opener = Opener(server)
        self._selector.register(self._opener.awake, selectors.EVENT_READ)

    def run(self, idle: list[Connection]) -> None:
        for connection in idle:
            if connection.alive():
                self._idle.append(connection)
            else:
                connection.close()
        first = min(self._delays, default=0.0)
        begin = sum(delay < first + AHEAD_SECONDS for delay in self._delays)
        while len(self._idle) < min(self._together, begin):
            try:
                self._idle.append(Connection(self._server))
            except OSError:
                break  # each request will say it
        self._start = self._room_since = woken = clock()
        while self._waiting or self._open:
            self._submit()
            ready = self._selector.select(self._pause())
            before, woken = woken, clock()
            for key, mask in ready:
                if key.data is None:
                    self._connected()
                elif key.data in self._open:
                    self._advance(key.data, mask, before)
            self._expire()

    def close(self, keep: bool) -> list[Connection]:
        """End what is under way. The connections that can be used again."""
        for one in list(self._open):
            self._end(one, TimeoutError())
        self._opener.close()
        self._selector.close()
        if keep:
            return self._idle
        for connection in self._idle:
            connection.close()
        return []

    def _submit(self) -> None:
        while self._waiting and len(self._open) < self._together:
            at = self._waiting[-1]
            due = self._start + self._delays[at]
            if due > clock() + AHEAD_SECONDS:
                return
            while self._idle and not self._idle[-1].alive():
                self._idle.pop().close()
            if not self._idle:
                self._wish()
                return
            if due > clock():
                return
            self._waiting.pop()
            self._send(self._exchanges[at], self._idle.pop(), max(due, self._room_since), at)

    def _wish(self) -> None:
        """A connection for each request that is due now or soon and has none."""
        soon = clock() + AHEAD_SECONDS - self._start
        near = next((n for n, at in enumerate(reversed(self._waiting)) if self._delays[at] > soon), len(self._waiting))
        for _ in range(min(near, self._together - len(self._open)) - self._opener.under_way):
            self._opener.ask()

    def _connected(self) -> None:
        for one in self._opener.taken():
            if isinstance(one, Connection):
                self._idle.append(one)
            elif self._waiting:
                exchange = self._exchanges[self._waiting.pop()]
                exchange.submitted, exchange.error = clock(), one

    def _send(self, exchange: Exchange, connection: Connection, due: float, at: int) -> None:
        exchange.put_on(connection)
        exchange.submitted, exchange.due = clock(), due
        self._open.add(exchange)
        heapq.heappush(self._deadlines, (exchange.submitted + self._seconds, at))
        self._selector.register(connection.sock, selectors.EVENT_READ, exchange)
        self._push(exchange)

    def _push(self, exchange: Exchange) -> None:
        connection = exchange.connection
        assert connection is not None
        try:
            while exchange.unsent and (n := connection.send(exchange.unsent)):
                exchange.unsent = exchange.unsent[n:]
        except OSError as error:
            if not exchange.started:  # an answer may be there: a refusal of a request that is too large
                self._lost(exchange, error)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if exchange.unsent else 0)
        if self._selector.get_key(connection.sock).events != events:
            self._selector.modify(connection.sock, events, exchange)

    def _advance(self, exchange: Exchange, mask: int, before: float) -> None:
        """before: when the loop looked last; what is read now and has no time of the kernel's may have come since then."""
        if mask & selectors.EVENT_WRITE:
            self._push(exchange)
        connection = exchange.connection
        while mask & selectors.EVENT_READ and exchange in self._open and connection is not None:
            try:
                got = connection.receive()
            except OSError as error:
                return self._lost(exchange, error)
            if got is None:
                return
            data, lain = got
            now = clock()
            if not data and not exchange.started:
                return self._lost(exchange, ConnectionResetError("the server closed the connection without an answer"))
            late = how_late(now - before, lain, data.count(b"data:") > 1)
            try:
                over = exchange.take(now - (lain or 0.0), data, late)
            except (h11.RemoteProtocolError, MalformedAnswer) as error:
                said = (
                    MalformedAnswer(f"no valid HTTP: {error}") if isinstance(error, h11.RemoteProtocolError) else error
                )
                return self._end(exchange, said)
            if over or not data:
                return self._end(exchange, None)
            if not connection.more():
                return

    def _lost(self, exchange: Exchange, error: Exception) -> None:
        """A connection broke. One used before may have been closed by the server meanwhile: then the request is sent anew."""
        connection = exchange.connection
        again = connection is not None and connection.used and not exchange.started
        self._end(exchange, error)
        if again:
            try:
                fresh = Connection(self._server)
            except OSError as failed:
                exchange.error = failed
                return
            exchange.error = None
            exchange.begin()
            self._send(exchange, fresh, exchange.due, self._exchanges.index(exchange))

    def _end(self, exchange: Exchange, error: Exception | None) -> None:
        connection = exchange.connection
        assert connection is not None
        if len(self._open) == self._together:
            self._room_since = clock()
        self._open.discard(exchange)
        self._selector.unregister(connection.sock)
        exchange.error, exchange.connection = error, None
        if error is None and exchange.reusable() and not exchange.unsent:
            connection.used = True
            self._idle.insert(0, connection)
        else:
            connection.close()

    def _pause(self) -> float | None:
        """Seconds until something must be done that no socket tells of."""
        moments = [self._deadlines[0][0]] if self._deadlines and self._open else []
        if self._waiting and len(self._open) < self._together:
            due = self._start + self._delays[self._waiting[-1]]
            moments.append(due if self._idle else due - AHEAD_SECONDS)
            if not self._idle and self._opener.under_way:
                moments.pop()
        return max(0.0, min(moments) - clock()) if moments else None

    def _expire(self) -> None:
        now = clock()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, at = heapq.heappop(self._deadlines)
            exchange = self._exchanges[at]
            if exchange in self._open and exchange.submitted + self._seconds <= now:
                self._end(exchange, TimeoutError())


def how_late(looked: float, lain: float | None, several: bool) -> float:
    """By how many seconds what is read may be noted too late. looked: since when the loop looked last. lain: for how long the last of
    it lay, where the kernel tells. Several events that are read late came one by one since then; those that are read at once were sent
    together."""
    if lain is None:
        return looked
    if not several:
        return 0.0
    return lain if lain < SOON_SECONDS else max(looked - lain, lain)
