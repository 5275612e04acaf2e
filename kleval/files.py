"""Durable files: replacing one atomically, appending to many and syncing them together; and TOML files of the package.

A kill or a full disk at any moment leaves the old state or the new one; what goes wrong with a disk is one line that
says what to do (`usage_errors`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TextIO

from kleval.types import UsageError

SPACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SYNC_SECONDS = 1.0  # how long what was appended may wait to be synced
MOST_OPEN = 64  # files that wait together; one more syncs them at once


@cache
def packaged(name: str) -> dict[str, Any]:
    """What the TOML file `name` holds, a path below kleval/. It is read once, and shared: not to be changed."""
    return tomllib.loads(resources.files("kleval").joinpath(name).read_text("utf-8"))


@cache
def family_facts(name: str) -> dict[str, Any]:
    """What a family of tasks says of itself, the table `family` of its card (`kleval.tasks.cards`); empty of one without."""
    try:
        found: dict[str, Any] = packaged(f"tasks/{name}/card.toml").get("family", {})
    except (OSError, ValueError):  # a name that is no folder's, out of a stored run
        return {}
    return found


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


def is_special(path: Path) -> bool:
    """A device or a pipe, like /dev/stdout: it is written into, where a file is replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


@contextlib.contextmanager
def replacing(
    path: Path, drafts: Path | None = None, errors: str = "strict", check: Callable[[Path], None] | None = None
) -> Iterator[TextIO]:
    """A text file (bytes: its `buffer`) that takes path's place when the block ends well, durable by then, and leaves no
    trace when it does not.

    Links stay, their target is replaced; a device or a pipe is written into. drafts: where the file grows, on the same
    file system; beside path unless given. check: reads the finished file before it takes path's place; what it raises leaves path.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a directory: give a file name")
    if is_special(path):
        with path.open("w", encoding="utf-8", errors=errors, newline="\n") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.resolve()
    folder = target.parent if drafts is None else drafts
    folder.mkdir(exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=folder)
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors=errors, newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(draft)
        readable(draft)
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(target.parent)


def write_text(path: Path, text: str) -> Path:
    """`write_bytes` of the text in UTF-8."""
    return write_bytes(path, text.encode("utf-8", "replace"))


def write_bytes(path: Path, data: bytes) -> Path:
    """Put data at path: readers see the old file or the whole new one. UsageError when that is not possible."""
    path = Path(path)
    try:
        with replacing(path) as file:
            file.buffer.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; free space or give another path") from error
    return path


@dataclass(slots=True)
class _Open:
    """A file that is appended to: its descriptor, its bytes, and how many of them are known to be on the disk."""

    fd: int
    size: int
    synced: int
    new: bool


class Appender:
    """Files that only grow, by whole pieces: a piece is written when `append` returns, so that a kill loses none, and is
    on the disk at the next `sync`, which comes by itself within SYNC_SECONDS.

    One process appends to a file at a time.
    """

    def __init__(self) -> None:
        self._open: dict[Path, _Open] = {}
        self._timer: threading.Timer | None = None
        self._error: UsageError | None = None
        self._lock = threading.Lock()  # of what is above
        self._syncing = threading.Lock()

    def append(self, path: Path, data: bytes) -> int:
        """Write data at the end of path; where it begins. UsageError: the file is as it was before."""
        self._raise()
        if len(self._open) >= MOST_OPEN:
            self.sync()
        with self._lock, usage_errors(path):
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = _opened(path)
            begin = file.size
            try:
                write_all(file.fd, data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fd, begin)
                raise
            file.size += len(data)
            if self._timer is None:
                self._timer = threading.Timer(SYNC_SECONDS, self._sync_later)
                self._timer.daemon = True
                self._timer.start()
            return begin

    def sync(self) -> None:
        """Everything that was appended is on the disk when this returns. UsageError: a file whose end is not is cut back
        to what is."""
        with self._syncing:
            with self._lock:
                waiting, self._open = self._open, {}
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            while waiting:
                path, file = waiting.popitem()
                try:
                    with usage_errors(path):
                        _sync(file)
                except UsageError as error:
                    self._error = self._error or error
                os.close(file.fd)
                if file.new:
                    sync_directory(path.parent)
        self._raise()

    def _sync_later(self) -> None:
        try:
            self.sync()
        except UsageError as error:
            self._error = error  # told by the next call

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error


def _opened(path: Path) -> _Open:
    new = not path.exists()
    if new:
        path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    size = os.fstat(fd).st_size
    return _Open(fd, size, size, new)


def _sync(file: _Open) -> None:
    try:
        os.fsync(file.fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(file.fd, file.synced)
        raise


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


def cut(path: Path, size: int) -> int:
    """Cut path back to size, durably; the number of bytes cut."""
    with usage_errors(path), path.open("r+b") as file:
        extra = file.seek(0, os.SEEK_END) - size
        if extra > 0:
            file.truncate(size)
            os.fsync(file.fileno())
        return max(extra, 0)


def end_of_lines(path: Path) -> int:
    """Where the last whole line of path ends: after its newline."""
    with usage_errors(path), path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        while position > 0:
            start = max(0, position - (1 << 16))
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
        return 0


def readable(path: Path) -> None:
    """Give a temporary file, which is its owner's alone, the permissions of an ordinary new one."""
    current = os.umask(0o077)
    os.umask(current)
    path.chmod(0o666 & ~current)
