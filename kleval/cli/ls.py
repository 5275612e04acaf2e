"""`kleval ls`: what there is to run, and what has been run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kleval.cli import complete, options
from kleval.cli.console import emit, note, table
from kleval.cli.main import Suggesting
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.paper import Row
    from kleval.types import Task

_FEW = 8  # tasks of a suite that fit on a line


@click.group(cls=Suggesting, short_help="List models, tasks, suites, backends or runs.")
def ls() -> None:
    """List what there is."""


@ls.command(short_help="Models, or one model's card.")
@click.argument("model", required=False, shell_complete=complete.one_shape)
@options.json_output
def models(model: str | None, as_json: bool) -> None:
    """List the models that have a name, with their sizes and state; or show one MODEL: a name, a directory, a config.json or a hub id.

    The state of a sequence is rows of attention, so many bytes per token, and a fixed part whatever its length; both in bfloat16. Of
    models that kleval has no decoder for (kimi-k3, qwen3.5, …) it shows the costs, beside Kimi Linear's.
    """
    from kleval.cli import ls_models
    from kleval.models.published import Shape
    from kleval.models.registry import MODELS, config_of, costs_of, resolve

    if model:
        name, shape = costs_of(model)
        if isinstance(shape, Shape):
            if as_json:
                emit("model", **ls_models.shape_record(name, shape))
            else:
                ls_models.show_shape(name, shape)
            return
    found = [(spec, config_of(spec)) for spec in ([resolve(model)] if model else MODELS.values())]
    if as_json:
        for spec, config in found:
            emit("model", **ls_models.record(spec, config))
    elif model:
        ls_models.show_card(*found[0])
    else:
        ls_models.show_table(found)


@ls.command(short_help="Tasks, or one task's card.")
@click.argument("task", required=False, shell_complete=complete.one_task)
@options.option("--card", is_flag=True, help="What a task asks, how it scores, and where its data come from.")
@options.option("--paper", is_flag=True, help="The Kimi Linear paper's benchmarks: their tasks, shots and scores.")
@options.edition
@options.protocol
@options.data_dir
@options.json_output
def tasks(
    task: str | None,
    card: bool,
    paper: bool,
    edition: str,
    protocol: str | None,
    data_dir: Path | None,
    as_json: bool,
) -> None:
    """List all tasks, those of one family, or one TASK."""
    from kleval.tasks.registry import all_tasks, expand, loader, make_task

    if paper:
        if task is not None or card:
            raise UsageError("--paper lists the paper's benchmarks, all of them: leave out TASK and --card")
        _paper(as_json)
        return
    found = expand([task], edition) if task else list(all_tasks())
    load = loader(found, edition, protocol, data_dir, make_task)
    whole = card or not as_json
    cards = [_listed(name, load, whole, may_be_broken=name != task) for name in found]
    if as_json:
        for record in cards:
            emit("task", **record)
    elif card:
        click.echo("\n\n".join("\n".join(_card_lines(record)) for record in cards))
    else:
        table(
            ("task", "metric", "needs", "description"),
            [
                (
                    c["id"],
                    c["metric"].partition(":")[0].partition(";")[0],
                    ", ".join(c.get("needs", ())),
                    c.get("description", ""),
                )
                for c in cards
            ],
        )


def _paper(as_json: bool) -> None:
    """The paper's tables, each with the tasks that ask its benchmarks."""
    from kleval import paper

    if as_json:
        for row in paper.ROWS:
            emit("benchmark", **row.record())
        return
    for number, what in paper.TABLES.items():
        found = paper.rows(number)
        click.echo(f"Table {number}: {what}; temperature {paper.TEMPERATURE:g}; scores: {' / '.join(found[0].scores)}")
        header = ("benchmark", "task", "shots", "metric", "answers", "scores", "note")
        table(header, [_paper_cells(row) for row in found])
        click.echo()
    click.echo(
        "shots: as kleval asks; * the paper does not state them, -> n it asks with n. answers: per sample (Avg@k)."
    )


def _paper_cells(row: Row) -> tuple[str, ...]:
    shots = "*" if row.paper_shots is None else "" if row.paper_shots == row.shots else f" -> {row.paper_shots}"
    scores = " / ".join("-" if score is None else f"{score:.1f}" for score in row.scores.values())
    names = " + ".join(row.tasks) + (f" --ctx {row.ctx}" if row.ctx else "")
    asked = f"{row.shots}{shots}" if row.tasks else ""
    return row.benchmark, names or "none", asked, row.metric, str(row.repeats), scores, row.note


def _listed(name: str, load: Callable[[str], Task], whole: bool, may_be_broken: bool) -> dict[str, Any]:
    """A task's card, or its id alone. Of another package's task that cannot be used: the reason, which is no error in a list."""
    from kleval.packages import broken, plugins
    from kleval.tasks.registry import GROUP, TASKS

    plugin = None if name in TASKS else plugins(GROUP).get(name)
    try:
        return _card(load(name)) if whole or plugin else {"id": name}
    except Exception as error:
        if plugin is None or not may_be_broken:
            raise
        said = str(error if isinstance(error, UsageError) else broken(plugin, error))
        return {"id": name, "broken": said} | ({"metric": "", "description": said} if whole else {})


