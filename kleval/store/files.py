"""Writing so that a kill or a full disk at any moment leaves either the old state or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from kleval.types import UsageError

SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def usage_errors(path: Path) -> Iterator[None]:
    """OSErrors inside become one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in SPACE_ERRORS:
            raise UsageError(
                f"disk full at {path}: rows finished so far are kept; free space and run the same command again"
            ) from error
        raise UsageError(f"cannot use {path}: {error.strerror or error}; check the path and its permissions") from error


def append_line(path: Path, line: bytes) -> None:
    """Append line (newline included) and fsync it; on an error the file is cut back to what it was. UsageError."""
    with usage_errors(path):
        new = not path.exists()
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(fd).st_size
            try:
                write_all(fd, line)
                os.fsync(fd)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if new:
            sync_directory(path.parent)


def replace(path: Path, data: bytes, tmp: Path) -> None:
    """Write data to path atomically, by way of a file in tmp (on the same file system). UsageError."""
    with usage_errors(path):
        tmp.mkdir(exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = tmp / path.name
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(draft, path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: Path) -> None:
    """Make a new name in a directory durable, where the platform can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def cut_torn_line(path: Path) -> int:
    """Cut off what follows the last newline; the number of bytes cut."""
    with usage_errors(path), path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        keep, block = end, 1 << 16
        position = end
        while position > 0:
            start = max(0, position - block)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            position, keep = start, start
        if keep < end:
            file.truncate(keep)
            os.fsync(file.fileno())
        return end - keep
