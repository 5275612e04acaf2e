"""One timed request over HTTP/1.1 and what has come of it: pieces with their times, which h11 reads where the answer may have ended."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import h11

from kleval.backends import server_wire
from kleval.backends.server_connection import Connection
from kleval.backends.server_errors import MalformedAnswer

LONGEST_HEADER = 1 << 16
_END = b"\r\n\r\n"  # of a chunked answer, and of few other pieces


class Received(NamedTuple):
    """What came of one request. submitted: when its first byte was sent. due: when that should have been, with room for it.

    pieces: (seconds, bytes) of the answer's body as they came in. late: for each, how much earlier it may have come, 0 where the kernel
    told. error: what ended it before its end. connect_seconds: of a connection opened for it, None on one used before.
    """

    submitted: float
    due: float
    status: int
    pieces: list[tuple[float, bytes]]
    late: list[float]
    error: Exception | None
    connect_seconds: float | None


class Exchange:
    """One request and what has come of it."""

    def __init__(self, target: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self._target, self._headers, self._body = target, headers, body
        self.connection: Connection | None = None
        self.submitted, self.due = 0.0, 0.0
        self.error: Exception | None = None
        self.connect_seconds: float | None = None
        self.status = 0
        self.unsent = memoryview(b"")
        self.begin()

    def begin(self) -> None:
        """As if nothing had been sent."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEADER)
        self._raw: list[tuple[float, float, bytes]] = []  # seconds, late, bytes; not read by h11 yet
        self._body_pieces: list[tuple[float, bytes]] = []
        self._late: list[float] = []
        self._tail, self._size, self._chunked = b"", 0, False
        self.started = False

    def put_on(self, connection: Connection) -> None:
        request = h11.Request(
            method="POST",
            target=connection.target_prefix + self._target,
            headers=[*self._headers, *connection.proxy_headers],
        )
        parts = [
            self._http.send(request),
            self._http.send(h11.Data(data=self._body)),
            self._http.send(h11.EndOfMessage()),
        ]
        self.unsent = memoryview(b"".join(part or b"" for part in parts))
        self.connection = connection
        self.connect_seconds = None if connection.used else connection.seconds

    def take(self, now: float, data: bytes, late: float) -> bool:
        """A piece; whether the answer is over."""
        self._raw.append((now, late, data))
        self._size += len(data)
        if self._size > server_wire.LONGEST_ANSWER:
            raise MalformedAnswer(f"an answer of more than {server_wire.LONGEST_ANSWER >> 20} MiB")
        self._tail = (self._tail + data[-4:])[-4:]
        if self.started and self._chunked and data and self._tail != _END:
            return False
        self.started = True
        return self._read()

    def reusable(self) -> bool:
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def received(self) -> Received:
        with suppress(h11.RemoteProtocolError):
            self._read()  # of an answer that was cut what has come
        return Received(
            self.submitted, self.due, self.status, self._body_pieces, self._late, self.error, self.connect_seconds
        )

    def _read(self) -> bool:
        """Give h11 what has come. h11.RemoteProtocolError for what is not HTTP."""
        raw, self._raw = self._raw, []
        for now, late, data in raw:
            if self._http.their_state is h11.ERROR:
                return True
            self._http.receive_data(data)
            while True:
                event: Any = self._http.next_event()
                if isinstance(event, h11.Response):
                    self.status = event.status_code
                    self._chunked = any(k == b"transfer-encoding" and b"chunked" in v for k, v in event.headers)
                elif isinstance(event, h11.Data):
                    self._body_pieces.append((now, bytes(event.data)))
                    self._late.append(late)
                elif isinstance(event, h11.EndOfMessage):
                    return True
                elif event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                    break
        return False
