"""kleval's client of timed requests against the truth of a server of known pace, beside a plain client with a thread per request.

Rounds of both alternate: N requests of 1k tokens are sent together, each answer's tokens come on a schedule that the server keeps and
tells (paced_server.py). Three figures per client: the median TTFT; by how much it is more than the server says (request came to first
token sent); and how far off the median TPOT is. `kleval, asynchronous` is what an asynchronous HTTP client (httpx2) notes.
The server takes a share of the processors: on a busy machine its own pace slips, so the truth is what it sent, not what it planned.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import statistics
import threading
import time
from collections.abc import Callable

import common
from paced_server import paced, read_log

from kleval.backends.registry import open_backend
from kleval.types import Request, TimedRequest, Trace

PROMPT_TOKENS = 1024
Times = list[tuple[float, list[float]]]  # per request: sent, and when its tokens came


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--together", default="1,16,32,64", help="Numbers of requests that are sent together.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="Per answer.")
    parser.add_argument("--first-ms", type=float, default=20.0)
    parser.add_argument("--step-ms", type=float, default=10.0)
    asked = parser.parse_args()
    with paced(asked.first_ms, asked.step_ms) as port:
        common.print_environment()
        backend = open_backend("paced", backend="openai", base_url=f"http://127.0.0.1:{port}/v1", tokenizer="words")
        clients: dict[str, Callable[[list[TimedRequest]], Times]] = {
            "kleval": lambda requests: of_traces(list(backend.timed(requests))),  # type: ignore[attr-defined]
            "plain threads": lambda requests: plain(port, requests),
            "asynchronous (httpx2)": lambda requests: asyncio.run(asynchronous(port, requests)),
        }
        print(f"{'together':>8}  {'client':22} {'TTFT ms':>8} {'too long by':>12} {'truth':>7} {'TPOT off by':>12}")
        for together in map(int, asked.together.split(",")):
            found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in clients}
            for _ in range(asked.rounds):
                for name, ask in clients.items():
                    requests = [TimedRequest(make(asked.tokens)) for _ in range(together)]
                    read_log(port)
                    times = ask(requests)
                    # without how the server was found out
                    truth = [(came, sent) for came, sent, _ in read_log(port) if len(sent) == asked.tokens]
                    found[name].append(compare(times, truth, asked.tokens))
            for name, rounds in found.items():
                ttft, more, truth, off = (statistics.median(column) for column in zip(*rounds, strict=True))
                print(f"{together:8}  {name:22} {ttft:8.2f} {more:9.2f} ms {truth:7.2f} {off:12.2%}", flush=True)
        backend.close()


def make(n_out: int) -> Request:
    return Request(
        "generate", "", max_new_tokens=n_out, token_ids=tuple(random.choices(range(1000, 1400), k=PROMPT_TOKENS))
    )


def compare(times: Times, truth: Times, n_out: int) -> tuple[float, float, float, float]:
    """TTFT in ms, by how much it is more than the server's, the server's, and the relative error of TPOT; medians."""
    ttft, real = (1000 * statistics.median(ends[0] - begin for begin, ends in of) for of in (times, truth))
    tpot, pace = (statistics.median((e[-1] - e[0]) / (n_out - 1) for _, e in of) for of in (times, truth))
    return ttft, ttft - real, real, tpot / pace - 1


def of_traces(traces: list[Trace]) -> Times:
    return [(trace.submitted, [arrival.seconds for arrival in trace.arrivals]) for trace in traces]


def body(request: TimedRequest) -> bytes:
    sent = {"model": "paced", "prompt": list(request.request.token_ids or ()), "stream": True}
    return json.dumps(sent | {"max_tokens": request.request.max_new_tokens}).encode()


def plain(port: int, requests: list[TimedRequest]) -> Times:
    """A thread and a connection per request, opened before the clock starts."""
    found: Times = [(0.0, [])] * len(requests)
    ready = threading.Barrier(len(requests))

    def ask(at: int, sent: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.connect()
        ready.wait()
        begin, ends = time.perf_counter(), []
        connection.request("POST", "/v1/completions", sent)
        response = connection.getresponse()
        while response.read1(1 << 16):
            ends.append(time.perf_counter())
        connection.close()
        found[at] = (begin, ends)

    threads = [threading.Thread(target=ask, args=(at, body(one))) for at, one in enumerate(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


async def asynchronous(port: int, requests: list[TimedRequest]) -> Times:
    """One event loop, connections opened with the requests."""
    import httpx2

    async def ask(client: httpx2.AsyncClient, sent: bytes) -> tuple[float, list[float]]:
        begin, ends = time.perf_counter(), []
        async with client.stream("POST", f"http://127.0.0.1:{port}/v1/completions", content=sent) as response:
            async for _ in response.aiter_raw():
                ends.append(time.perf_counter())
        return begin, ends

    async with httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=None)) as client:
        return list(await asyncio.gather(*(ask(client, body(one)) for one in requests)))


if __name__ == "__main__":
    main()
