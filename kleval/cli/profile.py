"""`kleval profile`: what a long context costs. The bare command measures; `memory` answers from the configuration alone."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from kleval.cli import complete, options
from kleval.cli.console import emit, note
from kleval.cli.main import LazyGroup
from kleval.cli.profile_served import decode_tokens, make_questions, make_served_spec, served_backend, served_options
from kleval.cli.profile_table import FORMATS, print_records, print_table
from kleval.lengths import parse_lengths
from kleval.text import format_length, size, times
from kleval.types import UsageError

DEFAULT_CTX = "1k,2k,4k,16k,64k"  # the lengths that a run has unless told, and longer ones
AS_GIVEN = (
    "prefill",
    "repeats",
    "memory_budget",
    "chunk_tokens",
    "device",
    "devices",
    "executor",
    "ray_address",
    "gpus_per_model",
    "dtype",
    "seed",
    "append",
    "dry_run",
    "name",
    "tags",
)
LARGE_BYTES = 1 << 30  # of weights: smaller models fit on any GPU
SHORT = {"bf16": "bfloat16"}
SUBCOMMANDS = {"memory": "kleval.cli.profile:memory", "kernels": "kleval.cli.profile_kernels:kernels"}

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", re.ASCII)


def parse_seconds(text: str) -> float:
    """`10m`, `90s`, `1h30m`, `45` in seconds. UsageError for anything else, and for nothing at all."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        raise UsageError(f"'{text}' is not a time: write 90s, 10m or 1h30m")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


profile_model = options.option(
    "--model",
    envvar="KLEVAL_PROFILE_MODEL",
    metavar="NAMES",
    help="Models, comma-separated: NAME[@SIZE].  [default: the four architectures at nano]",
)
table_format = options.option(
    "--format", "kind", type=click.Choice(FORMATS), default="table", help="How stdout is written."
)


