"""What a second core gives the native engine in C++: prefill, decode and KDA alone, wall-clock, with one thread and with two, in
alternating rounds of one process.

    python benchmarks/cpu_threads.py [--threads 2] [--rounds 5] [--lengths 4k,16k]

The model is that of `native_vs_transformers`. A step of one row at a short depth is microseconds, less than waking a thread is worth:
it stays on one. Beside them the same of a large matrix product, which is what this machine has to give.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import length, print_environment, print_goals, print_table, ratio_of, short, spread
from native_vs_transformers import GROUP, VOCAB, make_weights, open_native

GOAL = 1.6


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", default="4k,16k")
    given = parser.parse_args()
    import torch

    from kleval.ops.kda import chunk_kda

    print_environment(f"1 and {given.threads} threads used", torch=torch.__version__)
    torch.manual_seed(0)
    jobs: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_weights(Path(folder))
        prefill = open_native(Path(folder))
        square = torch.randn(2048, 2048)
        jobs["a matrix product, 2048"] = lambda: square @ square
        q, k, v = (torch.randn(1, 65536, 2, 64) for _ in range(3))
        k = torch.nn.functional.normalize(k, dim=-1)
        g, beta = -torch.rand(1, 65536, 2, 64), torch.rand(1, 65536, 2)
        jobs["KDA, 64k, 2 heads of 64"] = lambda: chunk_kda(q, k, v, g, beta)
        for n in map(length, given.lengths.split(",")):
            ids = torch.randint(0, VOCAB, (1, n))
            jobs[f"prefill, {short(n)}"] = lambda ids=ids: prefill(ids, 1024)
            begun = prefill(ids, 1024)
            jobs[f"{GROUP} tokens at {short(n)}"] = lambda begun=begun: begun.write(0, GROUP)
        found: dict[str, list[list[float]]] = {}
        for what, run in jobs.items():
            run()
            rounds = []
            for _ in range(given.rounds):
                pair = []
                for threads in (1, given.threads):
                    torch.set_num_threads(threads)
                    pair.append(seconds(run))
                rounds.append(pair)
            found[what] = [list(column) for column in zip(*rounds, strict=True)]
    header = ["what", "1 thread, ms", f"{given.threads} threads, ms", "times as fast"]
    body = [
        [what, spread(one, 1000, 2), spread(more, 1000, 2), spread(ratio_of(one, more), unit="x", digits=2)]
        for what, (one, more) in found.items()
    ]
    print(f"wall-clock; least/median/largest of {given.rounds} rounds")
    print_table(header, body)
    long = [what for what in found if what.startswith(("KDA", "prefill"))]
    print()
    print_goals([(what, statistics.median(ratio_of(*found[what])), GOAL, "x") for what in long])


if __name__ == "__main__":
    main()
