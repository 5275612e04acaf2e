"""`kleval verify`: whether an engine computes the model that it says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kleval.cli import options
from kleval.cli.profile import parse_seconds
from kleval.lengths import parse_lengths
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.backends.spec import BackendSpec
    from kleval.verify.spec import VerifySpec

OF_ENGINE = (
    *("device", "dtype", "batch", "memory_budget", "trust_remote_code", "engine_args", "tp", "max_model_len", "api"),
    *("api_key_env", "concurrency", "request_timeout", "tokenizer", "served_name", "request_fields", "without_fields"),
    *("add_bos", "template_args", "base_url"),
)


@click.command(short_help="Check that an engine computes the model it says.")
@options.option(
    "--model",
    envvar="KLEVAL_VERIFY_MODEL",
    default="kimi-linear",
    metavar="NAME",
    help="NAME[@SIZE], a directory of weights, or a server's name for it.",
)
@options.backend
@options.base_url
@options.option(
    "--reference", metavar="NAME", help="A model that is trusted, to compare with: the same weights in another engine."
)
@options.option("--reference-backend", default="auto", metavar="NAME", help="What runs the reference.")
@options.option("--reference-base-url", metavar="URL", help="A server that the reference is asked at.")
@options.option(
    "--ctx",
    envvar="KLEVAL_VERIFY_CTX",
    default="9k",
    metavar="LENGTHS",
    help="The longest prompt that is tried; of several the largest.",
)
@options.option(
    "--write-model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a small random model there, for the engine to serve and the reference to read, and stop.",
)
@options.option("--laws", metavar="NAMES", help="Only these, comma-separated; see docs/verify.md.")
@options.option(
    "--time-budget", envvar="KLEVAL_VERIFY_TIME_BUDGET", default="5m", metavar="TIME", help="For all laws: 5m, 90s."
)
@options.option(
    "--alpha",
    type=float,
    default=0.001,
    metavar="P",
    help="The probability that a right engine is called broken, over all checks.",
)
@options.option("--seed", type=int, envvar="KLEVAL_VERIFY_SEED", default=42, help="Of the prompts.")
@options.api
@options.api_key_env
@options.served_name
@options.request_fields
@options.without_fields
@options.option(
    "--concurrency",
    envvar="KLEVAL_VERIFY_CONCURRENCY",
    type=click.IntRange(min=1),
    default=16,
    metavar="N",
    help="Most requests in flight at a server: as many as it takes in one batch.",
)
@options.request_timeout
@options.tokenizer
@options.add_bos
@options.template_args
@options.device
@options.dtype
@options.kernels
@options.batch
@options.memory_budget
@options.engine_args
@options.tp
@options.max_model_len
@options.trust_remote_code
@options.offline
@options.named
@options.out("runs/verify-<time>", "KLEVAL_VERIFY_OUT")
@options.json_output
@options.dry_run
@options.quiet
@click.pass_context
def verify(command: click.Context, /, as_json: bool, quiet: bool, **given: Any) -> int:
    """Try laws that every right engine obeys, on any engine that answers requests, in minutes and without a benchmark.

    What follows a prompt does not change it, a cached prompt is answered as a new one, a batch as each alone, a state is carried as it
    was left, and so on. Each law has a verdict: holds, broken, undecided, or not testable through this interface. A deviation is broken
    where legal rounding of this engine, which is measured first, does not explain it. Exit code: 0, 4 where a law is
    broken, 5 where one is undecided.
    """
    if given["write_model"] is not None:
        from kleval.cli.console import note
        from kleval.verify.model import write_model

        note(f"model     {write_model(given['write_model'], given['seed'], experts=8)}")
        return 0
    from kleval.cli.directory import run_directory
    from kleval.cli.verify_show import VerifyShow
    from kleval.cli.watch import watched
    from kleval.verify import verify as work

    line = shlex.join(["kleval", *map(options.without_secrets, command.obj or [])])
    out = given["out"] or (None if given["dry_run"] else run_directory(line, prefix="verify-"))
    spec = _spec(given, out, line)
    return watched(lambda watch: work(spec, watch), spec, VerifyShow(spec, "table"), as_json, quiet)


def _spec(given: dict[str, Any], out: Path | None, line: str) -> VerifySpec:
    from kleval.backends.spec import BackendSpec
    from kleval.verify.spec import VerifySpec

    models = options.names(given["model"])
    if len(models) != 1:
        raise UsageError(f"verify is for one engine, not {len(models)}: name one model with --model")
    engine = BackendSpec(model=models[0], backend=given["backend"], **options.as_given(given, *OF_ENGINE))
    return VerifySpec(
        engine=engine,
        reference=_reference(given),
        ctx=max(parse_lengths(given["ctx"])),
        laws=options.names(given["laws"]),
        time_budget=parse_seconds(given["time_budget"]),
        out=out,
        command=line,
        **options.as_given(given, "alpha", "seed", "dry_run", "name", "tags"),
    )


def _reference(given: dict[str, Any]) -> BackendSpec | None:
    """It shares what is not an engine's own."""
    from kleval.backends.spec import BackendSpec

    if given["reference"] is None:
        if given["reference_backend"] != "auto" or given["reference_base_url"]:
            raise UsageError(
                "--reference-backend and --reference-base-url are for a reference: name it with --reference"
            )
        return None
    return BackendSpec(
        model=given["reference"],
        backend=given["reference_backend"],
        base_url=given["reference_base_url"],
        **options.as_given(given, "device", "dtype", "request_timeout", "trust_remote_code", "add_bos"),
    )
