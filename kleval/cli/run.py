"""`kleval run`: models on tasks at lengths, into a run directory that survives being killed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kleval.backends.spec import without_secrets
from kleval.cli import complete, config, options
from kleval.cli.console import note
from kleval.cli.directory import run_directory
from kleval.lengths import parse_lengths
from kleval.types import Backend, UsageError

if TYPE_CHECKING:
    from kleval.harness.spec import RunSpec
    from kleval.suites import Suite

DEFAULT_SUITE = "long"
DEFAULT_CTX = "1k,2k,4k"
DEFAULT_LIMIT = 10
# What of a command line the spec has as it is.
AS_GIVEN = (
    *("repeats", "edition", "protocol", "judge_model", "allow_code_execution", "seed", "max_new_tokens", "reasoning"),
    *(
        "add_bos",
        "template_args",
        "tokenizer",
        "backend",
        "device",
        "dtype",
        "executor",
        "devices",
        "ray_address",
        "gpus_per_model",
        "batch",
        "memory_budget",
        "data_dir",
        "haystack",
        "metric",
        "max_errors",
        "max_cost",
        "max_requests",
        "price_per_mtok",
        "judge_price_per_mtok",
        "amend",
        "dry_run",
        "name",
        "tags",
    ),
)
# What of a command line a backend is opened with, besides the model, the backend and the server.
ENGINE_SETTINGS = (
    *("device", "dtype", "batch", "memory_budget", "share_prefixes", "trust_remote_code", "engine_args", "tp"),
    *("max_model_len", "api", "api_key_env", "concurrency", "request_timeout", "timeout", "tokenizer", "hardware"),
    *("served_name", "request_fields", "without_fields", "add_bos", "template_args"),
)


@click.command(short_help="Run models on tasks and score them.")
@options.option(
    "--config",
    type=click.Path(path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=config.use,
    metavar="FILE",
    help="Options by name in a YAML or JSON file, or the run.json of a run that is to run again; the command line is stronger.",
)
@options.model
@options.option(
    "--suite",
    metavar="NAME",
    shell_complete=complete.suites,
    help="A named list of tasks; see kleval ls suites.  [default: long]",
)
@options.option(
    "--tasks",
    metavar="NAMES",
    shell_complete=complete.tasks,
    help="Tasks, families and patterns, comma-separated, instead of a suite: ruler,-ruler/cwe or ruler/niah_*; of your own"
    " ./my.py:Task, ./my.yaml, and ppl:FILE for the likelihood of a text.",
)
@options.option("--ctx", default=DEFAULT_CTX, metavar="LENGTHS", help="Lengths: 4k,128k,1m or 4k-1m*2.")
@options.limit
@options.edition
@options.protocol
@options.option(
    "--haystack",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A text or a folder of texts of your own, which RULER's and MRCR's needles are put into.",
)
@options.option(
    "--metric", metavar="FILE.py:F", help="Score answers by a function of your own, f(answer, references), instead."
)
@options.seed
@options.option(
    "--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.  [default: the task's, greedy]"
)
@options.option("--repeats", type=click.IntRange(min=1), default=1, help="Answers per sample.")
@options.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Raise generation budgets to N tokens, so that a model has room to think; prompts leave that much of ctx.",
)
@options.option(
    "--reasoning",
    default="auto",
    show_default=True,
    metavar="auto|off|TAG",
    help="What is told apart from an answer: reasoning between any known tags, none, or between tags of that name.",
)
@options.option(
    "--judge-model",
    metavar="NAME",
    help="The model that judges answers, where a task is scored by one; see --protocol.",
)
@options.option(
    "--judge-backend", metavar="NAME", help="What runs the judge.  [default: openai with --judge-base-url, else auto]"
)
@options.option("--judge-base-url", metavar="URL", help="An OpenAI-compatible server that the judge is asked at.")
@options.backend
@options.base_url
@options.api
@options.api_key_env
@options.served_name
@options.request_fields
@options.without_fields
@options.hardware
@options.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=16,
    metavar="N",
    help="Most requests in flight at a server; fewer while it says 429.",
)
@options.request_timeout
@options.option(
    "--timeout",
    type=options.Number(min=0, min_open=True),
    metavar="SECONDS",
    help="How long a server may take for everything that is asked at once.  [default: no limit]",
)
@options.engine_args
@options.tp
@options.max_model_len
@options.trust_remote_code
@options.tokenizer
@options.add_bos
@options.template_args
@options.device
@options.devices
@options.executor
@options.ray_address
@options.gpus_per_model
@options.dtype
@options.kernels
@options.batch
@options.memory_budget
@options.option(
    "--share-prefixes/--no-share-prefixes",
    default=True,
    help="Run what prompts have in common through the model once; scores stay the same.",
)
@options.allow_code_execution
@options.data_dir
@options.offline
@options.sample_cache
@options.workers
@options.option(
    "--max-errors",
    type=click.FloatRange(min=0),
    metavar="N",
    help="Failures that are tolerated, a count or below 1 a share; more end the run.  [default: any failure is exit"
    " code 3, none ends the run]",
)
@options.option(
    "--price-per-mtok",
    callback=lambda context, parameter, value: options.prices(value, "price-per-mtok"),
    metavar="IN,OUT[,CACHED]",
    help="What a million tokens cost, read, written and read from the server's cache: what a run may cost and did cost is said.",
)
@options.option(
    "--judge-price-per-mtok",
    callback=lambda context, parameter, value: options.prices(value, "judge-price-per-mtok"),
    metavar="IN,OUT[,CACHED]",
    help="The judge's.  [default: --price-per-mtok]",
)
@options.option(
    "--max-cost",
    type=options.Number(min=0, min_open=True),
    metavar="X",
    help="Stop, with everything saved, before the run has cost more; judges count. Needs --price-per-mtok.",
)
@options.option(
    "--max-requests",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop, with everything saved, after N requests of the run; judges count.",
)
@options.verify
@options.named
@options.out("runs/<time>")
@options.option(
    "--shard",
    metavar="I/N|auto",
    help="Ask for the I-th of N parts alone, in an --out of its own; kleval merge joins them. auto: this job's of its SLURM array;"
    " auto/N: of a Kubernetes Job's.",
)
@options.option("--amend", is_flag=True, help="Extend the run in --out by more models, tasks, lengths or samples.")
@options.json_output
@options.dry_run
@options.quiet
@click.pass_context
def run(command: click.Context, /, as_json: bool, quiet: bool, **given: Any) -> int:
    """Run models on tasks at several context lengths, and score them.

    With nothing else given: kimi-linear@nano on the suite long, builtin data, lengths 1k, 2k and 4k, 10 samples each. Rows
    are stored one by one in the run directory, which ends up with report.html and leaderboard.csv. Interrupted or killed,
    the same command continues where it stopped.
    """
    from kleval.backends.registry import open_backend, open_on
    from kleval.backends.spec import BackendSpec
    from kleval.cli.shows import RunShow
    from kleval.cli.verify_first import verdicts
    from kleval.cli.watch import watched
    from kleval.harness import run as harness_run
    from kleval.harness.replicas import replicas
    from kleval.tasks.own.metric import with_metric
    from kleval.tasks.registry import loader
    from kleval.work.executors import find_launcher

    spec = make_spec(command, given)
    settings = {name: given[name] for name in ENGINE_SETTINGS}
    served = given["base_url"] is not None or spec.backend == "openai"
    launcher = find_launcher(spec.executor, spec.devices, spec.ray_address, spec.gpus_per_model, spec.device, served)
    if spec.devices:
        settings["device"] = spec.devices[0]  # for what this process does with a model itself
    if given["verify"] and not spec.dry_run and spec.out is not None:
        engines = [
            BackendSpec(model=name, backend=spec.backend, base_url=given["base_url"], **settings)
            for name in spec.models
        ]
        spec = replace(spec, verified=verdicts(engines, spec.out))

    def backend(name: str) -> Backend:
        if launcher is not None and not spec.dry_run:
            opening = partial(open_on, {**settings, "backend": spec.backend})
            return replicas(launcher, opening, name, (lambda text: None) if quiet else note)
        return open_backend(name, backend=spec.backend, base_url=given["base_url"], **settings)

    def judge(name: str) -> Backend:
        # The judge has an engine of its own; what the model's engine is configured by is not for it.
        shared = {key: settings[key] for key in ("device", "dtype", "concurrency", "request_timeout", "timeout")}
        if url := given["judge_base_url"]:
            # It is sent messages, as text: no tokenizer of its own is needed.
            shared |= {"base_url": url, "api": "chat", "tokenizer": "words"}
        return open_backend(name, backend=given["judge_backend"] or "auto", **shared)

    load = with_metric(loader(spec.tasks, spec.edition, spec.protocol, spec.haystack or spec.data_dir), spec.metric)
    return watched(
        lambda watch: harness_run(spec, backend, load, watch, open_judge=judge), spec, RunShow(spec), as_json, quiet
    )


def make_spec(command: click.Context, given: dict[str, Any]) -> RunSpec:
    """The run that a command line asks for, every default filled in. UsageError for what cannot be."""
    from kleval.harness.shards import named
    from kleval.harness.spec import RunSpec
    from kleval.store.machine import usable_cores
    from kleval.tasks.registry import OWN, TAKE_DOCUMENTS, expand, groups, themselves

    if given["shard"] is not None:
        given["shard"] = named(given["shard"], os.environ)
        if given["out"] is None and not given["dry_run"]:
            raise UsageError(
                "--shard needs --out DIR: each shard has a directory of its own, where it goes on when it is run again"
            )
    line = shlex.join(["kleval", *map(options.without_secrets, command.obj or [])])
    sources = {name: command.get_parameter_source(name) for name in given}
    kept = {name: _kept(given[name]) for name, source in sources.items() if source is not ParameterSource.DEFAULT}
    found, wanted, ctx = asked_tasks(command, given)
    suite, limit = (found.name, found.limit) if found else (None, None)
    temperature = found.temperature if found and given["temperature"] is None else given["temperature"]
    if given["edition"] == OWN:
        raise UsageError("edition own is of documents of your own: name them with --haystack FILE")
    if given["haystack"] is not None:
        if not given["haystack"].expanduser().exists():
            raise UsageError(f"--haystack: there is no file or folder {given['haystack']}")
        if given["edition"] == "official" or _typed(command, "edition"):
            raise UsageError("--haystack has an edition of its own: leave out --edition")
        given["edition"] = OWN
        wanted = tuple(task for task in expand(wanted) if task in TAKE_DOCUMENTS) if suite else wanted
    return RunSpec(
        models=options.names(given["model"]),
        tasks=tuple(expand(wanted, given["edition"])),
        named=() if suite else themselves(wanted),
        groups=groups(wanted, given["edition"]),
        ctxs=parse_lengths(ctx),
        ctxs_given=command.get_parameter_source("ctx") is not ParameterSource.DEFAULT,
        out=given["out"] or (None if given["dry_run"] else run_directory(line)),
        shard=given["shard"],
        limit=given["limit"] or limit or DEFAULT_LIMIT,
        temperature=temperature,
        sample_cache=options.cache_folder(given["sample_cache"]),
        workers=usable_cores() // 4 if given["workers"] is None else given["workers"],
        suite=suite,
        command=line,
        options=kept,
        **options.as_given(given, *AS_GIVEN),
    )


def asked_tasks(command: click.Context, given: dict[str, Any]) -> tuple[Suite | None, tuple[str, ...], str]:
    """What a command with --suite, --tasks, --edition and --ctx asks: the suite, None where tasks are named, the names, and the
    lengths. `given` gets the suite's edition. UsageError for what does not go together."""
    if given["suite"] is not None and given["tasks"] is not None:
        if _typed(command, "suite") == _typed(command, "tasks"):
            raise UsageError("give --suite or --tasks, not both")
        given["suite" if _typed(command, "tasks") else "tasks"] = None
    if given["tasks"] is not None:
        return None, options.names(given["tasks"]), given["ctx"]
    from kleval.suites import suite as find_suite

    found = find_suite(DEFAULT_SUITE if given["suite"] is None else given["suite"])
    if found.edition is not None:
        if _typed(command, "edition") and given["edition"] != found.edition:
            raise UsageError(f"suite {found.name} is of the {found.edition} edition: leave out --edition")
        given["edition"] = found.edition
    is_default = command.get_parameter_source("ctx") is ParameterSource.DEFAULT
    return found, found.tasks, (found.lengths(given["edition"]) or given["ctx"]) if is_default else given["ctx"]


def _kept(value: Any) -> Any:
    """An option's value as JSON, without secrets."""
    if isinstance(value, Mapping):
        hidden = without_secrets(value)
        return {name: hidden[name] if hidden[name] == "***" else part for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_kept(part) for part in value]
    return options.without_secrets(str(value)) if isinstance(value, str | Path) else value


def _typed(command: click.Context, name: str) -> bool:
    """Whether the option stands on the command line; one that does overrides a variable of the other."""
    return command.get_parameter_source(name) is ParameterSource.COMMANDLINE
