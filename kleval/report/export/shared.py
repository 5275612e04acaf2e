"""Names, hub data sets, rows by sample, and files that are whole or not there: shared by the export formats."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from kleval.files import packaged, replacing
from kleval.store import Row, RunStore
from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant, Run, collect, expected_tasks
from kleval.types import UsageError

# Where on the hub the data of an official edition are, by task or family; of lm-eval's tasks the rows themselves name it.
HUB_DATASETS: dict[str, str] = packaged("tasks/assets.toml")["hub"]
# The name of a benchmark in its data set's eval.yaml, where it is documented (huggingface_hub 1.x, EvalResultEntry).
TASK_IDS = {"Idavidrein/gpqa": "gpqa_diamond"}
_NOTED = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})\b.*hub's shape")  # how lm_eval/ tasks name their data
# Ends of lines to Python's splitlines, though not to JSON: who reads a file by it needs them escaped.
_LINE_ENDS = str.maketrans({end: f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")


@dataclass(frozen=True, slots=True)
class Dataset:
    """On the Hugging Face hub. task_id: as its eval.yaml names the benchmark; revision: a commit, where known."""

    id: str
    task_id: str = "default"
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """paths: files written. left_out: what the format could not take, a sentence each."""

    paths: tuple[Path, ...]
    left_out: tuple[str, ...] = ()


def parse_dataset(text: str) -> tuple[str, Dataset]:
    """`TASK=ORG/NAME[:TASK_ID]`. UsageError for anything else."""
    match = re.fullmatch(r"([\w./:+-]+)=([\w.-]+/[\w.-]+)(?::([\w.-]+))?", text.strip())
    if match is None:
        raise UsageError(f"--dataset {text!r}: write TASK=ORG/NAME or TASK=ORG/NAME:TASK_ID")
    return match[1], Dataset(match[2], match[3] or TASK_IDS.get(match[2], "default"))


def dataset_of(entrant: Entrant, task: str, given: Mapping[str, Dataset]) -> Dataset | None:
    """Where the data of an official task are on the hub; None where that is not known, or for another edition."""
    about = entrant.task(task)
    if about.get("edition") != "official":
        return None
    revision = str(about.get("data_revision") or "")
    commit = found[0] if (found := _COMMIT.search(revision)) else None
    chosen = given.get(task) or given.get(task.partition("/")[0])
    if chosen is not None:
        return Dataset(chosen.id, chosen.task_id, commit)
    noted = _NOTED.search(revision)
    plain = task.partition(":")[0]  # without lm-eval's number of examples
    name = noted[1] if noted else HUB_DATASETS.get(plain) or HUB_DATASETS.get(plain.partition("/")[0])
    return None if name is None else Dataset(name, TASK_IDS.get(name, "default"), commit)


def scored(runs: Sequence[RunStore]) -> tuple[list[Entrant], list[str]]:
    """Models with scores in [0, 1], and a sentence on each that has gains alone: no format has a place for these. UsageError where
    all have."""
    entrants = collect(runs)
    kept = [e for e in entrants if e.cells or not e.gains]
    left_out = [f"{e.model} in {e.run.store.path} has gains, which are no scores" for e in entrants if e not in kept]
    if not kept:
        raise UsageError(f"nothing to export: {'; '.join(left_out)}")
    return kept, left_out


def names_of(entrant: Entrant) -> dict[tuple[str, int], str]:
    """(task, ctx) -> a word that names it: lm-eval's own name for its tasks at one length, else with the length, and with the
    edition where it is not the official one."""
    names = {}
    for (task, ctx), cell in entrant.cells.items():
        family, _, name = task.partition("/")
        official = cell.edition == "official"
        lengths = sum(other == task for other, _ in entrant.cells)
        own = family == "lm_eval" and official
        parts = [
            name if own else task,
            "" if own and lengths == 1 else str(ctx),
            "" if official else f"kleval_{cell.edition}",
        ]
        names[task, ctx] = re.sub(r"[^\w.+-]+", "_", "_".join(part for part in parts if part))
    return names


def title(cell: Cell) -> str:
    """A task at a length for people."""
    return f"{cell.task} @ {cell.ctx}" + ("" if cell.edition == "official" else f" (kleval {cell.edition})")


def coverage(cell: Cell) -> str:
    """Which part of a family a mean is over, to be put behind its title."""
    expected = expected_tasks(cell.task, cell)
    return (
        f", mean of {cell.n_tasks} tasks" if cell.n_tasks >= expected else f", {cell.n_tasks} of {expected} tasks only"
    )


def cells_of(entrant: Entrant) -> list[Cell]:
    """All of an entrant's cells: headline metrics and others, without averages over families."""
    order = {task: i for i, task in enumerate(entrant.run.get("tasks", default={}))}
    cells = [*entrant.cells.values(), *entrant.others]
    return sorted(cells, key=lambda c: (order.get(c.task, len(order)), c.task, c.ctx, not c.headline, c.metric))


