"""kleval's native engine against transformers on the same Kimi Linear weights: prefill, TPOT and peak memory on one CPU thread.

    python benchmarks/native_vs_transformers.py [--lengths 1k,4k,16k] [--quick]

The model: 4 layers (three KDA, the last MLA), hidden 128, dense 256, 8 experts of 64, top-2, one shared; 4 KDA heads of 32; MLA with
4 heads, nope 32, rope 16, v 32, latent 64; vocabulary 512; float32, random weights written once in the layout of transformers.
Each engine runs in its own process. transformers prefills one-shot, its default, and in chunks of 512, where it is fastest; the
native engine in chunks of 2048 (--native-chunk). Logits of both are compared before anything is timed.

transformers must not see fla-core and Triton here: with them installed it calls their kernels on CPU tensors and crashes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import inspect
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common import MIB, length, peak_bytes, print_environment, print_goals, print_table, repeats_for, run_child, short
from small_models import make_kimi_moe

CHECK_TOKENS, CHECK_STEPS, TOLERANCE = 300, 8, 1e-4
STEPS, GROUP = 48, 8  # tokens that are written, and timed together
VOCAB = 512


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


def child(job: dict[str, Any]) -> dict[str, Any]:
    """{"engine", "folder", "chunk", "lengths"}: rows of figures; without lengths, logits to compare."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        prefill = (open_native if job["engine"] == "native" else open_transformers)(Path(job["folder"]))
        ids = torch.randint(0, VOCAB, (1, max([CHECK_TOKENS, *job.get("lengths", [])])))
        if "lengths" not in job:
            begun = prefill(ids[:, :CHECK_TOKENS], job["chunk"])
            rows = [begun.logits, *(begun.step(int(token)) for token in ids[0, :CHECK_STEPS])]
            return {"logits": torch.stack(rows).tolist()}
        prefill(ids[:, :CHECK_TOKENS], job["chunk"])
        return {"rows": [measure(prefill, ids[:, :tokens], job) for tokens in sorted(job["lengths"])]}


def per_token(write: Callable[[int, int], int]) -> float:
    """CPU seconds per greedy token: the median over groups of GROUP."""
    groups, token = [], 0
    for _ in range(STEPS // GROUP):
        started = time.process_time()
        token = write(token, GROUP)
        groups.append((time.process_time() - started) / GROUP)
    return statistics.median(groups)


def measure(prefill: Prefill, ids: Any, job: dict[str, Any]) -> dict[str, float]:
    """Medians; lengths must come in ascending order, since the peak of a process only grows."""
    seconds: list[float] = []
    while not seconds or len(seconds) < repeats_for(seconds[0]):
        started = time.process_time()
        begun = prefill(ids, job["chunk"])
        seconds.append(time.process_time() - started)
    row = {"prefill": statistics.median(seconds), "tpot": per_token(begun.write), "peak": float(peak_bytes())}
    if job["engine"] == "native":
        import matrix_products
        import torch

        # Inference mode would hand whole linear layers to the recorder instead of their products.
        with torch.inference_mode(False), torch.no_grad(), matrix_products.recorded() as products:
            prefill(ids.clone(), job["chunk"])
        row["products"] = matrix_products.seconds(products)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1k,4k,16k")
    parser.add_argument("--chunk", type=int, default=512, help="of transformers, chunked")
    parser.add_argument("--native-chunk", type=int, default=2048)
    parser.add_argument("--quick", action="store_true", help="lengths 512 and 1k only")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    try:
        transformers = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit("skipped: transformers is not installed (pip install -e '.[hf]')") from None
    lengths = [512, 1024] if given.quick else sorted(length(text) for text in given.lengths.split(","))
    import torch

    print_environment(torch=torch.__version__, transformers=transformers)
    engines = {"native": given.native_chunk, "one-shot": 0, "chunked": given.chunk}
    with tempfile.TemporaryDirectory() as folder:
        make_weights(Path(folder))
        jobs = {name: {"engine": name, "folder": folder, "chunk": chunk} for name, chunk in engines.items()}
        logits = {name: torch.tensor(run_child(__file__, job)["logits"]) for name, job in jobs.items()}
        errors = [float((logits["native"] - logits[name]).abs().max()) for name in ("one-shot", "chunked")]
        print(f"logits after {CHECK_TOKENS} tokens and {CHECK_STEPS} steps: largest difference {max(errors):.1e}")
        if not max(errors) <= TOLERANCE:
            raise SystemExit(f"the engines disagree by more than {TOLERANCE}: nothing was timed")
        rows = {name: run_child(__file__, job | {"lengths": lengths})["rows"] for name, job in jobs.items()}
    report(lengths, rows, given)


def report(lengths: Sequence[int], rows: dict[str, list[dict[str, float]]], given: argparse.Namespace) -> None:
    native, one_shot, chunked = rows["native"], rows["one-shot"], rows["chunked"]

    def table(title: str, key: str, scale: float, digits: int, extra: bool = False) -> None:
        print(f"\n{title}")
        header = ["tokens", "native", "one-shot", "ratio", f"chunks of {given.chunk}", "ratio"]
        body = []
        for tokens, n, o, c in zip(lengths, native, one_shot, chunked, strict=True):
            cells = [f"{x[key] * scale:.{digits}f}" for x in (n, o, c)]
            ratios = [f"{x[key] / n[key]:.1f}x" for x in (o, c)]
            row = [short(tokens), cells[0], cells[1], ratios[0], cells[2], ratios[1]]
            body.append([*row, f"{n['products']:.3f}", f"{n['products'] / n[key]:.0%}"] if extra else row)
        print_table([*header, "matrix products alone", "share"] if extra else header, body)

    table(f"prefill, s (native in chunks of {given.native_chunk})", "prefill", 1, 3, extra=True)
    table("TPOT at that depth, ms", "tpot", 1000, 2)
    table("peak resident set of the process, MiB", "peak", 1 / MIB, 0)
    place = {tokens: i for i, tokens in enumerate(lengths)}
    goals = []
    for tokens, against_one_shot, against_chunked in ((4096, 30, 6), (16384, 40, 4)):
        if (i := place.get(tokens)) is not None:
            goals.append(
                (
                    f"prefill {short(tokens)}, one-shot",
                    one_shot[i]["prefill"] / native[i]["prefill"],
                    against_one_shot,
                    "x",
                )
            )
            goals.append(
                (
                    f"prefill {short(tokens)}, chunked",
                    chunked[i]["prefill"] / native[i]["prefill"],
                    against_chunked,
                    "x",
                )
            )
    if (i := place.get(16384)) is not None:
        goals.append(("TPOT at 16k", chunked[i]["tpot"] / native[i]["tpot"], 8, "x"))
        goals.append(("peak memory at 16k, one-shot", one_shot[i]["peak"] / native[i]["peak"], 10, "x"))
    print()
    print_goals(goals)


if __name__ == "__main__":
    main()
