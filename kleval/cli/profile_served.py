"""The part of `kleval profile` that measures served models: its options and its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from kleval.cli import options
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.harness.under_load import Questions
    from kleval.profiler.served.spec import ServedSpec

F = TypeVar("F", bound=Callable[..., Any])
OF_TASKS = ("tasks", "edition", "protocol", "data_dir", "tokenizer")
OF_LOAD = ("reuse", "rate", "steady", "best_rate", "slo", "requests", *OF_TASKS)
OF_SERVERS = (
    "base_url",
    "engine_log",
    "api",
    "api_key_env",
    "served_name",
    "hardware",
    "concurrency",
    "request_timeout",
    *OF_LOAD,
)
OF_ENGINES = ("engine_args", "tp", "max_model_len", "trust_remote_code", "device", "dtype", "memory_budget")
OF_NATIVE = ("batch", "prefill", "chunk_tokens", "time_budget", "memory_budget", "device", "dtype")
OF_ADDRESSES = ("base_url", "api", "api_key_env", "served_name", "hardware")
# Backends in this process, and what they have no use for.
OF_IN_HOUSE: dict[str, tuple[str, ...]] = {"native": ("max_model_len",), "hf": ("max_model_len",), "vllm": ()}
ALIASES = {"engine_args": "--engine-arg"}
FEWEST_SAMPLES = 1  # of the spec that tasks are opened with; a round takes as many as it sends


def served_options(command: F) -> F:
    """The options of `profile` that are for served models."""
    for option in reversed(
        (
            options.option(
                "--backend",
                envvar="KLEVAL_PROFILE_BACKEND",
                default="auto",
                help="native; or what answers requests that are timed: openai (a server), vllm, hf, one of your own."
                " auto is openai with --base-url, hf for models that native has not.",
            ),
            options.option(
                "--base-url",
                envvar="KLEVAL_PROFILE_BASE_URL",
                metavar="URL",
                multiple=True,
                help="An OpenAI-compatible server, like http://localhost:8000/v1: measure the model that it serves; several"
                " are measured in turn, into one table.",
            ),
            options.option(
                "--concurrency",
                envvar="KLEVAL_PROFILE_CONCURRENCY",
                metavar="N,…",
                help="How many requests are sent together to a served model.  [default: 1, none under load]",
            ),
            options.option(
                "--reuse",
                envvar="KLEVAL_PROFILE_REUSE",
                metavar="SHARE,…",
                help="Prefix reuse of a served model: prompts of which so much was sent before, against new ones, like 0,0.5,1.",
            ),
            options.option(
                "--rate",
                envvar="KLEVAL_PROFILE_RATE",
                metavar="R,…",
                help="Load on a served model: so many requests per second, at random times (a Poisson process).",
            ),
            options.option(
                "--steady",
                envvar="KLEVAL_PROFILE_STEADY",
                metavar="N,…",
                help="Load on a served model: so many requests held under way.",
            ),
            options.option(
                "--slo",
                envvar="KLEVAL_PROFILE_SLO",
                metavar="LIMITS",
                help="What a request under load must keep to: ttft=2s,tpot=50ms (further: e2e=30s, share=95%).",
            ),
            options.option(
                "--best-rate",
                envvar="KLEVAL_PROFILE_BEST_RATE",
                is_flag=True,
                help="Find the highest rate at which 99 % of the requests (--slo share=…) keep to --slo.",
            ),
            options.option(
                "--requests",
                type=int,
                envvar="KLEVAL_PROFILE_REQUESTS",
                metavar="N",
                help="Requests counted in a round under load.  [default: 32, 4 per request held]",
            ),
            options.option(
                "--tasks",
                envvar="KLEVAL_PROFILE_TASKS",
                metavar="NAMES",
                help="Prompts of requests under load are samples of these tasks at each length, or of ./my.yaml, a file of your"
                " own, and their answers are scored; --ctx is then prompt and answer.",
            ),
            options.option(
                "--engine-log",
                envvar="KLEVAL_PROFILE_ENGINE_LOG",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="The log of the server (vLLM, llama.cpp), which says how much memory it allocated.",
            ),
            options.edition,
            options.protocol,
            options.data_dir,
            options.tokenizer,
            options.api,
            options.api_key_env,
            options.served_name,
            options.hardware,
            options.request_timeout,
            options.engine_args,
            options.tp,
            options.max_model_len,
            options.trust_remote_code,
        )
    ):
        command = option(command)
    return command


def served_backend(command: click.Context, given: Mapping[str, Any]) -> str | None:
    """The backend whose requests are timed; None for the profile of kleval's own decoders. UsageError for options that do not go
    with what is meant."""
    from kleval.backends.registry import find_opener

    url, backend = given["base_url"], given["backend"]
    if backend != "auto":
        find_opener(backend)
    elif url:
        backend = "openai"
    else:
        backend = "hf" if _is_foreign(given["model"]) else "native"
    if backend == "native" and url:
        raise UsageError("--base-url is for --backend openai, not native")

    def is_said(name: str) -> bool:
        return command.get_parameter_source(name) is ParameterSource.COMMANDLINE

    timed = backend != "native" or (given["backend"] == "native" and any(map(is_said, ("concurrency", *OF_LOAD))))
    if not timed:
        wrong = [name for name in (*OF_SERVERS, *OF_ENGINES) if name not in OF_NATIVE]
        what = "is for served models: add --backend openai --base-url URL, or --backend vllm"
    elif backend == "openai":
        wrong = [*OF_NATIVE, *(name for name in OF_ENGINES if name not in OF_NATIVE)]
        what = "is not for a model behind a server: it is the server's to decide"
    else:
        wrong = [name for name in OF_NATIVE if name not in OF_ENGINES]
        if backend in OF_IN_HOUSE:
            wrong += [*OF_ADDRESSES, *OF_IN_HOUSE[backend]]
        what = f"is not for --backend {backend}" + (", whose requests are timed" if backend == "native" else "")
    for name in () if given["tasks"] else OF_TASKS[1:]:
        if timed and is_said(name):
            raise UsageError(f"--{name.replace('_', '-')} is of tasks: add --tasks, whose samples are sent under load")
    for name in wrong:
        if is_said(name):
            raise UsageError(f"{ALIASES.get(name, '--' + name.replace('_', '-'))} {what}")
    return backend if timed else None


def _is_foreign(model: str | None) -> bool:
    """Whether one model is named, by folder or hub id, that kleval has no decoder for."""
    names = options.names(model)
    if len(names) != 1 or not ("/" in names[0] or Path(names[0]).expanduser().is_dir()):
        return False
    from kleval.models.registry import is_native

    return not is_native(names[0])


def make_served_spec(
    given: Mapping[str, Any], backend: str, ctxs: tuple[int, ...], out: Path | None, line: str
) -> ServedSpec:
    """UsageError for what cannot be asked."""
    from kleval.backends.spec import BackendSpec
    from kleval.profiler.served.spec import DECODE_TOKENS, REPEATS, ServedSpec

    models = options.names(given["model"])
    if len(models) != 1:
        raise UsageError(f"a served profile is of one model, not {len(models)}: name it with --model")
    loaded = bool(given["reuse"] or given["rate"] or given["steady"] or given["best_rate"])
    fields = [*([] if backend == "openai" else OF_ENGINES), *([] if backend in OF_IN_HOUSE else OF_ADDRESSES)]
    urls: tuple[str | None, ...] = given["base_url"] or (None,)
    tasks = options.names(given["tasks"])
    engine, *more = (
        BackendSpec(
            model=models[0],
            backend=backend,
            request_timeout=given["request_timeout"],
            tokenizer=given["tokenizer"],
            **options.as_given({**given, "base_url": url}, *fields),
        )
        for url in urls
    )
    spec = ServedSpec(
        engine=engine,
        more=tuple(more),
        ctxs=ctxs,
        concurrencies=()
        if given["concurrency"] is None and loaded
        else _whole(given["concurrency"] or "1", "concurrency"),
        reuse=numbers(given["reuse"], "reuse", "shares", "0,0.5,1"),
        rates=numbers(given["rate"], "rate", "requests per second", "0.5,2,8"),
        steady=_whole(given["steady"], "steady") if given["steady"] else (),
        slo=given["slo"] or "",
        decode_tokens=decode_tokens(given["decode_tokens"]) or DECODE_TOKENS,
        tasks=tasks,
        repeats=REPEATS if given["repeats"] is None else given["repeats"],
        out=out,
        command=line,
        **options.as_given(given, "seed", "append", "dry_run", "name", "tags", "best_rate", "requests", "engine_log"),
    )
    spec.check()
    return spec


def decode_tokens(text: str | None) -> int | str | None:
    """A number as one; what it is drawn from, and what is no number, as it stands."""
    return int(text) if text and text.isascii() and text.isdigit() else text


def make_questions(spec: ServedSpec, given: Mapping[str, Any]) -> Questions | None:
    """Of the tasks whose samples are sent. UsageError for what cannot be asked under load."""
    if not spec.tasks:
        return None
    from kleval.harness.spec import RunSpec
    from kleval.harness.under_load import Questions
    from kleval.tasks.registry import expand, loader, themselves

    tasks = tuple(expand(spec.tasks, given["edition"]))
    load = loader(tasks, given["edition"], given["protocol"], given["data_dir"])
    asked = RunSpec(
        models=(spec.engine.model,),
        tasks=tasks,
        named=themselves(spec.tasks),
        ctxs=spec.ctxs,
        limit=FEWEST_SAMPLES,
        tokenizer=spec.engine.tokenizer,
        out=spec.out,
        dry_run=spec.dry_run,
        **options.as_given(given, "edition", "protocol", "data_dir", "seed"),
    )
    return Questions(asked, load)


def _whole(text: str, name: str) -> tuple[int, ...]:
    return options.whole_numbers(text, name, name, "1,8,32")


def numbers(text: str | None, option: str, what: str, example: str) -> tuple[float, ...]:
    """UsageError for what is no list of numbers."""
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--{option} '{text}' is no list of {what}: write --{option} {example}") from None
