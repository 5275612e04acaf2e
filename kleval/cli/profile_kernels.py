"""`kleval profile kernels`: one operator at a time."""

from __future__ import annotations

import shlex
from typing import Any

import click

from kleval.cli import options
from kleval.cli.profile import parse_seconds, table_format
from kleval.lengths import parse_lengths

CUDA_CTX, CPU_CTX = "2k-1m*2", "2k-64k*2"


@click.command(short_help="Time KDA, GDN, DPLR and softmax attention alone.")
@options.option(
    "--ctx",
    envvar="KLEVAL_PROFILE_KERNELS_CTX",
    metavar="LENGTHS",
    help=f"Tokens: 2k,8k or {CPU_CTX}.  [default: {CPU_CTX}; on CUDA {CUDA_CTX}]",
)
@options.option("--heads", default="16,32", metavar="N,…", help="Heads, the paper's Fig. 2 has 16.")
@options.option("--head-dim", type=int, default=128, metavar="N", help="Width of keys and values.")
@options.option(
    "--repeats",
    type=int,
    envvar="KLEVAL_PROFILE_KERNELS_REPEATS",
    default=5,
    metavar="N",
    help="Turns of every operator.",
)
@options.option(
    "--time-budget",
    envvar="KLEVAL_PROFILE_KERNELS_TIME_BUDGET",
    metavar="TIME",
    help="What would take longer is left out, and said so: 2m, 90s.  [default: 110s; on CUDA 5m]",
)
@options.device
@options.dtype
@options.option("--seed", type=int, envvar="KLEVAL_PROFILE_SEED", default=42, help="Of operands.")
@options.named
@options.out("runs/kernels-<time>", "KLEVAL_PROFILE_KERNELS_OUT")
@table_format
@options.json_output
@options.dry_run
@options.quiet
@click.pass_context
def kernels(command: click.Context, /, kind: str, as_json: bool, quiet: bool, **given: Any) -> int:
    """Time Kimi Delta Attention, Gated DeltaNet, the general DPLR form and softmax attention, one at a time.

    At the shape of the paper's Fig. 2 (batch 1, 16 heads of 128) and at 32 heads, forward only; single decode steps of KDA and
    GDN as well. Every operator is first checked against its recurrent form in float64, and not timed when it is wrong.
    """
    from kleval.cli.directory import run_directory
    from kleval.cli.shows import KernelShow
    from kleval.cli.watch import watched
    from kleval.profiler.environment import resolve_device
    from kleval.profiler.kernels import profile_kernels
    from kleval.profiler.workload import KernelSpec

    line = shlex.join(["kleval", *(command.obj or [])])
    default = CUDA_CTX if resolve_device(given["device"]).type == "cuda" else CPU_CTX
    spec = KernelSpec(
        ctxs=parse_lengths(given["ctx"] or default),
        heads=options.whole_numbers(given["heads"], "number of heads", "heads", "16,32"),
        time_budget=None if given["time_budget"] is None else parse_seconds(given["time_budget"]),
        out=given["out"] or (None if given["dry_run"] else run_directory(line, prefix="kernels-")),
        command=line,
        **options.as_given(given, "head_dim", "repeats", "device", "dtype", "seed", "dry_run", "name", "tags"),
    )
    return watched(lambda watch: profile_kernels(spec, watch), spec, KernelShow(spec, kind), as_json, quiet)
