"""Output directory of a command without --out: that of the very same command that stopped before its end, else a new one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from kleval.types import UsageError


def run_directory(command: str, root: Path = Path("runs"), prefix: str = "") -> Path:
    """The newest unfinished run of the very same command under root; a new directory named after the time else."""
    from kleval.store import RunStore

    for path in reversed(RunStore.find_runs(root)):
        try:
            store = RunStore.open(path)
            if store.status in ("interrupted", "incomplete") and store.manifest["spec"].get("command") == command:
                return path
        except UsageError:
            continue  # a damaged run is none of this command's business
    name = f"{prefix}{datetime.now():%Y%m%d-%H%M%S}"
    path = root / name
    number = 2
    while path.exists():
        path = root / f"{name}-{number}"
        number += 1
    return path
