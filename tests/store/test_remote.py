"""Run directories at remote addresses: what is written here gets there whole, and what is there can be read and gone on with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from store_helpers import MANIFEST, failed, row

from kleval.store import RunStore, remote
from kleval.types import UsageError

URL = "memory://bucket/long/1"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KLEVAL_NATIVE", "off")  # which would be built for this home
    yield
    fsspec.filesystem("memory").store.clear()


def write(folder: Path, *rows: object) -> RunStore:
    with RunStore.create(folder, {**MANIFEST, "status": "complete", "sessions": [{"status": "complete"}]}) as store:
        for one in rows:
            store.append(one, f"prompt {one.index}")
    return store


def rows(folder: Path) -> list[str]:
    return [one.id for one in RunStore.open(folder).rows()]


@pytest.mark.parametrize("place", ["s3://b/run", "s3:/b/run", Path("s3://b/run"), "s3://b/run/"])
def test_an_address_is_known_however_a_path_spells_it(place: str | Path) -> None:
    assert remote.address(place) == "s3://b/run"
    assert remote.written("s3://b/../../run") == Path("runs/s3/b/run")


@pytest.mark.parametrize("place", ["runs/a", "/runs/a", "C:/runs", "a:b"])
def test_a_place_on_this_machine_is_none(place: str) -> None:
    assert remote.address(place) is None


def test_what_was_written_is_read_elsewhere() -> None:
    folder = remote.begin(URL)
    write(folder, row(0), row(1))
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "tmp" / "draft").touch()
    remote.upload(URL)
    copy = remote.fetched(URL)
    assert rows(copy) == ["a-0", "a-1"]
    store = RunStore.open(copy)
    assert [store.read_prompt(one) for one in store.rows()] == ["prompt 0", "prompt 1"]
    assert not (copy / "tmp").exists()
    assert [path.name for path in RunStore.find_runs(remote.fetched("memory://bucket/long"))] == ["1"]


def test_prompts_are_sent_once_and_rows_always() -> None:
    write(remote.begin(URL), row(0))
    first = remote.upload(URL)
    assert remote.upload(URL) == first - 1


def test_a_run_goes_on_on_another_machine(tmp_path: Path) -> None:
    write(remote.begin(URL), failed(0), row(1))
    remote.upload(URL)
    os.rename(tmp_path / "runs", tmp_path / "other machine")
    folder = remote.begin(URL)
    write(folder, row(0))
    remote.upload(URL)
    assert [one.failed for one in RunStore.open(remote.fetched(URL)).rows()] == [False, False]
    os.rename(tmp_path / "runs", tmp_path / "ahead")
    os.rename(tmp_path / "other machine", tmp_path / "runs")
    with pytest.raises(UsageError, match="was continued elsewhere"):
        remote.begin(URL)


def test_another_run_is_not_written_over(tmp_path: Path) -> None:
    write(remote.begin(URL), row(0))
    remote.upload(URL)
    os.rename(tmp_path / "runs", tmp_path / "elsewhere")
    write(remote.written(URL), row(1))
    with pytest.raises(UsageError, match="holds another run"):
        remote.begin(URL)


def test_an_upload_checks_once_more_what_lies_there(tmp_path: Path) -> None:
    write(remote.begin(URL), row(0))
    os.rename(tmp_path / "runs", tmp_path / "elsewhere")
    write(remote.begin(URL), row(1))
    remote.upload(URL)
    os.rename(tmp_path / "runs", tmp_path / "first")
    os.rename(tmp_path / "elsewhere", tmp_path / "runs")
    with pytest.raises(UsageError, match="holds another run"):
        remote.upload(URL)
    assert rows(remote.fetched(URL)) == ["a-1"]


def test_a_copy_has_nothing_of_a_run_that_is_gone(tmp_path: Path) -> None:
    write(remote.begin(URL), row(0), row(1))
    remote.upload(URL)
    assert rows(remote.fetched(URL)) == ["a-0", "a-1"]
    system = fsspec.filesystem("memory")
    system.rm("/bucket/long/1", recursive=True)
    os.rename(tmp_path / "runs", tmp_path / "gone")
    write(remote.begin(URL), row(2))
    remote.upload(URL)
    assert rows(remote.fetched(URL)) == ["a-2"]


def test_it_is_known_whether_all_is_there() -> None:
    folder = remote.begin(URL)
    assert not remote.is_there(URL)
    write(folder, row(0))
    remote.upload(URL)
    assert remote.is_there(URL)
    write(folder, row(1))
    assert not remote.is_there(URL)


def test_reading_leaves_what_was_not_uploaded_alone() -> None:
    folder = remote.begin(URL)
    write(folder, row(0))
    remote.upload(URL)
    write(folder, row(1))
    assert rows(remote.fetched(URL)) == ["a-0"]
    assert rows(folder) == ["a-0", "a-1"]


def test_the_manifest_is_the_last_that_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    system = type(fsspec.filesystem("memory"))
    put = system.put_file
    monkeypatch.setattr(system, "put_file", lambda self, here, there: (sent.append(there), put(self, here, there)))
    write(remote.begin(URL), row(0))
    sent.clear()
    remote.upload(URL)
    assert sent[-1].endswith("/run.json")
    assert len(sent) == 3


def test_what_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="nothing at memory://none"):
        remote.fetched("memory://none")
    with pytest.raises(UsageError, match="nowhere://b/run cannot be used"):
        remote.begin("nowhere://b/run")
    write(remote.begin(URL), row(0))
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", _refuse)
    with pytest.raises(UsageError, match=r"no space there; everything is in runs/memory/bucket/long/1"):
        remote.upload(URL)


def _refuse(*arguments: object) -> None:
    raise OSError("no space there")


SMALL = ["run", "--tasks", "ruler/niah_single_1", "--ctx", "512", "--limit", "1", "--sample-cache", "off", "-q"]


@pytest.mark.parametrize(
    "asked", [SMALL, ["profile", "--ctx", "128", "-q"], ["profile", "kernels", "-q"], ["merge", "s3"]]
)
def test_an_address_that_cannot_be_written_is_told_before_anything_is_done(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kleval.cli.main import call

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "put_file", _refuse)
    assert call([*asked, "--out", URL]) == 2
    assert capsys.readouterr().err == f"kleval: {URL} cannot be written, so nothing was run: no space there\n"
    assert not Path("runs").exists()


def test_what_tries_an_address_is_not_seen_where_it_may_not_be_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "rm", _refuse)
    write(remote.begin(URL), row(0))
    remote.upload(URL)
    assert remote.PROBE in {name.rpartition("/")[2] for name in fsspec.filesystem("memory").find("/")}
    assert remote.PROBE not in {file.name for file in remote.fetched(URL).rglob("*")}


def test_an_address_is_tried_when_the_options_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    from kleval.cli.main import call

    monkeypatch.setattr(remote, "_reached", _refuse)
    assert call([*SMALL, "--out", URL, "--limit", "no"]) == 2
    assert call(["merge", "s3://shards", "--out", URL, "--no-such-option"]) == 2


def test_a_dry_run_brings_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write(remote.begin(URL), row(0))
    remote.upload(URL)
    os.rename("runs", "elsewhere")
    for name in ("put_file", "get_file"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), name, _refuse)
    said: list[str] = []
    with remote.uploading(URL, dry_run=True, say=said.append) as folder:
        assert folder == remote.written(URL)
    assert said == [f"{URL} has a run that a dry run does not bring: what is planned here is all of it"]
    assert not Path("runs").exists()


def test_python_writes_to_an_address() -> None:
    from kleval import load
    from kleval.api.models import directory

    with directory(URL) as folder:
        write(folder, row(0))
    assert len(load(URL).samples) == 1


def test_a_command_writes_to_an_address_and_others_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    from kleval import load
    from kleval.cli.main import call

    assert call([*SMALL, "--out", URL]) == 0
    assert f"uploaded  {URL}" in capsys.readouterr().err
    assert call(["leaderboard", URL, "--format", "json"]) == 0
    assert [one["n"] for one in json.loads(capsys.readouterr().out)][:1] == [1]
    assert len(load(URL).samples) == 1


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of a server that speaks S3, on this machine."""
    for package in ("moto.server", "s3fs", "flask"):
        pytest.importorskip(package, reason="pip install -r locks/remote.txt: moto's S3 server and s3fs are not here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
    )
    own = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        try:
            _wait(port)
            s3fs.S3FileSystem().mkdir("bucket")
            yield "s3://bucket"
        finally:
            s3fs.S3FileSystem.clear_instance_cache()
            server.terminate()
            server.wait()


def _wait(port: int) -> None:
    for _ in range(600):
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not start")


def test_shards_meet_in_a_bucket(bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    from kleval import load
    from kleval.cli.main import call

    small = ["run", "--tasks", "ruler/niah_single_1", "--ctx", "512", "--limit", "2", "--sample-cache", "off", "-q"]
    for shard in ("1/2", "2/2"):
        assert call([*small, "--shard", shard, "--out", f"{bucket}/long/{shard[0]}"]) == 0
    assert call(["merge", f"{bucket}/long", "--out", f"{bucket}/merged"]) == 0
    assert f"uploaded  {bucket}/merged" in capsys.readouterr().err
    assert call(["leaderboard", f"{bucket}/merged", "--format", "json"]) == 0
    assert [one["n"] for one in json.loads(capsys.readouterr().out)] == [2]
    assert call(["report", f"{bucket}/merged", "--out", "page.html"]) == 0
    assert call(["show", f"{bucket}/merged"]) == 0
    assert len(load(f"{bucket}/merged").samples) == 2
    assert call([*small, "--out", f"{bucket}/merged"]) == 0  # it goes on as one
    assert call([*small, "--out", "s3://no-such-bucket/x"]) == 2
