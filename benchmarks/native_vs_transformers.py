"""kleval's native engine, in C++ and in torch, against transformers on the same Kimi Linear weights, in alternating rounds of one
process on one CPU thread: prefill and TPOT; and the peak memory of each in a process of its own.

    python benchmarks/native_vs_transformers.py [--lengths 1k,4k,16k] [--rounds 3] [--without-one-shot]

The model: 4 layers (three KDA, the last MLA), hidden 128, dense 256, 8 experts of 64, top-2, one shared; 4 KDA heads of 32; MLA with
4 heads, nope 32, rope 16, v 32, latent 64; vocabulary 512; float32, random weights written once in the layout of transformers, which
prefills one-shot, its default, and in chunks of 512, where it is fastest. Logits are compared before anything is timed. A round is
every engine once (prefill of the length, then TPOT as the median of 6 groups of 8 greedy tokens), in turn; what is printed is the
least, the median and the largest of each round's ratio, because absolute times of a shared machine say little. CPU seconds. Beside
them what this thread reaches in a large matrix product and in reading memory. Without transformers the two native forms alone.

transformers must not see fla-core and Triton here: with them installed it calls their kernels on CPU tensors and crashes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from common import (
    MIB,
    length,
    peak_bytes,
    peaks,
    print_environment,
    print_goals,
    print_table,
    ratio_of,
    run_child,
    short,
    spread,
)
from small_models import make_kimi_moe

CHECK_TOKENS, CHECK_STEPS, TOLERANCE = 300, 8, 1e-4
STEPS, GROUP = 48, 8  # tokens that are written, and timed together
VOCAB = 512
CHUNK = 512  # of transformers
# (0 prefill or 1 TPOT, engine, tokens) -> how many times the C++ engine's it should be.
GOALS = {
    (0, "one-shot", 4096): 20,
    (0, "one-shot", 16384): 15,
    (0, f"chunks of {CHUNK}", 4096): 15,
    (0, f"chunks of {CHUNK}", 16384): 6.5,
    **{(1, "one-shot", tokens): 25 for tokens in (1024, 4096, 16384)},
}


class Begun(NamedTuple):
    """A prompt taken in. logits [V] of its last token; step(id) -> logits [V]; write(id, n) -> the token after n greedy ones."""

    logits: Any
    step: Callable[[int], Any]
    write: Callable[[int, int], int]


Prefill = Callable[[Any, int], Begun]  # of ids [1, T] in chunks (0: all at once)


def make_weights(folder: Path) -> None:
    make_kimi_moe(folder, vocab_size=VOCAB, eos_token_id=0, max_position_embeddings=1 << 20)


def open_native(folder: Path) -> Prefill:
    import torch

    from kleval.models.cache import HybridCache
    from kleval.models.checkpoint import load_decoder
    from kleval.models.stepper import Stepper

    decoder = load_decoder(folder).requires_grad_(False).eval()

    def prefill(ids: Any, chunk: int) -> Begun:
        cache = HybridCache(decoder.config, 1, capacity=ids.shape[1] + STEPS + 1)
        for part in ids.split(chunk or ids.shape[1], 1):
            hidden = decoder.hidden(part, cache)

        stepper = Stepper(decoder, cache)
        return Begun(
            decoder.logits(hidden[0, -1]),
            lambda token: stepper.step(torch.tensor([token]))[0],
            lambda token, count: write(stepper, token, count),
        )

    return prefill


def write(stepper: Any, token: int, count: int) -> int:
    """As an answer is written: as many steps in one call as the engine takes."""
    import torch

    while count:
        chosen, _, logits = stepper.greedy(torch.tensor([token]), count, ())
        token, count = int(logits.argmax()), count - len(chosen) - 1
    return token


def open_transformers(folder: Path) -> Prefill:
    sys.modules["fla"] = sys.modules["triton"] = None  # type: ignore[assignment]
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.cache_utils import DynamicCache

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    name = next(n for n in ("cache", "past_key_values") if n in inspect.signature(model.forward).parameters)

    def prefill(ids: Any, chunk: int) -> Begun:
        cache = DynamicCache(config=model.config)

        def forward(part: Any) -> Any:
            return model(part, **{name: cache}, use_cache=True, logits_to_keep=1).logits[0, -1]

        for part in ids.split(chunk or ids.shape[1], 1):
            logits = forward(part)

        def write(token: int, count: int) -> int:
            for _ in range(count):
                token = int(forward(torch.tensor([[token]])).argmax())
            return token

        return Begun(logits, lambda token: forward(torch.tensor([[token]])), write)

    return prefill


def per_token(write: Callable[[int, int], int]) -> float:
    """CPU seconds per greedy token: the median over groups of GROUP."""
    groups, token = [], 0
    for _ in range(STEPS // GROUP):
        started = time.process_time()
        token = write(token, GROUP)
        groups.append((time.process_time() - started) / GROUP)
    return statistics.median(groups)


# Name -> what opens it, tokens per chunk (0: all at once), KLEVAL_NATIVE.
ENGINES: dict[str, tuple[Callable[[Path], Prefill], int, str]] = {
    "C++": (open_native, 1024, "on"),
    "torch": (open_native, 1024, "off"),
    "one-shot": (open_transformers, 0, "off"),
    f"chunks of {CHUNK}": (open_transformers, CHUNK, "off"),
}


def child(job: dict[str, Any]) -> dict[str, Any]:
    """{"engine", "folder", "tokens"}: the peak of a process that takes in so many and writes a group of tokens."""
    import torch

    torch.set_num_threads(1)
    with torch.inference_mode():
        begun = begin(
            job["engine"],
            ENGINES[job["engine"]][0](Path(job["folder"])),
            torch.ones(1, job["tokens"], dtype=torch.long),
        )
        begun.write(0, GROUP)
    return {"peak": peak_bytes()}


def begin(name: str, prefill: Prefill, ids: Any) -> Begun:
    os.environ["KLEVAL_NATIVE"] = ENGINES[name][2]
    return prefill(ids, ENGINES[name][1])


def once(name: str, prefill: Prefill, ids: Any) -> tuple[float, float]:
    """CPU seconds of the prefill, and of a token after it."""
    started = time.process_time()
    begun = begin(name, prefill, ids)
    return time.process_time() - started, per_token(begun.write)


def logits(name: str, prefill: Prefill, ids: Any) -> Any:
    import torch

    begun = begin(name, prefill, ids[:, :CHECK_TOKENS])
    return torch.stack([begun.logits, *(begun.step(int(token)) for token in ids[0, :CHECK_STEPS])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1k,4k,16k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-one-shot", action="store_true", help="11 GB and half a minute a round at 16k")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [name for name in ENGINES if not (given.without_one_shot and name == "one-shot")]
    try:
        versions = {"transformers": importlib.metadata.version("transformers")}
    except importlib.metadata.PackageNotFoundError:
        versions, names = {}, [name for name in names if ENGINES[name][0] is open_native]
    print_environment(torch=torch.__version__, **versions)
    print(peaks())
    tokens = sorted(map(length, given.lengths.split(",")))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        make_weights(Path(folder))
        opened = {name: ENGINES[name][0](Path(folder)) for name in names}
        ids = torch.randint(0, VOCAB, (1, max(tokens)))
        found = [logits(name, prefill, ids) for name, prefill in opened.items()]
        error = max(float((found[0] - other).abs().max()) for other in found[1:])
        print(f"logits after {CHECK_TOKENS} tokens and {CHECK_STEPS} steps: largest difference {error:.1e}")
        if not error <= TOLERANCE:
            raise SystemExit(f"the engines disagree by more than {TOLERANCE}: nothing was timed")
        rounds = {
            n: [[once(name, opened[name], ids[:, :n]) for name in names] for _ in range(given.rounds)] for n in tokens
        }
        jobs = {name: {"engine": name, "folder": folder, "tokens": max(tokens)} for name in names}
        held = {name: run_child(__file__, job)["peak"] for name, job in jobs.items()}
    header = ["tokens", *names, *(f"{name} / {names[0]}" for name in names[1:])]
    goals = []
    for which, (what, scale, digits) in enumerate((("prefill, s", 1.0, 3), ("TPOT at that depth, ms", 1000.0, 2))):
        body = []
        for n, of in rounds.items():
            columns = [[one[i][which] for one in of] for i in range(len(names))]
            ratios = [ratio_of(column, columns[0]) for column in columns[1:]]
            times = [spread(column, scale, digits) for column in columns]
            body.append([short(n), *times, *(spread(ratio, unit="x") for ratio in ratios)])
            for name, ratio in zip(names[1:], ratios, strict=True):
                if (goal := GOALS.get((which, name, n))) is not None:
                    goals.append(
                        (f"{what.split()[0].strip(',')} {short(n)}, {name}", statistics.median(ratio), goal, "x")
                    )
        print(f"\n{what}; least/median/largest of {given.rounds} rounds")
        print_table(header, body)
    print(f"\npeak of a process of its own at {short(max(tokens))}, MiB")
    print_table(list(held), [[f"{peak / MIB:.0f}" for peak in held.values()]])
    print()
    print_goals(goals)


if __name__ == "__main__":
    main()
