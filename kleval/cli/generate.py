"""`kleval generate TASK`: the rows of one task at given lengths, as JSON lines, without any model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from kleval.cli import options
from kleval.cli.lengths import parse_lengths
from kleval.types import UsageError


@click.command(short_help="Write a task's rows without running a model.")
@click.argument("task")
@options.edition
@options.protocol
@options.option("--ctx", default="4k", show_default=True, metavar="LENGTHS", help="Lengths: 4k or 1k,2k,4k.")
@options.tokenizer
@options.option("--model", metavar="NAME", help="Whose tokenizer counts, if none is given.  [default: kimi-linear]")
@options.limit
@options.seed
@options.data_dir
@options.option(
    "--out",
    envvar="KLEVAL_GENERATE_OUT",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write here, all or nothing.  [default: stdout]",
)
def generate(
    task: str,
    edition: str,
    protocol: str | None,
    ctx: str,
    tokenizer: str | None,
    model: str | None,
    limit: int | None,
    seed: int,
    data_dir: Path | None,
    out: Path | None,
) -> None:
    """Write the rows of TASK as JSON lines: input, answer_prefix, outputs, length and where they come from."""
    from kleval.tasks.generate import rows
    from kleval.tasks.registry import expand, load_task

    lengths = parse_lengths(ctx)
    found = expand([task])
    if len(found) != 1:
        raise UsageError(f"'{task}' is a family of {len(found)} tasks: name one, for example {found[0]}")
    loaded = load_task(found[0], edition=edition, protocol=protocol, data_dir=data_dir)
    count = _tokenizer(tokenizer, model)

    def lines() -> Iterator[dict[str, Any]]:
        for length in lengths:
            yield from rows(loaded, count, length, limit or 10, seed)

    if out is None:
        for row in lines():
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    written = _write(out, lines())
    click.echo(f"{out}: {written} rows of {found[0]}, edition {loaded.edition}, protocol {loaded.protocol}", err=True)


def _tokenizer(spec: str | None, model: str | None) -> Any:
    if spec is not None:
        from kleval.tokenization import load_tokenizer

        return load_tokenizer(spec)
    from kleval.models.registry import load_model_tokenizer

    return load_model_tokenizer(model or "kimi-linear")


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """All rows or none: written beside the target and moved over it. Returns how many."""
    from kleval.cli.files import replacing

    written = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written
