"""Server of the OpenAI API with a known pace, which tells when it sent what: the referee of clients that measure times.

Run as a program: `python paced_server.py PORT FIRST_MS STEP_MS [SEED]`; 0 as PORT takes a free one, which is printed. The first token
of an answer is sent FIRST_MS after its request came, each further one STEP_MS after the one before, by schedule; with a SEED they are
drawn, the first up to four times, each step up to twice as long. GET /log: for each answer since the last such question the time at
which its request came and those at which its tokens were sent (time.perf_counter, which on Linux is one clock for all processes).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import random
import sys
import time
from typing import Any

EVENT = '{"model":"paced","choices":[{"index":0,"text":"x","finish_reason":%s}],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}'


class Paced(asyncio.Protocol):
    """One connection. log: of all of them. rng: draws the pace of each answer; None: all have the same."""

    def __init__(
        self, first: float, step: float, log: list[tuple[float, list[float]]], rng: random.Random | None = None
    ) -> None:
        self._first, self._step, self._log, self._rng = first, step, log, rng
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
            if asked.get("stream"):
                self._stream(asked["max_tokens"], len(asked["prompt"]))
            else:
                self._plain(EVENT % ('"length"', len(asked["prompt"]), asked["max_tokens"]))
        else:
            self._plain('{"error":{"message":"no such page"}}', 404)

    def _stream(self, n: int, n_prompt: int) -> None:
        sent: list[float] = []
        self._log.append((time.perf_counter(), sent))
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        loop, rng = asyncio.get_running_loop(), self._rng
        waits = [self._first * (rng.uniform(0.5, 4) if rng else 1)]
        waits += [self._step * (rng.uniform(0.5, 2) if rng else 1) for _ in range(n - 1)]
        due = [loop.time() + seconds for seconds in itertools.accumulate(waits)]

        def step(i: int) -> None:
            over = i + 1 == n
            event = b"data: " + (EVENT % ('"length"' if over else "null", n_prompt, i + 1)).encode() + b"\n\n"
            event += b"data: [DONE]\n\n" if over else b""
            sent.append(time.perf_counter())
            self._transport.write(b"%x\r\n%s\r\n" % (len(event), event) + (b"0\r\n\r\n" if over else b""))
            if not over:
                loop.call_at(due[i + 1], step, i + 1)

        loop.call_at(due[0], step, 0)

    def _plain(self, text: str, status: int = 200) -> None:
        data = text.encode()
        self._transport.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n%s" % (status, len(data), data))


async def main(port: int, first: float, step: float, seed: int | None = None) -> None:
    log: list[tuple[float, list[float]]] = []
    rng = None if seed is None else random.Random(seed)
    gc.disable()
    server = await asyncio.get_running_loop().create_server(
        lambda: Paced(first, step, log, rng), "127.0.0.1", port, backlog=1024
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    drawn = int(sys.argv[4]) if len(sys.argv) > 4 else None
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) / 1000, float(sys.argv[3]) / 1000, drawn))
