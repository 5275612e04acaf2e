"""The options that mean the same in every command, each with its one variable, and how their values are read."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from kleval.cli import complete
from kleval.types import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", re.IGNORECASE | re.ASCII)

# What of a command line is not kept: user, password, query and fragment of an address, and engine arguments like hf_token=….
_ADDRESS = re.compile(r"(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)
_SETTING = re.compile(r"((?:--(?:engine-arg|request-field)=)?)\s*(-*\w[\w-]*)\s*=.+", re.DOTALL)


def option(*names: str, envvar: str | None = None, **kwargs: Any) -> Callable[[F], F]:
    """click.option with the variable KLEVAL_<LONGEST NAME>; envvar is for options whose meaning is one command's own."""
    longest = max((name for name in names if name.startswith("--")), key=len).split("/")[0]
    return click.option(
        *names, envvar=envvar or "KLEVAL_" + longest[2:].replace("-", "_").upper(), **{"show_default": True, **kwargs}
    )


def names(text: str | None) -> tuple[str, ...]:
    """A comma list without blanks and repeats, order kept."""
    return tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))


def as_given(given: Mapping[str, Any], *wanted: str) -> dict[str, Any]:
    """Those of a command's options that a Spec calls the same."""
    return {name: given[name] for name in wanted}


def device_list(text: str | None) -> tuple[str, ...]:
    """`cuda:0,cuda:1`; one that is named twice is there twice."""
    found = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text and not found:
        raise UsageError(f"--devices {text}: no device is named, write --devices cuda:0,cuda:1")
    return found


def whole_numbers(text: str, what: str, name: str, example: str) -> tuple[int, ...]:
    """`16,32`, each once. UsageError for anything else. what: one of them is; name: of the option."""
    parts = names(text)
    for part in parts:
        if not (part.isascii() and part.isdigit() and int(part) > 0):
            raise UsageError(f"'{part}' is not a {what}: write numbers from 1, like --{name} {example}")
    if not parts:
        raise UsageError(f"no {name} given: write numbers from 1, like --{name} {example}")
    return tuple(dict.fromkeys(map(int, parts)))


def prices(text: str | None, option: str) -> tuple[float, ...] | None:
    """`0.5,1.5` or `0.5,1.5,0.1`. UsageError for anything else."""
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) not in (2, 3) or not all(0 <= price < float("inf") for price in found):
        raise UsageError(f"--{option} {text}: write IN,OUT or IN,OUT,CACHED, what a million tokens cost, like 0.5,1.5")
    return found


def parse_bytes(text: str) -> int:
    """`8GiB`, `500MB`, `1.5g`, `1073741824` in bytes. `k, m, g, t` and `KiB…` are powers of 1024, `kB…` of 1000."""
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{text}' is not an amount of memory: write 8GiB, 500MB or a number of bytes")
    if match[2] is None:
        return int(float(match[1]))
    decimal = text.strip()[-1] in "bB" and not match[3]
    power = "kmgt".index(match[2].lower()) + 1
    return int(float(match[1]) * (1000 if decimal else 1024) ** power)


def memory(what: str) -> Callable[[F], F]:
    """--memory-budget. what: it is for."""
    read = lambda context, parameter, value: None if value is None else parse_bytes(value)  # noqa: E731
    return option("--memory-budget", callback=read, metavar="BYTES", help=what)


def named(command: F) -> F:
    """--name and --tag of a command that leaves a run directory."""
    name = option("--name", default="", show_default=False, metavar="TEXT", help="What tables and pages call the run.")
    tag = option(
        "--tag",
        "tags",
        multiple=True,
        callback=lambda context, parameter, values: tags(values),
        metavar="KEY=VALUE",
        help="What tells the run from others, as often as needed, like engine=0.33: pages show trends over it.",
    )
    return name(tag(command))


def out(place: str, envvar: str | None = None) -> Callable[[F], F]:
    """--out of a command that its directory continues. place: of a new one."""
    said = f"The run directory; the same command continues it.  [default: where this command stopped, else {place}]"
    given = option("--out", envvar=envvar, type=click.Path(path_type=Path), metavar="DIR", help=said)
    return lambda command: given(uploading(command))


