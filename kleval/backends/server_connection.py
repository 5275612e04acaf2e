"""A connection to a server for timed requests: opened before the clock starts, and read with the time at which its bytes came.

On Linux the kernel notes when bytes came in (SO_TIMESTAMPNS), so that a caller who reads late still knows when: `receive` says how long
they had lain. Elsewhere, and where TLS stands between, that is not known here.
Proxies are those that the environment names for other machines, as for every other request (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY,
NO_PROXY).
"""

from __future__ import annotations

import base64
import contextlib
import queue
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

from kleval.backends.server_address import Server
from kleval.types import UsageError

CONNECT_SECONDS = 10.0
RECEIVED_AT_ONCE = 1 << 18  # bytes
_SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h; the message has the same number
_TIMESPEC = struct.Struct("@ll")


class Connection:
    """An open socket. seconds: what opening it took, the handshake of TLS included. used: a request was sent on it before.

    OSError when made: nothing answers there. target_prefix: what stands before a request's path, for a proxy of plain HTTP.
    """

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.url)
        self.secure, self.used, self.target_prefix = parts.scheme == "https", False, ""
        host, port = str(parts.hostname), parts.port or (443 if self.secure else 80)
        proxy = None if server.is_local else _proxy(parts)
        start = time.perf_counter()
        at = (host, port) if proxy is None else (str(proxy.hostname), proxy.port or 80)
        sock = socket.create_connection(at, CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None and self.secure:
                _tunnel(sock, host, port, proxy)
            elif proxy is not None:
                self.target_prefix = f"http://{parts.netloc.rpartition('@')[2]}"
            self.proxy_headers = [] if proxy is None or self.secure else _authorization(proxy)
            self._stamped = not self.secure and _stamp(sock)
            self.sock = _contexts().wrap_socket(sock, server_hostname=host) if self.secure else sock
            self.sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        self.seconds = time.perf_counter() - start

    def send(self, data: memoryview) -> int:
        """How many bytes were taken, 0 when none can be now."""
        try:
            return self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0

    def receive(self) -> tuple[bytes, float | None] | None:
        """What has come, b"" at its end, and for how many seconds it had lain where the kernel tells; None when nothing has."""
        try:
            if not self._stamped:
                return self.sock.recv(RECEIVED_AT_ONCE), None
            data, notes, _, _ = self.sock.recvmsg(RECEIVED_AT_ONCE, 64)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        for _, kind, stamp in notes:
            if kind == _SO_TIMESTAMPNS and len(stamp) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
                return data, max(0.0, (time.time_ns() - seconds * 10**9 - nanoseconds) / 1e9)
        return data, None

    def more(self) -> bool:
        """Whether bytes lie read and undelivered, of which the operating system knows nothing."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def alive(self) -> bool:
        """Whether it can take a request: nothing has come on it unasked, its end neither."""
        if self.secure and not self.used:
            return True  # what has come are tickets of the session
        try:
            socket.socket.recv(self.sock, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


class Opener:
    """Connections opened in a thread of its own; each that is ready, or what hindered it, wakes the loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.ready: queue.SimpleQueue[Connection | Exception] = queue.SimpleQueue()
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.awake, self._wake = socket.socketpair()
        self.awake.setblocking(False)
        self._thread: threading.Thread | None = None
        self.under_way = 0

    def ask(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kleval-connections", daemon=True)
            self._thread.start()
        self.under_way += 1
        self._asked.put(True)

    def _run(self) -> None:
        while self._asked.get():
            try:
                self.ready.put(Connection(self._server))
            except Exception as error:
                self.ready.put(error)
            with contextlib.suppress(OSError):
                self._wake.send(b".")

    def taken(self) -> list[Connection | Exception]:
        with contextlib.suppress(BlockingIOError):
            self.awake.recv(4096)
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.ready.get_nowait())
        self.under_way -= len(found)
        return found

    def close(self) -> None:
        if self._thread is not None:
            self._asked.put(False)
            self._thread.join()
        for one in self.taken():
            if isinstance(one, Connection):
                one.close()
        self.awake.close()
        self._wake.close()


def _stamp(sock: socket.socket) -> bool:
    """Ask the kernel to note when bytes come in."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        return True
    return False


def _contexts() -> ssl.SSLContext:
    import httpx2

    return httpx2.create_ssl_context()  # the certificates that every other request trusts


def _proxy(parts: SplitResult) -> SplitResult | None:
    """The environment's proxy for an address. UsageError for one that is not HTTP."""
    named = urllib.request.getproxies()
    found = named.get(parts.scheme) or named.get("all")
    if not found or urllib.request.proxy_bypass(str(parts.hostname)):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise UsageError(
            "requests can be timed through a proxy of plain HTTP only: name the server's host in NO_PROXY, or another proxy in "
            "HTTP_PROXY and HTTPS_PROXY"
        )
    return proxy


def _authorization(proxy: SplitResult) -> list[tuple[str, str]]:
    if proxy.username is None:
        return []
    word = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return [("Proxy-Authorization", "Basic " + base64.b64encode(word).decode())]


def _tunnel(sock: socket.socket, host: str, port: int, proxy: SplitResult) -> None:
    """A way through a proxy. ConnectionError when it gives none."""
    name = f"[{host}]" if ":" in host else host
    lines = [
        f"CONNECT {name}:{port} HTTP/1.1",
        f"Host: {name}:{port}",
        *(f"{k}: {v}" for k, v in _authorization(proxy)),
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    said = b""
    while not said.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)  # what follows the empty line is the server's
        if not piece or len(said) > 1 << 16:
            raise ConnectionError("the proxy closed the connection")
        said += piece
    status = said.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[1].startswith(b"2"):
        raise ConnectionError(f"the proxy answered {said.splitlines()[0].decode('latin-1')[:80]}")
