"""Rows of a task without a model: what `kleval generate` writes.

Rows hold the official generator's fields (`index, input, outputs, length, length_w_model_temp, answer_prefix`, and for
needle tasks `token_position_answer`) and where the row comes from. Two differ on purpose: `index` counts samples (the
official needle script overwrites it with a character offset), and `input` is what the model sees before the answer
prefix, chat template included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kleval.types import ContextTooSmall, Sample, Task, Tokenizer, Unfit


def rows(
    task: Task, tokenizer: Tokenizer, ctx: int, n: int, seed: int, samples: Iterable[Sample | Unfit] | None = None
) -> Iterator[dict[str, Any]]:
    """The first n samples that fit into ctx as dicts of JSON values. ContextTooSmall when none does.

    samples: these samples of the task, made already.
    """
    nearest: Unfit | None = None
    n_made = 0
    for sample in task.samples(tokenizer, ctx, n, seed) if samples is None else samples:
        if isinstance(sample, Unfit):
            if nearest is None or sample.minimum_tokens < nearest.minimum_tokens:
                nearest = sample
            continue
        n_made += 1
        shown = tokenizer.render(sample.prompt)
        length = sample.prompt_tokens + sample.max_new_tokens
        row: dict[str, Any] = {
            "index": sample.index,
            "input": shown,
            "outputs": list(sample.references),
            "length": length,
            "length_w_model_temp": length,
            "answer_prefix": sample.answer_prefix,
        }
        if getattr(task, "finds_needles", False):
            row["token_position_answer"] = tokenizer.count(shown[: shown.find(sample.references[0])])
        yield row | {
            "id": sample.id,
            "task": task.id,
            "ctx": ctx,
            "seed": seed,
            "max_new_tokens": sample.max_new_tokens,
            "prompt_tokens": sample.prompt_tokens,
            "prompt_hash": sample.prompt_hash,
            "tokenizer": tokenizer.name,
            "edition": task.edition,
            "protocol": task.protocol,
            "task_version": task.version,
            "data_revision": task.data_revision,
            "data_digest": task.data_digest,
            "meta": dict(sample.meta),
        }
    if not n_made and nearest is not None:
        raise ContextTooSmall(f"{task.id} has no sample that fits into {ctx}: {nearest.reason}", nearest.minimum_tokens)
