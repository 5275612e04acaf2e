"""Memory of an engine that serves a model: by formula, as the engine says that it allocated it, and as measured; and why they part.

What engines say: vLLM its blocks and tokens in `/metrics` (`vllm:cache_config_info`; in this process in its configuration) and the
pool's bytes in its log; llama.cpp its slots and tokens in `/props`, and the bytes of its caches in its log. A log is read where it is
named (`--engine-log`). Measured: resident bytes of the server's processes, and what they hold of GPUs by NVML, where it runs on this
machine and can be seen; how much more than at the begin of the profile is a figure of its own, since weights and what is allocated
ahead are in the whole. Nothing is estimated: what nobody tells is absent.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.files import usage_errors
from kleval.profiler.points import Values
from kleval.text import format_length, size, times
from kleval.types import UsageError

_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_POOL = re.compile(r"Available KV cache memory: ([\d.]+) GiB")
_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_HELD = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_PINNED = re.compile(
    r"Setting attention block size to (\d+) tokens to ensure that attention page size is >= mamba page size"
)
_PADDED = re.compile(r"Padding mamba page size by ([\d.]+)%")
_LLAMA = re.compile(r"(llama_(?:kv_cache|memory_recurrent)\w*): +size = +([\d.]+) MiB")
GAINS = (1024, 32768)  # lengths at which the gain of halved rows is told


def of_vllm(told: Mapping[str, Any]) -> tuple[Values, list[str]]:
    """Values of a cache configuration, by its field names, and sentences on what makes it another than the formula."""
    block, blocks = _whole(told, "block_size"), _whole(told, "num_gpu_blocks")
    values: Values = {
        "engine_block_tokens": block,
        "engine_blocks": blocks,
        "engine_pool_tokens": _whole(told, "kv_cache_size_tokens"),
        "engine_pool_bytes": _whole(told, "kv_cache_memory_bytes"),
    }
    said = []
    padded, snapshots = _whole(told, "mamba_page_size_padded"), str(told.get("mamba_cache_mode", "none"))
    if padded is not None and block is not None:
        said.append(
            f"One page holds {block:,} tokens of attention or one recurrent state ({size(padded)} per layer): the state pins its size, "
            "and a sequence takes whole pages."
        )
    if snapshots not in ("none", "None"):
        said.append(
            f"Snapshots of recurrent states lie in the same pool (mamba_cache_mode {snapshots}), so that cached beginnings take "
            "room which the formula of one sequence does not have."
        )
    if blocks and block and (held := values["engine_pool_tokens"]) and abs(blocks * block / held - 1) > 0.1:
        said.append(
            f"{blocks:,} blocks of {block:,} tokens are no {blocks * block:,} tokens of context: groups of layers share the blocks, "
            f"and the engine itself counts {held:,.0f}."
        )
    return {name: value for name, value in values.items() if value is not None}, said


def of_metrics(text: str) -> tuple[Values, list[str]]:
    """Of vLLM's `/metrics`; nothing where it does not say."""
    found = _INFO.search(text)
    return of_vllm(dict(_LABEL.findall(found[1]))) if found else ({}, [])


def of_props(told: Mapping[str, Any]) -> Values:
    """Of llama.cpp's `/props`: all slots together, each with the context that its requests may have."""
    settings = told.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, Mapping) else None
    slots = told.get("total_slots")
    if type(n_ctx) is int and type(slots) is int:
        return {"engine_pool_tokens": n_ctx * slots}
    return {}


def of_log(path: Path) -> tuple[Values, list[str]]:
    """Of the log of vLLM or llama.cpp, its last start. UsageError for a file that cannot be read, or holds no such line."""
    with usage_errors(path):
        text = path.read_text("utf-8", "replace")
    values: Values = {}
    said = []
    if pool := _POOL.findall(text):
        values["engine_pool_bytes"] = int(float(pool[-1]) * (1 << 30))
    if tokens := _TOKENS.findall(text):
        values["engine_pool_tokens"] = int(tokens[-1].replace(",", ""))
    if pool and (held := _HELD.findall(text)):
        values["engine_sequence_tokens"] = int(held[-1][0].replace(",", ""))
        values["engine_sequence_bytes"] = int((values["engine_pool_bytes"] or 0) / float(held[-1][1]))
    if pinned := _PINNED.findall(text):
        values["engine_block_tokens"] = int(pinned[-1])
        said.append(
            f"The recurrent state pins the page: {int(pinned[-1]):,} tokens of attention, so that both have one size."
        )
    if padded := _PADDED.findall(text):
        said.append(f"Recurrent states are padded by {padded[-1]} % to the size of a page.")
    caches = dict(_LLAMA.findall(text))  # each kind once: the last start's
    if caches:
        values["engine_pool_bytes"] = int(sum(map(float, caches.values())) * (1 << 20))
        parts = ", ".join(f"{name} {mib} MiB" for name, mib in caches.items())
        if len(caches) > 1:
            said.append(f"Rows of attention and recurrent states are pools of their own: {parts}.")
    if not values:
        raise UsageError(
            f"--engine-log {path} has no line about a cache: give the log of vLLM or of llama.cpp's server"
        )
    return values, said


