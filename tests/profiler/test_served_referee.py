"""Referees of the client: streams whose arrival times are known. Percentiles are computed here once more, by numpy, from the truth."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from kleval.backends.server_address import parse_address
from kleval.backends.server_exchange import Received
from kleval.backends.server_opening import Served
from kleval.backends.server_timing import read_trace
from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.profiler.served.load import load_values
from kleval.store import RunStore

PACED = Path(__file__).parents[2] / "benchmarks" / "paced_server.py"
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
N_OUT = 9
Times = list[tuple[float, list[float]]]  # per request: sent, and when its tokens came


def percentiles(times: Times) -> dict[str, float]:
    """ms, by the definitions."""
    found = {
        "ttft_ms": [ends[0] - begin for begin, ends in times],
        "request_tpot_ms": [(ends[-1] - ends[0]) / (len(ends) - 1) for _, ends in times],
        "e2e_ms": [ends[-1] - begin for begin, ends in times],
        "itl_ms": [gap for _, ends in times for gap in np.diff(ends)],
    }
    told = {f"{name}_{p}": 1000 * float(np.quantile(of, q)) for name, of in found.items() for p, q in SHARES.items()}
    told["itl_ms_median"] = told.pop("itl_ms_p50")
    return told


def stream(n: int) -> Iterator[bytes]:
    for i in range(n):
        choice = {"index": 0, "text": "x", "finish_reason": "length" if i + 1 == n else None}
        usage = {"prompt_tokens": 64, "completion_tokens": i + 1}
        yield b"data: " + json.dumps({"model": "tiny", "choices": [choice], "usage": usage}).encode() + b"\n\n"


def test_percentiles_of_streams_with_known_times_are_exact() -> None:
    rng, server = Random(11), parse_address("http://localhost:1/v1")
    times: Times = []
    for i in range(200):
        steps = [rng.expovariate(3), *(rng.uniform(0.001, 0.05) for _ in range(rng.randint(1, 40)))]
        times.append((0.1 * i, list(np.cumsum([0.1 * i, *steps])[1:])))
    traces = []
    for begin, ends in times:
        pieces = list(zip(ends, stream(len(ends)), strict=True))
        got = Received(begin, begin, 200, pieces, [0.0] * len(pieces), None, None)
        traces.append(read_trace(server, Served("tiny"), 10.0, got))
    values, estimate = load_values(traces, 0, None)
    truth = percentiles(times)
    assert not estimate
    assert {name: values[name] for name in truth} == pytest.approx(truth, abs=1e-6)


@pytest.fixture
def paced() -> Iterator[int]:
    """The port of a server of drawn paces in a process of its own: 10 to 80 ms to the first token, then 5 to 20 per token."""
    command = [sys.executable, str(PACED), "0", "20", "10", "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def test_percentiles_over_a_connection_are_those_of_the_servers_own_stamps(paced: int, tmp_path: Path) -> None:
    """A machine that stalls is neither's fault: how far the server itself was behind its schedule is forgiven, and of three rounds
    one must agree."""
    engine = BackendSpec(model="paced", backend="openai", base_url=f"http://127.0.0.1:{paced}/v1")
    given: dict[str, Any] = {"concurrencies": (), "rates": (40.0,), "requests": 40, "repeats": 3}
    profile_served(ServedSpec(engine=engine, ctxs=(64,), decode_tokens=N_OUT, out=tmp_path / "run", **given))
    with urllib.request.urlopen(f"http://127.0.0.1:{paced}/log") as response:
        log = [(came, sent, late) for came, sent, late in json.load(response) if len(sent) == N_OUT]
    points = sorted(RunStore.open(tmp_path / "run").points(), key=lambda point: point.repeat)
    rounds = [log[40 * i - 120 :][:40] for i in range(3)]  # what came before them warmed up
    found = []
    for point, truth in zip(points, rounds, strict=True):
        if not point.failed:
            known = percentiles([(came, sent) for came, sent, _ in truth])
            off = max(abs((point.values[name] or 0) - value) for name, value in known.items())
            found.append(off - 1000 * max(late for _, _, late in truth))
    if not found:
        pytest.skip("the machine was too busy for the server to send its tokens apart")
    assert min(found) < 5.0  # ms; the quantiles themselves differ by tens
