"""Whole commands as they are typed, wall-clock seconds from start to end on one CPU thread: RULER's niah through kleval and through
lm-eval's hf backend in alternating rounds, the long suite, and what a command takes that hardly asks anything.

    python benchmarks/whole_commands.py [--rounds 3] [--limit 20] [--ctx 4k] [--long 3]

Both ask the same small random Kimi Linear in the published layout (`small_models`), whose answers take the whole budget, for
niah_single_1 with lm-eval's prompts, which needs no download; the answers' texts are compared. lm-eval draws 500 samples before it asks
the first --limit of them, and its transformers runs the PyTorch form of KDA: that is what its command does here. The other commands
are of `kimi-linear@nano`, the long suite the builtin one at 1k and 2k, --long samples of each task. Every command has been run once
before, so that sample caches are warm.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ONE_THREAD, length, peaks, print_environment, print_goals, print_table, ratio_of, spread

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = "lm-eval-0.4.13"
# transformers calls fla-core's and Triton's kernels on CPU tensors where it finds them, and crashes.
HIDDEN = """import runpy, sys
sys.modules["fla"] = sys.modules["triton"] = None
runpy.run_module("lm_eval", run_name="__main__", alter_sys=True)"""


def seconds(command: list[str]) -> float:
    """SystemExit with what it said where it fails."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ONE_THREAD, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")
    return time.perf_counter() - started


def kleval(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *words]


def theirs(folder: Path, out: Path, given: argparse.Namespace) -> list[str]:
    what = ["--tasks", "niah_single_1", "--metadata", f'{{"max_seq_lengths":[{length(given.ctx)}]}}']
    model = ["--model", "hf", "--model_args", f"pretrained={folder},dtype=float32,max_length=65536", "--device", "cpu"]
    asked = ["--limit", str(given.limit), "--batch_size", "1", "--log_samples", "--output_path", str(out)]
    return [sys.executable, "-c", HIDDEN, "run", *model, *what, *asked]


def ours(folder: Path, out: Path, given: argparse.Namespace) -> list[str]:
    what = ["--tasks", "ruler/niah_single_1", "--edition", "official", "--protocol", PROTOCOL]
    return kleval(
        "run", "--model", str(folder), *what, "--ctx", given.ctx, "--limit", str(given.limit), "--out", str(out)
    )


def texts(own: Path, other: Path) -> tuple[list[str], list[str]]:
    """Answers of both, in the order of the samples."""
    (rows,) = own.glob("samples/*/*.jsonl")
    mine = sorted(map(json.loads, rows.read_text("utf-8").splitlines()), key=lambda row: row["index"])
    (samples,) = other.glob("*/samples_*.jsonl")
    lines = sorted(map(json.loads, samples.read_text("utf-8").splitlines()), key=lambda line: line["doc_id"])
    return [row["outcomes"][0]["text"] for row in mine], [line["resps"][0][0] for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--ctx", default="4k")
    parser.add_argument("--long", type=int, default=3, help="samples of each task and length of the long suite")
    given = parser.parse_args()
    if missing := [name for name in ("lm_eval", "accelerate") if importlib.util.find_spec(name) is None]:
        raise SystemExit(f"skipped: {' and '.join(missing)} not installed (pip install -e '.[lm-eval]' accelerate)")
    import small_models
    import torch

    torch.set_num_threads(1)
    print_environment()
    print(peaks())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = place / "kimi-linear-small"
        small_models.make_kimi_moe(folder, max_position_embeddings=1 << 20)
        small_models.add_tokenizer(folder)
        runs = []
        for i in range(given.rounds + 1):
            own, other = place / f"own-{i}", place / f"other-{i}"
            runs.append((seconds(ours(folder, own, given)), seconds(theirs(folder, other, given))))
        mine, their = texts(own, other)
        same = sum(a.strip() == b.strip() for a, b in zip(mine, their, strict=True))
        print(f"niah_single_1 at {given.ctx}, {given.limit} samples: {same} of {len(mine)} texts equal")
        suite = kleval("run", "--model", "kimi-linear", "--suite", "long", "--ctx", "1k,2k", "--limit", str(given.long))
        one = kleval("run", "--model", "kimi-linear", "--tasks", "ruler/niah_single_1", "--ctx", "1k", "--limit", "1")
        rounds: list[list[float]] = []
        for i in range(given.rounds + 1):
            commands = [[*suite, "--out", str(place / f"long-{i}")], [*suite, "--dry-run"]]
            rounds.append([seconds(c) for c in (*commands, [*one, "--out", str(place / f"one-{i}")])])
        answers = json.loads((place / "long-0" / "run.json").read_text("utf-8"))["counts"]["answered"]
    own_times, other_times = zip(*runs[1:], strict=True)
    long, dry, single = zip(*rounds[1:], strict=True)
    table = [
        ["kleval run, RULER niah", spread(own_times, digits=2)],
        ["lm_eval run, the same", spread(other_times, digits=2)],
        ["lm_eval / kleval", spread(ratio_of(other_times, own_times), unit="x")],
        [f"kleval run --suite long, {answers} answers", spread(long, digits=2)],
        ["its answers per second", spread([answers / s for s in long])],
        ["its --dry-run", spread(dry, digits=2)],
        ["kleval run, one sample at 1k", spread(single, digits=2)],
    ]
    print_table(["command", f"s; least/median/largest of {given.rounds} rounds"], table)
    print()
    print_goals(
        [
            ("lm_eval / kleval", statistics.median(ratio_of(other_times, own_times)), 11, "x"),
            ("answers per second of the long suite", statistics.median([answers / s for s in long]), 12, ""),
        ]
    )


if __name__ == "__main__":
    main()
