"""The C++ engine against its torch form and transformers, in alternating rounds of one process on one CPU thread.

    python benchmarks/native_rounds.py [--lengths 1k,4k,16k] [--rounds 5] [--without-one-shot]

The model, the weights and the check of logits are those of `native_vs_transformers`. A round is every engine once (prefill of
the length, then TPOT as the median of 6 groups of 8 greedy tokens), in turn; what is printed is the least, the median and the
largest of each round's ratio, because absolute times of a shared machine say little. CPU seconds. Beside them what this thread
reaches in a large matrix product and in reading memory. transformers is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import length, print_environment, print_table, short
from native_vs_transformers import (
    CHECK_STEPS,
    CHECK_TOKENS,
    TOLERANCE,
    VOCAB,
    Prefill,
    make_weights,
    open_native,
    open_transformers,
    per_token,
)

NATIVE_CHUNK, CHUNK = 1024, 512
# Name -> what opens it, tokens per chunk (0: all at once), KLEVAL_NATIVE.
ENGINES: dict[str, tuple[Callable[[Path], Prefill], int, str]] = {
    "C++": (open_native, NATIVE_CHUNK, "on"),
    "torch": (open_native, NATIVE_CHUNK, "off"),
    "one-shot": (open_transformers, 0, "off"),
    f"chunks of {CHUNK}": (open_transformers, CHUNK, "off"),
}


def once(name: str, prefill: Prefill, ids: Any) -> tuple[float, float]:
    """CPU seconds of the prefill, and of a token after it."""
    os.environ["KLEVAL_NATIVE"] = ENGINES[name][2]
    started = time.process_time()
    begun = prefill(ids, ENGINES[name][1])
    return time.process_time() - started, per_token(begun.write)


def logits(name: str, prefill: Prefill, ids: Any) -> Any:
    import torch

    os.environ["KLEVAL_NATIVE"] = ENGINES[name][2]
    begun = prefill(ids[:, :CHECK_TOKENS], ENGINES[name][1])
    return torch.stack([begun.logits, *(begun.step(int(token)) for token in ids[0, :CHECK_STEPS])])


def peaks() -> str:
    """What this thread reaches: the best of several calls."""
    import torch

    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    far = torch.ones(1 << 26)
    best = [float("inf")] * 2
    for _ in range(5):
        for i, work in enumerate((lambda: a @ b, far.sum)):
            started = time.process_time()
            work()
            best[i] = min(best[i], time.process_time() - started)
    rate, bandwidth = 2 * 1536**3 / best[0] / 1e9, far.numel() * 4 / best[1] / 1e9
    return f"a large matrix product {rate:.0f} GFLOP/s, reading memory {bandwidth:.1f} GB/s"


def spread(values: list[float], scale: float = 1.0, digits: int = 1, unit: str = "") -> str:
    ordered = sorted(value * scale for value in values)
    return "/".join(f"{x:.{digits}f}" for x in (ordered[0], statistics.median(ordered), ordered[-1])) + unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1k,4k,16k")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without-one-shot", action="store_true", help="11 GB and half a minute a round at 16k")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [name for name in ENGINES if not (given.without_one_shot and name == "one-shot")]
    if importlib.util.find_spec("transformers") is None:
        names = [name for name in names if ENGINES[name][0] is open_native]
    print_environment(torch=torch.__version__)
    print(peaks())
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_weights(Path(folder))
        opened = {name: ENGINES[name][0](Path(folder)) for name in names}
        ids = torch.randint(0, VOCAB, (1, max(map(length, given.lengths.split(",")))))
        found = [logits(name, prefill, ids) for name, prefill in opened.items()]
        error = max(float((found[0] - other).abs().max()) for other in found[1:])
        print(f"logits after {CHECK_TOKENS} tokens and {CHECK_STEPS} steps: largest difference {error:.1e}")
        if not error <= TOLERANCE:
            raise SystemExit(f"the engines disagree by more than {TOLERANCE}: nothing was timed")
        tables: list[list[list[str]]] = [[], []]
        for tokens in sorted(map(length, given.lengths.split(","))):
            rounds = [[once(name, opened[name], ids[:, :tokens]) for name in names] for _ in range(given.rounds)]
            for which, (scale, digits) in enumerate(((1.0, 3), (1000.0, 2))):
                columns = [[one[i][which] for one in rounds] for i in range(len(names))]
                ratios = [
                    spread([x / y for x, y in zip(column, columns[0], strict=True)], unit="x") for column in columns[1:]
                ]
                times = [spread(column, scale, digits) for column in columns]
                tables[which].append([short(tokens), *times, *ratios])
    header = ["tokens", *names, *(f"{name} / {names[0]}" for name in names[1:])]
    for title, body in zip(("prefill, s", "TPOT at that depth, ms"), tables, strict=True):
        print(f"\n{title}; least/median/largest of {given.rounds} rounds")
        print_table(header, body)


if __name__ == "__main__":
    main()
