"""`kleval generate TASK`: the rows of a task or family at given lengths, as JSON lines, without any model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from kleval.cli import complete, options
from kleval.lengths import parse_lengths
from kleval.text import format_length
from kleval.types import ContextTooSmall, Sample, Unfit

DEFAULT_LIMIT = 10


@click.command(short_help="Write a task's rows without running a model.")
@click.argument("task", shell_complete=complete.one_task)
@options.edition
@options.protocol
@options.option("--ctx", default="4k", metavar="LENGTHS", help="Lengths: 4k or 1k,2k,4k.")
@options.tokenizer
@options.option("--model", metavar="NAME", help="Whose tokenizer counts, if none is given.  [default: kimi-linear]")
@options.add_bos
@options.template_args
@options.limit
@options.seed
@options.data_dir
@options.sample_cache
@options.option(
    "--workers",
    envvar="KLEVAL_GENERATE_WORKERS",
    type=click.IntRange(min=0),
    metavar="N",
    help="Processes that make samples of several tasks or lengths.  [default: all processors]",
)
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
    add_bos: str,
    template_args: dict[str, Any],
    limit: int | None,
    seed: int,
    data_dir: Path | None,
    sample_cache: str | None,
    workers: int | None,
    out: Path | None,
) -> None:
    """Write the rows of TASK, or of every task of a family, as JSON lines: input, answer_prefix, outputs, length and where
    they come from."""
    from kleval.cli.console import note
    from kleval.cli.progress import ProgressView
    from kleval.harness.makers import Cell, Makers
    from kleval.harness.sample_cache import SampleCache
    from kleval.store.machine import usable_cores
    from kleval.tasks.generate import rows
    from kleval.tasks.registry import expand, load_task
    from kleval.tokenization import asked_with, check_growth
    from kleval.work.progress import Meter

    lengths, n = parse_lengths(ctx), limit or DEFAULT_LIMIT
    tasks = [load_task(name, edition=edition, protocol=protocol, data_dir=data_dir) for name in expand([task])]
    count = asked_with(_tokenizer(tokenizer, model), add_bos, template_args)
    check_growth(count, max(lengths))
    cells = [Cell(one, count, length) for one in tasks for length in lengths]
    processes = usable_cores() if workers is None else workers
    cache = SampleCache(options.cache_folder(sample_cache))

    def lines() -> Iterator[dict[str, Any]]:
        meter = Meter([])
        meter.n_total = len(cells) * n
        meter.work_total = float(meter.n_total)
        # On a terminal only: elsewhere the rows themselves are what is seen.
        view = ProgressView("rows", quiet=not sys.stderr.isatty() or meter.n_total == 1)
        with Makers(cache, n, seed, processes if len(cells) > 1 else 0, data_dir) as makers, view:
            # One less than there are: this process makes the first itself.
            makers.prepare(cells[1:])
            for one in tasks:
                made, too_small = 0, list[ContextTooSmall]()
                for length in lengths:
                    passed_over: list[Unfit] = []
                    samples = _fitting(makers.samples(one, count, length), passed_over)
                    try:
                        for row in rows(one, count, length, n, seed, samples):
                            yield row
                            made += 1
                            meter.done(1.0, failed=False)
                            view.show(meter.progress(f"{one.id} at {format_length(length)}"))
                    except ContextTooSmall as error:
                        too_small.append(error)
                        continue
                    if passed_over:
                        some = "1 sample" if len(passed_over) == 1 else f"{len(passed_over)} samples"
                        note(f"{one.id} at {length}: {some} skipped, the first: {passed_over[0].reason}")
                if too_small and not made:
                    raise too_small[-1]
                for reason in too_small:
                    note(f"skipped: {reason}")

    if out is None:
        for row in lines():
            sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    written = _write(out, lines())
    first = tasks[0]
    click.echo(f"{out}: {written} rows of {task}, edition {first.edition}, protocol {first.protocol}", err=True)


def _fitting(samples: Iterable[Sample | Unfit], passed_over: list[Unfit]) -> Iterator[Sample | Unfit]:
    """The same, what does not fit noted."""
    for sample in samples:
        if isinstance(sample, Unfit):
            passed_over.append(sample)
        yield sample


def _tokenizer(spec: str | None, model: str | None) -> Any:
    if spec is not None:
        from kleval.tokenization import load_tokenizer

        return load_tokenizer(spec)
    from kleval.models.registry import load_model_tokenizer

    return load_model_tokenizer(model or "kimi-linear")


def _write(path: Path, rows: Iterator[dict[str, Any]]) -> int:
    """All rows or none: written beside the target and moved over it. Returns how many."""
    from kleval.files import replacing

    written = 0
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            written += 1
    return written
