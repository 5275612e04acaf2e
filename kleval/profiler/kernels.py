"""Operators one at a time: `kleval profile kernels`, at the shape of the paper's Fig. 2 (batch 1, 16 heads of 128) and others.

Lengths ascend, and at each length the operators take turns (A B C D, A B C D), one point per turn: the median and p90 of several
calls after a warm-up that is timed apart. What would not fit into the time budget, judged by how long the operator took at
the length before, is left out with the reason. A kernel that fails its check (`operators.check`) is reported and not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kleval
from kleval.profiler import events as ev
from kleval.profiler.environment import fingerprint, resolve_device, resolve_dtype
from kleval.profiler.judge import NOISE_LIMIT
from kleval.profiler.result import EXIT_CODES, end_session, to_the_end
from kleval.profiler.workload import DTYPES
from kleval.quantiles import spread
from kleval.store import Point, RunStore
from kleval.store.manifest import Status, now
from kleval.store.settings import check as check_settings
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.profiler.operators import Protocol

PAPER_HEADS, PAPER_HEAD_DIM = 16, 128
TIME_BUDGET_SECONDS = {"cpu": 110.0, "cuda": 300.0}
OnEvent = Callable[[ev.Event], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec:
    """ctxs, heads, head_dim: shapes, batch is 1. repeats: turns of every operator. time_budget: seconds; None: the device's own.

    device, dtype: as of a profile. out: the run directory; None for a dry run. command: for the record.
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
    command: str = ""

    def check(self) -> None:
        """UsageError for what cannot be measured as asked."""
        if not self.ctxs or min(self.ctxs) < 2:
            raise UsageError("a kernel is measured on at least 2 tokens: write for example --ctx 2k-64k*2")
        if not self.heads or min(self.heads) < 1:
            raise UsageError("--heads are numbers from 1: write for example --heads 16,32")
        if not 1 <= self.head_dim <= 256:
            raise UsageError(f"--head-dim is 1 to 256, not {self.head_dim}")
        if self.repeats < 1:
            raise UsageError(f"--repeats is at least 1, not {self.repeats}")
        if self.time_budget is not None and not self.time_budget > 0:
            raise UsageError(f"--time-budget is a positive time, not {self.time_budget:g} seconds")
        if self.dtype not in DTYPES:
            raise UsageError(f"unknown dtype {self.dtype!r}: choose one of {', '.join(DTYPES)}")
        if self.out is None and not self.dry_run:
            raise UsageError("no run directory given: add --out DIR")


@dataclass(frozen=True, slots=True)
class PlannedKernel:
    """One operator at one shape; `repeats` points. ctx: T, 1 for a recurrent step."""

    operator: str
    protocol: Protocol
    ctx: int
    heads: int
    flops: int
    bytes: int

    def id(self, head_dim: int, repeat: int) -> str:
        return f"kernel/{self.protocol}/{self.operator}/h{self.heads}d{head_dim}/{self.ctx}/r{repeat}"


@dataclass(frozen=True, slots=True)
class KernelResult:
    """unmeasured: what was left out, {operator, protocol, ctx, heads, reason}. message: why it is not complete, empty when it is."""

    status: Status
    exit_code: int
    out: Path | None
    planned: tuple[PlannedKernel, ...]
    counts: dict[str, int] = field(default_factory=dict)
    unmeasured: tuple[dict[str, Any], ...] = ()
    message: str = ""


def profile_kernels(spec: KernelSpec, on_event: OnEvent = lambda event: None) -> KernelResult:
    """Measure what spec says, continuing what its run directory holds. UsageError, Ctrl-C and events as `profile`."""
    spec.check()
    if spec.out is not None:
        RunStore.check_place(spec.out, "profile")
    device = resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device)
    planned = plan_kernels(spec, dtype)
    if spec.dry_run:
        return KernelResult("complete", 0, None, planned, {"planned": len(planned) * spec.repeats})
    assert spec.out is not None
    from kleval.profiler.kernel_session import Session

    environment = fingerprint(device)
    budget = spec.time_budget or TIME_BUDGET_SECONDS[device.type]
    settings = make_settings(spec, device, dtype, environment)
    if RunStore.exists(spec.out):
        check_settings(RunStore.open(spec.out).manifest["settings"], settings, spec.out)
    manifest = _manifest(spec, settings, environment, dtype, planned)
    with RunStore.create(spec.out, manifest) as store:
        session = Session(spec, planned, store, device, dtype, environment, budget, on_event)
        return to_the_end(session.run, lambda status: _close(store, spec, planned, session.unmeasured, status))