@click.group(
    cls=LazyGroup,
    targets=SUBCOMMANDS,
    invoke_without_command=True,
    short_help="Measure latency and memory at long context.",
)
@profile_model
@options.option(
    "--ctx",
    envvar="KLEVAL_PROFILE_CTX",
    default=DEFAULT_CTX,
    metavar="LENGTHS",
    help="One length, measured with its quarters down to 4k; or lists and ranges, 4k,64k or 4k-1m*2.",
)
@options.option(
    "--batch",
    envvar="KLEVAL_PROFILE_BATCH",
    default="1,max",
    metavar="N,…",
    help="Batches of decode: numbers, and max for the largest that fits the memory budget.",
)
@options.memory(
    "What the states of a largest batch may take, like 8GiB.  [default: one sequence of the longest length]"
)
@options.option("--time-budget", default="4m", metavar="TIME", help="What the plan aims at: 10m, 90s.")
@options.option(
    "--prefill",
    type=click.Choice(["full", "sampled", "auto"]),
    default="auto",
    help="Whole prompts, an estimate from chunks, or whole where the time budget allows.",
)
@options.option("--chunk-tokens", type=int, metavar="N", help="Prefill chunk.  [default: 512, on CUDA 8192]")
@options.option(
    "--decode-tokens",
    metavar="N",
    help="Timed steps per repeat; of a served model also a range to draw from, 16-256 or exp:128.  [default: 32, fewer if slow]",
)
@options.option(
    "--repeats",
    type=int,
    envvar="KLEVAL_PROFILE_REPEATS",
    metavar="N",
    help="Measurements of each point.  [default: 3, fewer if slow]",
)
@options.device
@options.devices
@options.executor
@options.ray_address
@options.gpus_per_model
@options.dtype
@options.kernels
@served_options
@options.option(
    "--seed",
    type=int,
    envvar="KLEVAL_PROFILE_SEED",
    default=42,
    help="Seed of weights, token ids and states.",
)
@options.verify
@options.named
@options.out("runs/profile-<time>", "KLEVAL_PROFILE_OUT")
@options.option(
    "--append",
    envvar="KLEVAL_PROFILE_APPEND",
    is_flag=True,
    help="Where --out holds a finished profile of this command: measure all again, as another session for kleval compare and gate.",
)
@table_format
@options.json_output
@options.dry_run
@options.quiet
@click.pass_context
def profile(command: click.Context, /, kind: str, as_json: bool, quiet: bool, **given: Any) -> int:
    """Measure prefill latency, decode time per token and state memory at several context lengths.

    With nothing else given: the four architectures at nano size up to 64k. Points are stored one by one in the run directory,
    which ends up with report.html and profile.csv; interrupted or killed, the same command continues where it stopped. Models
    have random weights. With --base-url, or another --backend, a model is measured as its callers see it: time to first
    token, time per token, throughput. `kleval profile memory` and `kleval profile kernels` are commands of their own.
    """
    if command.invoked_subcommand is not None:
        typed = [
            p.opts[-1]
            for p in command.command.params
            if p.name is not None and command.get_parameter_source(p.name) is ParameterSource.COMMANDLINE
        ]
        if typed:
            raise UsageError(f"{typed[0]} stands before '{command.invoked_subcommand}': put it behind")
        return 0
    if given["append"] and given["out"] is None:
        raise UsageError("--append goes on with a profile: name its directory with --out")
    steps = decode_tokens(given["decode_tokens"])
    from kleval.backends.spec import BackendSpec
    from kleval.cli.directory import run_directory
    from kleval.cli.shows import ServedShow, Show
    from kleval.cli.verify_first import verdicts
    from kleval.cli.watch import watched
    from kleval.profiler.workload import DEFAULT_MODELS, ProfileSpec, parse_batches
    from kleval.work.executors import find_launcher

    served = served_backend(command, given)
    spread = [
        name
        for name in ("devices", "executor", "ray_address", "gpus_per_model")
        if given[name] not in (None, (), "local")
    ]
    if served is not None and spread:
        named = spread[0].replace("_", "-")
        raise UsageError(
            f"--{named} is for profiles of kleval's own decoders: a served model is measured from one process"
        )
    line = shlex.join(["kleval", *map(options.without_secrets, command.obj or [])])
    out = given["out"] or (None if given["dry_run"] else run_directory(line, prefix="profile-"))
    if served is not None:
        from kleval.profiler.served.job import profile_served

        asked = make_served_spec(given, served, profile_lengths(given["ctx"]), out, line)
        if given["verify"] and out is not None and not asked.dry_run:
            asked = replace(asked, verified=verdicts([asked.engine], out))
        questions = make_questions(asked, given)
        return watched(
            lambda watch: profile_served(asked, watch, questions=questions),
            asked,
            ServedShow(asked, kind),
            as_json,
            quiet,
        )
    if isinstance(steps, str):
        raise UsageError(f"--decode-tokens is a number of steps, not {steps!r}; drawn lengths are of served models")
    spec = ProfileSpec(
        models=DEFAULT_MODELS if given["model"] is None else options.names(given["model"]),
        ctxs=profile_lengths(given["ctx"]),
        batches=parse_batches(given["batch"]),
        time_budget=parse_seconds(given["time_budget"]),
        decode_tokens=steps,
        out=out,
        command=line,
        **options.as_given(given, *AS_GIVEN),
    )
    spec.check()
    launcher = find_launcher(spec.executor, spec.devices, spec.ray_address, spec.gpus_per_model, spec.device)
    if spec.devices:
        spec = replace(spec, device=spec.devices[0])  # for what this process does with a model itself
    if given["verify"] and out is not None and not spec.dry_run:
        engines = [
            BackendSpec(model=name, backend="native", device=spec.device, dtype=spec.dtype) for name in spec.models
        ]
        spec = replace(spec, verified=verdicts(engines, out))
    from kleval.models.sizes import K3_LEFT_OUT, NAMED
    from kleval.profiler import profile as measure

    for name in spec.models:
        if name in NAMED and not quiet:
            note(f"{name} is Kimi K3 in small without {K3_LEFT_OUT}")

    return watched(lambda watch: measure(spec, watch, launcher), spec, Show(spec, kind), as_json, quiet)


def profile_lengths(text: str) -> tuple[int, ...]:
    """As everywhere, but one bare number stands for itself and its quarters down to 4k."""
    from kleval.profiler.workload import ladder

    lengths = parse_lengths(text)
    return ladder(lengths[0]) if not set(text) & set("-,") else lengths


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
@options.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    envvar="KLEVAL_PROFILE_MEMORY_DTYPE",
    default="bfloat16",
    help="Of weights, rows of attention and convolution tails; recurrent states are float32.",
)
@options.option(
    "--weights",
    type=click.Choice([*SHORT, "fp8", "int4", "mxfp4"]),
    envvar="KLEVAL_PROFILE_MEMORY_WEIGHTS",
    metavar="FORMAT",
    help="Of the layers' matrices: bf16, fp8, int4, or mxfp4 for routed experts alone.  [default: --dtype]",
)
@options.option(
    "--kv",
    type=click.Choice([*SHORT, "fp8", "int4"]),
    envvar="KLEVAL_PROFILE_MEMORY_KV",
    metavar="FORMAT",
    help="Of keys, values and latent rows: bf16, fp8 or int4; recurrent states keep theirs.  [default: --dtype]",
)
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
    from kleval.profiler.memory import GPU_SHARE, Formats, memory_rows
    from kleval.profiler.workload import DEFAULT_MODELS

    if memory_budget is not None and memory_budget < 1:
        raise UsageError("--memory-budget is at least 1 byte")
    names = DEFAULT_MODELS if model is None else options.names(model)
    if not names:
        raise UsageError("no model given: name at least one")
    formats = Formats(dtype, SHORT.get(weights or "", weights), SHORT.get(kv or "", kv))
    rows = memory_rows(names, parse_lengths(ctx), batch, formats, memory_budget, Split(tp, ep))
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
