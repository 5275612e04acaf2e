"""Results and samples as lm-eval 0.4.13 writes them: `MODEL/results_DATE.json` and `MODEL/samples_TASK_DATE.jsonl`.

After its `loggers/evaluation_tracker.py` and `result_schema.py`: metrics are `NAME,FILTER`, with `NAME_stderr,FILTER` the standard
error of a mean over samples; a sample has one line per filter. A task is a task at one length; families with a mean are groups.
What lm-eval has no place for, intervals, failures, edition, protocol and data, is under the key `kleval`, by task. Samples without
an answer have no line, since every line counts in a mean; they are listed there too.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.report.export.lm_eval_samples import Facts, sha256
from kleval.report.export.shared import (
    Dataset,
    Export,
    cells_of,
    coverage,
    dataset_of,
    failures_of,
    file_word,
    finished,
    json_line,
    names_of,
    number,
    samples_of,
    scored,
    title,
    write_lines,
)
from kleval.store import RunStore
from kleval.tables.cells import Cell
from kleval.tables.scores import Entrant, expected_tasks, members

Place = tuple[str, int]


def write(runs: Sequence[RunStore], out: Path, datasets: Mapping[str, Dataset]) -> Export:
    """One results file per model and run, and one of samples per task and length."""
    paths: list[Path] = []
    entrants, left_out = scored(runs)
    for entrant in entrants:
        folder = out / file_word(entrant.model)
        date = _free_date(folder, finished(entrant.run), paths)
        names = names_of(entrant)
        facts: dict[Place, Facts] = {}
        for place, samples in samples_of(entrant):
            fact = facts[place] = Facts()
            path = folder / f"samples_{names[place]}_{date}.jsonl"
            if write_lines(path, (json_line(line) for rows in samples for line in fact.take(entrant, rows))):
                paths.append(path)
        results = _results(entrant, names, facts, datasets)
        text = json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False, default=str)
        paths.append(write_text(folder / f"results_{date}.json", text + "\n"))
    return Export(tuple(paths), tuple(left_out))


def _results(
    entrant: Entrant, names: Mapping[Place, str], facts: Mapping[Place, Facts], datasets: Mapping[str, Dataset]
) -> dict[str, Any]:
    run = entrant.run
    results: dict[str, dict[str, Any]] = {}
    configs: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    for cell in cells_of(entrant):
        place, name = (cell.task, cell.ctx), names[cell.task, cell.ctx]
        fact = facts.get(place) or Facts()
        task = results.setdefault(name, {"name": name, "alias": title(cell), "sample_len": 0})
        key, of = _key(cell.metric)
        if (value := number(cell.value)) is not None:
            values = fact.values.get(cell.metric, [])
            task["sample_len"] = max(task["sample_len"], len(values))
            task[f"{key},{of}"] = value
            task[f"{key}_stderr,{of}"] = _standard_error(values)
        if name not in configs:
            configs[name] = _config(entrant, cell, name, fact, dataset_of(entrant, cell.task, datasets))
        if name not in ours:
            ours[name] = _ours(entrant, cell, fact)
        ours[name]["metrics"][cell.metric] = _interval(cell)
    groups = _groups(entrant, names, results, ours)
    tasks = list(configs)
    described = entrant.about.get("describe") or {}
    tokenizer = entrant.about.get("tokenizer") or {}
    return {
        "results": results | groups,
        **({"groups": groups} if groups else {}),
        "group_subtasks": {
            name: [names[p] for p in names if p in _members(entrant, cell)] for name, cell in _named(entrant)
        },
        "configs": configs,
        "versions": {name: configs[name]["metadata"]["version"] for name in tasks},
        "n-shot": {name: configs[name]["num_fewshot"] for name in tasks if configs[name]["num_fewshot"] is not None},
        "higher_is_better": {
            name: {key.partition(",")[0]: True for key in results[name] if "," in key and "_stderr," not in key}
            for name in tasks
        },
        "n-samples": {
            names[place]: {"original": fact.samples + cell.n_skipped, "effective": fact.samples}
            for place, cell in entrant.cells.items()
            for fact in (facts.get(place) or Facts(),)
        },
        "config": {
            "model": f"kleval-{entrant.about.get('backend')}",
            "model_args": {"pretrained": entrant.model},
            "model_num_parameters": described.get("parameters"),
            "model_dtype": described.get("dtype"),
            "model_sha": described.get("weights_sha256"),
            "device": described.get("device"),
            "limit": run.setting("limit"),
            "random_seed": run.setting("seed"),
        },
        "git_hash": run.get("kleval", "commit"),
        "date": _seconds(run.get("started")),
        "model_source": "kleval",
        "model_name": entrant.model,
        "model_name_sanitized": file_word(entrant.model),
        "chat_template_sha": tokenizer.get("chat_template_digest") or None,
        "task_hashes": {names[place]: sha256("".join(fact.hashes)) for place, fact in facts.items() if fact.hashes},
        "total_evaluation_time_seconds": str(
            (_seconds(run.get("finished")) or 0) - (_seconds(run.get("started")) or 0)
        ),
        "kleval": {
            "version": run.get("kleval", "version"),
            "run": run.title,
            "status": run.status,
            "caveats": run.get("caveats", default=[]),
            "tasks": ours,
        },
    }


def _config(entrant: Entrant, cell: Cell, name: str, fact: Facts, dataset: Dataset | None) -> dict[str, Any]:
    about = entrant.task(cell.task)
    return {
        "task": name,
        "task_alias": title(cell),
        "dataset_path": dataset.id if dataset else f"kleval-{cell.edition}",
        "output_type": "multiple_choice" if fact.likelihoods else "generate_until",
        "generation_kwargs": fact.limits,
        "num_fewshot": fact.shots,
        "repeats": entrant.run.setting("repeats") or 1,
        "metadata": {
            "version": about.get("version"),
            "edition": cell.edition,
            "protocol": cell.protocol,
            "ctx": cell.ctx,
        },
    }


def _ours(entrant: Entrant, cell: Cell, fact: Facts) -> dict[str, Any]:
    about = entrant.task(cell.task)
    return {
        "task": cell.task,
        "ctx": cell.ctx,
        "edition": cell.edition,
        "protocol": cell.protocol,
        "task_version": about.get("version"),
        "data_revision": about.get("data_revision"),
        "data_digest": about.get("data_digest"),
        "metrics": {},
        "failures": failures_of(entrant, cell),
        "unanswered": fact.unanswered,
    }


def _interval(cell: Cell) -> dict[str, Any]:
    return {
        "value": number(cell.value),
        "ci_low": number(cell.ci_low),
        "ci_high": number(cell.ci_high),
        "ci_method": cell.ci_method,
        "bound_low": number(cell.bound_low),
        "bound_high": number(cell.bound_high),
        "n": cell.n_total,
        "n_scored": cell.n_scored,
        "n_failed": cell.n_failed,
        "n_skipped": cell.n_skipped,
    }


def _named(entrant: Entrant) -> list[tuple[str, Cell]]:
    """Families' means by the name of their group."""
    return [
        (f"{cell.task}_{cell.ctx}" + ("" if cell.edition == "official" else f"_kleval_{cell.edition}"), cell)
        for cell in entrant.averages.values()
        if number(cell.value) is not None
    ]


