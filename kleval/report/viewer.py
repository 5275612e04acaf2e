"""Viewer of runs: their page, served to this machine alone, which shows whole prompts where the file has excerpts.

It answers `/` and `/prompt/NUMBER`, a number that the page knows a prompt by: no path of a file comes from outside. Requests that
name another host than this machine are refused, so that no web page can read prompts through a name of its own (DNS rebinding).
"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kleval.report.page import page_of
from kleval.report.samples import Samples
from kleval.store import RunStore
from kleval.store.excerpts import as_text
from kleval.types import UsageError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost", "[::1]")


class Viewer(ThreadingHTTPServer):
    """Serves the page of runs at `address` once `serve_forever` is called. UsageError for a port that cannot be had."""

    daemon_threads = True

    def __init__(self, stores: Sequence[RunStore], port: int, left_out: Callable[[str], object] | None = None) -> None:
        samples = Samples(served=True, n_runs=len(stores))
        text, _ = page_of(stores, samples, left_out)
        self.page = text.encode("utf-8", "replace")
        self._prompts, self._reading = samples.prompts, threading.Lock()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                why = "is in use" if error.errno == errno.EADDRINUSE else "is not yours to take"
                raise UsageError(f"port {port} {why}: give another --port, or --port 0 for any that is free") from None
            raise

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of one request: a browser that went away is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def prompt(self, number: str) -> bytes | None:
        """A whole prompt as text; None where there is none of that number."""
        if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) < len(self._prompts)):
            return None
        store, row = self._prompts[int(number)]
        try:
            with self._reading:
                return as_text(store.read_prompt(row)).encode("utf-8", "replace")
        except UsageError:
            return None


class _Handler(BaseHTTPRequestHandler):
    server: Viewer
    server_version, sys_version = "kleval", ""

    def do_GET(self) -> None:
        if self._host() not in NAMES:
            self._answer(403, b"only this machine is served\n")
        elif self.path == "/":
            self._answer(200, self.server.page, "text/html")
        else:
            found = self.server.prompt(self.path.removeprefix("/prompt/")) if self.path.startswith("/prompt/") else None
            self._answer(404, b"there is no such page\n") if found is None else self._answer(200, found)

    do_HEAD = do_GET

    def _host(self) -> str:
        name = self.headers.get("Host", "")
        return name if name.endswith("]") else name.rpartition(":")[0] or name

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal shows the address and stays quiet."""