def uploading(command: F) -> F:
    """A command that writes into --out: of a remote address the directory on this machine, which is uploaded when it ends. The
    address is tried once all options are read."""

    @functools.wraps(command)
    def working(*arguments: Any, out: Path | None, **given: Any) -> Any:
        if out is None or click.get_current_context().invoked_subcommand is not None:
            return command(*arguments, out=out, **given)
        from kleval.cli.console import note
        from kleval.store import remote

        with remote.uploading(out, bool(given.get("dry_run")), note) as folder:
            return command(*arguments, out=folder, **given)

    return working  # type: ignore[return-value]


class Number(click.FloatRange):
    """A range of numbers; `nan` and `inf`, which click takes for numbers, are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        return found if math.isfinite(found) else self.fail(f"{value!r} is no number to count with.", param, ctx)


class Place(click.Path):
    """A directory to read; a remote address is a copy of what lies there."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from kleval.store.remote import here

        return here(str(super().convert(value, param, ctx)))


PLACE = Place(path_type=Path)


model = option(
    "--model",
    default="kimi-linear",
    metavar="NAMES",
    shell_complete=complete.models,
    help="Models, comma-separated: NAME[@SIZE] or a directory of weights.",
)
edition = option(
    "--edition",
    default="builtin",
    shell_complete=complete.editions,
    help="Where a task's data come from: builtin or official.",
)
protocol = option(
    "--protocol", metavar="NAME", help="Prompt and scoring, where a task has several; several names by commas."
)
seed = option("--seed", type=int, default=42, help="Seed of the samples and of sampling.")
limit = option("--limit", type=click.IntRange(min=1), metavar="N", help="Samples per task and length.  [default: 10]")
tokenizer = option(
    "--tokenizer", metavar="SPEC", help="Count tokens with: words, tiktoken:NAME or hf:PATH.  [default: the model's]"
)
add_bos = option(
    "--add-bos",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    help="The begin token before a prompt: as the model's tokenizer has it, always, or never.",
)
template_args = option(
    "--template-arg",
    "template_args",
    multiple=True,
    callback=lambda context, parameter, values: json_pairs(values, "an argument of a chat template"),
    metavar="KEY=VALUE",
    help="A variable of the model's chat template, as often as needed, like enable_thinking=false; VALUE is JSON or text.",
)
data_dir = option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the official data files are.  [default: ~/.cache/kleval/data]",
)
sample_cache = option(
    "--sample-cache",
    metavar="DIR",
    help="Keep made samples here for other runs, or off.  [default: ~/.cache/kleval/samples]",
)
workers = option(
    "--workers",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that make samples ahead.  [default: a quarter of the processors]",
)
backend = option("--backend", default="auto", shell_complete=complete.backends, help="What runs the model.")
device = option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
executor = option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where the work is done: on this machine, or by actors on a Ray cluster.",
)
devices = option(
    "--devices",
    callback=lambda context, parameter, value: device_list(value),
    metavar="NAMES",
    help="One process for each, like cuda:0,cuda:1, that work side by side, instead of --device.",
)
ray_address = option(
    "--ray-address", metavar="HOST:PORT", help="Where the Ray cluster is.  [default: auto, the one of this machine]"
)
gpus_per_model = option(
    "--gpus-per-model",
    type=Number(min=0),
    metavar="N",
    help="GPUs of each actor on a Ray cluster.  [default: 1 where it has any]",
)
dtype = option("--dtype", default="auto", help="auto, float32, bfloat16 or float16.")
kernels = option(
    "--kernels",
    type=click.Choice(["native", "torch"]),
    callback=lambda context, parameter, value: choose_kernels(value) if value else None,
    expose_value=False,
    help="C++ or plain torch on a CPU.  [default: native where it can be built]",
)
batch = option("--batch", type=click.IntRange(min=1), metavar="N", help="Requests at a time.  [default: what fits]")
memory_budget = memory("Keep model state below this, like 8GiB.  [default: most of what is free]")
base_url = option("--base-url", metavar="URL", help="An OpenAI-compatible server, like http://localhost:8000/v1.")
api = option(
    "--api",
    type=click.Choice(["auto", "completions", "chat"]),
    default="auto",
    help="Which endpoint of the server is asked.",
)
hardware = option(
    "--hardware",
    metavar="TEXT",
    help="What the server runs on, like '8x H200': recorded, and compared when costs join scores.",
)
api_key_env = option(
    "--api-key-env",
    default="OPENAI_API_KEY",
    metavar="NAME",
    help="The variable that holds the server's key; the key itself is written nowhere.",
)
served_name = option(
    "--served-name",
    metavar="NAME",
    help="What the server calls the model in its answers or its list, where that is not --model (a gateway's alias).",
)
request_fields = option(
    "--request-field",
    "request_fields",
    multiple=True,
    callback=lambda context, parameter, values: pairs(values, "a field of a request", "-"),
    metavar="KEY=VALUE",
    help="Put into every request to the server, as often as needed; VALUE is JSON or text.",
)
without_fields = option(
    "--without-field", "without_fields", multiple=True, metavar="KEY", help="Left out of every request to the server."
)
request_timeout = option(
    "--request-timeout",
    type=Number(min=0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    help="How long one answer of a server may take.",
)
engine_args = option(
    "--engine-arg",
    "engine_args",
    multiple=True,
    callback=lambda context, parameter, values: pairs(values),
    metavar="KEY=VALUE",
    help="Handed to the backend, as often as needed: vLLM's engine arguments, prefill_tokens of native and hf.",
)
tp = option("--tp", type=click.IntRange(min=1), default=1, metavar="N", help="GPUs per model (vLLM).")
max_model_len = option(
    "--max-model-len",
    type=click.IntRange(min=1),
    metavar="N",
    help="Longest prompt + answer of the engine (vLLM).  [default: the engine's]",
)
trust_remote_code = option(
    "--trust-remote-code", is_flag=True, help="Run code that comes in a model's folder or repository (hf, vllm)."
)
allow_code_execution = option(
    "--allow-code-execution",
    is_flag=True,
    help="Let tasks run the code that a model writes, in a sandbox; see kleval ls tasks code --card.",
)
offline = option(
    "--offline",
    is_flag=True,
    callback=lambda context, parameter, value: go_offline() if value else None,
    expose_value=False,
    help="Use no network: only what was fetched before.",
)
verify = option(
    "--verify",
    is_flag=True,
    help="Try the laws of kleval verify first, for two minutes a model; the verdict is kept with the results.",
)
json_output = option("--json", "as_json", is_flag=True, help="Write JSON lines to stdout.")
dry_run = option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
quiet = option("-q", "--quiet", is_flag=True, help="Nothing on stderr but what went wrong or must be known.")


def go_offline() -> None:
    """For this process and those it starts: kleval's downloads and the Hugging Face packages heed the variables."""
    os.environ.update({"KLEVAL_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})


def choose_kernels(given: str) -> None:
    """For this process and those it starts."""
    from kleval.ops.native.loading import choose

    choose(given)


def pairs(values: Sequence[str], what: str = "an engine argument", dash: str = "_") -> dict[str, str]:
    """`key=value` texts as a mapping, dashes of the keys replaced. UsageError for anything else."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise UsageError(f"'{text}' is not {what}: write KEY=VALUE")
        found[key.strip().replace("-", dash)] = value
    return found


def tags(values: Sequence[str]) -> dict[str, str]:
    """`key=value` texts, each key once. UsageError for anything else; what a key may be is the run's to say."""
    found = [text.partition("=") for text in values]
    for text, (key, equals, _) in zip(values, found, strict=True):
        if not equals:
            raise UsageError(f"'{text}' is no tag: write KEY=VALUE, like --tag engine=0.33")
        if sum(other == key for other, _, _ in found) > 1:
            raise UsageError(f"--tag {key} is given twice: give it once")
    return {key: value for key, _, value in found}


def json_pairs(values: Sequence[str], what: str) -> dict[str, Any]:
    """`key=value` texts as a mapping, values read as JSON where they are some. UsageError for anything else."""
    if not values:
        return {}
    from kleval.backends.spec import json_or_text

    return {name: json_or_text(text) for name, text in pairs(values, what, "-").items()}


def cache_folder(given: str | None) -> Path | None:
    """Where samples are kept: what --sample-cache says, None for `off`."""
    from kleval.harness.sample_cache import default_folder

    if given == "off":
        return None
    return Path(given).expanduser() if given else default_folder()


def without_secrets(argument: str) -> str:
    """One argument of a command line, as it may be written down."""
    from kleval.backends.spec import SECRET_NAME

    setting = _SETTING.fullmatch(argument)
    if setting is not None and SECRET_NAME.fullmatch(setting[2]):
        return f"{setting[1]}{setting[2]}=***"
    return _ADDRESS.sub(r"\1\2", argument)
