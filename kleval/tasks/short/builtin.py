"""The builtin edition: every benchmark of the short suites with a handful of items of our own (`items.toml`, `computed.toml`).

They show that a model, a backend and the scoring work, and how fast they are. They are easy, few and public: their scores
are no estimate of the benchmark's, and every row says `builtin`. Nothing of lm-eval is needed.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from functools import cache

from kleval.tasks.cards import Card
from kleval.tasks.registry import check_protocol
from kleval.tasks.short import answers, form
from kleval.tasks.short.form import NAMES
from kleval.tasks.short.question import Benchmark, Shape
from kleval.tasks.short.task import ShortTask
from kleval.types import Task, UsageError

REVISION = "kleval-short-1"
PROTOCOL = "kleval-1"
MATHS_PROTOCOL = "kleval-2"  # answers compared by math-verify too; PolyMath's instruction to the byte
_DEVIATIONS = (
    "items of kleval's own in the benchmark's shape: few, easy and public; their scores do not compare with the benchmark's",
)
_ID = re.compile(r"(?P<name>[^:\s]+)(?::(?P<shots>\d{1,3})shot)?")


def load(task_id: str, protocol: str | None = None) -> Task:
    """The builtin edition of `lm_eval/NAME`, `short/NAME` or the same with `:Nshot`.

    UsageError for a name without one, naming --edition official, and for more shots than there are items to show.
    """
    name, shots = _parsed(task_id)
    if name not in NAMES:
        raise UsageError(f"{task_id} has no builtin edition: add --edition official{_nearest(task_id)}")
    benchmark = _benchmark(name)
    return ShortTask(
        task_id,
        benchmark,
        shots,
        edition="builtin",
        protocol=check_protocol(task_id, protocol, (protocol_of(benchmark.shape),)),
        revision=REVISION,
        digest=hashlib.sha256(benchmark.serialised()).hexdigest(),
        deviations=(*_DEVIATIONS, *benchmark.notes),
    )


def protocol_of(shape: Shape) -> str:
    """The one protocol in which a benchmark is asked."""
    return MATHS_PROTOCOL if shape.read in (answers.minerva, answers.solution) else PROTOCOL


def has(task_id: str) -> bool:
    """Whether there is a builtin edition of it, shots aside."""
    return _parsed(task_id)[0] in NAMES


def _parsed(task_id: str) -> tuple[str, int | None]:
    """The name without `:Nshot`, and the shots that it asks for; the name is empty for what is no such id."""
    match = _ID.fullmatch(task_id)
    if match is None:
        return "", None
    return match["name"], None if match["shots"] is None else int(match["shots"])


def _source(name: str) -> str:
    family, _, task = name.partition("/")
    return f"lm-eval 0.4.13's {task}" if family == "lm_eval" else Card("short", (task,), "builtin", "").text("source")


@cache
def _benchmark(name: str) -> Benchmark:
    found = form.of(name)
    shots, items = form.items(found)
    return Benchmark(
        name, found["title"], _source(name), form.shape(found), items, shots, tuple(found.get("notes", ()))
    )


def _nearest(task_id: str) -> str:
    near = difflib.get_close_matches(task_id.partition(":")[0], NAMES, n=1)
    return f", or take {near[0]}" if near else ""