def _members(entrant: Entrant, family: Cell) -> set[Place]:
    tasks = [task for task, ctx in entrant.cells if ctx == family.ctx]
    return {(task, family.ctx) for task in members(family.task, entrant, tasks)}


def _groups(
    entrant: Entrant, names: Mapping[Place, str], results: Mapping[str, Mapping[str, Any]], ours: dict[str, Any]
) -> dict[str, Any]:
    groups = {}
    for name, cell in _named(entrant):
        samples = sum(int(results[names[place]]["sample_len"]) for place in _members(entrant, cell))
        groups[name] = {
            "name": name,
            "alias": title(cell) + coverage(cell),
            "sample_len": samples,
            f"{cell.metric},none": cell.value,
            f"{cell.metric}_stderr,none": "N/A",
        }
        ours[name] = {
            "task": cell.task,
            "ctx": cell.ctx,
            "edition": cell.edition,
            "protocol": cell.protocol,
            "n_tasks": cell.n_tasks,
            "n_tasks_expected": expected_tasks(cell.task, cell),
            "missing": list(cell.missing),
            "metrics": {cell.metric: _interval(cell)},
        }
    return groups


def _free_date(folder: Path, at: datetime, taken: Sequence[Path]) -> str:
    """A time as lm-eval puts it into names; later by microseconds where another run of this export has it."""
    for microsecond in range(10**6):
        date = at.replace(microsecond=microsecond, tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
        if folder / f"results_{date}.json" not in taken:
            return date
    raise AssertionError("a million runs that ended in one second")


def _key(metric: str) -> tuple[str, str]:
    name, _, of = metric.partition(",")
    return name, of or "none"


def _standard_error(values: Sequence[float]) -> float | str:
    """Of a mean, as lm-eval computes it (n - 1); "N/A" where it writes that."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else "N/A"


def _seconds(stamp: Any) -> float | None:
    return datetime.fromisoformat(str(stamp)).timestamp() if stamp else None
