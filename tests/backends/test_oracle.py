"""Whatever shape a server sends right answers in, they are scored right: builtin tasks through the whole harness, every score 1."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness_fakes import rows, spec
from oracle_server import SHAPES, serve_oracle

from kleval.backends.registry import open_backend
from kleval.backends.server_counts import text_of
from kleval.harness import run
from kleval.tasks.registry import expand, load_task, loader
from kleval.tokenization import load_tokenizer
from kleval.types import Sample, Task

FAMILIES = ("ruler", "mrcr", "helmet_icl", "longbench2", "frames", "lca")
TASKS = (*expand(FAMILIES), "lm_eval/triviaqa", "lm_eval/gsm8k", "lm_eval/bbh")
# One of each kind: a number, several, a text, a letter, a script, one that a stop string ends.
SOME = (
    *("ruler/niah_single_2", "ruler/vt", "mrcr/2needle", "helmet_icl/trec_coarse", "longbench2/mcq", "frames/oracle"),
    *("lca/lib", "lm_eval/triviaqa"),
)
ALL_OF = ("text", "chat", "one shard counted")
CTXS = (1024, 2048)
WITHOUT_PREFIX = ",".join(load_task(name).without_prefix for name in ("ruler/vt", "helmet_icl/trec_coarse"))  # type: ignore[attr-defined]


def right_answer(task: Any, sample: Sample) -> str:
    family = task.id.partition("/")[0]
    if family == "ruler":
        return " ".join(sample.references)
    if family == "frames":
        return f"Therefore, the answer is {sample.references[0]}."
    if family == "lm_eval":
        answer: str = task._benchmark.items[sample.index].answer
        return answer
    return sample.references[0]


@cache
def answers(protocol: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    load = loader(TASKS, protocol=protocol)
    for name in TASKS:
        task: Task = load(name)
        for ctx in CTXS:
            for sample in task.samples(load_tokenizer("words"), ctx, 1, 42):
                if isinstance(sample, Sample):
                    prompt = text_of(sample.prompt)
                    right = right_answer(task, sample)
                    # At a chat endpoint the prefix is a message of its own.
                    found[prompt + sample.answer_prefix] = found[f"{prompt}\n{sample.answer_prefix}"] = right
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_right_answers_are_right_in_every_shape(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    shape, tasks = SHAPES[name], TASKS if name in ALL_OF else SOME
    protocol = WITHOUT_PREFIX if shape.chat and shape.software != "vllm" else None
    asked = spec(
        tmp_path / "run", models=("oracle",), tasks=tasks, ctxs=CTXS, limit=1, protocol=protocol, tokenizer="words",
    )  # fmt: skip
    with serve_oracle(shape, answers(protocol)) as url:
        served = None if shape.model == "oracle" else shape.model
        result = run(
            asked,
            lambda model: open_backend(model, base_url=url, tokenizer="words", served_name=served),
            loader(tasks, protocol=protocol),
        )
    got = rows(tmp_path / "run")
    wrong = {row.id: (row.failure or row.score, row.outcomes[-1]) for row in got if row.score != pytest.approx(1.0)}
    assert not wrong
    assert (result.exit_code, len(got)) == (0, len(CTXS) * len(tasks) - sum(skip["n"] for skip in result.skips))
