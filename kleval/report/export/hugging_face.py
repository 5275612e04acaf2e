"""`.eval_results/*.yaml`, as model repositories on the Hugging Face hub hold them: `MODEL/.eval_results/TASK_CTX.yaml`.

After huggingface.co/docs/hub/eval-results and `huggingface_hub.EvalResultEntry` (1.x): a list of `dataset` (id, task_id, revision),
`value`, `date`, `notes`. The hub shows such a value beside those of other models on the benchmark that the data set is, so
only official editions are written, the headline metric alone, in per cent; everything that a reader must know besides stands
in the notes. One file per task and length, as the hub wants variants of a benchmark apart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from kleval.files import write_text
from kleval.report.export.shared import (
    Dataset,
    Export,
    cells_of,
    dataset_of,
    failures_of,
    file_word,
    finished,
    names_of,
    number,
    scored,
)
from kleval.store import RunStore
from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant
from kleval.types import UsageError


def write(runs: Sequence[RunStore], out: Path, datasets: Mapping[str, Dataset]) -> Export:
    """One file per model, task and length. UsageError for an edition that is not the official one, before anything is written,
    for two runs that would write the same file, and when there is nothing to write."""
    entrants, without = scored(runs)
    for entrant in entrants:
        for cell in _headlines(entrant):
            if cell.edition != "official":
                raise UsageError(
                    f"{entrant.run.store.path}: {cell.task} is of the {cell.edition} edition, which is no benchmark's result and is "
                    "not exported to Hugging Face: run it with --edition official, or use --format lm-eval"
                )
    files: dict[Path, str] = {}
    left_out: dict[str, None] = dict.fromkeys(without)
    for entrant in entrants:
        names = names_of(entrant)
        for cell in _headlines(entrant):
            task, ctx = cell.task, cell.ctx
            dataset = dataset_of(entrant, task, datasets)
            if dataset is None:
                left_out[f"{task}: no data set on the hub is known for it; name it with --dataset {task}=ORG/NAME"] = (
                    None
                )
            elif number(cell.value) is None:
                left_out[f"{task} @ {ctx} of {entrant.model}: nothing was scored"] = None
            else:
                path = out / file_word(entrant.model) / ".eval_results" / f"{names[task, ctx]}.yaml"
                if path in files:
                    raise UsageError(f"{task} @ {ctx} of {entrant.model} is in two of the runs: export one of them")
                files[path] = entry(entrant, cell, dataset)
    if not files:
        raise UsageError(f"nothing to export to Hugging Face: {'; '.join(left_out)}")
    return Export(tuple(write_text(path, text) for path, text in files.items()), tuple(left_out))


def _headlines(entrant: Entrant) -> list[Cell]:
    return [cell for cell in cells_of(entrant) if cell.headline]


def entry(entrant: Entrant, cell: Cell, dataset: Dataset) -> str:
    """One result as YAML. Every scalar is written as in JSON, which is YAML."""
    lines = ["- dataset:", f"    id: {json.dumps(dataset.id)}", f"    task_id: {json.dumps(dataset.task_id)}"]
    if dataset.revision:
        lines.append(f"    revision: {json.dumps(dataset.revision)}")
    lines += [
        f"  value: {round(cell.value * 100, 2)}",
        f"  date: {json.dumps(finished(entrant.run).isoformat())}",
        f"  notes: {json.dumps(notes(entrant, cell), ensure_ascii=False)}",
    ]
    return "\n".join(lines) + "\n"


def notes(entrant: Entrant, cell: Cell) -> str:
    """What the value is of, in one line."""
    about = entrant.task(cell.task)
    parts = [
        f"kleval {entrant.run.get('kleval', 'version')} {cell.task}, {cell.metric} x 100",
        f"ctx {cell.ctx} tokens",
        f"protocol {cell.protocol}, task version {about.get('version')}",
        f"data {about.get('data_revision')} sha256:{str(about.get('data_digest'))[:16]}",
        f"n = {cell.n_scored} of {cell.n_total} answers",
        f"95 % interval {cell.ci_low * 100:.1f} to {cell.ci_high * 100:.1f} ({cell.ci_method})",
    ]
    if cell.n_failed:
        kinds = ", ".join(f"{failure['n']} {failure['kind']}" for failure in failures_of(entrant, cell))
        parts.append(
            f"{cell.n_failed} failed ({kinds}), between {cell.bound_low * 100:.1f} and {cell.bound_high * 100:.1f} with them"
        )
    if cell.n_skipped:
        parts.append(f"{cell.n_skipped} skipped: they do not fit into that length")
    if entrant.temperature is not None:
        parts.append(f"temperature {entrant.temperature}, {entrant.run.setting('repeats') or 1} answers per sample")
    if not entrant.run.complete:
        parts.append(f"the run is {entrant.run.status}")
    return "; ".join(parts)