def plan_kernels(spec: KernelSpec, dtype: str) -> tuple[PlannedKernel, ...]:
    """Steps first, then prompts, shortest first; at each length by heads, then by operator."""
    from kleval.profiler.operators import OPERATORS, flops, nbytes

    shapes: list[tuple[Protocol, int, int]] = [("recurrent", 1, heads) for heads in spec.heads]
    shapes += [("chunk", ctx, heads) for ctx in sorted(set(spec.ctxs)) for heads in spec.heads]
    return tuple(
        PlannedKernel(
            name,
            protocol,
            ctx,
            heads,
            flops(name, protocol, ctx, heads, spec.head_dim),
            nbytes(name, protocol, ctx, heads, spec.head_dim, dtype),
        )
        for protocol, ctx, heads in shapes
        for name in OPERATORS[protocol]
    )


def make_settings(spec: KernelSpec, device: torch.device, dtype: str, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    return {
        "command": "profile kernels",
        "ctx": sorted(set(spec.ctxs)),
        "heads": list(spec.heads),
        "head_dim": spec.head_dim,
        "repeats": spec.repeats,
        "device": device.type,
        "dtype": dtype,
        "seed": spec.seed,
        "machine.cpu": environment["cpu"],
        "machine.threads": environment["threads"],
        "machine.gpu": environment["gpu"],
        "machine.torch": environment["torch"],
    }


def caveats(points: Sequence[Point]) -> list[str]:
    """What a reader must know before believing the numbers, one sentence each."""
    found = ["Random operands, batch 1, forward only: times do not depend on what a model has learnt."]
    by_name: dict[str, set[str]] = {}
    for point in points:
        if point.kind == "kernel" and point.protocol == "chunk" and "chunk_tokens" in point.settings:
            how = f"{point.settings['implementation']}, chunks of {point.settings['chunk_tokens']}"
            by_name.setdefault(how, set()).add(point.model)
    if by_name:
        said = "; ".join(f"{', '.join(sorted(names))}: {how}" for how, names in sorted(by_name.items()))
        found.append(f"What was run: {said}.")
    groups: dict[str, list[float]] = {}
    for point in points:
        if point.kind == "kernel" and point.values.get("seconds"):
            groups.setdefault(point.id.rpartition("/")[0], []).append(float(point.values["seconds"] or 0))
    spreads = {id: spread(values) for id, values in groups.items() if len(values) > 1}
    loud = [id for id, value in spreads.items() if value > NOISE_LIMIT]
    if loud:
        worst = max(loud, key=lambda id: spreads[id])
        found.append(
            f"Noisy machine: {len(loud)} of {len(spreads)} repeated measurements spread by more than {NOISE_LIMIT:.0%} "
            f"(worst {spreads[worst]:.0%}: {worst})."
        )
    return found


def _manifest(
    spec: KernelSpec,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    dtype: str,
    planned: Sequence[PlannedKernel],
) -> dict[str, Any]:
    started = now()
    version = {"version": kleval.__version__, "commit": environment["commit"]}
    record = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(spec).items()}
    return {
        "kind": "profile",
        "command": "profile kernels",
        "status": "running",
        "started": started,
        "finished": None,
        "kleval": version,
        "hardware": dict(environment),
        "dtype": dtype,
        "spec": record,
        "settings": dict(settings),
        "models": {},
        "unmeasured": [],
        "seeds": {"seed": spec.seed},
        "counts": {"planned": len(planned) * spec.repeats + 2},
        "caveats": [],
        "sessions": [{"started": started, "finished": None, "status": "running", "kleval": version}],
    }


def _close(
    store: RunStore,
    spec: KernelSpec,
    planned: tuple[PlannedKernel, ...],
    unmeasured: Sequence[dict[str, Any]],
    status: Status | None,
) -> KernelResult:
    """Write how it ended into the manifest. status None: complete unless something failed."""
    points = list(store.points())
    failed = [point for point in points if point.failed]
    counts = {
        "planned": len(planned) * spec.repeats + 2,
        "measured": len(points) - len(failed),
        "failed": len(failed),
        "unmeasured": len(unmeasured) * spec.repeats,
    }
    status = status or ("incomplete" if failed else "complete")
    end_session(store, status, counts=counts, unmeasured=list(unmeasured), caveats=caveats(points))
    message = ""
    if failed:
        message = f"{len(failed)} points failed ({failed[0].id}: {(failed[0].failure or {})['message']})"
    elif status == "interrupted":
        message = "interrupted, everything measured is kept"
    return KernelResult(status, EXIT_CODES[status], spec.out, planned, counts, tuple(unmeasured), message)
