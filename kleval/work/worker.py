"""Worker of a pool: one engine, opened once, that works on what it is sent. The same in a local process and in a Ray actor.

Replies are ("open", facts), then for each job ("done", (results, counts)); ("refused", line) for a UsageError, ("failed", traceback)
for any other error.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import kleval
from kleval.types import UsageError

Reply = tuple[str, Any]
CARRIED = ("KLEVAL_", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")  # variables that a worker has from who started it


def visible_device(index: int) -> str:
    """The number or UUID of the CUDA device that this process calls by that index."""
    seen = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return seen[index] if index < len(seen) else str(index)


class Dead(Exception):
    """A worker is gone; how it ended. out_of_memory: whoever ended it said that memory ran out. blameless: its machine is gone,
    whatever it was working on."""

    def __init__(self, how: str, out_of_memory: bool = False, blameless: bool = False) -> None:
        super().__init__(how)
        self.out_of_memory, self.blameless = out_of_memory, blameless


class Engine(Protocol):
    """What a worker holds. facts: what must be known of it. All three are plain values that can be pickled, as are payloads."""

    facts: Any

    def work(self, payloads: Sequence[Any]) -> tuple[Sequence[Any], Mapping[str, int]]:
        """One result per payload, and what was counted meanwhile. UsageError ends the command."""
        ...

    def close(self) -> None: ...


Make = Callable[[str], Engine]  # of a device; can be pickled


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a worker works as its driver does: version, folder and variables of the driver, threads of a CPU (0: as torch chooses).

    visible: the CUDA devices that it sees, as CUDA_VISIBLE_DEVICES; None: all that its driver sees.
    """

    threads: int = 0
    visible: str | None = None
    version: str = kleval.__version__
    folder: str = field(default_factory=os.getcwd)
    variables: Mapping[str, str] = field(
        default_factory=lambda: {name: value for name, value in os.environ.items() if name.startswith(CARRIED)}
    )

    def apply(self) -> None:
        """Before torch is used. UsageError for another version of kleval."""
        if self.version != kleval.__version__:
            raise UsageError(
                f"a worker has kleval {kleval.__version__}, not {self.version}: install the same everywhere"
            )
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        os.environ.update(self.variables)
        if self.visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.visible
        if self.threads:
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.threads)


class Worker:
    """The engine and its replies."""

    def __init__(self, make: Make, device: str, setting: Setting) -> None:
        self._make, self._device, self._setting = make, device, setting
        self._engine: Engine | None = None

    def open(self) -> Reply:
        return _told("open", self._opened)

    def work(self, payloads: Sequence[Any]) -> Reply:
        engine = self._engine
        assert engine is not None
        return _told("done", lambda: engine.work(payloads))

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def _opened(self) -> Any:
        self._setting.apply()
        self._engine = self._make(self._device)
        return self._engine.facts


def _told(kind: str, act: Callable[[], Any]) -> Reply:
    try:
        return kind, act()
    except UsageError as error:
        return "refused", str(error)
    except Exception:
        return "failed", traceback.format_exc()
