"""`kleval profile`: what a long context costs. The bare command measures; `memory` answers from the configuration alone."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.main import LazyGroup
from kleval.cli.profile_served import decode_tokens, make_questions, make_served_spec, served_backend, served_options
from kleval.cli.profile_table import FORMATS
from kleval.lengths import parse_lengths
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
SUBCOMMANDS = {"memory": "kleval.cli.profile_memory:memory", "kernels": "kleval.cli.profile_kernels:kernels"}

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
    from kleval.profiler.native_job import launched
    from kleval.profiler.workload import DEFAULT_MODELS, ProfileSpec, check_one_process, parse_batches

    served = served_backend(command, given)
    if served is not None:
        check_one_process(given)
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
    spec, launcher = launched(spec)
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
