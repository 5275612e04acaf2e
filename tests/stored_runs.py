"""Run directories of runs as fixtures, written by the real store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kleval.store import Row, RunStore
from kleval.types import prompt_hash

RULER = (
    *(f"ruler/niah_{kind}" for kind in ("single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3")),
    *(f"ruler/{name}" for name in ("niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2")),
)
FAILED = {"kind": "out_of_memory", "message": "needed 12.0 GiB, had 8.0 GiB"}
Answer = float | dict[str, str] | None  # a score, a failure, or no row at all


def write_run(
    path: Path,
    answer: Callable[[str, str, int, int], Answer] = lambda model, task, ctx, index: 1.0,
    models: Sequence[str] = ("one@nano", "two@nano"),
    tasks: Sequence[str] = ("ruler/vt", "ruler/cwe"),
    ctxs: Sequence[int] = (1024, 2048),
    n: int = 3,
    text: Callable[[str, str, int, int], str] = lambda model, task, ctx, index: "the answer is 42",
    prompt: Callable[[str, str, int, int], str] = lambda model, task, ctx, index: f"{task} at {ctx}, number {index}?",
    status: str = "complete",
    edition: str = "builtin",
    protocol: str = "nvidia-c3f5e3b",
    data_digest: str = "d" * 64,
    digests: Mapping[str, str] | None = None,
    seed: int = 42,
    skips: Sequence[dict[str, Any]] = (),
    errors: Sequence[dict[str, Any]] = (),
    repeats: int = 1,
    backend: str = "native",
    describe: Callable[[str], Mapping[str, Any]] = lambda model: {},
    finish: str = "eos",
    title: str = "",
    tags: Mapping[str, str] = {},
    groups: Mapping[str, Sequence[str]] = {},
    started: str = "2026-03-01T10:00:00+00:00",
    meta: Callable[[str, str, int, int], Mapping[str, Any]] = lambda model, task, ctx, index: {},
    metrics: Callable[[str, str, int, int], Mapping[str, float]] = lambda model, task, ctx, index: {},
) -> RunStore:
    """A finished run. answer(model, task, ctx, index) decides each row, describe(model) what the backend says besides; metrics: further
    ones of a row."""
    about = {
        "version": "1",
        "metric": "string_match_all",
        "edition": edition,
        "protocol": protocol,
        "data_revision": "builtin-1",
        "data_digest": data_digest,
    }
    of_task = {task: {**about, "data_digest": (digests or {}).get(task, data_digest)} for task in tasks}
    manifest = {
        "status": status,
        "started": started,
        "title": title,
        "tags": dict(tags),
        "finished": "2026-03-01T10:07:30+00:00",
        "kleval": {"version": "0.1.0", "commit": "c" * 40},
        "hardware": {
            "cpu": "Some CPU",
            "cores": 2,
            "memory_bytes": 8 << 30,
            "gpus": [],
            "platform": "Linux",
            "python": "3.11.9",
            "torch": "2.9.0",
        },
        "spec": {"limit": n, "repeats": repeats, "seed": seed, "temperature": None, "suite": "long", "command": "run"}
        | ({"groups": dict(groups)} if groups else {}),
        "settings": {"models": list(models), "tasks": list(tasks), "ctx": list(ctxs), "limit": n},
        "models": {
            name: {
                "name": name,
                "backend": backend,
                "tokenizer": {"name": name, "digest": "a" * 64, "chat_template_digest": ""},
                "describe": {"dtype": "float32", "device": "cpu", "weights_digest": "b" * 64, **describe(name)},
            }
            for name in models
        },
        "tasks": of_task,
        "generation": {"temperature": None, "top_p": None, "repeats": repeats},
        "seeds": {"seed": seed},
        "counts": {"planned": len(models) * len(tasks) * len(ctxs) * n * repeats},
        "skips": list(skips),
        "errors": list(errors),
    }
    with RunStore.create(path, manifest) as store:
        for model in models:
            for task in tasks:
                for ctx in ctxs:
                    for index in range(n):
                        found = answer(model, task, ctx, index)
                        if found is None:
                            continue
                        asked = prompt(model, task, ctx, index)
                        for repeat in range(repeats):
                            row = make_row(
                                model,
                                task,
                                ctx,
                                index,
                                repeat,
                                found,
                                asked,
                                of_task[task],
                                text(model, task, ctx, index),
                                finish,
                                meta(model, task, ctx, index),
                            )
                            more = metrics(model, task, ctx, index)
                            store.append(replace(row, metrics={**row.metrics, **more}), asked)
        return store


def make_row(
    model: str,
    task: str,
    ctx: int,
    index: int,
    repeat: int,
    answer: float | dict[str, str],
    asked: str,
    about: dict[str, str],
    text: str,
    finish: str,
    meta: Mapping[str, Any],
) -> Row:
    failure = answer if isinstance(answer, dict) else None
    score = None if isinstance(answer, dict) else float(answer)
    outcome: dict[str, Any] = {"kind": "generate", "max_new_tokens": 32, "temperature": 0.0, "attempts": 1}
    if failure:
        outcome["failure"] = failure
    else:
        outcome |= {
            "text": text,
            "prompt_tokens": ctx - 32,
            "output_tokens": 12,
            "finish_reason": finish,
            "seconds": 0.5,
        }
    return Row(
        model=model,
        id=f"{task}:{ctx}:{index}",
        task=task,
        ctx=ctx,
        index=index,
        repeat=repeat,
        edition=about["edition"],
        protocol=about["protocol"],
        task_version=about["version"],
        data_revision=about["data_revision"],
        data_digest=about["data_digest"],
        prompt_hash=prompt_hash(asked, " Answer:"),
        prompt_tokens=ctx - 32,
        max_new_tokens=32,
        references=("42",),
        metric=about["metric"],
        score=score,
        metrics={} if score is None else {about["metric"]: score},
        failure=failure,
        outcomes=(outcome,),
        answer_prefix=" Answer:",
        meta=dict(meta),
        seconds=0.5,
        finished="2026-03-01T10:00:01+00:00",
    )


def skip(task: str, ctx: int, model: str = "one@nano", n: int = 3, edition: str = "builtin") -> dict[str, Any]:
    return {
        "model": model,
        "task": task,
        "ctx": ctx,
        "edition": edition,
        "protocol": "nvidia-c3f5e3b",
        "metric": "string_match_all",
        "n": n,
        "reason": f"{task} needs 1,500 tokens",
        "minimum_tokens": 1500,
    }


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunStore]:
    """write_run in this test's folder; `name` is the run directory's."""

    def make(name: str = "run", **options: Any) -> RunStore:
        write_run(tmp_path / name, **options)
        return RunStore.open(tmp_path / name)

    return make


@pytest.fixture
def make_skip() -> Callable[..., dict[str, Any]]:
    return skip


@pytest.fixture
def ruler_tasks() -> tuple[str, ...]:
    return RULER


@pytest.fixture
def failed() -> dict[str, str]:
    return dict(FAILED)
