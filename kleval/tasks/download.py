"""Download of one pinned file into a folder: resumed, checked by hash, complete or not there.

Into `NAME.part`, continued with a Range request when a part is there, checked against its sha256, then moved over
`NAME` in one step: a file whose content is not what is pinned never takes the place of another.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from kleval.tasks.datafile import one_line
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.tasks.assets import Asset

Progress = Callable[[str, int, int | None], None]  # name, bytes so far, bytes in all

_ATTEMPTS = 3
_TIMEOUT_SECONDS = 30.0


def get(asset: Asset, folder: Path, progress: Progress | None = None) -> None:
    """Download `asset` (or the members of its archive) into `folder`.

    UsageError when it cannot be had, stops halfway (run again to continue) or is not what is pinned.
    """
    _refuse_offline(asset, folder)
    target = folder / asset.name
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(asset, part, progress)
        sha256 = sha256_of(part)
        if asset.known and sha256 not in asset.known:
            part.unlink()
            raise UsageError(
                f"{asset.name}: {asset.url} gave a file with sha256 {sha256}, expected"
                f" {' or '.join(asset.known)}; it was not kept"
            )
        if asset.members:
            _unpack(asset, part, folder)
            part.unlink()
        else:
            os.replace(part, target)
    except OSError as error:
        raise UsageError(f"{asset.name}: {error.strerror or error} ({error.filename or folder})") from error


def listed(asset: Asset, folder: Path) -> list[Asset]:
    """The files that a name with a star stands for, as the hub lists them at the address's revision, each with its hash there."""
    import httpx2

    _refuse_offline(asset, folder)
    base = asset.url.removesuffix(asset.name)
    where, _, _ = asset.url.replace("/datasets/", "/api/datasets/", 1).replace("/resolve/", "/tree/", 1).rpartition("/")
    *_, repository, _, revision, _ = base.split("/")
    try:
        answer = httpx2.get(where, follow_redirects=True, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        found = [
            replace(
                asset,
                name=one["path"],
                url=base + one["path"],
                known={one["lfs"]["oid"]: f"{repository}-{revision[:7]}"},
                size_bytes=one["size"],
                stand_ins=(),
            )
            for one in answer.json()
            if fnmatch(one["path"], asset.name)
        ]
    except (httpx2.HTTPError, ValueError, LookupError, TypeError) as error:
        raise UsageError(
            f"{asset.name}: {where} does not list it ({one_line(error)}); give the files by --data-dir"
        ) from error
    if not found:
        raise UsageError(f"{asset.name}: {where} lists no such file; give the files by --data-dir")
    return found


def _refuse_offline(asset: Asset, folder: Path) -> None:
    if os.environ.get("KLEVAL_OFFLINE", "") not in ("", "0"):
        raise UsageError(f"{asset.name} is not in {folder}, and --offline forbids to fetch it from {asset.url}")


def _unpack(asset: Asset, archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as contents:
        for member, (file, sha256) in asset.members.items():
            raw = contents.read(member)
            if hashlib.sha256(raw).hexdigest() != sha256:
                raise UsageError(f"{asset.name}: {member} in it is not the file that is pinned; it was not kept")
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(target.name + ".part")
            beside.write_bytes(raw)
            os.replace(beside, target)


def _download(asset: Asset, part: Path, progress: Progress | None) -> None:
    """`part` complete, as far as the server says how long it is. Tried again while it changes."""
    import httpx2

    for attempt in range(1, _ATTEMPTS + 1):
        before = part.stat().st_size if part.exists() else 0
        try:
            if _request(asset, part, before, progress):
                return
            problem = "its length is not what the server promised"
        except httpx2.HTTPError as error:
            problem = str(error) or type(error).__name__
        now = part.stat().st_size if part.exists() else 0
        if attempt == _ATTEMPTS or now == before:
            raise UsageError(
                f"{asset.name}: the download from {asset.url} stopped at {now:,} of {asset.size_bytes:,} bytes"
                f" ({problem}); run the command again to continue it"
                if now
                else f"{asset.name}: {asset.url} cannot be reached ({problem}); give the file by --data-dir"
            )


def _request(asset: Asset, part: Path, have: int, progress: Progress | None) -> bool:
    """One GET from byte `have` on. True when all has come; UsageError when the server refuses."""
    import httpx2

    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with httpx2.stream("GET", asset.url, headers=headers, follow_redirects=True, timeout=_TIMEOUT_SECONDS) as answer:
        if answer.status_code == 416 and have:
            # Nothing after what is here: either it is complete, which its hash will tell, or the file has changed.
            if sha256_of(part) in asset.known:
                return True
            part.unlink()
            return False
        if answer.status_code not in (200, 206):
            raise UsageError(f"{asset.name}: {asset.url} answered {answer.status_code}; give the file by --data-dir")
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with part.open("ab" if resumed else "wb") as file:
            # As they come, not in pieces of one size: what is held back when a connection breaks is lost.
            for chunk in answer.iter_raw():
                file.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(asset.name, have, total)
        return total is None or have == total


def sha256_of(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
