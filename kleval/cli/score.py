"""`kleval score DIR`: stored answers scored again, without asking."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import emit, note
from kleval.text import plural
from kleval.types import INCOMPLETE, OK


@click.command(short_help="Score stored answers again, without asking.")
@click.argument("directory", type=click.Path(path_type=Path))
@options.option(
    "--tasks",
    envvar="KLEVAL_SCORE_TASKS",
    metavar="FILES",
    help="Tasks of your own, ./my.py:Task: a file that the run named is run again only when it is named here.",
)
@options.option(
    "--metric",
    envvar="KLEVAL_SCORE_METRIC",
    metavar="FILE.py:F",
    help="A function of your own, f(answer, references); none: the tasks' own.  [default: as the run, a file when it is named here]",
)
@options.allow_code_execution
@options.json_output
@options.quiet
def score(
    directory: Path, tasks: str | None, metric: str | None, allow_code_execution: bool, as_json: bool, quiet: bool
) -> int:
    """Score the answers of a run again, after its metric, or a fault in its task's code, was mended.

    Nothing is asked: answers that failed stay failed, and a task whose prompts were changed is refused. The page and the
    table are written anew; what changed is in run.json.
    """
    from kleval.cli.shows import stored_show
    from kleval.cli.watch import write_files
    from kleval.harness.rescoring import rescore
    from kleval.store import RunStore
    from kleval.tasks.registry import load_task

    found = (load_task(name, "own") for name in options.names(tasks))
    done = rescore(
        directory,
        {task.id: task for task in found},
        metric,
        (lambda text: None) if quiet else note,
        allow_code_execution,
    )
    store = RunStore.open(directory)
    show = stored_show(store)
    if not as_json:
        show.print_results(store)
        click.echo()
    files = write_files(show, store)
    code = INCOMPLETE if done.faults else OK
    counts = done.counts
    if as_json:
        told = {name: str(path) for name, path in files.items()}
        emit(
            "done", exit_code=code, counts=counts, faults=done.faults, changes=done.changes, out=str(directory), **told
        )
    for text in done.changes:
        note(f"changed   {text}")
    for message in done.faults.values():
        note(message)
    left = f", {counts['left']} left as they are" if counts["left"] else ""
    note(f"scored {plural(counts['scored'], 'answer')} again, {counts['changed']} have another score{left}")
    for name, path in {"rows": directory, **files}.items():
        note(f"{name:<9} {path}")
    return code
