"""Chunkwise KDA and GDN on one CPU thread: against fla's torch reference, against their matrix products alone, and how flat.

    python benchmarks/kda_cpu.py [--lengths 4k,16k,64k,256k,1m] [--heads 2] [--dim 64] [--quick]

Forward without gradients, float32, one sequence. fla's reference (`naive_chunk_kda` of fla-core) is run at --reference-length only;
it is loaded from its file, since importing the package wants a GPU driver. Everything is compared with the recurrence in float64
before it is timed. The matrix products are those that ran, on tensors that are ready. Memory growth is that of the resident set
over the operands', the output included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

from common import MIB, length, peak_bytes, print_environment, print_table, run_child, short, timed

CHECK_TOKENS, TOLERANCE = 300, 1e-4


def operands(tokens: int, heads: int, dim: int, per_channel: bool, seed: int = 0) -> tuple[Any, ...]:
    """q, k normalised, v, log-decays as a fresh Kimi Linear has them, beta; float32, batch 1."""
    import torch
    from torch.nn.functional import normalize, softplus

    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(1, tokens, *shape, generator=generator)

    rate = torch.empty(heads, 1).uniform_(1, 16, generator=generator)
    bias = torch.empty(heads, dim).uniform_(-7, -2, generator=generator)
    g = -rate * softplus(normal(heads, dim) + bias)
    q, k = normalize(normal(heads, dim), dim=-1), normalize(normal(heads, dim), dim=-1)
    return q, k, normal(heads, dim), g if per_channel else g[..., 0].contiguous(), normal(heads).sigmoid()


def reference() -> Any:
    """fla-core's naive_chunk_kda, or None."""
    try:
        spec = importlib.util.find_spec("fla")
    except (ImportError, ValueError):
        return None
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    for file in (Path(root) / "ops/kda/naive.py" for root in roots):
        if file.exists():
            module_spec = importlib.util.spec_from_file_location("fla_kda_naive", file)
            assert module_spec is not None
            assert module_spec.loader is not None
            module = importlib.util.module_from_spec(module_spec)
            module_spec.loader.exec_module(module)
            return module.naive_chunk_kda
    return None


def resident_and_reset() -> int | None:
    """Resident bytes now, from where `peak_bytes` counts on; None where the system (not Linux) cannot reset it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return peak_bytes()
    except OSError:
        return None


def child(job: dict[str, Any]) -> dict[str, Any]:
    """{"operator", "tokens", "heads", "dim"} -> seconds, products, memory growth (with the output), error."""
    import matrix_products
    import torch

    from kleval.ops.gdn import chunk_gdn, recurrent_gdn
    from kleval.ops.kda import chunk_kda, recurrent_kda

    torch.set_num_threads(1)
    with torch.no_grad():
        kda, heads, dim = job["operator"] != "gdn", job["heads"], job["dim"]
        rule: Any = chunk_kda if kda else chunk_gdn
        if job["operator"] == "fla":
            naive = reference()

            def rule(*inputs: Any) -> Any:
                return naive(*inputs, output_final_state=True)

        small = operands(CHECK_TOKENS // 64 * 64, heads, dim, kda)  # the reference takes whole chunks of 64 only
        expected = (recurrent_kda if kda else recurrent_gdn)(*(x.double() for x in small))
        error = max(float((a.double() - b).abs().max()) for a, b in zip(rule(*small), expected, strict=True))
        inputs = operands(job["tokens"], heads, dim, kda)
        before = resident_and_reset()
        seconds = timed(lambda: rule(*inputs))
        growth = None if before is None else peak_bytes() - before
        seconds = timed(lambda: rule(*inputs), 5 if seconds < 1 else 3) if seconds < 5 else seconds
        with matrix_products.recorded() as products:
            rule(*(x[:, : 1 << 16] for x in inputs))
    share = job["tokens"] / min(job["tokens"], 1 << 16)  # further pieces are the same products again
    return {
        "seconds": seconds,
        "products": matrix_products.seconds(products) * share,
        "growth": growth,
        "error": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="4k,16k,64k,256k,1m")
    parser.add_argument("--reference-length", default="4k")
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="lengths 1k and 4k, reference at 1k")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    import torch

    lengths = [1024, 4096] if given.quick else sorted(length(text) for text in given.lengths.split(","))
    at = 1024 if given.quick else length(given.reference_length)
    print_environment(torch=torch.__version__)
    print(f"{given.heads} heads of {given.dim}, batch 1, float32\n")
    job = {"heads": given.heads, "dim": given.dim}
    fla = None
    if reference() is None:
        print("fla's reference: skipped, fla-core is not installed (pip install -e '.[gpu]')")
    else:
        fla = checked(job | {"operator": "fla", "tokens": at})
    body = []
    for operator in ("kda", "gdn"):
        for tokens in sorted({*lengths, at}):
            row = checked(job | {"operator": operator, "tokens": tokens})
            body.append(
                [
                    operator,
                    short(tokens),
                    f"{row['seconds']:.3f}",
                    f"{row['seconds'] / tokens * 1e6:.2f}",
                    f"{row['products']:.3f}",
                    f"{row['products'] / row['seconds']:.0%}",
                    mib(row["growth"]),
                    f"{fla['seconds'] / row['seconds']:.1f}x" if fla and tokens == at and operator == "kda" else "",
                ]
            )
    columns = ["rule", "tokens", "s", "us per token", "matrix products alone, s", "share", "memory growth, MiB"]
    print_table([*columns, "against fla's reference"], body)
    if fla:
        print(
            f"\nfla's naive_chunk_kda at {short(at)}: {fla['seconds']:.2f} s, memory growth {fla['growth'] / MIB:.0f} MiB"
        )
    for operator in ("kda", "gdn"):
        costs = [float(row[3]) for row in body if row[0] == operator]
        print(f"{operator}: cost per token at the longest over the shortest length: {costs[-1] / costs[0]:.2f}")


def mib(count: int | None) -> str:
    return "-" if count is None else f"{count / MIB:.0f}"


def checked(job: dict[str, Any]) -> dict[str, Any]:
    row = run_child(__file__, job)
    if not row["error"] <= TOLERANCE:
        raise SystemExit(f"{job['operator']} is off the recurrence by {row['error']:.1e}: nothing was timed")
    return row


if __name__ == "__main__":
    main()
