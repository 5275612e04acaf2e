"""Workloads of profiles: commands as data, checked before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kleval.types import UsageError
from kleval.work import Spec

PrefillMode = Literal["full", "sampled", "auto"]
Batch = int | Literal["max"]

DEFAULT_MODELS = ("kimi-linear@nano", "kimi-linear-rope@nano", "gdn-h@nano", "mla@nano")
DTYPES = ("auto", "float32", "bfloat16", "float16")
TIME_BUDGET_SECONDS = 240.0
REPEATS = 3
DECODE_TOKENS = 32
MOST_HEADS = 1024
PAPER_HEADS, PAPER_HEAD_DIM = 16, 128  # of Fig. 2
TURN_SECONDS = {"cpu": 0.3, "cuda": 0.2}  # what the calls of one turn of an operator should take together
LADDER_START = 4096
LADDER_FACTOR = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSpec(Spec):
    """A command. Those marked * decide what is measured: a run directory belongs to one value of each.

    models*: names as `kleval.models.registry.resolve` takes them. ctxs*: tokens. batches*: of decode, numbers and "max".
    prefill*: `full`, `sampled`, or `auto`: full where it fits the time budget. decode_tokens*, repeats*: None lets the plan choose
    within the time budget. memory_budget*: bytes that the states of a largest batch may take; None: the plan chooses.
    time_budget*: seconds that the plan aims at. chunk_tokens*: of prefill; None: 512 on a CPU, 8192 on CUDA.
    device*, dtype*: `auto` is CUDA and bfloat16 where there is CUDA, else CPU and float32. seed*: of weights, ids and states.
    devices, executor, ray_address, gpus_per_model: as `kleval.work.executors.find_launcher` takes them; the times are of one device's.
    append: measure all again as a further session, where the first is complete. out: the run directory; None for a dry run.
    name, tags: what people call it and tell it by. command: for the record.
    """

    models: tuple[str, ...] = DEFAULT_MODELS
    ctxs: tuple[int, ...] = (4096, 16384, 65536)
    batches: tuple[Batch, ...] = (1, "max")
    prefill: PrefillMode = "auto"
    decode_tokens: int | None = None
    repeats: int | None = None
    memory_budget: int | None = None
    time_budget: float = TIME_BUDGET_SECONDS
    chunk_tokens: int | None = None
    device: str = "auto"
    devices: tuple[str, ...] = ()
    executor: str = "local"
    ray_address: str | None = None
    gpus_per_model: float | None = None
    dtype: str = "auto"
    seed: int = 42
    append: bool = False
    out: Path | None = None
    dry_run: bool = False
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    verified: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """UsageError for what cannot be measured as asked."""
        for name, what in (("models", "model"), ("ctxs", "context length"), ("batches", "batch")):
            if not getattr(self, name):
                raise UsageError(f"no {what} given: name at least one")
        if min(self.ctxs) < 1:
            raise UsageError(f"a context length is at least 1 token, not {min(self.ctxs)}")
        for batch in self.batches:
            if batch != "max" and not _whole(batch):
                raise UsageError(f"a batch is at least 1, or max, not {batch!r}")
        for name in ("decode_tokens", "repeats", "memory_budget", "chunk_tokens"):
            value = getattr(self, name)
            if value is not None and not _whole(value):
                raise UsageError(f"--{name.replace('_', '-')} is at least 1, not {value!r}")
        if not isinstance(self.seed, int) or abs(self.seed) >= 2**62:
            raise UsageError(f"--seed is a whole number below 2^62, not {self.seed!r}")
        if self.prefill not in ("full", "sampled", "auto"):
            raise UsageError(f"unknown prefill mode {self.prefill!r}: choose full, sampled or auto")
        _check_engine(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec(Spec):
    """ctxs, heads, head_dim: shapes, batch is 1. repeats: turns of every operator. time_budget: seconds; None: the device's own.

    device, dtype: as of a profile. out: the run directory; None for a dry run. name, tags: what people call it and tell it
    by. command: for the record.
    """

    ctxs: tuple[int, ...]
    heads: tuple[int, ...] = (PAPER_HEADS, 32)
    head_dim: int = PAPER_HEAD_DIM
    repeats: int = 5
    time_budget: float | None = None
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 42
    out: Path | None = None
    dry_run: bool = False
    name: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    command: str = ""

    def check(self) -> None:
        """UsageError for what cannot be measured as asked."""
        if not self.ctxs or min(self.ctxs) < 2:
            raise UsageError("a kernel is measured on at least 2 tokens: write for example --ctx 2k-64k*2")
        if not self.heads or min(self.heads) < 1 or max(self.heads) > MOST_HEADS:
            raise UsageError(f"--heads are numbers from 1 to {MOST_HEADS}: write for example --heads 16,32")
        if not 1 <= self.head_dim <= 256:
            raise UsageError(f"--head-dim is 1 to 256, not {self.head_dim}")
        if self.repeats < 1:
            raise UsageError(f"--repeats is at least 1, not {self.repeats}")
        _check_engine(self)


def _check_engine(spec: ProfileSpec | KernelSpec) -> None:
    time = spec.time_budget
    if time is not None and not (isinstance(time, int | float) and time > 0):
        raise UsageError(f"--time-budget is a positive time in seconds, not {time!r}")
    if spec.dtype not in DTYPES:
        raise UsageError(f"unknown dtype {spec.dtype!r}: choose one of {', '.join(DTYPES)}")
    Spec.check(spec)


def _whole(value: object) -> bool:
    return isinstance(value, int) and value >= 1


def check_one_process(given: Mapping[str, Any]) -> None:
    """UsageError where options of several devices are given for a model that is measured as its callers see it."""
    for name, unset in (("devices", ()), ("executor", "local"), ("ray_address", None), ("gpus_per_model", None)):
        if given[name] != unset:
            raise UsageError(
                f"--{name.replace('_', '-')} is for profiles of kleval's own decoders: a served model is measured from one process"
            )


def ladder(longest: int) -> tuple[int, ...]:
    """The lengths that one number stands for: it and its quarters down to 4k, shortest first (4k, 16k, 64k, 256k, 1m)."""
    lengths = [longest]
    while lengths[-1] // LADDER_FACTOR >= LADDER_START:
        lengths.append(lengths[-1] // LADDER_FACTOR)
    return tuple(reversed(lengths))


def parse_batches(text: str) -> tuple[Batch, ...]:
    """`1,8,max`. UsageError for anything else."""
    found: dict[Batch, None] = {}
    for part in (p.strip().lower() for p in text.split(",")):
        if not part:
            continue
        if part != "max" and not (part.isascii() and part.isdigit() and int(part) > 0):
            raise UsageError(f"'{part}' is not a batch: write numbers from 1 and max, like 1,8,max")
        found["max" if part == "max" else int(part)] = None
    if not found:
        raise UsageError("no batch given: write for example --batch 1,max")
    return tuple(found)


def protocol_of(batch: Batch) -> str:
    """The label of a decode measurement: `batch-1`, `batch-8`, `largest-batch`."""
    return "largest-batch" if batch == "max" else f"batch-{batch}"


def unique_lengths(ctxs: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(set(ctxs)))
