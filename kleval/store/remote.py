"""Run directories at remote addresses (`s3://bucket/run`, `gs://…`), through fsspec: written here first, uploaded at the end.

An address has one directory here that is written, `runs/s3/bucket/run`, so that the same command goes on in it; where that is not
there (another machine), what was uploaded is brought first. What is read comes into a cache of its own, so that reading never touches
rows that were not uploaded yet. Prompts, which only grow, are sent when their size differs, all other files always, `run.json` last:
who sees it sees what it names.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kleval.packages import need
from kleval.store.manifest import read_manifest
from kleval.text import plural
from kleval.types import UsageError

WRITTEN = Path("runs")
MANIFEST = "run.json"
PROBE = ".kleval-may-write"
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}([^/].*)")  # a Path has swallowed a slash


def address(place: str | Path) -> str | None:
    """The remote address that a place is; None for a place on this machine."""
    found = _ADDRESS.fullmatch(str(place))
    return f"{found[1]}://{found[2].rstrip('/')}" if found and not Path(place).exists() else None


def written(url: str) -> Path:
    """Where what belongs at the address is written on this machine."""
    return WRITTEN.joinpath(*_parts(url))


@contextlib.contextmanager
def uploading(
    place: str | Path, dry_run: bool = False, say: Callable[[str], None] = lambda text: None
) -> Iterator[Path]:
    """Where to write what belongs at a place: the place itself, or `begin` of a remote address, which has it all when the block ends.

    Not uploaded: what was refused before it changed anything, and what another command is writing. dry_run: nothing is brought or
    written, on neither side.
    """
    url = address(place)
    if url is None:
        yield Path(place)
        return
    folder = written(url)
    if dry_run:
        if _has_run(url) and not (folder / MANIFEST).is_file():
            say(f"{url} has a run that a dry run does not bring: what is planned here is all of it")
        yield folder
        return
    begin(url)
    before = _state(folder) if is_there(url) else None
    try:
        yield folder
    finally:
        state = _state(folder)
        if state is not None and state != before and json.loads(state)["status"] != "running":
            say(f"uploaded  {url} ({plural(upload(url), 'file')})")


def _state(folder: Path) -> bytes | None:
    file = folder / MANIFEST
    return file.read_bytes() if file.is_file() else None


def _has_run(url: str) -> bool:
    with _reached(url) as (system, root):
        return bool(system.exists(f"{root}/{MANIFEST}"))


def begin(url: str) -> Path:
    """`written`, with what was uploaded from elsewhere. UsageError where nothing can be written there, or where what lies there is
    not what was written here, or ahead of it."""
    folder = written(url)
    with _reached(url) as (system, root):
        is_here = (folder / MANIFEST).is_file()
        if is_here:
            _check_ours(system, root, folder, url)
        _try_to_write(system, root, url)
        if not is_here and system.exists(f"{root}/{MANIFEST}"):
            _bring(system, root, folder)
    return folder


def _try_to_write(system: Any, root: str, url: str) -> None:
    """UsageError where a file does not arrive as `upload` sends it. One that may not be removed again stays, empty and unseen."""
    probe = f"{root}/{PROBE}"
    with tempfile.NamedTemporaryFile() as empty:
        try:
            system.put_file(empty.name, probe)
        except Exception as error:  # of any file system's client
            raise UsageError(f"{url} cannot be written, so nothing was run: {_said(error)}") from error
    with contextlib.suppress(Exception):
        system.rm(probe)


def _check_ours(system: Any, root: str, folder: Path, url: str) -> None:
    """UsageError where the address holds another run than the folder, or sessions that the folder does not have."""
    new = _manifest_at(system, root, folder)
    if new is None:
        return
    old = read_manifest(folder)
    mine, theirs = (Counter(session.get("started") for session in manifest["sessions"]) for manifest in (old, new))
    if old["uid"] != new["uid"] or not theirs <= mine:
        what = "was continued elsewhere" if old["uid"] == new["uid"] else "holds another run"
        raise UsageError(
            f"{url} {what} than {folder} has it: move {folder} away to go on from there, or give another --out"
        )


def _manifest_at(system: Any, root: str, folder: Path) -> dict[str, Any] | None:
    """run.json as it lies there, None where there is none. It is brought beside the folder, never into it."""
    if not system.exists(f"{root}/{MANIFEST}"):
        return None
    there = folder.with_name(f".{folder.name}.there")
    try:
        _get(system, f"{root}/{MANIFEST}", there / MANIFEST)
        return read_manifest(there)
    finally:
        (there / MANIFEST).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            there.rmdir()


def is_there(url: str) -> bool:
    """Whether the address has all that was written for it here, by run.json."""
    folder = written(url)
    with _reached(url) as (system, root):
        new = _manifest_at(system, root, folder)
    return new is not None and (folder / MANIFEST).is_file() and read_manifest(folder) == new


def fetched(url: str) -> Path:
    """A copy of what lies at the address, in the user's cache. UsageError where nothing does."""
    folder = Path.home().joinpath(".cache", "kleval", "remote", *_parts(url))
    with _reached(url) as (system, root):
        names = {name for name, _ in _listed(system, root)}
        if not names:
            raise UsageError(f"there is nothing at {url}")
        _forget(system, root, folder, names)
        _bring(system, root, folder)
    return folder


