"""Run directory of a command without --out: where a command that asks the same stopped before its end, or a new place."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from kleval.types import UsageError


def run_directory(command: str, root: Path = Path("runs"), prefix: str = "") -> Path:
    """The newest unfinished run under root of a command that asks the same (`kleval.harness.command_line.same`: another --name or a
    higher --max-cost is no other command); a new directory named after the time else.

    Nothing is made there; but no other command of the same second gets the same name while this process lives.
    """
    from kleval.harness.command_line import same
    from kleval.store import RunStore

    for path in reversed(RunStore.find_runs(root)):
        try:
            store = RunStore.open(path)
            before = str(store.manifest.get("spec", {}).get("command") or "")
            if store.status in ("interrupted", "incomplete") and same(before, command):
                return path
        except (UsageError, ValueError):
            continue  # a damaged run is none of this command's business
    name = f"{prefix}{datetime.now():%Y%m%d-%H%M%S}"
    path = root / name
    number = 2
    while path.exists() or not _claimed(path):
        path = root / f"{name}-{number}"
        number += 1
    return path


def _claimed(path: Path) -> bool:
    """Whether this process is the first that wants to write there."""
    digest = hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()
    claim = Path(tempfile.gettempdir()) / f"kleval-{digest[:32]}.claim"
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError:
        return True  # without a place for temporary files there is no claim
    atexit.register(_release, claim)
    return True


def _release(claim: Path) -> None:
    with suppress(OSError):
        claim.unlink()
