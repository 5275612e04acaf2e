"""Every Eval Ever 0.3.0: `data/kleval/DEVELOPER/MODEL/UUID.json` and its companion `UUID_samples.jsonl`.

After the package `every-eval-ever` 0.3.0 (`eval.schema.json`, `instance_level_eval.schema.json`, `validator/validation_core.py`): one
aggregate file per model and run, one result per task, length and metric, and per family's mean; one line per answer for the
headline metric, joined by `evaluation_result_id`. Scores are proportions. The schema has no score that is missing: what was
not scored is no result, an answer that failed is no line, and the counts, bounds and kinds of failure are in the details. The
UUID and all times come from the run, so that exporting twice writes the same files.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.report.export.shared import (
    Dataset,
    Export,
    answers,
    cells_of,
    coverage,
    dataset_of,
    failures_of,
    finished,
    json_line,
    number,
    prompt_text,
    samples_of,
    scored,
    title,
    write_lines,
)
from kleval.store import Row, RunStore
from kleval.tables.cells import Cell
from kleval.tables.intervals import CONFIDENCE
from kleval.tables.scores import Entrant
from kleval.types import UsageError

SCHEMA_VERSION = "0.3.0"
COLLECTION = "kleval"
SERVED = "openai"  # the backend that asks a server, whose deployment nobody here knows


@dataclass(frozen=True, slots=True)
class _Identity:
    """model: `developer/name`. evaluation: the id of this model's results in this run."""

    model: str
    evaluation: str
    folder: str
    stem: str


def write(runs: Sequence[RunStore], out: Path, datasets: Mapping[str, Dataset]) -> Export:
    """Two files per model and run. UsageError when no run has a score."""
    paths: list[Path] = []
    entrants, left_out = scored(runs)
    for entrant in entrants:
        who = _identity(entrant)
        results = [_result(entrant, cell, datasets) for cell in _scored(entrant)]
        if not results:
            left_out.append(f"{entrant.model} in {entrant.run.store.path}: nothing was scored")
            continue
        samples = out / who.folder / f"{who.stem}_samples.jsonl"
        digest = hashlib.sha256()
        count = write_lines(samples, _hashed(_lines(entrant, who), digest))
        record = _aggregate(entrant, who, results)
        if count:
            paths.append(samples)
            record["detailed_evaluation_results"] = {
                "format": "jsonl",
                "file_path": f"{who.folder}/{who.stem}_samples.jsonl",
                "hash_algorithm": "sha256",
                "checksum": digest.hexdigest(),
                "total_rows": count,
            }
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
        paths.append(write_text(out / who.folder / f"{who.stem}.json", text + "\n"))
    if not paths:
        raise UsageError(f"nothing to export: {'; '.join(left_out)}")
    return Export(tuple(paths), tuple(left_out))


