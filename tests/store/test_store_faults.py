"""A full or failing disk, a second writer and a directory that cannot be read are one line each, and cost no row."""

import errno
import json
import os
import subprocess
import sys
import threading

import pytest
from store_helpers import MANIFEST, create, one_line, row, sample_file

from kleval import files as store_files
from kleval.store import RunStore
from kleval.types import UsageError


class FullDisk:
    """os.write that runs out of space after some bytes, as a real disk does: a short write first, then the error."""

    def __init__(self, monkeypatch, free, error=errno.ENOSPC):
        self.free, self.error = free, error
        self.real = os.write
        monkeypatch.setattr(store_files.os, "write", self.write)

    def write(self, fd, data):
        if self.free == 0:
            raise OSError(self.error, os.strerror(self.error))
        part = bytes(data)[: self.free]
        self.free -= len(part)
        return self.real(fd, part)


def full(fd):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("free", [0, 1, 100])
def test_a_full_disk_keeps_the_rows_before_and_takes_back_the_part_of_the_row(tmp_path, monkeypatch, free):
    with create(tmp_path) as store:
        store.append(row(0))
        before = sample_file(tmp_path).read_bytes()
        with monkeypatch.context() as patch:
            FullDisk(patch, free)
            with pytest.raises(UsageError, match="disk full at") as error:
                store.append(row(1))
        assert "free space and run the same command again" in one_line(error)
        assert sample_file(tmp_path).read_bytes() == before
        assert list(store.rows()) == [row(0)]
        store.append(row(1))
        assert list(store.rows()) == [row(0), row(1)]


def test_a_full_disk_leaves_the_manifest_as_it_was(tmp_path, monkeypatch):
    with create(tmp_path) as store:
        before = (tmp_path / "run.json").read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(UsageError, match="disk full at"):
                store.update(status="complete")
        assert (tmp_path / "run.json").read_bytes() == before
        assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_leaves_no_part_of_a_prompt(tmp_path, monkeypatch):
    with create(tmp_path) as store:
        with monkeypatch.context() as patch:
            FullDisk(patch, 5)
            with pytest.raises(UsageError, match="disk full at"):
                store.append(row(0), "prompt 0")
        assert list(store.rows()) == []
        store.append(row(0), "prompt 0")
        assert store.read_prompt(row(0)) == "prompt 0"


def test_other_errors_of_the_disk_are_one_line_too(tmp_path, monkeypatch):
    with create(tmp_path) as store:
        FullDisk(monkeypatch, 0, errno.EIO)
        with pytest.raises(UsageError, match="cannot use") as error:
            store.append(row(0))
        assert os.strerror(errno.EIO) in one_line(error)


def test_one_process_writes_a_run_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("kleval.store.run.LOCK_SECONDS", 0.05)
    code = "import sys; from kleval.store import RunStore; import json\n"
    code += f"s = RunStore.create({str(tmp_path)!r}, json.loads({json.dumps(MANIFEST)!r}))\n"
    code += "print('locked', flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match="in use by another") as error:
            create(tmp_path)
        assert str(tmp_path) in one_line(error)
        assert RunStore.open(tmp_path).status == "running"
    finally:
        other.kill()
        other.communicate()
    assert RunStore.open(tmp_path).status == "interrupted"
    create(tmp_path).close()


def test_an_unreadable_directory_is_one_line(tmp_path, monkeypatch):
    create(tmp_path).close()

    def denied(self):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", denied)
    with pytest.raises(UsageError, match=r"cannot use .*Permission denied"):
        RunStore.open(tmp_path)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="names files by /proc")
def test_a_prompt_is_on_the_disk_before_its_row_and_the_row_with_the_next_sync(tmp_path, monkeypatch):
    synced = {}
    real = os.fsync

    def fsync(fd):
        synced[os.readlink(f"/proc/self/fd/{fd}")] = os.fstat(fd).st_size
        real(fd)

    with create(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", fsync)
        for index in range(2):
            store.append(row(index), f"prompt {index}")
        [prompts] = tmp_path.glob("prompts/*.gz")
        assert synced == {str(prompts): prompts.stat().st_size, str(prompts.parent): synced[str(prompts.parent)]}
        store.sync()
        file = sample_file(tmp_path)
        assert synced[str(file)] == file.stat().st_size


def test_what_was_appended_is_synced_without_being_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(store_files, "SYNC_SECONDS", 0.01)
    synced = threading.Event()
    real = os.fsync
    with create(tmp_path) as store:
        monkeypatch.setattr(os, "fsync", lambda fd: (real(fd), synced.set()))
        store.append(row(0))
        assert synced.wait(30)


def test_a_disk_that_fails_while_nobody_waits_is_told_by_the_next_row(tmp_path, monkeypatch):
    monkeypatch.setattr(store_files, "SYNC_SECONDS", 0.01)
    failed = threading.Event()

    def failing(fd):
        failed.set()
        full(fd)

    with create(tmp_path) as store:
        store.append(row(0))
        store.sync()
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing)
            store.append(row(1))
            assert failed.wait(30)
            with pytest.raises(UsageError, match="disk full"):
                store.sync()
    assert list(RunStore.open(tmp_path).rows()) == [row(0)]
