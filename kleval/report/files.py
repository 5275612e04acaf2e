"""Writing a report so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kleval.types import UsageError


def write_text(path: Path, text: str) -> Path:
    """Put text at path: readers see the old file or the whole new one. UsageError when that is not possible."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a directory: give a file name")
    draft = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="replace",
            newline="\n",
            dir=path.parent,
            prefix=f".{path.name}.",
            delete=False,
        ) as file:
            draft = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; free space or give another path") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    return path
