"""Download of one pinned file into a folder: resumed, checked by hash, complete or not there.

By huggingface_hub's own download, which asks any address, tries again and continues what is there; the hub is asked where HF_ENDPOINT
says, with HF_TOKEN, which goes to no other host. Into `NAME.part`, checked against its sha256, then moved over `NAME` in one step:
a file whose content is not what is pinned never takes the place of another.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.tasks.datafile import one_line
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.tasks.assets import Asset

Progress = Callable[[str, int, int | None], None]  # name, bytes so far, bytes in all

_HUB = "https://huggingface.co"


class Unreachable(UsageError):
    """Nothing answers where a file is asked for."""


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
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    _quiet()
    _refuse_offline(asset, folder)
    base = asset.url.removesuffix(asset.name)
    *_, owner, name, _, revision, _ = base.split("/")
    try:
        entries = HfApi().list_repo_tree(
            f"{owner}/{name}", asset.name.rpartition("/")[0] or None, revision=revision, repo_type="dataset"
        )
        found = [
            replace(
                asset,
                name=one.path,
                url=base + one.path,
                known={one.lfs.sha256: f"{name}-{revision[:7]}"},
                size_bytes=one.size,
                stand_ins=(),
            )
            for one in entries
            if fnmatch(one.path, asset.name) and isinstance(one, RepoFile) and one.lfs
        ]
    except Exception as error:  # of the hub's client and of what it reads: all end alike
        raise UsageError(
            f"{asset.name}: {base} cannot be listed ({one_line(error)}); give the files by --data-dir"
        ) from error
    if not found:
        raise UsageError(f"{asset.name}: {base} has no such file; give the files by --data-dir")
    return found


def _refuse_offline(asset: Asset, folder: Path) -> None:
    if os.environ.get("KLEVAL_OFFLINE", "") not in ("", "0"):
        raise UsageError(f"{asset.name} is not in {folder}, and --offline forbids to fetch it from {asset.url}")


def _quiet() -> None:
    """kleval tells how far a download is, and in one line what is wrong."""
    from huggingface_hub import utils

    utils.disable_progress_bars("huggingface_hub.http_get")
    utils.logging.set_verbosity_error()


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
    """`part` complete, as far as the server says how long it is; continued where it was begun."""
    from huggingface_hub import constants, file_download, utils

    _quiet()
    have = part.stat().st_size if part.exists() else 0
    if have and sha256_of(part) in asset.known:
        return
    of_hub = asset.url.startswith(_HUB)
    url = asset.url.replace(_HUB, constants.ENDPOINT, 1) if of_hub else asset.url
    own = utils.build_hf_headers(library_name="kleval") if of_hub else {}
    try:
        with _Part(part, asset, progress) as file:
            file_download.http_get(url, file, resume_size=have, headers={"Accept-Encoding": "identity", **own})
        return
    except Exception as caught:  # of the HTTP library, which depends on huggingface_hub's version
        error = caught
    if isinstance(error, OSError) and error.errno is not None:
        raise error
    now, status = part.stat().st_size, getattr(getattr(error, "response", None), "status_code", None)
    if not now or status == 416:  # nothing comes after what is here, which is not what is pinned
        part.unlink()
    if status == 416 and have:
        return _download(asset, part, progress)
    if not status and not now:
        raise Unreachable(
            f"{asset.name}: {asset.url} cannot be reached ({one_line(error)}); give the file by --data-dir"
        ) from error
    if status:
        terms = "accept its terms there and set HF_TOKEN, or " if of_hub and status in (401, 403) else ""
        problem = f"{asset.url} answered {status}; {terms}give the file by --data-dir"
    else:
        far = f"{now:,} of {asset.size_bytes:,} bytes ({one_line(error)})"
        problem = f"the download from {asset.url} stopped at {far}; run the command again to continue it"
    raise UsageError(f"{asset.name}: {problem}") from error


class _Part(io.BufferedWriter):
    """What a download is written to: it tells how far it is."""

    def __init__(self, path: Path, asset: Asset, progress: Progress | None) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._asset, self._progress = asset, progress

    def write(self, chunk: Any) -> int:
        n = super().write(chunk)
        if self._progress is not None:
            self._progress(self._asset.name, self.tell(), self._asset.size_bytes or None)
        return n


def sha256_of(path: Path) -> str:
    """sha256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
