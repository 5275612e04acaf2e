"""Memory of an engine that serves a model: by formula, as the engine says that it allocated it, and as measured; and why they part.

What engines say: vLLM its blocks, its tokens and how many longest sequences they hold in `/metrics` (`vllm:cache_config_info`; in this
process in its configuration), and the pool's bytes there or in its log; llama.cpp its slots' context in `/props`, and the bytes of its
caches in its log (from `-lv 4` on). A log is read where it is named (`--engine-log`). Measured: resident bytes of the engine's
processes, and what they hold of GPUs by NVML, where it runs on this machine and can be seen; how much more than at the begin of the
profile is a figure of its own, since weights and what is allocated ahead are in the whole. Nothing is estimated: what nobody tells is
absent.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.files import usage_errors
from kleval.profiler.nvml import gpus
from kleval.profiler.points import Values
from kleval.text import format_length, size, times
from kleval.types import UsageError

if TYPE_CHECKING:
    import psutil

_INFO = re.compile(r"^vllm:cache_config_info\{(.*)\}", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_POOL = re.compile(
    r"(?:Available KV cache memory: |(?:Explicitly|Auto) set \()([\d.]+)(?: GiB|/[\d.]+\) GiB for KV cache)"
)
_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
_HELD = re.compile(r"Maximum concurrency for ([\d,]+) tokens per request: ([\d.]+)x")
_PINNED = re.compile(
    r"Setting attention block size to (\d+) tokens to ensure that attention page size is >= mamba page size"
)
_PADDED = re.compile(r"Padding mamba page size by ([\d.]+)%")
_WORKERS = re.compile(r"tensor_parallel_size=(\d+), *pipeline_parallel_size=(\d+)")
_ENGINE_OF_SEVERAL = re.compile(r"EngineCore_DP(\d+)\b.*KV cache size")
_VLLM_BEGINS = "vLLM API server version"
_LLAMA = re.compile(
    r"(llama_(?:kv_cache|memory_recurrent)\w*): +size = +([\d.]+) MiB \( *(\d+) cells, *\d+ layers, *(\d+)(?:/(\d+))? seqs"
)
_LLAMA_BEGINS = "load_model: loading model"
_PROMPTS = re.compile(r"prompt cache is enabled, size limit: (\d+) MiB")
_CHECKPOINTS = re.compile(r"context checkpoints enabled, max = (\d+)")
OF_EACH_ENGINE = {"engine_blocks", "engine_pool_tokens", "engine_pool_bytes", "engine_sequences"}  # of several replicas
GAINS = (1024, 32768)  # lengths at which the gain of halved rows is told
Reasons = dict[str, str]  # why it is another than the formula, by what it is about


def of_vllm(told: Mapping[str, Any]) -> tuple[Values, Reasons]:
    """Values of a cache configuration, by its field names, and sentences on what makes it another than the formula."""
    block, blocks = _whole(told, "block_size"), _whole(told, "num_gpu_blocks")
    tokens, sequences = _whole(told, "kv_cache_size_tokens"), _number(told, "kv_cache_max_concurrency")
    values: Values = {
        "engine_block_tokens": block,
        "engine_blocks": blocks,
        "engine_pool_tokens": tokens,
        "engine_pool_bytes": _whole(told, "kv_cache_memory_bytes"),
        "engine_sequences": sequences,
        "engine_sequence_tokens": round(tokens / sequences) if tokens and sequences else None,
    }
    said: Reasons = {}
    padded, snapshots = _whole(told, "mamba_page_size_padded"), str(told.get("mamba_cache_mode", "none"))
    recurrent = snapshots not in ("none", "None")
    if block is not None and (recurrent or padded is not None):
        state = "" if padded is None else f" ({size(padded)} per layer)"
        said["page"] = (
            f"One page holds {block:,} tokens of attention or one recurrent state{state}: the state pins its size, and a sequence "
            "takes whole pages."
        )
    if recurrent:
        said["snapshots"] = (
            f"Snapshots of recurrent states lie in the same pool (mamba_cache_mode {snapshots}), so that cached beginnings take "
            "room which the formula of one sequence does not have."
        )
    if blocks and block and tokens and abs(blocks * block / tokens - 1) > 0.1:
        said["groups"] = (
            f"{blocks:,} blocks of {block:,} tokens are no {blocks * block:,} tokens of context: groups of layers share the blocks, "
            f"and the engine itself counts {tokens:,.0f}."
        )
    return {name: value for name, value in values.items() if value is not None}, said


def of_metrics(text: str) -> tuple[Values, Reasons]:
    """Of vLLM's `/metrics`, of all its engines together; nothing where it does not say."""
    engines = [of_vllm(dict(_LABEL.findall(labels))) for labels in _INFO.findall(text)]
    if not engines:
        return {}, {}
    values, said = engines[0]
    for name in OF_EACH_ENGINE & values.keys():
        values[name] = sum(each.get(name) or 0 for each, _ in engines)
    return values, said


