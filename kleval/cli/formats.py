"""Options that say in which formats weights and caches are counted where nothing is opened: --dtype, --weights, --kv."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kleval.cli import options

if TYPE_CHECKING:
    from kleval.profiler.memory import Formats

F = TypeVar("F", bound=Callable[..., Any])
SHORT = {"bf16": "bfloat16"}


def formats(variable: str) -> Callable[[F], F]:
    """The three options of a command. variable: what KLEVAL_ and the option's name have between them in its variables."""

    def one(name: str, choices: Sequence[str], said: str, **more: Any) -> Callable[[F], F]:
        envvar = f"KLEVAL_{variable}_{name.upper()}"
        return options.option(f"--{name}", type=click.Choice(choices), envvar=envvar, help=said, **more)

    weights = "Of the layers' matrices: bf16, fp8, int4, or mxfp4 for routed experts alone.  [default: --dtype]"
    kv = "Of keys, values and latent rows: bf16, fp8 or int4; recurrent states keep theirs.  [default: --dtype]"
    dtype = "Of weights, rows of attention and convolution tails; recurrent states are float32."
    made = (
        one("dtype", ["float32", "bfloat16", "float16"], dtype, default="bfloat16"),
        one("weights", [*SHORT, "fp8", "int4", "mxfp4"], weights, metavar="FORMAT"),
        one("kv", [*SHORT, "fp8", "int4"], kv, metavar="FORMAT"),
    )

    def decorate(command: F) -> F:
        for option in reversed(made):
            command = option(command)
        return command

    return decorate


def formats_of(dtype: str, weights: str | None, kv: str | None) -> Formats:
    """What the three options say together."""
    from kleval.profiler.memory import Formats

    return Formats(dtype, SHORT.get(weights or "", weights), SHORT.get(kv or "", kv))