def _forget(system: Any, root: str, folder: Path, names: set[str]) -> None:
    """Remove from a copy what another run left there, and what the address no longer has. names: of the files that it has."""
    for name in names:
        if name.rpartition("/")[2] == MANIFEST and (folder / name).is_file():
            place = (folder / name).parent
            new = _manifest_at(system, f"{root}/{name}".rpartition("/")[0], place)
            if new is None or read_manifest(place)["uid"] != new["uid"]:
                shutil.rmtree(place)
    for name in set(_names(folder)) - names:
        (folder / name).unlink(missing_ok=True)


def upload(url: str) -> int:
    """Send what was written for the address there; how many files. UsageError where that holds what is not here."""
    folder = written(url)
    sent = 0
    with _reached(url, f"; everything is in {folder}, and the same command uploads it") as (system, root):
        _check_ours(system, root, folder, url)
        there = dict(_listed(system, root))
        for name in sorted(_names(folder), key=lambda name: (name == MANIFEST, name)):
            if not (_grows(name) and there.get(name) == (folder / name).stat().st_size):
                system.put_file(str(folder / name), f"{root}/{name}")
                sent += 1
    return sent


def here(place: str | Path) -> Path:
    """A place on this machine, or a copy of a remote one."""
    url = address(place)
    return Path(place) if url is None else fetched(url)


def _bring(system: Any, root: str, folder: Path) -> int:
    """How many files lie there; run.json comes last."""
    names = dict(_listed(system, root))
    for name in sorted(names, key=lambda name: (name.endswith(MANIFEST), name)):
        file = folder / name
        if not (_grows(name) and file.is_file() and file.stat().st_size == names[name]):
            _get(system, f"{root}/{name}", file)
    return len(names)


def _get(system: Any, path: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.part")
    try:
        system.get_file(path, str(draft))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def _names(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if file.is_file() and name.parts[0] != "tmp" and not file.name.startswith("."):
            yield name.as_posix()


def _listed(system: Any, root: str) -> Iterator[tuple[str, int]]:
    system.invalidate_cache()
    for path, about in system.find(root, detail=True).items():
        name = path.strip("/").removeprefix(root.strip("/")).strip("/")
        if name and ".." not in name.split("/") and not name.rpartition("/")[2].startswith("."):
            yield name, int(about.get("size") or 0)


def _grows(name: str) -> bool:
    return "prompts" in name.split("/")[:-1]


def _parts(url: str) -> list[str]:
    scheme, _, path = url.partition("://")
    return [scheme, *(part for part in path.split("/") if part not in ("", ".", ".."))]


@contextlib.contextmanager
def _reached(url: str, more: str = "") -> Iterator[tuple[Any, str]]:
    """The file system of an address, and the path in it. What goes wrong with it is one UsageError. more: what it ends with."""
    scheme = url.partition("://")[0]
    fsspec = need("fsspec", "remote", url)
    try:
        system, root = fsspec.core.url_to_fs(url)
        yield system, str(root).rstrip("/")
    except UsageError:
        raise
    except ImportError as error:
        if scheme in ("s3", "s3a"):
            need("s3fs", "remote", url)
        raise UsageError(f"{url} cannot be used: {error}{more}") from error
    except Exception as error:  # of any file system's client
        raise UsageError(f"{url} cannot be used: {_said(error)}{more}") from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
