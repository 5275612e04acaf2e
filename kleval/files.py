"""Writing a report so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from kleval.types import UsageError


def is_special(path: Path) -> bool:
    """A device or a pipe, like /dev/stdout: it is written into, where a file is replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def write_text(path: Path, text: str) -> Path:
    """Put text at path: readers see the old file or the whole new one. UsageError when that is not possible.

    Links stay, their target is replaced; what is no file (is_special) is written into.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a directory: give a file name")
    draft, target = None, path.resolve()
    try:
        if is_special(path):
            path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w",
            encoding="utf-8",
            errors="replace",
            newline="\n",
            dir=target.parent,
            prefix=f".{target.name}.",
            delete=False,
        ) as file:
            draft = Path(file.name)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        draft.replace(target)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; free space or give another path") from error
    finally:
        if draft is not None:
            draft.unlink(missing_ok=True)
    return path
