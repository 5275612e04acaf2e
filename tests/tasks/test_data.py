"""Downloads, from a server of our own."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from local_server import serving

from kleval.tasks import data
from kleval.tasks.assets import ASSETS, Asset
from kleval.tasks.data import fetch_asset
from kleval.types import UsageError

BODY = bytes(range(256)) * 4000


@dataclass
class Server:
    """files: what is served. cut: bytes after which the connection ends, once per entry. ranges: False ignores Range.
    refused: the status of what is not served. moved: path -> where it is said to be. tokens: that the requests came with."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    refused: int = 404
    asked: list[str | None] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def started() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = state.files.get(self.path)
            wanted = self.headers.get("Range")
            state.asked.append(wanted)
            state.tokens.append(self.headers.get("Authorization"))
            if self.path in state.moved:
                self.send_response(302)
                self.send_header("Location", state.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if body is None:
                self.send_error(state.refused)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            self.wfile.write(body[start : start + state.cut.pop(0)] if state.cut else body[start:])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as state.url:
        yield state


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Downloads are written as finely as its connections are cut, and tried again at once."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 500)
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda _: None))
    with started() as state:
        state.files["/a.json"] = BODY
        yield state


HUB = "https://huggingface.co"


@pytest.fixture
def hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server as HF_ENDPOINT, asked with HF_TOKEN."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return server


@pytest.fixture
def asset(server: Server) -> Asset:
    known = {hashlib.sha256(BODY).hexdigest(): "r1", "0" * 64: "r0"}
    return Asset("a.json", f"{server.url}/a.json", known, len(BODY), "MIT", "tests")


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*.part"))


