"""Server of the OpenAI API with a known pace, which tells when it sent what: the referee of clients that measure times.

Run as a program: `python paced_server.py PORT FIRST_MS STEP_MS [SEED [TOKENS]]`; 0 as PORT takes a free one, which is printed. The
first token of an answer is sent FIRST_MS after its request came, each further one STEP_MS after the one before, by schedule; with a
SEED (-: none) they are drawn, the first up to four times, each step up to twice as long. TOKENS: that one event holds. GET /log: for
each answer since the last such question the time at which its request came, those at which its events were sent
(time.perf_counter, which on Linux is one clock for all processes), and by how many seconds one of them was behind its schedule at most.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Log = list[tuple[float, list[float], float]]  # when a request came, when its events were sent, by how much one was late

CHOICE = '{"object":"text_completion","model":"paced","choices":[{"index":0,"text":"%s","finish_reason":%s}],'
EVENT = CHOICE + '"usage":{"prompt_tokens":%d,"completion_tokens":%d}}'


class Paced(asyncio.Protocol):
    """One connection. log: of all of them. rng: draws the pace of each answer; None: all have the same. together: tokens of an
    event."""

    def __init__(self, first: float, step: float, log: list[Any], rng: random.Random | None, together: int) -> None:
        self._first, self._step, self._log, self._rng, self._together = first, step, log, rng, together
        self._transport: Any = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, mark, rest = self._got.partition(b"\r\n\r\n")
        found = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        size = int(found or 0)
        if mark and len(rest) >= size:
            self._got = rest[size:]
            self._answer(head.split(b" ")[1].decode(), rest[:size])

    def _answer(self, path: str, body: bytes) -> None:
        if path == "/log":
            told = json.dumps(self._log)
            self._log.clear()
            self._plain(told)
        elif path == "/v1/models":
            self._plain('{"data":[{"id":"paced","owned_by":"vllm","max_model_len":1048576}]}')
        elif path == "/version":
            self._plain('{"version":"1.0"}')
        elif path == "/tokenize":
            self._plain(json.dumps({"tokens": list(range(1000, 1400))}))
        elif path.endswith("/completions"):
            asked = json.loads(body)
            n = asked.get("max_tokens") or asked.get("max_completion_tokens") or 16
            if asked.get("stream"):
                self._stream(n, len(asked["prompt"]))
            else:
                self._plain(EVENT % ("x" * n, '"length"', len(asked["prompt"]), n))
        else:
            self._plain('{"error":{"message":"no such page"}}', 404)

    def _stream(self, n: int, n_prompt: int) -> None:
        sent: list[float] = []
        record = [time.perf_counter(), sent, 0.0]
        self._log.append(record)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        loop, rng = asyncio.get_running_loop(), self._rng
        waits = [self._first * (rng.uniform(0.5, 4) if rng else 1)]
        events = -(-n // self._together)
        waits += [self._step * (rng.uniform(0.5, 2) if rng else 1) for _ in range(events - 1)]
        due = [loop.time() + seconds for seconds in itertools.accumulate(waits)]

        def step(i: int) -> None:
            over = i + 1 == events
            so_far = min((i + 1) * self._together, n)
            text, finish = "x" * (so_far - i * self._together), '"length"' if over else "null"
            event = b"data: " + (EVENT % (text, finish, n_prompt, so_far)).encode() + b"\n\n"
            event += b"data: [DONE]\n\n" if over else b""
            record[2] = max(record[2], loop.time() - due[i])
            sent.append(time.perf_counter())
            self._transport.write(b"%x\r\n%s\r\n" % (len(event), event) + (b"0\r\n\r\n" if over else b""))
            if not over:
                loop.call_at(due[i + 1], step, i + 1)

        loop.call_at(due[0], step, 0)

    def _plain(self, text: str, status: int = 200) -> None:
        data = text.encode()
        self._transport.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))


@contextmanager
def paced(first_ms: float, step_ms: float, seed: int | None = None, together: int = 1) -> Iterator[int]:
    """The port of such a server in a process of its own."""
    drawn = "-" if seed is None else str(seed)
    command = [sys.executable, __file__, "0", str(first_ms), str(step_ms), drawn, str(together)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def read_log(port: int) -> Log:
    """Of each answer since the last question."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/log") as response:
        return [(came, sent, late) for came, sent, late in json.load(response)]


async def main(port: int, first: float, step: float, seed: int | None, together: int) -> None:
    log: list[Any] = []
    rng = None if seed is None else random.Random(seed)
    gc.disable()
    server = await asyncio.get_running_loop().create_server(
        lambda: Paced(first, step, log, rng, together), "127.0.0.1", port, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    port, first, step, *more = sys.argv[1:]
    drawn = int(more[0]) if more and more[0] != "-" else None
    asyncio.run(main(int(port), float(first) / 1000, float(step) / 1000, drawn, int(more[1]) if len(more) > 1 else 1))
