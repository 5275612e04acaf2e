"""A written file is whole or is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kleval.files import replacing, write_text
from kleval.types import UsageError


def test_the_file_is_there_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()


def test_a_failure_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(f"half {1 // 0}")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory"), replacing(tmp_path):
        pass


@pytest.mark.parametrize("write", ["replacing", "write_text"])
def test_a_pipe_is_written_into_and_stays_a_pipe(tmp_path: Path, write: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _put(path, write)
        assert os.read(reader, 100) == b"new\n"
    finally:
        os.close(reader)
    assert path.is_fifo()


@pytest.mark.parametrize("write", ["replacing", "write_text"])
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path, write: str) -> None:
    target, link = tmp_path / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    _put(link, write)
    assert link.is_symlink()
    assert target.read_text() == "new\n"


def _put(path: Path, write: str) -> None:
    if write == "write_text":
        write_text(path, "new\n")
        return
    with replacing(path) as file:
        file.write("new\n")
