"""`kleval profile memory`: state and weights by formula, without a model."""

from __future__ import annotations

from typing import Any

import click

from kleval.cli import complete, options
from kleval.cli.console import emit, note
from kleval.cli.formats import formats, formats_of
from kleval.cli.profile import table_format
from kleval.cli.profile_table import print_records, print_table
from kleval.lengths import parse_lengths
from kleval.text import format_length, size, times
from kleval.types import UsageError

LARGE_BYTES = 1 << 30  # of weights: smaller models fit on any GPU


@click.command(short_help="State and weight memory by formula, without a model.")
@options.option(
    "--model",
    envvar="KLEVAL_PROFILE_MODEL",
    metavar="NAMES",
    shell_complete=complete.shapes,
    help="Models, comma-separated: NAME[@SIZE], a published one like kimi-k3, a config.json, a directory or a hub id.  "
    "[default: the four architectures at nano]",
)
@options.option(
    "--ctx",
    envvar="KLEVAL_PROFILE_CTX",
    default="4k,64k,1m",
    metavar="LENGTHS",
    help="Lengths: 4k,128k,1m or 4k-1m*2.",
)
@options.option(
    "--batch",
    type=int,
    envvar="KLEVAL_PROFILE_MEMORY_BATCH",
    default=1,
    metavar="N",
    help="Sequences held at a time.",
)
@options.memory("A device's memory, like 139GiB: how long a context and how large a batch fit, weights included.")
@formats("PROFILE_MEMORY")
@options.option(
    "--tp",
    type=int,
    envvar="KLEVAL_PROFILE_MEMORY_TP",
    default=1,
    metavar="N",
    help="Devices that each layer is cut over.",
)
@options.option(
    "--ep",
    type=int,
    envvar="KLEVAL_PROFILE_MEMORY_EP",
    default=1,
    metavar="N",
    help="Devices that experts are dealt out to.",
)
@table_format
@options.json_output
def memory(
    model: str | None,
    ctx: str,
    batch: int,
    memory_budget: int | None,
    dtype: str,
    weights: str | None,
    kv: str | None,
    tp: int,
    ep: int,
    kind: str,
    as_json: bool,
) -> None:
    """Bytes of state by component, the saving against attention in every layer, and what fits into a budget and on GPUs.

    Computed from config.json alone: nothing is built or measured, so any size can be asked on any machine. With --tp or --ep all
    bytes are those of one device.
    """
    from kleval.models.costs import Split
    from kleval.profiler.memory import GPU_SHARE, memory_rows
    from kleval.profiler.workload import DEFAULT_MODELS

    if memory_budget is not None and memory_budget < 1:
        raise UsageError("--memory-budget is at least 1 byte")
    names = DEFAULT_MODELS if model is None else options.names(model)
    if not names:
        raise UsageError("no model given: name at least one")
    rows = memory_rows(names, parse_lengths(ctx), batch, formats_of(dtype, weights, kv), memory_budget, Split(tp, ep))
    for row in {row["model"]: row for row in rows}.values():
        if parts := row["not_counted"]:
            note(f"{row['model']}: not counted: {', '.join(parts)}")
        if row["checkpoint"] and weights is None:
            note(
                f"{row['model']}: its checkpoint is quantized ({row['checkpoint']}); weights are counted in {dtype}: see --weights"
            )
    if as_json:
        for row in rows:
            emit("memory", **row)
        return
    if kind not in ("table", "md"):
        nested = ("gpus", "vllm", "not_counted")
        print_records([{k: v for k, v in row.items() if k not in nested} for row in rows], kind)
        return
    index = any(row["index_bytes"] for row in rows)
    grouped = any(row["grouped_bytes"] for row in rows)
    header = ["ctx", "model", "KV" if grouped else "latent KV", *["index keys"] * index, "recurrent", "conv", "state"]
    header += ["KV saved", "state saved", "weights"]
    if memory_budget is not None:
        header += ["longest ctx", "largest batch", "states alone"]
    cells = []
    for row in rows:
        line = [format_length(row["ctx"]), row["model"], size(row["latent_bytes"] + row["grouped_bytes"])]
        line += [size(row["index_bytes"])] * index + [size(row["recurrent_bytes"])]
        line += [
            size(row["conv_bytes"]),
            size(row["state_bytes"]),
            f"{row['latent_saving']:.1%}",
            f"{row['saving']:.1%}",
        ]
        line.append(size(row["weights_bytes"]))
        if memory_budget is not None:
            line += [_fits(row["largest_ctx"]), _fits(row["largest_batch"]), _fits(row["state_batch"])]
        cells.append(line)
    batches = "one sequence" if batch == 1 else f"{batch} sequences"
    said = dict.fromkeys((dtype, f"weights {weights}" if weights else dtype, f"KV {kv}" if kv else dtype))
    title = f"State of {batches}, {', '.join(said)}, by formula"
    if max(tp, ep) > 1:
        title += f", on one of {max(tp, ep)} devices (tensor parallel {tp}, expert parallel {ep})"
    if memory_budget is not None:
        title += f"; budget {size(memory_budget)}: longest ctx and largest batch beside the weights, and without them"
    print_table(header, cells, kind, title, lead=2)
    if planned := [row for row in rows if row["vllm"]]:
        header = ["ctx", "model", "closed form", "vLLM", "ratio", "why"]
        cells = [_planned(row) for row in planned]
        print_table(header, cells, kind, "What vLLM would allocate for one sequence, by its own planning", lead=2)
    large = {row["model"] for row in rows if row["weights_bytes"] * max(tp, ep) >= LARGE_BYTES}
    if memory_budget is not None or not large:
        return
    header = ["model", "at most", *(gpu["gpu"] for gpu in rows[0]["gpus"])]
    cells = []
    for name in dict.fromkeys(row["model"] for row in rows if row["model"] in large):
        same = [row for row in rows if row["model"] == name]
        cells.append([name, f"ctx of {batches}", *(_fits(gpu["largest_ctx"]) for gpu in same[0]["gpus"])])
        for row in same:
            fit = (_fits(gpu["largest_batch"]) for gpu in row["gpus"])
            cells.append([name, f"sequences of {format_length(row['ctx'])}", *fit])
    title = f"What fits at most beside the weights into {GPU_SHARE:.0%} of each GPU, activations not counted"
    print_table(header, cells, kind, title, lead=2)


def _planned(row: dict[str, Any]) -> list[str]:
    plan = row["vllm"]
    found, closed = plan["vllm_bytes"], plan["closed_form_bytes"]
    told = ["–", "–"] if found is None else [size(found), times(found / closed)]
    return [format_length(row["ctx"]), row["model"], size(closed), *told, plan["why"]]


def _fits(count: int | None) -> str:
    from kleval.profiler.memory import MAX_COUNT

    return "none" if not count else "any" if count >= MAX_COUNT else f"{count:,}"
