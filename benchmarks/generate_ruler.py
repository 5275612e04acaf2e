"""How long the 13 RULER tasks take to make, against NVIDIA's scripts.

    python benchmarks/generate_ruler.py --data-dir DIR [--ctx 128k] [--samples 100] [--workers N]

Official edition, tokenizer cl100k_base, the same bytes that the scripts write (tests/tasks/ruler/test_official.py
compares them). The scripts run one task after the other; what they cost is not measured here but taken as given by
--official-search and --official-sample, seconds per task for the length search and per sample, which were measured on
two processor cores at 128k. Tasks whose files are not in DIR are left out on both sides.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from kleval.harness.makers import Cell, Makers
from kleval.harness.sample_cache import SampleCache
from kleval.lengths import parse_length
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Task, UsageError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ctx", type=parse_length, default=parse_length("128k"))
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--workers", type=int, default=(os.cpu_count() or 2) - 1)
    parser.add_argument("--official-search", type=float, default=22.0)
    parser.add_argument("--official-sample", type=float, default=0.15)
    given = parser.parse_args()

    tokenizer = load_tokenizer("tiktoken:cl100k_base")
    tasks: list[Task] = []
    for name in expand(["ruler"]):
        try:
            task = load_task(name, "official", None, given.data_dir)
            next(task.samples(tokenizer, given.ctx, 1, 42))
            tasks.append(task)
        except UsageError as error:
            print(f"left out: {error}")

    for workers in dict.fromkeys((0, given.workers)):
        with tempfile.TemporaryDirectory() as folder:
            seconds = _all(tasks, tokenizer, given, SampleCache(Path(folder)), workers)
            official = len(tasks) * (given.official_search + given.official_sample * given.samples)
            print(
                f"{len(tasks)} tasks, {given.samples} samples each, ctx {given.ctx}, {workers + 1} processes: {seconds:.1f} s; "
                f"the scripts, one task after the other: {official:.0f} s (estimate); {official / seconds:.1f} times as long"
            )
            again = _all(tasks, tokenizer, given, SampleCache(Path(folder)), workers)
            print(f"  a second time, from the sample cache: {again:.1f} s")


def _all(tasks, tokenizer, given, cache, workers) -> float:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    with Makers(cache, given.samples, 42, workers, given.data_dir) as makers:
        makers.prepare([Cell(task, tokenizer, given.ctx) for task in tasks[1:]])
        for task in tasks:
            count = sum(1 for _ in makers.samples(task, tokenizer, given.ctx))
            assert count == given.samples, (task.id, count)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
