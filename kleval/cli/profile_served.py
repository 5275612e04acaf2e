"""The part of `kleval profile` that measures served models: its options, its spec, what it says, its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kleval.cli import options
from kleval.text import format_length, format_lengths
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.profiler import events as ev
    from kleval.profiler.served.spec import ServedSpec
    from kleval.tables.served_summary import ServedRow

F = TypeVar("F", bound=Callable[..., Any])
OF_SERVERS = ("base_url", "api", "api_key_env", "concurrency", "request_timeout")
OF_ENGINES = ("engine_args", "tp", "max_model_len", "trust_remote_code", "device", "dtype", "memory_budget")
OF_NATIVE = ("batch", "prefill", "chunk_tokens", "time_budget", "memory_budget", "device", "dtype")
ALIASES = {"engine_args": "--engine-arg"}


def served_options(command: F) -> F:
    """The options of `profile` that are for served models."""
    for option in reversed(
        (
            options.option(
                "--backend",
                envvar="KLEVAL_PROFILE_BACKEND",
                type=click.Choice(["auto", "native", "openai", "vllm"]),
                default="auto",
                show_default=True,
                help="native; a served model: openai (a server) or vllm (in this process). auto is openai with --base-url.",
            ),
            options.option(
                "--base-url",
                envvar="KLEVAL_PROFILE_BASE_URL",
                metavar="URL",
                help="An OpenAI-compatible server, like http://localhost:8000/v1: measure the model that it serves.",
            ),
            options.option(
                "--concurrency",
                envvar="KLEVAL_PROFILE_CONCURRENCY",
                default="1",
                show_default=True,
                metavar="N,…",
                help="How many requests are sent together to a served model.",
            ),
            options.api,
            options.api_key_env,
            options.request_timeout,
            options.engine_args,
            options.tp,
            options.max_model_len,
            options.trust_remote_code,
        )
    ):
        command = option(command)
    return command


def is_served(command: click.Context, given: Mapping[str, Any]) -> bool:
    """Whether a served model is meant. UsageError for options that do not go with what is meant."""
    backend, url = given["backend"], given["base_url"]
    served = backend in ("openai", "vllm") or (backend == "auto" and url is not None)
    if backend == "native" and url is not None:
        raise UsageError("--base-url is for --backend openai, not native")
    if not served:
        wrong = [name for name in (*OF_SERVERS, *OF_ENGINES) if name not in OF_NATIVE]
        what = "is for served models: add --backend openai --base-url URL, or --backend vllm"
    elif backend == "vllm":
        wrong = ["base_url", "api", "api_key_env", *(name for name in OF_NATIVE if name not in OF_ENGINES)]
        what = "is not for --backend vllm"
    else:
        wrong = [*OF_NATIVE, *(name for name in OF_ENGINES if name not in OF_NATIVE)]
        what = "is not for a model behind a server: it is the server's to decide"
    for name in wrong:
        if command.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"{ALIASES.get(name, '--' + name.replace('_', '-'))} {what}")
    return served


def make_served_spec(given: Mapping[str, Any], ctxs: tuple[int, ...], out: Path | None, line: str) -> ServedSpec:
    """UsageError for what cannot be asked."""
    from kleval.backends.spec import BackendSpec
    from kleval.profiler.served.spec import DECODE_TOKENS, REPEATS, ServedSpec

    backend = "openai" if given["backend"] == "auto" else given["backend"]
    models = options.names(given["model"])
    if len(models) != 1:
        raise UsageError(f"a served profile is of one model, not {len(models)}: name it with --model")
    fields = [*OF_ENGINES] if backend == "vllm" else ["base_url", "api", "api_key_env"]
    engine = BackendSpec(
        model=models[0],
        backend=backend,
        request_timeout=given["request_timeout"],
        **{name: given[name] for name in fields},
    )
    spec = ServedSpec(
        engine=engine,
        ctxs=ctxs,
        concurrencies=parse_concurrency(given["concurrency"]),
        decode_tokens=DECODE_TOKENS if given["decode_tokens"] is None else given["decode_tokens"],
        repeats=REPEATS if given["repeats"] is None else given["repeats"],
        seed=given["seed"],
        out=out,
        dry_run=given["dry_run"],
        command=line,
    )
    spec.check()
    return spec


def parse_concurrency(text: str) -> tuple[int, ...]:
    """`1,8,32`. UsageError for anything else."""
    parts = options.names(text)
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"'{text}' is not a concurrency: write numbers from 1, like 1,8,32")
    return tuple(int(part) for part in parts)


def first_lines(event: ev.Started) -> list[str]:
    """What is measured, and where."""
    from kleval.profiler.served.spec import ServedSpec

    spec, settings = event.spec, event.settings
    assert isinstance(spec, ServedSpec)
    environment = event.environment
    where = settings.get("base_url") or "vLLM in this process"
    software = environment.get("server_software") or f"vLLM {environment.get('vllm')}"
    prompts = settings["served.prompts"]
    together = ", ".join(map(str, spec.concurrencies))
    return [
        f"  model     {event.models[0]} at {where} ({software})",
        f"  ctx       {format_lengths(spec.ctxs)}, prompts of random {'words, as ' if prompts != 'token ids' else ''}{prompts}",
        f"  requests  {together} together, {spec.decode_tokens} tokens each, {spec.repeats} rounds after one that is not counted",
    ]


def print_served(rows: Sequence[ServedRow], kind: str) -> None:
    """One table of a served profile, in one of FORMATS."""
    from kleval.cli.profile_table import print_records, print_table
    from kleval.text import number, percent

    if kind not in ("table", "md"):
        print_records([row.record() for row in rows], kind)
        return
    header = ["ctx", "prompt", "together", "TTFT ms", "TPOT ms", "p50", "p90", "p99", "E2E ms", "out tok/s", "spread"]
    header += ["cached", "failed"]
    cells = []
    for row in rows:
        failed = f"{row.failed} of {row.failed + row.rounds}" if row.failed else "0"
        line = [format_length(row.ctx), "" if row.prompt_tokens is None else f"{row.prompt_tokens:,.0f}"]
        line += [str(row.concurrency), number(row.ttft_ms), number(row.tpot_ms), number(row.itl_ms_median)]
        line += [number(row.itl_ms_p90), number(row.itl_ms_p99), number(row.e2e_ms)]
        line += [number(row.output_tokens_per_second), percent(row.spread)]
        line += ["not told" if row.cached_tokens is None else f"{row.cached_tokens:,}", failed]
        cells.append(line)
    print_table(header, cells, kind, "Served model: medians over rounds; p50, p90, p99 of the times between tokens, ms")
