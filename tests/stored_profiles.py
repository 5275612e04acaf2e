"""Run directories of profiles as fixtures, written by the real store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kleval.store import Point, RunStore

ARCHITECTURES = ("kimi-linear", "kimi-linear-rope", "gdn-h", "mla")
LENGTHS = tuple(4096 * 2**i for i in range(9))
COPY, MATMUL = 4.1e12, 7.4e14  # of a large GPU
ENVIRONMENT = {
    "cpu": "Some CPU",
    "cores": 16,
    "threads": 16,
    "gpu": "Some GPU",
    "driver": "580.1",
    "torch": "2.13.0",
    "kernels": {"kda": "fla-core 0.6.0"},
    "kleval": "0.1.0",
    "commit": "c" * 40,
}
Change = Callable[[Point], Point | None]  # of a point before it is stored; None leaves it out


def profile_points(
    models: Sequence[str], ctxs: Sequence[int], repeats: int, full_up_to: int, budget: int
) -> Iterator[Point]:
    """Points as a profile of these models has them: closed forms are the configs' own, times are bounds over plausible shares."""
    from kleval.models.sizes import preset

    noise = random.Random(7)

    def point(
        kind: str, protocol: str, model: str, ctx: int, batch: int, repeat: int, values: Any, closed: Any
    ) -> Point:
        rows = "max" if protocol == "largest-batch" else batch
        return Point(
            id=f"{kind}/{protocol}/{model}/{ctx}/b{rows}/r{repeat}",
            kind=kind,  # type: ignore[arg-type]
            model=model,
            ctx=ctx,
            batch=batch,
            protocol=protocol,
            repeat=repeat,
            values=values,
            closed_form=closed,
            estimate=protocol == "sampled",
            settings={"chunk_tokens": 8192, "dtype": "bfloat16", "device": "cuda:0", "seed": 42},
            environment=ENVIRONMENT,
            finished="2026-03-01T10:00:00+00:00",
        )

    yield point("machine", "copy", "", 0, 0, 0, {"bytes_per_second": COPY}, {})
    yield point("machine", "matmul", "", 0, 0, 0, {"flops_per_second": MATMUL}, {})
    for name in models:
        config = preset(*name.split("@"))
        for ctx in ctxs:
            state = config.state_bytes(ctx, 1, "bfloat16")
            closed = {
                "latent_bytes": state.latent,
                "recurrent_bytes": state.recurrent,
                "conv_bytes": state.conv,
                "state_bytes": state.total,
                "weights_bytes": config.weight_bytes("bfloat16"),
            }
            held = {"allocated_bytes": state.total + 4096, "workspace_bytes": 1 << 24, "rss_bytes": None}
            yield point("memory", "state", name, ctx, 1, 0, {**closed, **held}, closed)
            flops = config.prefill_flops(ctx)
            for repeat in range(repeats):
                full = (0.06 + flops / MATMUL / 0.45) * noise.uniform(0.98, 1.03)
                for protocol in ("full", "sampled"):
                    if protocol == "full" and ctx > full_up_to:
                        continue
                    seconds = full if protocol == "full" else full * noise.uniform(0.96, 1.06)
                    values = {"seconds": seconds, "tokens_per_second": ctx / seconds, "mfu": flops / seconds / MATMUL}
                    if protocol == "sampled":
                        values |= {
                            "chunks_timed": 9,
                            "sampled_over_full": seconds / full if ctx <= full_up_to else None,
                        }
                    yield point(
                        "prefill",
                        protocol,
                        name,
                        ctx,
                        1,
                        repeat,
                        values,
                        {"flops": flops, "bound_seconds": flops / MATMUL},
                    )
                for protocol, batch in (("batch-1", 1), ("largest-batch", max(1, budget // state.total))):
                    moved = config.decode_bytes(ctx, batch, "bfloat16")
                    step = 1000 * (0.002 + moved / COPY / 0.6) * noise.uniform(0.99, 1.02)
                    values = {
                        "step_ms_median": step,
                        "step_ms_p90": 1.04 * step,
                        "step_ms_p99": 1.2 * step,
                        "steps": 32,
                        "dropped_steps": 3,
                        "ms_per_token": step / batch,
                        "tokens_per_second": 1000 * batch / step,
                        "mbu": 1000 * moved / step / COPY,
                        "depth_first": ctx + 3,
                        "depth_last": ctx + 34,
                    }
                    bound = {
                        "bytes_per_step": moved,
                        "bound_ms": 1000 * moved / COPY,
                        "state_bytes": batch * state.total,
                    }
                    yield point("decode", protocol, name, ctx, batch, repeat, values, bound)


def kernel_points(ctxs: Sequence[int], heads: Sequence[int], repeats: int, device: str) -> Iterator[Point]:
    """Points as `kleval profile kernels` has them, at 30 to 60 % of the matrix rate."""
    from kleval.profiler.operators import OPERATORS, flops, nbytes

    noise = random.Random(11)
    reached = {"kda": 0.4, "gdn": 0.55, "dplr": 0.3, "softmax": 0.6}
    shapes = [("recurrent", 1, h) for h in heads] + [("chunk", ctx, h) for ctx in ctxs for h in heads]
    for protocol, ctx, h in shapes:
        for name in OPERATORS[protocol]:  # type: ignore[index]
            work = flops(name, protocol, ctx, h, 128), nbytes(name, protocol, ctx, h, 128, "bfloat16")  # type: ignore[arg-type]
            bound = max(work[0] / MATMUL, work[1] / COPY)
            for repeat in range(repeats):
                seconds = (2e-5 + bound / reached[name]) * noise.uniform(0.98, 1.04)
                yield Point(
                    id=f"kernel/{protocol}/{name}/h{h}d128/{ctx}/r{repeat}",
                    kind="kernel",
                    model=name,
                    ctx=ctx,
                    batch=1,
                    protocol=protocol,
                    repeat=repeat,
                    values={"seconds": seconds, "seconds_p90": 1.05 * seconds, "flops_per_second": work[0] / seconds},
                    closed_form={"flops": work[0], "bytes": work[1], "bound_seconds": bound},
                    settings={
                        "heads": h,
                        "head_dim": 128,
                        "dtype": "bfloat16",
                        "device": device,
                        "direction": "forward",
                    },
                    environment=ENVIRONMENT,
                    finished="2026-03-01T10:00:00+00:00",
                )


def write_profile(
    path: Path,
    size: str = "nano",
    architectures: Sequence[str] = ARCHITECTURES,
    ctxs: Sequence[int] = LENGTHS[:3],
    repeats: int = 3,
    full_up_to: int = 8192,
    budget: int = 40 << 30,
    kernels: bool = False,
    device: str = "cuda:0",
    change: Change = lambda point: point,
    status: str = "complete",
    **manifest: Any,
) -> RunStore:
    """A profile's run directory. change decides what becomes of each point."""
    from kleval.models.sizes import preset

    models = [f"{name}@{size}" for name in architectures]
    points = list(profile_points(models, ctxs, repeats, full_up_to, budget)) if models else []
    if kernels:
        points += kernel_points([2048 * 2**i for i in range(6)], (16, 32), repeats, device)
    kept = [found for point in points if (found := change(point)) is not None]
    fields = {
        "kind": "profile",
        "command": "profile",
        "status": status,
        "started": "2026-03-01T10:00:00+00:00",
        "finished": "2026-03-01T10:07:30+00:00",
        "settings": {"models": models, "ctx": list(ctxs), "dtype": "bfloat16"},
        "spec": {"command": "kleval profile --ctx 1m"},
        "models": {
            name: {"name": name, "weights": "random", "config": preset(*name.split("@")).to_dict()} for name in models
        },
        "counts": {"planned": len(points)},
    }
    with RunStore.create(path, fields | manifest) as store:
        for point in kept:
            store.append_point(point)
    return RunStore.open(path)


@pytest.fixture
def make_profile(tmp_path: Path) -> Callable[..., RunStore]:
    """write_profile in this test's folder; `name` is the run directory's."""
    return lambda name="profile", **options: write_profile(tmp_path / name, **options)


@pytest.fixture(scope="session")
def profile_writer() -> Callable[..., RunStore]:
    return write_profile
