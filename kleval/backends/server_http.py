"""HTTP questions to a server outside of the request loop: one at a time, ended by a total time limit, held whole in memory."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kleval.backends.server_address import Server
from kleval.types import UsageError

LONGEST_REPLY = 64 << 20  # bytes
LONGEST_WAIT = 7 * 86400.0  # seconds: sockets take no more than 24 days, and no infinity


def client_for(server: Server, read_seconds: float) -> Any:
    """An httpx2.Client for a few short questions. UsageError where the environment names a proxy that cannot be used."""
    import httpx2

    try:
        return httpx2.Client(
            headers=list(server.headers),
            params=list(server.params) or None,
            timeout=httpx2.Timeout(min(read_seconds, LONGEST_WAIT), connect=5.0),
            trust_env=not server.is_local,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        why = "a SOCKS proxy needs: pip install socksio" if isinstance(error, ImportError) else "it is no address"
        raise UsageError(
            f"the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({why}): correct it, or name the server's host "
            "in NO_PROXY"
        ) from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent, whole and unpacked."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """ValueError for what is not JSON."""
        try:
            return json.loads(self.content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def fetch(client: Any, method: str, url: str, seconds: float, content: bytes | None = None) -> Reply:
    """One question. httpx2.ReadTimeout after `seconds`, whatever comes meanwhile: httpx2's own limits begin anew with every byte,
    be it of a header. httpx2.HTTPError for an answer that would fill the memory."""
    import httpx2

    box: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
    stop = time.monotonic() + seconds

    def ask() -> None:
        try:
            box.put(_fetch(client, method, url, stop, content))
        except Exception as error:
            box.put(error)

    threading.Thread(target=ask, name="kleval-question", daemon=True).start()
    try:
        got = box.get(timeout=min(seconds, LONGEST_WAIT))
    except queue.Empty:
        raise httpx2.ReadTimeout("no end of the answer") from None
    if isinstance(got, Exception):
        raise got
    return got


def _fetch(client: Any, method: str, url: str, stop: float, content: bytes | None) -> Reply:
    """fetch, in a thread that ends itself some time after nobody waits for it any more."""
    import httpx2

    size, pieces = 0, []
    headers = {} if content is None else {"Content-Type": "application/json"}
    with client.stream(method, url, content=content, headers=headers) as response:
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_REPLY:
                raise httpx2.ReadError(f"an answer of more than {LONGEST_REPLY >> 20} MiB")
            if time.monotonic() > stop:
                raise httpx2.ReadTimeout("no end of the answer")
    return Reply(response.status_code, response.headers, b"".join(pieces))