def test_a_file_is_downloaded_once(server: Server, asset: Asset, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    assert fetch_asset(asset, tmp_path / "new", lambda *progress: seen.append(progress))
    assert (tmp_path / "new/a.json").read_bytes() == BODY
    assert seen[-1] == ("a.json", len(BODY), len(BODY))
    assert not fetch_asset(asset, tmp_path / "new")
    assert server.asked == [None]
    assert leftovers(tmp_path) == []


def test_a_cut_download_continues_where_it_ended(server: Server, asset: Asset, tmp_path: Path) -> None:
    server.cut = [1000, 2000]
    fetch_asset(asset, tmp_path)
    assert (tmp_path / "a.json").read_bytes() == BODY
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_a_download_that_keeps_ending_says_how_far_it_came_and_is_continued_next_time(
    server: Server, asset: Asset, tmp_path: Path
) -> None:
    server.cut = [1000, 2000, *[0] * 6]
    with pytest.raises(UsageError, match=r"stopped at 3,000 of 1,024,000 bytes .* again to continue"):
        fetch_asset(asset, tmp_path)
    assert not (tmp_path / "a.json").exists()
    fetch_asset(asset, tmp_path)
    assert server.asked[-1] == "bytes=3000-"
    assert (tmp_path / "a.json").read_bytes() == BODY


def test_a_server_that_ignores_ranges_starts_over(server: Server, asset: Asset, tmp_path: Path) -> None:
    (tmp_path / "a.json.part").write_bytes(BODY[:500])
    server.ranges = False
    fetch_asset(asset, tmp_path)
    assert (tmp_path / "a.json").read_bytes() == BODY


@pytest.mark.parametrize("part", [BODY, b"x" * (len(BODY) + 7)])
def test_a_part_with_nothing_missing_is_taken_or_dropped_by_its_hash(
    server: Server, asset: Asset, tmp_path: Path, part: bytes
) -> None:
    (tmp_path / "a.json.part").write_bytes(part)
    fetch_asset(asset, tmp_path)
    assert (tmp_path / "a.json").read_bytes() == BODY
    assert leftovers(tmp_path) == []


def test_a_wrong_hash_is_an_error_and_keeps_the_old_file(server: Server, asset: Asset, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"mine")
    server.files["/a.json"] = b"something else"
    with pytest.raises(UsageError, match="sha256") as error:
        fetch_asset(asset, tmp_path)
    assert hashlib.sha256(b"something else").hexdigest() in str(error.value)
    assert (tmp_path / "a.json").read_bytes() == b"mine"
    assert leftovers(tmp_path) == []


def test_any_known_revision_is_left_alone(server: Server, asset: Asset, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"older")
    older = replace(asset, known={**asset.known, hashlib.sha256(b"older").hexdigest(): "r-old"})
    assert not fetch_asset(older, tmp_path)
    assert server.asked == []


def test_not_found_and_no_server_are_one_line(server: Server, asset: Asset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="answered 404"):
        fetch_asset(replace(asset, url=f"{server.url}/other"), tmp_path)
    with pytest.raises(UsageError, match="cannot be reached") as error:
        fetch_asset(replace(asset, url="http://127.0.0.1:9/a.json"), tmp_path)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line(asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(source: object, target: object) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(UsageError, match="No space left"):
        fetch_asset(asset, tmp_path)


def zipped(**members: bytes) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return raw.getvalue()


def test_an_archive_leaves_its_pinned_members_and_nothing_else(server: Server, tmp_path: Path) -> None:
    server.files["/z.zip"] = raw = zipped(one=b"1", two=b"2", evil=b"3")
    members = {n: (f"in/{n}.txt", hashlib.sha256(c).hexdigest()) for n, c in (("one", b"1"), ("two", b"2"))}
    archive = Asset(
        "z.zip", f"{server.url}/z.zip", {hashlib.sha256(raw).hexdigest(): "r1"}, len(raw), "MIT", "tests", members
    )
    assert fetch_asset(archive, tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["one.txt", "two.txt"]
    assert not fetch_asset(archive, tmp_path)


LISTED = "/api/datasets/o/rows/tree/0123456789ab"


def lfs(raw: bytes) -> dict[str, Any]:
    return {"oid": hashlib.sha256(raw).hexdigest(), "size": len(raw), "pointerSize": 99}


def test_the_hub_is_asked_at_its_endpoint_with_the_token_that_no_other_host_gets(
    hub: Server, asset: Asset, tmp_path: Path
) -> None:
    with started() as elsewhere:
        elsewhere.files["/blob"] = BODY
        hub.moved["/datasets/o/rows/resolve/0123456789ab/a.json"] = f"{elsewhere.url}/blob"
        fetch_asset(replace(asset, url=f"{HUB}/datasets/o/rows/resolve/0123456789ab/a.json"), tmp_path)
        assert (hub.tokens, elsewhere.tokens) == (["Bearer hf_secret"], [None])
    fetch_asset(replace(asset, name="b.json"), tmp_path)
    assert hub.tokens[1:] == [None]


def test_what_the_hub_keeps_back_names_the_token(hub: Server, asset: Asset, tmp_path: Path) -> None:
    hub.refused = 401
    with pytest.raises(UsageError, match="answered 401; accept its terms there and set HF_TOKEN"):
        fetch_asset(replace(asset, url=f"{HUB}/datasets/o/rows/resolve/0123456789ab/a.json"), tmp_path)
    assert leftovers(tmp_path) == []


def test_a_name_with_a_star_is_the_files_that_the_hub_lists_by_their_hashes(hub: Server, tmp_path: Path) -> None:
    parts = {f"data/test-0000{n}-of-00002.parquet": bytes([n]) * 99 for n in range(2)}
    listing: list[dict[str, Any]] = [
        {"type": "file", "path": name, "oid": "0" * 40, "size": len(raw), "lfs": lfs(raw)}
        for name, raw in parts.items()
    ]
    listing += [{"type": "file", "path": "data/train-00000-of-00001.parquet", "oid": "0" * 40, "size": 1}]
    listing += [{"type": "directory", "path": "data/test-1.parquet", "oid": "0" * 40}]
    hub.files[LISTED + "/data?recursive=false&expand=false"] = json.dumps(listing).encode()
    hub.files |= {f"/datasets/o/rows/resolve/0123456789ab/{name}": raw for name, raw in parts.items()}
    name, base = "data/test-*.parquet", f"{HUB}/datasets/o/rows/resolve/0123456789ab"
    asset = Asset(name, f"{base}/{name}", {}, 0, "MIT", "tests", stand_ins=("data/test",))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test-00001-of-00002.parquet").write_bytes(parts["data/test-00001-of-00002.parquet"])
    assert fetch_asset(asset, tmp_path)
    assert {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*-*")} == parts
    assert len(hub.asked) == 2  # the list and the part that was missing
    assert not fetch_asset(asset, tmp_path)
    (tmp_path / "data/test-00000-of-00002.parquet").unlink()
    hub.files[f"/datasets/o/rows/resolve/0123456789ab/{next(iter(parts))}"] = b"other"
    with pytest.raises(UsageError, match="it was not kept"):
        fetch_asset(asset, tmp_path)


@pytest.mark.parametrize("listing", [b"", b"{}", b"[]", b'[{"path": "test-0.parquet"}]', b"[1]", None])
def test_a_list_that_names_no_file_is_told_in_one_line(listing: bytes | None, hub: Server, tmp_path: Path) -> None:
    if listing is not None:
        hub.files[LISTED + "?recursive=false&expand=false"] = listing
    url = f"{HUB}/datasets/o/rows/resolve/0123456789ab/test-*.parquet"
    with pytest.raises(UsageError, match=r"give the files by --data-dir$") as raised:
        fetch_asset(Asset("test-*.parquet", url, {}, 0, "MIT", "tests"), tmp_path)
    assert "\n" not in str(raised.value)


def test_fetch_returns_what_is_there_then(
    server: Server, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpinned = replace(asset, name="b.json", known={})
    monkeypatch.setitem(ASSETS, "tests", (asset, unpinned))
    assert [s.state for s in data.verify("tests", tmp_path)] == ["missing", "missing"]
    states = {s.name: s.state for s in data.fetch("tests", tmp_path)}
    assert states == {"a.json": "ok", "b.json": "unrecognised"}
    (tmp_path / "a.json").write_bytes(b"mine")
    assert [s.state for s in data.verify("tests", tmp_path)] == ["unrecognised", "unrecognised"]


def test_one_file_that_fails_does_not_keep_the_others_from_coming(
    server: Server, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = replace(asset, name="b.json", url=f"{server.url}/none")
    monkeypatch.setitem(ASSETS, "tests", (missing, asset))
    with pytest.raises(UsageError, match=r"b\.json"):
        data.fetch("tests", tmp_path)
    assert (tmp_path / "a.json").read_bytes() == BODY


def test_a_host_that_is_silent_is_asked_for_one_file_alone(
    server: Server, asset: Asset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    silent = [replace(asset, name=name, url=f"http://127.0.0.1:9/{name}") for name in ("b", "c", "here")]
    monkeypatch.setitem(ASSETS, "tests", (*silent, asset))
    (tmp_path / "here").write_bytes(BODY)
    with pytest.raises(
        UsageError, match=r"^b: http://127.0.0.1:9/b cannot .* \| c: 127.0.0.1:9 cannot be reached; [^|]*$"
    ):
        data.fetch("tests", tmp_path)
    assert (tmp_path / "a.json").read_bytes() == BODY
    assert capfd.readouterr() == ("", "")


def test_the_folder_is_the_given_one_or_its_subfolder_or_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KLEVAL_DATA_DIR", raising=False)
    assert data.data_folder("ruler") == Path.home() / ".cache/kleval/data/ruler"
    monkeypatch.setenv("KLEVAL_DATA_DIR", str(tmp_path))
    assert data.data_folder("ruler") == tmp_path
    (tmp_path / "ruler").mkdir()
    assert data.data_folder("ruler") == tmp_path / "ruler"
    assert data.data_folder("ruler", tmp_path / "x") == tmp_path / "x"


def test_pins_are_whole_hashes_and_addresses() -> None:
    for assets in ASSETS.values():
        for one in assets:
            for known in [one.known, *one.files().values()]:
                assert all(len(sha256) == 64 and int(sha256, 16) for sha256 in known)
            assert one.url.startswith("http")
            assert one.size_bytes >= 0


def test_the_fixture_files_are_recognised_for_what_they_are(fixtures_dir: Path) -> None:
    states = {s.name: s.state for s in data.verify("ruler", fixtures_dir / "ruler/assets")}
    assert states.pop("squad.json") == states.pop("hotpotqa.json") == "unrecognised"
    assert states.pop("english_words.json") == "missing"
    assert len(states) == 5
    assert set(states.values()) == {"ok"}


def test_a_family_without_data_is_named() -> None:
    with pytest.raises(UsageError, match="ruler"):
        data.fetch("nothing")


def test_verify_knows_other_forms_and_pointers(tmp_path: Path) -> None:
    (tmp_path / "mbpp_plus").mkdir()
    (tmp_path / "mbpp_plus" / "test.jsonl.gz").write_bytes(b"\x1f\x8bpacked")
    (tmp_path / "humaneval_plus").mkdir()
    (tmp_path / "humaneval_plus" / "test.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    found = {status.needed_for.partition(" ")[0]: status for status in data.verify("code", tmp_path)}
    assert (found["mbpp_plus"].name, found["mbpp_plus"].good) == ("mbpp_plus/test.jsonl.gz", True)
    assert (found["humaneval_plus"].state, found["humaneval_plus"].good) == ("pointer", False)


def test_what_cannot_be_had_is_a_short_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"and \d+ more of the short files: `kleval data verify short`") as error:
        data.fetch("short", tmp_path)
    assert len(str(error.value)) < 1500
