"""Shards of a run: the same command with `--shard i/n` on each of n machines asks for its part of the samples; `kleval merge` joins
them.

A shard is the plan of the whole run, filtered. Which samples a shard has follows from the plan alone: samples are not made for it, and
every machine comes to the same. Cells are dealt out the most work first (nominal: ctx tokens a sample), each to all shards in
turn, beginning with the shard that has least so far. Samples that belong together (`together` of a task: how many in a row, 0 for all
of a length) stay together, as do the repeats and requests of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.harness.parts import Part
from kleval.types import Task, UsageError

AUTO = "auto"
MOST = 10_000
_HELP = "write --shard 3/8 for the third of eight"


def parse(shard: str) -> tuple[int, int]:
    """`3/8` as (3, 8). UsageError for what is no shard."""
    number, slash, of = shard.partition("/")
    if not (slash and all(part.isascii() and part.isdigit() for part in (number, of))):
        raise UsageError(f"'{shard}' is no shard: {_HELP}, or --shard auto in an array of jobs")
    if len(of) > len(str(MOST)) or int(of) > MOST:
        raise UsageError(f"there are at most {MOST:,} shards: {_HELP}")
    if len(number) > len(of) or not 1 <= int(number) <= int(of):
        raise UsageError(f"there is no shard {shard}: {_HELP}")
    return int(number), int(of)


def named(given: str, environ: Mapping[str, str]) -> str:
    """A shard as it was asked for, as `i/n`.

    `auto` is this job's place in its SLURM array (SLURM_ARRAY_TASK_ID, _MIN, _STEP, _COUNT); `auto/n`, of n jobs that are numbered from
    0: JOB_COMPLETION_INDEX of Kubernetes or SLURM_ARRAY_TASK_ID. UsageError where the variables are not set.
    """
    auto, slash, of = given.partition("/")
    if auto != AUTO:
        number, n = parse(given)
        return f"{number}/{n}"
    task = _number(environ, "SLURM_ARRAY_TASK_ID")
    if slash:
        index = _number(environ, "JOB_COMPLETION_INDEX")
        place = task if index is None else index
        if place is None:
            raise UsageError(
                f"--shard {given} needs JOB_COMPLETION_INDEX (Kubernetes) or SLURM_ARRAY_TASK_ID, and neither is set: {_HELP}"
            )
        return "{}/{}".format(*parse(f"{place + 1}/{of}"))
    count = _number(environ, "SLURM_ARRAY_TASK_COUNT")
    if task is None or count is None:
        raise UsageError(
            "--shard auto needs SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, as in a job of sbatch --array, and they are not set:"
            f" {_HELP}, or --shard auto/8 in a Kubernetes Job of 8 completions"
        )
    first, step = _number(environ, "SLURM_ARRAY_TASK_MIN") or 0, _number(environ, "SLURM_ARRAY_TASK_STEP") or 1
    return "{}/{}".format(*parse(f"{(task - first) // step + 1}/{count}"))


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise UsageError(f"{name} is {text!r}, which is no number")
    return int(text) if text else None


def deal(shard: str, cells: Sequence[Any], tasks: Mapping[str, Task], n: int) -> tuple[dict[str, Part], list[int]]:
    """By the id of each planned cell the shard's part of its n samples; and how many samples each shard has, from the first on."""
    number, of = parse(shard)
    work, counts = [0] * of, [0] * of
    parts: dict[str, Part] = {}

    def block(cell: Any) -> int:
        return min(n, getattr(tasks[cell.task], "together", 1) or n)

    for cell in sorted(cells, key=lambda cell: (-block(cell) * cell.ctx, -cell.ctx, cell.model, cell.task)):
        hands = sorted(range(of), key=lambda hand: (work[hand], hand))
        for place, hand in enumerate(hands):
            part = Part(place, of, block(cell))
            got = len(part.positions(n))
            work[hand] += got * cell.ctx
            counts[hand] += got
            if hand == number - 1:
                parts[cell.id] = part
    return parts, counts