def model_id(name: str) -> str:
    """`developer/name`: hub ids as they are, kleval's own models under kleval, a folder by its last part under local."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not {".", ".."} & {*name.split("/")}:
        return name
    word = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", Path(name).name).rstrip(". ") or "model"
    return f"{'kleval' if '@' in name else 'local'}/{word}"


def _identity(entrant: Entrant) -> _Identity:
    model = model_id(entrant.model)
    stamp = _epoch(entrant.run)
    facts = json.dumps([entrant.model, entrant.run.store.name, entrant.run.get("started"), entrant.run.get("settings")])
    seed = hashlib.sha256(facts.encode("utf-8", "surrogatepass")).digest()
    return _Identity(
        model,
        f"{COLLECTION}_{entrant.run.store.name}/{model}/{stamp}",
        f"data/{COLLECTION}/{model}",
        str(uuid.UUID(bytes=seed[:16], version=4)),
    )


def _aggregate(entrant: Entrant, who: _Identity, results: list[dict[str, Any]]) -> dict[str, Any]:
    run = entrant.run
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": who.evaluation,
        "evaluation_timestamp": str(int(datetime.fromisoformat(str(run.get("started"))).timestamp()))
        if run.get("started")
        else _epoch(run),
        "retrieved_timestamp": _epoch(run),
        "source_metadata": {
            "source_name": f"kleval run {run.id}",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "other",
            "additional_details": _strings(
                run_status=run.status,
                caveats=run.get("caveats") or None,
                seed=run.setting("seed"),
                judge=_judge(entrant),
            ),
        },
        "eval_library": {
            "name": "kleval",
            "version": str(run.get("kleval", "version", default="unknown")),
            "additional_details": _strings(commit=run.get("kleval", "commit")),
        },
        "model_info": _model(entrant, who),
        "evaluation_results": results,
    }


def _model(entrant: Entrant, who: _Identity) -> dict[str, Any]:
    backend = str(entrant.about.get("backend") or "unknown")
    described = entrant.about.get("describe") or {}
    own = who.model.startswith("kleval/")
    engine = {"name": f"kleval {backend}"}
    version = described.get(backend) or described.get("torch")
    return {
        "name": entrant.model,
        "id": who.model,
        "developer": who.model.partition("/")[0],
        "inference_engine": engine | ({"version": str(version)} if version else {}),
        "additional_details": {
            "deployment_type": "unknown" if backend == SERVED else "self_deployed",
            "model_availability": "open_weights" if own else "unknown",
            **_strings(
                dtype=described.get("dtype"),
                device=described.get("device"),
                weights_sha256=described.get("weights_sha256"),
                tokenizer_sha256=(entrant.about.get("tokenizer") or {}).get("digest"),
            ),
        },
    }


def _scored(entrant: Entrant) -> list[Cell]:
    return [c for c in (*cells_of(entrant), *entrant.averages.values()) if number(c.value) is not None]


def _result(entrant: Entrant, cell: Cell, datasets: Mapping[str, Dataset]) -> dict[str, Any]:
    average = (cell.task, cell.ctx) in entrant.averages
    return {
        "evaluation_result_id": _result_id(cell.task, cell.ctx, cell.metric),
        "evaluation_name": title(cell) + (coverage(cell) if average else ""),
        "source_data": _source(entrant, cell, None if average else dataset_of(entrant, cell.task, datasets)),
        "metric_config": {
            "metric_id": f"kleval.{cell.metric}",
            "metric_name": cell.metric,
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            "additional_details": _strings(protocol=cell.protocol, edition=cell.edition, headline=cell.headline),
        },
        "score_details": {
            "score": cell.value,
            "details": _strings(
                n=cell.n_total,
                n_scored=cell.n_scored,
                n_failed=cell.n_failed,
                n_skipped=cell.n_skipped,
                bound_low=cell.bound_low,
                bound_high=cell.bound_high,
                failures=failures_of(entrant, cell) or None,
                missing_tasks=list(cell.missing) or None,
            ),
            "uncertainty": {
                "confidence_interval": {
                    "lower": cell.ci_low,
                    "upper": cell.ci_high,
                    "confidence_level": CONFIDENCE,
                    "method": cell.ci_method,
                },
                "num_samples": cell.n_samples,
            },
        },
        "generation_config": {
            "generation_args": {"temperature": entrant.temperature if isinstance(entrant.temperature, float) else None},
            "additional_details": _strings(ctx=cell.ctx, repeats=entrant.run.setting("repeats")),
        },
    }


def _source(entrant: Entrant, cell: Cell, dataset: Dataset | None) -> dict[str, Any]:
    about = entrant.task(cell.task)
    details = _strings(
        edition=cell.edition,
        task_version=about.get("version"),
        data_revision=about.get("data_revision"),
        data_sha256=about.get("data_digest"),
    )
    name = cell.task if cell.edition == "official" else f"{cell.task} (kleval {cell.edition})"
    place = {"source_type": "other"} if dataset is None else {"source_type": "hf_dataset", "hf_repo": dataset.id}
    return {"dataset_name": name, **place, "additional_details": details}


def _lines(entrant: Entrant, who: _Identity) -> Iterator[bytes]:
    for (task, ctx), samples in samples_of(entrant):
        name = title(entrant.cells[task, ctx])
        for rows in samples:
            for row in rows:
                if row.failure is None and row.score is not None:
                    record = _instance(entrant, who, row, name, _result_id(task, ctx, row.metric))
                    yield json_line(record)


def _instance(entrant: Entrant, who: _Identity, row: Row, name: str, result_id: str) -> dict[str, Any]:
    prompt = prompt_text(entrant.run.store, row)
    given = answers(row)
    choices = [str(o["continuation"]) for o in given if o.get("kind") == "loglikelihood"]
    texts = [] if choices else [str(outcome.get("text", "")) for outcome in given]
    extracted = _text(row.extracted)
    read = sum(int(outcome.get("prompt_tokens") or 0) for outcome in given)
    written = sum(int(outcome.get("output_tokens") or 0) for outcome in given)
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": who.evaluation,
        "model_id": who.model,
        "evaluation_name": name,
        "evaluation_result_id": result_id,
        "sample_id": row.id,
        "sample_hash": hashlib.sha256((prompt + "".join(row.references)).encode("utf-8", "surrogatepass")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": prompt, "reference": list(row.references), "choices": choices or None},
        "output": {"raw": texts or [extracted]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": extracted,
                "extraction_method": row.protocol,
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": row.score, "is_correct": row.score == 1.0},
        "token_usage": {"input_tokens": read, "output_tokens": written, "total_tokens": read + written},
        "performance": {"latency_ms": row.seconds * 1000},
        "metadata": _strings(
            repeat=row.repeat,
            ctx=row.ctx,
            edition=row.edition,
            protocol=row.protocol,
            metrics={name: value for name, value in row.metrics.items() if value is not None},
        ),
    }


def _hashed(lines: Iterator[bytes], digest: Any) -> Iterator[bytes]:
    for line in lines:
        digest.update(line)
        yield line


def _result_id(task: str, ctx: int, metric: str) -> str:
    return f"{task}@{ctx}#{metric}"


def _epoch(run: Any) -> str:
    return str(int(finished(run).timestamp()))


def _judge(entrant: Entrant) -> str | None:
    judge = entrant.run.get("judge")
    return str(judge.get("name")) if isinstance(judge, Mapping) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _strings(**values: Any) -> dict[str, str]:
    """What is known, as the strings that the schema wants."""
    return {name: _text(value) for name, value in values.items() if value is not None}