def of_props(told: Mapping[str, Any]) -> Values:
    """Of llama.cpp's `/props`: the context that a request may have. Whether slots share one pool (their default) it does not say."""
    settings = told.get("default_generation_settings")
    n_ctx = settings.get("n_ctx") if isinstance(settings, Mapping) else None
    return {"engine_sequence_tokens": n_ctx} if type(n_ctx) is int else {}


def of_log(path: Path) -> tuple[Values, Reasons]:
    """Of the log of vLLM or llama.cpp, its last start. UsageError for a file that cannot be read, or holds no such line."""
    text = _last_start(path)
    values, said = _llama_log(text.rpartition(_LLAMA_BEGINS)[2])
    if pool := _POOL.findall(text):
        values["engine_pool_bytes"] = int(float(pool[-1]) * (1 << 30)) * workers_of(text)
    if tokens := _TOKENS.findall(text):
        values["engine_pool_tokens"] = int(tokens[-1].replace(",", ""))
    if held := _HELD.findall(text):
        values["engine_sequence_tokens"] = int(held[-1][0].replace(",", ""))
        values["engine_sequences"] = float(held[-1][1])
    if engines := len(set(_ENGINE_OF_SEVERAL.findall(text))):
        values |= {name: engines * (values[name] or 0) for name in OF_EACH_ENGINE & values.keys()}
    if pinned := _PINNED.findall(text):
        values["engine_block_tokens"] = int(pinned[-1])
        said["page"] = (
            f"The recurrent state pins the page: {int(pinned[-1]):,} tokens of attention, so that both have one size, and a sequence "
            "takes whole pages."
        )
    if padded := _PADDED.findall(text):
        said["padded"] = f"Recurrent states are padded by {padded[-1]} % to the size of a page."
    if not values:
        raise UsageError(
            f"--engine-log {path} has no line about a cache: give the log of vLLM, or of llama.cpp's server started with -lv 4"
        )
    return values, said


def _last_start(path: Path) -> str:
    with usage_errors(path):
        return path.read_text("utf-8", "replace").rpartition(_VLLM_BEGINS)[2]


def workers_of(text: str) -> int:
    """Workers of vLLM that hold a part of every sequence each, by its log: bytes that it names are those of one."""
    found = _WORKERS.findall(text)
    return int(found[-1][0]) * int(found[-1][1]) if found else 1


