"""What workers add to an answered request: processes (--devices) and Ray's actors on two nodes of this machine, beside one process.

    python benchmarks/worker_overhead.py [--tokens 64,1k] [--samples 2000] [--rounds 3] [--workers 2]

In alternating rounds, the whole command with a task and a backend that have nothing behind them. Wall-clock milliseconds per answered
request from the first row to the last, so that starting workers is left out; median of the rounds with the range, and what is more
than in one process. All of it is work that cannot be shared out: with a real model it goes on while the workers answer. Beside it CPU
milliseconds of the command's own process: on a busy machine the first says how busy it was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from common import length, print_environment, print_table, short  # noqa: E402

GOAL_MS = 2.0


class Words:
    """A token per word: the tokenizer is not what is measured."""

    name, digest, chat_template_digest = "words", "d" * 64, ""

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split(" ")]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def count(self, text: str) -> int:
        return text.count(" ") + 1

    def render(self, prompt: Any, answer_prefix: str = "") -> str:
        return f"{prompt}{answer_prefix}"


class Echo:
    name, max_ctx, model = "echo", None, "echo"

    def __init__(self) -> None:
        self.tokenizer = Words()

    def describe(self) -> dict[str, Any]:
        return {"dtype": "none"}

    def run(self, requests: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        from kleval.types import Completion

        for position, request in enumerate(requests):
            yield position, Completion("x", len(request.token_ids), 2, seconds=0.001)

    def close(self) -> None: ...


def open_echo(model: str, device: str) -> Any:
    return Echo()


class Task:
    id, version, metric, edition, protocol = "bench/echo", "1", "accuracy", "builtin", "bench-1"
    data_revision, data_digest = "r1", "e" * 64

    def samples(self, tokenizer: Words, ctx: int, n: int, seed: int) -> Iterator[Any]:
        from kleval.types import Sample

        rest = "word " * (ctx - 40)
        for index in range(n):
            yield Sample(f"echo/{ctx}/{index}", self.id, ctx, index, f"{index} {rest}", ("x",), 4, ctx - 38)

    def step(self, sample: Any, outcomes: Sequence[Any]) -> Any:
        from kleval.types import Request, Score

        return Score({"accuracy": 1.0}, "x") if outcomes else [Request("generate", sample.prompt, max_new_tokens=4)]


def milliseconds(opener: Callable[[str], Any], tokens: int, samples: int) -> tuple[float, float]:
    """Per answered request, from the first row to the last, by the clock and of the processor."""
    from kleval.harness import RunSpec, run
    from kleval.work.events import UnitDone

    moments: list[tuple[float, float]] = []

    def tell(event: Any) -> None:
        if isinstance(event, UnitDone):
            moments.append((time.perf_counter(), time.process_time()))

    with tempfile.TemporaryDirectory() as folder:
        spec = RunSpec(models=("echo",), tasks=("bench/echo",), ctxs=(tokens,), limit=samples, out=Path(folder) / "run")
        assert run(spec, opener, lambda name: Task(), tell).exit_code == 0  # type: ignore[arg-type,return-value]
    assert len(moments) == samples
    wall, cpu = (1000 * (last - first) / (samples - 1) for first, last in zip(moments[0], moments[-1], strict=True))
    return wall, cpu


def openers(workers: int) -> dict[str, Callable[[str], Any]]:
    """By name; Ray's where it is installed."""
    from kleval.harness.replicas import Replicas
    from kleval.work.processes import Processes

    found: dict[str, Callable[[str], Any]] = {
        "one process": lambda name: Echo(),
        "processes": partial(Replicas, Processes(["cpu"] * workers), open_echo),
    }
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        print("ray is not installed: processes alone")
        return found
    from kleval.work.ray_actors import RayActors

    cluster = Cluster()
    for number in range(workers):
        cluster.add_node(num_cpus=2, **({} if number else {"include_dashboard": False}))
    return found | {"Ray's actors": partial(Replicas, RayActors(cluster.address, None), open_echo)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="64,1k")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
    print_environment()
    ways, rows, goals = openers(given.workers), [], []
    for tokens in map(length, given.tokens.split(",")):
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, opener in ways.items():
                times[name].append(milliseconds(opener, tokens, given.samples))
        one, one_cpu = (statistics.median(found) for found in zip(*times["one process"], strict=True))
        for name, pairs in times.items():
            wall, cpu = zip(*pairs, strict=True)
            middle, own = statistics.median(wall), statistics.median(cpu)
            told = f"{min(wall):.2f} to {max(wall):.2f}"
            more = "" if name == "one process" else f"{middle - one:+.2f}"
            rows.append(
                [short(tokens), name, f"{middle:.2f}", told, more, f"{own:.2f}", more and f"{own - one_cpu:+.2f}"]
            )
            if more:
                reached = "reached" if middle - one < GOAL_MS else "not reached"
                goals.append(f"{name} at {short(tokens)}: {more} ms (goal: below {GOAL_MS:g} ms: {reached})")
    print_table(["tokens", "way", "ms per request", "range", "more", "CPU ms", "more"], rows)
    print("", *goals, sep="\n")


if __name__ == "__main__":
    main()