def by_formula(names: Sequence[str | None], ctxs: Sequence[int]) -> tuple[dict[int, Values], list[str]]:
    """State of one sequence at each length, of the first name that is a model of kleval's or a folder with its configuration; and what
    halving its rows would gain. Empty where none is."""
    from kleval.profiler.memory import memory_rows

    for name in filter(None, names):
        if "/" in name and not Path(name).exists():
            continue  # a name on the hub: nothing is fetched for this
        with contextlib.suppress(UsageError, OSError, ValueError, KeyError):
            rows = {row["ctx"]: row for row in memory_rows((name,), tuple(dict.fromkeys((*ctxs, *GAINS))))}
            parts = ("latent_bytes", "recurrent_bytes", "conv_bytes", "state_bytes")
            known = {ctx: {part: rows[ctx][part] for part in parts} for ctx in ctxs}
            return known, _gains(rows)
    return {}, []


def _gains(rows: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """Of a model some of whose state does not grow."""
    fixed = rows[GAINS[0]]["recurrent_bytes"] + rows[GAINS[0]]["conv_bytes"]
    if not fixed:
        return []
    gain = {ctx: rows[ctx]["state_bytes"] / (fixed + (rows[ctx]["state_bytes"] - fixed) / 2) for ctx in GAINS}
    told = " and ".join(f"{times(value)} at {format_length(ctx)}" for ctx, value in gain.items())
    return [f"Halving the rows of attention (FP8) leaves the recurrent states as they are: by formula it gains {told}."]


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """engine: what it says, the same at every length. formula: of one sequence, by length. said: why they part. watched: what is
    measured of its processes."""

    engine: Values
    formula: Mapping[int, Values]
    said: tuple[str, ...]
    watched: Watched

    @classmethod
    def of(
        cls,
        told: Mapping[str, Any],
        log: Path | None,
        names: Sequence[str | None],
        ctxs: Sequence[int],
        port: int | None,
    ) -> EngineMemory:
        """told: by a backend's `memory_told`. names: of the model, for its formula. port: of a server on this machine."""
        values, said = of_metrics(told["metrics"]) if "metrics" in told else of_vllm(told.get("cache", {}))
        values |= of_props(told.get("props", {}))
        if log is not None:
            more, reasons = of_log(log)
            values, said = values | more, [*said, *reasons]
        lengths = [*ctxs, *([int(n)] if (n := values.get("engine_sequence_tokens")) else [])]
        formula, gains = by_formula(names, lengths)
        if (n := values.get("engine_sequence_tokens")) and (of := formula.get(int(n), {}).get("state_bytes")):
            held = values["engine_sequence_bytes"] or 0
            said.append(
                f"A sequence of {format_length(int(n))} takes {size(held)} of the pool, {times(held / of)} of the formula's {size(of)}."
            )
        return cls(values, formula, (*said, *gains), Watched(port))

    def values(self) -> Values:
        return self.engine | self.watched.values()


class Watched:
    """Processes of a server on this machine, by the port on which it listens; none where they cannot be seen."""

    def __init__(self, port: int | None) -> None:
        self._processes = [] if port is None else _tree(port)
        self._begin = self._bytes()

    def values(self) -> Values:
        """server_rss_bytes, server_device_bytes: now. server_grown_bytes: of both, more than when it was first seen."""
        now, then = self._bytes(), self._begin
        if not now:
            return {}
        return {**now, "server_grown_bytes": sum(now.values()) - sum(then.values())}

    def _bytes(self) -> dict[str, int]:
        import psutil

        held = []
        for process in self._processes:
            with contextlib.suppress(psutil.Error):
                held.append(process.memory_info().rss)
        on_device = _device_bytes({process.pid for process in self._processes})
        found = {"server_rss_bytes": sum(held)} if held else {}
        return found | ({"server_device_bytes": on_device} if on_device else {})


def _tree(port: int) -> list[Any]:
    import psutil

    found: dict[int, Any] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                process = psutil.Process(one.pid)
                found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def _device_bytes(pids: set[int]) -> int:
    """Of all GPUs together; 0 where NVML does not tell."""
    total = 0
    with contextlib.suppress(Exception):
        import pynvml

        pynvml.nvmlInit()
        for at in range(pynvml.nvmlDeviceGetCount()):
            for one in pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(at)):
                total += (one.usedGpuMemory or 0) if one.pid in pids else 0
    return total


def _whole(told: Mapping[str, Any], name: str) -> int | None:
    try:
        return int(str(told.get(name)))
    except ValueError:
        return None
