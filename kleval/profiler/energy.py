"""Energy of the machine while something is measured: joules by its own counters, what it takes when idle subtracted.

GPUs by NVML (`kleval.profiler.nvml`, Volta and newer), CPUs by RAPL (Linux: /sys/class/powercap/intel-rapl:*, which is
often readable by root alone). The counters are read by a thread while the meter runs; between two moments they are interpolated. What
lasts less than ten of a counter's steps has no energy, and where nothing counts all of it is None: nothing is ever estimated.
"""

from __future__ import annotations

import contextlib
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.profiler.nvml import gpus
from kleval.types import Trace

RAPL = Path("/sys/class/powercap")
SAMPLE_SECONDS = 0.02
IDLE_SECONDS = 1.0
LEAST_STEPS = 10
clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Counter:
    """name: for the record. read: joules since any moment, never falling. step_seconds: how often it is brought up to date."""

    name: str
    read: Callable[[], float]
    step_seconds: float


def counters(device: str, everything: bool = False) -> list[Counter]:
    """Those of a device (`cuda:0`, `cpu`), of all GPUs where `everything`, or of the CPU where there is none: for a server on this
    machine. Empty where none can be read."""
    on_gpu = (
        [] if device == "cpu" and not everything else _gpus(None if everything else int(device.partition(":")[2] or 0))
    )
    return on_gpu if on_gpu or device != "cpu" else _packages()


class Meter:
    """Counters read while it runs. idle_watts: of all of them together, measured when the meter is made; None without a counter."""

    def __init__(self, of: Sequence[Counter], idle_seconds: float = IDLE_SECONDS) -> None:
        self._of = tuple(of)
        self._moments: list[tuple[float, float]] = []
        self.idle_watts: float | None = None
        if self._of:
            with self.running():
                begin = clock()
                time.sleep(idle_seconds)
                end = clock()
            joules = self._joules(begin, end)
            self.idle_watts = None if joules is None else joules / (end - begin)

    def describe(self) -> dict[str, Any]:
        return (
            {}
            if self.idle_watts is None
            else {"energy_by": [one.name for one in self._of], "idle_watts": self.idle_watts}
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within, and after it until the next, `joules` answers."""
        self._moments = []
        if not self._of:
            yield
            return
        over = threading.Event()

        def watch() -> None:
            while not over.wait(SAMPLE_SECONDS):
                self._sample()

        self._sample()
        thread = threading.Thread(target=watch, name="kleval-energy", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._sample()

    def joules(self, begin: float, end: float) -> float | None:
        """Above idle, between two moments of time.perf_counter that lie within `running`."""
        found = None if self.idle_watts is None else self._joules(begin, end)
        return None if found is None or self.idle_watts is None else max(found - self.idle_watts * (end - begin), 0.0)

    def _joules(self, begin: float, end: float) -> float | None:
        least = LEAST_STEPS * max((one.step_seconds for one in self._of), default=0.0)
        if not self._moments or end - begin < least:
            return None
        return self._at(end) - self._at(begin)

    def _at(self, moment: float) -> float:
        place = bisect_left(self._moments, (moment, 0.0))
        if place in (0, len(self._moments)):
            return self._moments[min(place, len(self._moments) - 1)][1]
        (t0, j0), (t1, j1) = self._moments[place - 1 : place + 1]
        return j0 + (j1 - j0) * (moment - t0) / (t1 - t0)

    def _sample(self) -> None:
        with contextlib.suppress(Exception):  # a counter that fails once is missing one moment
            before = clock()
            joules = sum(one.read() for one in self._of)
            self._moments.append(((before + clock()) / 2, joules))


def per_token(joules: float | None, tokens: int) -> dict[str, float | int | None]:
    """Values of a point: energy of output tokens; empty where nothing counted it."""
    return {} if joules is None or not tokens else {"joules_per_output_token": joules / tokens}


def per_prompt_tokens(joules: float | None, tokens: int) -> dict[str, float | int | None]:
    """Values of a point: energy of prefilled tokens, per 1,000."""
    return {} if joules is None or not tokens else {"joules_per_1k_prompt_tokens": 1000 * joules / tokens}


def round_energy(traces: Sequence[Trace], meter: Meter) -> dict[str, float | int | None]:
    """Values of a round of requests that were sent together: until each had its first token, and after that."""
    begin = min(trace.submitted for trace in traces)
    started, end = (max(trace.arrivals[at].seconds for trace in traces) for at in (0, -1))
    after = sum(
        (trace.output_tokens or 0) * sum(a.seconds > started for a in trace.arrivals) / len(trace.arrivals)
        for trace in traces
    )
    prompts = sum(trace.prompt_tokens or 0 for trace in traces)
    return per_prompt_tokens(meter.joules(begin, started), prompts) | per_token(
        meter.joules(started, end), round(after)
    )


def _gpus(index: int | None) -> list[Counter]:
    """Without those that count nothing, as older ones do: then none."""
    made = [Counter(f"NVML {gpu.name}", gpu.joules, 0.1) for gpu in gpus(index)]
    try:
        for one in made:
            one.read()
    except Exception:
        return []
    return made


def _packages() -> list[Counter]:
    found = []
    for folder in sorted(RAPL.glob("intel-rapl:*")):
        if folder.name.count(":") == 1:  # a package; its parts have two
            with contextlib.suppress(OSError, ValueError):
                found.append(_package(folder))
    return found


def _package(folder: Path) -> Counter:
    """OSError where it may not be read."""
    wraps_at = int((folder / "max_energy_range_uj").read_text())
    last, turns = [int((folder / "energy_uj").read_text())], [0]

    def read() -> float:
        now = int((folder / "energy_uj").read_text())
        turns[0] += now < last[0]
        last[0] = now
        return (now + turns[0] * wraps_at) / 1e6

    return Counter(f"RAPL {(folder / 'name').read_text().strip()}", read, 0.001)
