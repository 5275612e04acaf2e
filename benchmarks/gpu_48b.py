"""Kimi Linear against MLA at 48b-a3b on one CUDA GPU of at least 120 GB, with random bfloat16 weights.

    python benchmarks/gpu_48b.py [--out gpu_48b.json] [--time-budget 500]

First every device kernel is compared with its float64 reference; what depends on one that fails is reported and not timed. Then:
the machine's copy bandwidth and matrix rate; KDA kernel times over T; and for each architecture decode at several depths, at
batch 1 and at the largest batch that fits (by closed form, then confirmed by allocating it), and prefill over prompt lengths.
Every time stands beside its bound: bytes over the copy bandwidth, operations over the matrix rate, whichever is longer. Depth is
made by filling the cache with random content (`HybridCache.fill`), outside the timed region.

Without a CUDA device it runs at nano size, as a test of itself: those times say nothing about the kernels.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_session import OUT_OF_MEMORY, SCALES, Session
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.latents import GRANULE
from kleval.models.random import random_decoder
from kleval.models.sizes import preset
from kleval.models.stepper import Stepper
from kleval.ops.available import KERNELS, kernels_in_use
from kleval.ops.check import check_kernels
from kleval.ops.kda import chunk_kda
from kleval.profiler.bound import Bound, copy_bandwidth, matmul_rate
from kleval.quantiles import median, percentile

ARCHITECTURES = ("kimi-linear", "mla")
WARM_STEPS, STEPS = 3, 24
MIN_GPU_BYTES = 120 * 10**9


def measure_machine(s: Session) -> None:
    s.bound = Bound(copy_bandwidth(s.device), matmul_rate(s.device, s.dtype))
    s.add(kind="machine", bytes_per_second=s.bound.bytes_per_second, flops_per_second=s.bound.flops_per_second)
    print(
        f"\ncopy {s.bound.bytes_per_second / 1e12:.3f} TB/s (read + written), "
        f"{s.dtype_name} products {s.bound.flops_per_second / 1e12:.1f} TFLOP/s",
        flush=True,
    )


def measure_kernel(s: Session, heads: int, dim: int) -> None:
    """KDA over T tokens of one sequence, with state in and out."""
    print(f"\nKDA kernel, H = {heads}, K = V = {dim}\n{'T':>9} {'ms':>10} {'bound ms':>10} {'ns/token':>10}")
    generator = torch.Generator(s.device).manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = s.dtype) -> Tensor:
        return torch.empty(shape, device=s.device, dtype=dtype).normal_(generator=generator)

    for tokens in s.scale.kernel_tokens:
        flops = heads * (6 * tokens * dim**2 + 3 * tokens * 64 * dim + tokens * 64**2)  # the paper's Eq. 13 at C = 64
        nbytes = tokens * heads * (4 * dim * s.dtype.itemsize + 4 * dim + 4) + 8 * heads * dim**2
        floor = s.bound.decode_seconds(flops, nbytes)
        if s.blocked("kernel", 5 + 100 * floor, model="kda", ctx=tokens):
            continue
        try:
            q, k = (torch.nn.functional.normalize(normal(1, tokens, heads, dim), dim=-1) for _ in range(2))
            v, state = normal(1, tokens, heads, dim), normal(1, heads, dim, dim, dtype=torch.float32)
            g = normal(1, tokens, heads, dim, dtype=torch.float32).abs_().neg_()
            beta = normal(1, tokens, heads, dtype=torch.float32).sigmoid_()
            chunk_kda(q, k, v, g, beta, state)
            seconds = median(s.clock.each([lambda: chunk_kda(q, k, v, g, beta, state)] * 5))  # noqa: B023
        except Exception as error:
            s.failed(error, kind="kernel", model="kda", ctx=tokens)
            continue
        finally:
            q = k = v = g = beta = state = torch.empty(0)
            _free(s.device)
        s.add(
            kind="kernel",
            model="kda",
            ctx=tokens,
            heads=heads,
            seconds=seconds,
            bound_seconds=floor,
            flops=flops,
            bytes=nbytes,
        )
        print(f"{tokens:>9} {seconds * 1e3:>10.3f} {floor * 1e3:>10.3f} {seconds / tokens * 1e9:>10.1f}", flush=True)


def largest_batch(s: Session, config: ModelConfig, depth: int) -> int:
    """Sequences of that depth whose states fit beside the weights, by closed form."""
    tokens = -(-(depth + WARM_STEPS + STEPS) // GRANULE) * GRANULE
    per_row = config.state_bytes(tokens, 1, s.dtype_name).total
    # A step's logits, in the model's dtype and in float32, and activations; twice: the warm step and the graph keep theirs apart.
    inner = max(config.kda_num_heads * config.kda_head_dim, config.num_experts_per_token * config.moe_intermediate_size)
    working = 2 * config.vocab_size * (s.dtype.itemsize + 8) + 128 * (inner + config.hidden_size)
    if s.device.type == "cuda":
        _free(s.device)
        room = torch.cuda.mem_get_info(s.device)[0] - s.scale.reserve_bytes
    else:
        room = s.scale.state_budget or 1 << 24
    return max(1, int(room // (per_row + working)))


def filled(s: Session, config: ModelConfig, depth: int, batch: int) -> HybridCache:
    cache = HybridCache(config, batch, s.device, s.dtype, capacity=depth + WARM_STEPS + STEPS)
    cache.fill(depth)
    return cache


def decode_times(s: Session, decoder: Decoder, depth: int, batch: int) -> tuple[list[float], Stepper]:
    """Seconds of each of STEPS steps after warm ones, greedily continued on the device."""
    cache = filled(s, decoder.config, depth, batch)
    stepper = Stepper(decoder, cache)
    ids = torch.randint(0, decoder.config.vocab_size, (batch,), device=s.device)

    def step() -> None:
        nonlocal ids
        ids = stepper.step(ids).argmax(-1)

    for _ in range(WARM_STEPS):
        step()
    if not stepper.graph and "out of memory" in stepper.why:
        raise torch.OutOfMemoryError(stepper.why)  # a smaller batch is recorded; steps as they are say nothing
    return s.clock.each([step] * STEPS), stepper


def measure_decode(s: Session, name: str, decoder: Decoder) -> None:
    config = decoder.config
    print(
        f"\n{name}: decode\n{'depth':>9} {'batch':>6} {'step ms':>9} {'bound ms':>9} {'x bound':>8} {'ms/token':>9} {'tokens/s':>10}"
    )
    for depth in s.scale.depths:
        for protocol in ("batch-1", "largest-batch"):
            label: dict[str, Any] = {"model": name, "ctx": depth, "protocol": protocol}
            if s.blocked("decode", 8.0 if s.device.type == "cuda" else 0.0, **label):
                continue
            batch = 1 if protocol == "batch-1" else largest_batch(s, config, depth)
            computed = batch
            while True:
                stepper, times = None, []
                try:
                    times, stepper = decode_times(s, decoder, depth, batch)
                    break
                except Exception as error:
                    if not isinstance(error, OUT_OF_MEMORY) or batch == 1:
                        s.failed(error, kind="decode", **label, batch=batch)
                        break
                _free(s.device)
                batch = min(batch - 1, int(batch * 0.95))
            if stepper is None:
                _free(s.device)
                continue
            at = depth + WARM_STEPS + STEPS // 2
            nbytes, flops = config.decode_bytes(at, batch, s.dtype_name), config.decode_flops(at, batch)
            floor, step = s.bound.decode_seconds(flops, nbytes), median(times)
            s.add(
                kind="decode",
                **label,
                batch=batch,
                batch_computed=computed,
                step_ms_median=step * 1e3,
                step_ms_p90=percentile(times, 0.9) * 1e3,
                steps=len(times),
                ms_per_token=step * 1e3 / batch,
                tokens_per_second=batch / step,
                bytes_per_step=nbytes,
                flops_per_step=flops,
                bound_ms=floor * 1e3,
                graph=stepper.graph,
                why=stepper.why,
                state_bytes=stepper.cache.used_bytes(),
                allocated_bytes=stepper.cache.allocated_bytes(),
            )
            print(
                f"{depth:>9} {batch:>6} {step * 1e3:>9.3f} {floor * 1e3:>9.3f} {step / floor:>8.2f} "
                f"{step * 1e3 / batch:>9.4f} {batch / step:>10.1f}"
                + ("" if stepper.graph else f"  (no graph: {stepper.why})"),
                flush=True,
            )
            del stepper
            _free(s.device)


def prefill(s: Session, decoder: Decoder, tokens: int) -> None:
    """A whole prompt, in chunks, up to its last logits."""
    cache = HybridCache(decoder.config, 1, s.device, s.dtype, capacity=tokens)
    generator = torch.Generator(s.device).manual_seed(tokens)
    ids = torch.randint(0, decoder.config.vocab_size, (1, tokens), device=s.device, generator=generator)
    for part in ids.split(s.scale.chunk, 1):
        hidden = decoder.hidden(part, cache)
    decoder.logits(hidden[:, -1])


def measure_prefill(s: Session, name: str, decoder: Decoder) -> None:
    config = decoder.config
    print(
        f"\n{name}: prefill, batch 1, chunks of {s.scale.chunk}\n"
        f"{'T':>9} {'s':>9} {'bound s':>9} {'tokens/s':>10} {'of rate':>8}"
    )
    slow = 4.0  # times the bound, until measured
    for tokens in s.scale.prompts:
        flops = config.prefill_flops(tokens)
        floor = s.bound.prefill_seconds(flops)
        label = {"model": name, "ctx": tokens, "batch": 1}
        warm = tokens <= 2 * s.scale.chunk  # compiles; a longer one meets the same shapes again
        expected = slow * floor * (2 if warm else 1) + (10.0 if warm and s.device.type == "cuda" else 0.0)
        if s.blocked("prefill", expected, **label):
            continue
        try:
            if warm:
                prefill(s, decoder, tokens)
            seconds = s.clock.seconds(lambda: prefill(s, decoder, tokens))  # noqa: B023
        except Exception as error:
            s.failed(error, kind="prefill", **label)
            continue
        finally:
            _free(s.device)
        slow = max(1.5, seconds / floor * 1.3)
        s.add(
            kind="prefill",
            **label,
            chunk_tokens=s.scale.chunk,
            seconds=seconds,
            tokens_per_second=tokens / seconds,
            flops=flops,
            bound_seconds=floor,
            mfu=floor / seconds,
        )
        print(
            f"{tokens:>9} {seconds:>9.3f} {floor:>9.3f} {tokens / seconds:>10.0f} {floor / seconds:>8.1%}", flush=True
        )


def print_ratios(s: Session) -> None:
    """Time per token of MLA over Kimi Linear, beside the same ratio of the bounds at the same batches."""
    found = {
        (r["model"].split("@")[0], r["ctx"], r["protocol"]): r
        for r in s.rows
        if r["kind"] == "decode" and "ms_per_token" in r
    }
    print(
        "\nMLA / Kimi Linear, time per token\n"
        f"{'depth':>9} {'protocol':>14} {'batches':>10} {'measured':>9} {'bound':>7} {'share':>7}"
    )
    for depth in s.scale.depths:
        for protocol in ("batch-1", "largest-batch"):
            kimi, mla = (found.get((name, depth, protocol)) for name in ARCHITECTURES)
            if kimi is None or mla is None:
                continue
            measured = mla["ms_per_token"] / kimi["ms_per_token"]
            bound = (mla["bound_ms"] / mla["batch"]) / (kimi["bound_ms"] / kimi["batch"])
            batches = f"{mla['batch']}/{kimi['batch']}"
            s.add(
                kind="ratio",
                model="mla/kimi-linear",
                ctx=depth,
                protocol=protocol,
                batches=batches,
                measured=measured,
                bound=bound,
            )
            print(f"{depth:>9} {protocol:>14} {batches:>10} {measured:>9.2f} {bound:>7.2f} {measured / bound:>7.1%}")


def run_checks(s: Session, names: Sequence[str]) -> None:
    for check in check_kernels(s.device, seed=s.head["seed"], names=names):
        s.checks.append(check)
        state = "passed" if check.passed else "FAILED" if check.available else "absent"
        error = f"{check.error:9.1e}" if math.isfinite(check.error) else f"{'':>9}"
        print(f"  {check.name:<15} {state} {error}  {check.detail}", flush=True)
    s.save()


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _sections(s: Session, size: str) -> Iterator[Callable[[], None]]:
    config = preset("kimi-linear", size)
    yield lambda: measure_kernel(s, config.kda_num_heads, config.kda_head_dim)
    for position, architecture in enumerate(ARCHITECTURES):
        yield lambda a=architecture, p=position: measure_model(s, a, size, p)  # type: ignore[misc]
    yield lambda: print_ratios(s)


def measure_model(s: Session, architecture: str, size: str, position: int) -> None:
    """One architecture at a time: two of them do not fit. The first leaves the other half of what is left of the budget."""
    name = f"{architecture}@{size}"
    if s.left() < (40.0 if s.device.type == "cuda" else 0.0):
        s.blocked("decode", math.inf, model=name)
        return
    whole = s.deadline
    s.deadline -= s.left() / (len(ARCHITECTURES) - position) * (len(ARCHITECTURES) - position - 1)
    started = s.clock.now()
    decoder = random_decoder(preset(architecture, size), s.device, s.dtype, seed=0)
    made = s.clock.now() - started
    s.add(kind="weights", model=name, bytes=decoder.config.weight_bytes(s.dtype_name), seconds=made)
    print(
        f"\n{name}: {decoder.config.weight_bytes(s.dtype_name) / 2**30:.2f} GiB of weights made in {made:.1f} s",
        flush=True,
    )
    with torch.inference_mode():
        measure_decode(s, name, decoder)
        measure_prefill(s, name, decoder)
    del decoder
    _free(s.device)
    s.deadline = whole


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(SCALES), help="default: 48b-a3b on a GPU, nano without one")
    parser.add_argument("--out", type=Path, default=Path("gpu_48b.json"), help="all rows, as JSON")
    parser.add_argument(
        "--time-budget", type=float, default=500.0, help="seconds; points that would end later are left out"
    )
    given = parser.parse_args(arguments)
    started = time.monotonic()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    size = given.size or ("48b-a3b" if cuda else "nano")
    memory = torch.cuda.get_device_properties(device).total_memory if cuda else 0
    if size != "nano" and memory < MIN_GPU_BYTES:
        print(f"{size} needs a CUDA GPU of at least 120 GB: run it there, or give --size nano", file=sys.stderr)
        return 2
    s = Session(device, torch.bfloat16 if cuda else torch.float32, SCALES[size], started + given.time_budget, given.out)
    s.head = {
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "memory_bytes": memory,
        "torch": torch.__version__,
        "dtype": s.dtype_name,
        "size": size,
        "time_budget_seconds": given.time_budget,
        "seed": int(time.time()),
    }
    print(
        f"{s.head['device']}, torch {torch.__version__}, {size}, {s.dtype_name}\n\nkernels against float64:", flush=True
    )
    # GDN is not timed here: its check, which compiles as many kernels as KDA's, comes last.
    run_checks(s, [name for name in KERNELS if name != "gdn"])
    checking = time.monotonic() - started
    s.head["kernels"] = {name: used for name, used in kernels_in_use(device).items() if name != "gdn"}
    with torch.no_grad():
        measure_machine(s)
        for section in _sections(s, size):
            section()
    if s.left() > checking:
        print("\nkernels against float64, not timed:", flush=True)
        run_checks(s, ["gdn"])
    else:
        print("\nGDN's kernel is not checked: it would end past the time budget", flush=True)
    s.head["seconds"] = time.monotonic() - started
    s.save()
    print(f"\n{s.head['seconds']:.0f} s; rows in {s.out}" + (f"; {s.failures} points failed" if s.failures else ""))
    return 1 if s.failures else 0


if __name__ == "__main__":
    sys.exit(main())