def samples_of(entrant: Entrant) -> Iterator[tuple[tuple[str, int], Iterator[list[Row]]]]:
    """(task, ctx) -> its samples one after the other, each with the rows of its repeats. Read from disk as they are asked for."""
    own = (row for row in entrant.run.store.rows() if row.model == entrant.model)
    for place, rows in groupby(own, key=lambda row: (row.task, row.ctx)):
        yield place, (list(repeats) for _, repeats in groupby(rows, key=lambda row: row.id))


def failures_of(entrant: Entrant, cell: Cell) -> list[dict[str, Any]]:
    """{kind, message, n} of the answers that a cell lacks."""
    place = (cell.task, cell.ctx)
    counted = [(kind, message, places.count(place)) for (kind, message), places in entrant.failures.items()]
    return [{"kind": kind, "message": message, "n": n} for kind, message, n in counted if n]


def mean_of(rows: Sequence[Row], metric: str) -> float | None:
    """Of a sample's repeats, those that have a value."""
    values = [row.metrics.get(metric) if metric != row.metric else row.score for row in rows]
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def prompt_text(store: RunStore, row: Row) -> str:
    """A prompt with its answer prefix as one text; messages as lines `role: content`. UsageError when it is not in the run."""
    prompt = store.read_prompt(row)
    text = prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)
    return text + row.answer_prefix


def answers(row: Row) -> list[Mapping[str, Any]]:
    """The outcomes that the model itself gave, without a judge's."""
    return [outcome for outcome in row.outcomes if outcome.get("kind") != "judge"]


def finished(run: Run) -> datetime:
    """When a run ended, else began; its files are dated by it, so that exporting twice writes the same."""
    return datetime.fromisoformat(str(run.get("finished") or run.get("started") or "1970-01-01T00:00:00+00:00"))


def file_word(name: str) -> str:
    """A model's name as one folder, as lm-eval 0.4.13 writes it (`sanitize_model_name`); a path by its last part."""
    name = Path(name).name if Path(name).is_absolute() else name
    word = re.sub(r'["<>:/|\\?*\[\]\x00-\x1f]+', "__", name)
    return word if word.strip(". ") else "model"


def number(value: float) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


def json_line(record: Mapping[str, Any]) -> bytes:
    """As UTF-8 with its line end; what has no code point there (half of a pair) is a question mark."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, default=str).translate(_LINE_ENDS)
    return text.encode("utf-8", "replace") + b"\n"


def write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Put lines at path, one at a time in memory; readers see all of them or none. Returns how many; no file for none.

    UsageError when that is not possible.
    """
    count, lines = 0, iter(lines)
    first = next(lines, None)
    if first is None:
        return 0
    try:
        with replacing(path) as file:
            for count, line in enumerate(chain([first], lines), 1):  # noqa: B007 - how many is the answer
                file.buffer.write(line)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; free space or give another --out") from error
    return count