def _card(task: Task) -> dict[str, Any]:
    """What a task says about itself; at least what every task has."""
    from kleval.tasks.cards import needs_of

    card: dict[str, Any] = task.card() if hasattr(task, "card") else {"description": getattr(task, "description", "")}
    fields = ("id", "version", "metric", "edition", "protocol", "data_revision", "data_digest")
    return {
        **{name: card[name] if name in card else getattr(task, name) for name in fields},
        **card,
        "needs": needs_of(task),
    }


def _card_lines(card: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in card.items():
        values = (value or ["none"]) if isinstance(value, list) else [value]
        lines += [f"{name if i == 0 else '':<15} {part}" for i, part in enumerate(values)]
    return lines


@ls.command(short_help="Suites: named lists of tasks.")
@options.json_output
def suites(as_json: bool) -> None:
    """List the suites and the tasks in each (of a long one how many; --json names them)."""
    from kleval.suites import SUITES

    rows = [
        {
            "suite": suite.name,
            "tasks": ",".join(suite.tasks) if as_json or len(suite.tasks) <= _FEW else f"{len(suite.tasks)} tasks",
            "limit": suite.limit or "",
            "edition": suite.edition or "",
            "ctx": suite.ctx or "",
            "official_ctx": suite.official_ctx or "",
            "temperature": "" if suite.temperature is None else suite.temperature,
            "description": suite.description,
        }
        for suite in SUITES.values()
    ]
    _show("suite", rows, as_json)


@ls.command(short_help="Backends: what can run a model.")
@options.json_output
def backends(as_json: bool) -> None:
    """List the backends, and which of them `kleval profile` can time."""
    from kleval.backends.registry import ABOUT, all_backends, is_timed

    rows = [
        {
            "backend": name,
            "timed": _timed(is_timed, name),
            "what": ABOUT[name] if name in ABOUT else _brought(name),
            "where": where,
        }
        for name, where in all_backends().items()
    ]
    _show("backend", rows, as_json)


def _brought(name: str) -> str:
    """The package that a backend is of, or why it cannot be used."""
    from kleval.backends.registry import GROUP, find_opener
    from kleval.packages import origin, plugins

    try:
        find_opener(name)
    except UsageError as error:
        return str(error)
    plugin = plugins(GROUP).get(name)
    return f"of {origin(plugin)}" if plugin else "of this process"


def _timed(is_timed: Callable[[str], bool | None], name: str) -> str:
    try:
        return {True: "yes", False: "no", None: "not told"}[is_timed(name)]
    except Exception:  # whatever another package raises when it is imported
        return "not known"


@ls.command(short_help="Runs in a directory.")
@click.argument("root", default="runs", type=click.Path(path_type=Path))
@options.json_output
def runs(root: Path, as_json: bool) -> None:
    """List the runs below ROOT (default: runs), oldest first."""
    from kleval.store import RunStore

    if not root.is_dir() and root != Path("runs"):
        raise UsageError(f"{root}: no such directory")
    rows = [_run(path) for path in RunStore.find_runs(root)]
    if not rows and not as_json:
        note(f"no runs in {root}")
        return
    if not as_json:
        unused = [name for name in ("name", "tags") if not any(row[name] for row in rows)]
        rows = [{name: value for name, value in row.items() if name not in unused} for row in rows]
    _show("run", rows, as_json)


def _run(path: Path) -> dict[str, Any]:
    from kleval.store import RunStore

    try:
        store = RunStore.open(path)
        status, manifest = str(store.status), store.manifest
        counts = manifest["counts"]
        if manifest.get("kind", "run") != "run":
            done = sum(not point.failed for point in store.points())
            counts = {**counts, "answered": done, "failed": counts.get("failed", 0)}
        elif status in ("running", "interrupted"):
            # A killed run had no time to count.
            answered = sum(len(cell) for cell in store.answered_by_cell().values())
            counts = {**counts, "answered": answered}
    except UsageError:
        status, manifest, counts = "damaged", {}, {}
    return {
        "run": str(path),
        "name": manifest.get("title", ""),
        "tags": " ".join(f"{key}={value}" for key, value in manifest.get("tags", {}).items()),
        "kind": manifest.get("kind", "run"),
        "status": status,
        "started": manifest.get("started", ""),
        "models": ",".join(manifest.get("models", ())),
        "tasks": len(manifest.get("tasks", ())),
        "planned": counts.get("planned", 0),
        "answered": counts.get("answered", 0),
        "failed": counts.get("failed", 0),
    }


def _show(record: str, rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        for row in rows:
            emit(record, **row)
    elif rows:
        table(list(rows[0]), [list(row.values()) for row in rows])