def _llama_log(text: str) -> tuple[Values, Reasons]:
    """Of one start of llama.cpp's server. A sequence has the cells of one stream, which all share where there is one, and one cell of
    recurrent state."""
    caches = [
        (name, float(mib), *map(int, (n, seqs, streams or seqs)))
        for name, mib, n, seqs, streams in _LLAMA.findall(text)
    ]
    if not caches:
        return {}, {}
    rows = [(n, streams) for name, _, n, _, streams in caches if "recurrent" not in name]
    values: Values = {
        "engine_pool_bytes": int(sum(mib for _, mib, *_ in caches) * (1 << 20)),
        "engine_sequence_bytes": int(sum(mib / streams for _, mib, _, _, streams in caches) * (1 << 20)),
    }
    if rows:
        values["engine_pool_tokens"] = max(n * streams for n, streams in rows)
        values["engine_sequence_tokens"] = max(n for n, _ in rows)
    said: Reasons = {}
    if len(caches) > 1:
        parts = ", ".join(f"{name} {mib:.2f} MiB" for name, mib, *_ in caches)
        said["pools"] = f"Not all layers keep the same, so that they have pools of their own: {parts}."
    states = sum(mib / n for name, mib, n, *_ in caches if "recurrent" in name and n)
    if states and (kept := _CHECKPOINTS.findall(text)):
        said["snapshots"] = (
            f"Up to {kept[-1]} snapshots of the recurrent states per slot, of {states:.2f} MiB, lie beside the pools "
            "(--ctx-checkpoints), which the formula of one sequence does not have."
        )
    if prompts := _PROMPTS.findall(text):
        said["prompts"] = (
            f"Prompts that were answered are kept beside the pools, up to {int(prompts[-1]):,} MiB (--cache-ram 0: none): what its "
            "processes hold grows with every new prompt."
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
        processes: Sequence[psutil.Process] = (),
    ) -> EngineMemory:
        """told: by a backend's `memory_told`; of vLLM bytes are those of one of its `workers`. names: of the model, for its formula.
        processes: the engine's."""
        values, reasons = of_metrics(told["metrics"]) if "metrics" in told else of_vllm(told.get("cache", {}))
        if (pool := values.get("engine_pool_bytes")) is not None:
            values["engine_pool_bytes"] = pool * (told.get("workers") or (workers_of(_last_start(log)) if log else 1))
        values |= of_props(told.get("props", {}))
        if log is not None:
            more, others = of_log(log)
            values, reasons = more | values, reasons | others  # a log rounds to 0.01 GiB
        if (pool := values.get("engine_pool_bytes")) and (sequences := values.get("engine_sequences")):
            values["engine_sequence_bytes"] = int(pool / sequences)
        said, n = list(reasons.values()), values.get("engine_sequence_tokens")
        lengths = [*ctxs, *([int(n)] if n else [])]
        formula, gains = by_formula(names, lengths)
        held, of = values.get("engine_sequence_bytes"), formula.get(int(n or 0), {}).get("state_bytes")
        if n and held and of:
            takes = f"takes {size(held)} of the engine's memory, {times(held / of)} of the formula's {size(of)}"
            said.append(f"A sequence of {format_length(int(n))} {takes}.")
        return cls(values, formula, (*said, *gains), Watched(processes))

    def values(self) -> Values:
        return self.engine | self.watched.values()


class Watched:
    """Processes of an engine on this machine, from now on."""

    def __init__(self, processes: Sequence[psutil.Process]) -> None:
        self._processes = processes
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
        if not sum(held):  # none, or gone: what has ended and is not yet waited for holds nothing
            return {}
        on_device = _device_bytes({process.pid for process in self._processes})
        return {"server_rss_bytes": sum(held)} | ({"server_device_bytes": on_device} if on_device else {})


def listening(port: int) -> list[psutil.Process]:
    """Processes behind a port of this machine; none where they cannot be seen."""
    import psutil

    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                found |= {each.pid: each for each in with_children(one.pid)}
    return list(found.values())


def with_children(pid: int | None = None) -> list[psutil.Process]:
    """A process and those that it started, this one's by default."""
    import psutil

    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _device_bytes(pids: set[int]) -> int:
    """Of all GPUs together; 0 where NVML does not tell."""
    with contextlib.suppress(Exception):
        return sum(gpu.bytes_of(pids) for gpu in gpus())
    return 0


def _whole(told: Mapping[str, Any], name: str) -> int | None:
    return None if (found := _number(told, name)) is None else int(found)


def _number(told: Mapping[str, Any], name: str) -> float | None:
    with contextlib.suppress(ValueError):
        if math.isfinite(found := float(str(told.get(name)))):
            return found
    return None
