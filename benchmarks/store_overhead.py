"""What kleval adds to an answered request: the store and the rest of the loop, beside a plain append of a JSON line.

    python benchmarks/store_overhead.py [--tokens 1k,8k] [--models 3] [--samples 200] [--rounds 5] [--folder DIR]

In alternating rounds, on the disk of --folder: (1) `run`, the whole command with a task and a backend that have nothing
behind them, several models asked the same prompts; (2) what (1) spent inside the store, by a clock around its calls, with
the wait for the last sync; (3) the plain way: open, append json.dumps of the same row, fsync, close, the prompt gzipped to
a file of its own. Wall-clock milliseconds per answered request, median of the rounds with the range, and CPU
milliseconds: on a busy machine or disk the first says how busy it was. What it makes is deleted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from common import length, print_environment, print_goals, print_table, short  # noqa: E402

GOAL_MS = 0.6
WORDS = 20_000
Times = dict[str, tuple[float, float]]  # name -> wall and CPU milliseconds per answered request


class Words:
    """A token per word, counted once: the tokenizer is not what is measured."""

    name, digest, chat_template_digest = "words", "d" * 64, ""

    def encode(self, text: str) -> list[int]:
        return [1] * self.count(text)

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    @cache  # noqa: B019 - of a few hundred texts
    def count(self, text: str) -> int:
        return text.count(" ") + 1

    def render(self, prompt: Any, answer_prefix: str = "") -> str:
        return prompt + answer_prefix


def prompts(tokens: int, n: int) -> list[str]:
    """Texts of words with the letters of English: they compress about as prose does."""
    rng = random.Random(tokens)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 7))) for _ in range(WORDS)]
    return [" ".join(rng.choices(words, k=tokens - 40)) for _ in range(n)]


def run_once(out: Path, tokens: int, texts: list[str], models: int) -> tuple[Times, list[Any]]:
    """The command over everything once: per answered request the whole and the part inside the store; and its rows."""
    from kleval.harness import RunSpec, run
    from kleval.store import RunStore
    from kleval.types import Completion, Request, Sample, Score

    class Task:
        id, version, metric, edition, protocol = "bench/echo", "1", "accuracy", "builtin", "bench-1"
        data_revision, data_digest = "r1", "e" * 64

        def samples(self, tokenizer: Words, ctx: int, n: int, seed: int) -> Iterator[Sample]:
            for index, text in enumerate(texts[:n]):
                yield Sample(f"echo/{ctx}/{index}", self.id, ctx, index, text, ("x",), 4, ctx - 40)

        def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Any:
            return Score({"accuracy": 1.0}, "x") if outcomes else [Request("generate", sample.prompt, max_new_tokens=4)]

    class Echo:
        name, max_ctx, tokenizer = "echo", None, Words()

        def __init__(self, model: str) -> None:
            self.model = model

        def describe(self) -> dict[str, Any]:
            return {"dtype": "none"}

        def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
            for position, _ in enumerate(requests):
                yield position, Completion("x", tokens - 40, 2, seconds=0.001)

        def close(self) -> None:
            pass

    inside = [0.0, 0.0]

    def clocked(name: str) -> Any:
        real = getattr(RunStore, name)

        def call(*args: Any) -> Any:
            if busy:
                return real(*args)
            busy.append(name)
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                return real(*args)
            finally:
                inside[0] += time.perf_counter() - wall
                inside[1] += time.process_time() - cpu
                busy.clear()

        return real, call

    busy: list[str] = []
    names = [name for name in ("append", "put_prompt", "sync", "answered", "row", "close") if hasattr(RunStore, name)]
    replaced = {name: clocked(name) for name in names}
    spec = RunSpec(
        models=tuple(f"echo-{m}" for m in range(models)),
        tasks=("bench/echo",),
        ctxs=(tokens,),
        limit=len(texts),
        out=out,
        sample_cache=None,
        workers=0,
    )
    try:
        for name, (_, call) in replaced.items():
            setattr(RunStore, name, call)
        wall, cpu = time.perf_counter(), time.process_time()
        result = run(spec, Echo, lambda name: Task())  # type: ignore[arg-type]
        whole = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        for name, (real, _) in replaced.items():
            setattr(RunStore, name, real)
    n = result.counts["answered"]
    if n != len(texts) * models:
        raise SystemExit(f"{n} of {len(texts) * models} requests were answered: {result.message}")
    per = 1e3 / n
    times = {
        "kleval": (whole[0] * per, whole[1] * per),
        "store": (inside[0] * per, inside[1] * per),
        "rest": ((whole[0] - inside[0]) * per, (whole[1] - inside[1]) * per),
    }
    return times, list(RunStore.open(out).rows())


def plain_once(out: Path, rows: list[Any], texts: list[str]) -> Times:
    """The same rows and prompts, one durable line and one durable file at a time."""
    import dataclasses
    import gzip
    import json
    import os

    def write(path: Path, data: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, data)
        os.fsync(fd)
        os.close(fd)

    records = [dataclasses.asdict(row) for row in rows]
    out.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    for row, record in zip(rows, records, strict=True):
        prompt = out / row.prompt_hash
        if not prompt.exists():
            write(prompt, gzip.compress(texts[row.index].encode()))
        write(out / "rows.jsonl", json.dumps(record).encode() + b"\n")
    per = 1e3 / len(rows)
    return {"plain": ((time.perf_counter() - wall) * per, (time.process_time() - cpu) * per)}


def measure(folder: Path, tokens: int, n: int, models: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """name -> (wall, CPU) milliseconds of each round; a round more is run before them and not counted."""
    texts = prompts(tokens, n)
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        with tempfile.TemporaryDirectory(dir=folder) as name:
            times, rows = run_once(Path(name) / "run", tokens, texts, models)
            times |= plain_once(Path(name) / "plain", rows, texts)
        for what, pair in times.items() if number else ():
            found.setdefault(what, []).append(pair)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", default="1k,8k", help="lengths of the prompts (default: %(default)s)")
    parser.add_argument("--models", type=int, default=3, help="models that share the prompts (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=200, help="prompts per length (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(), help="where to write (default: the working directory)")
    given = parser.parse_args(arguments)
    print_environment()
    table, goals = [], []
    for tokens in map(length, given.tokens.split(",")):
        found = measure(given.folder, tokens, given.samples, given.models, given.rounds)
        for what, pairs in found.items():
            wall, cpu = zip(*pairs, strict=True)
            middle = statistics.median(wall)
            spread = f"{min(wall):.2f}-{max(wall):.2f}"
            table.append(
                [short(tokens), what, f"{middle:.3f}", spread, f"{statistics.median(cpu):.3f}", f"{1e3 / middle:,.0f}"]
            )
        ratios = [plain[0] / ours[0] for plain, ours in zip(found["plain"], found["kleval"], strict=True)]
        goals.append((f"plain way / kleval at {short(tokens)}", statistics.median(ratios), 1.0, "x"))
        ms = statistics.median(wall for wall, _ in found["kleval"])
        print(f"{ms:.3f} ms per answered request at {short(tokens)} (goal: at most {GOAL_MS})")
    print_table(["tokens", "what", "wall ms", "range", "CPU ms", "requests/s"], table)
    print_goals(goals)


if __name__ == "__main__":
    main()
