"""Data files of official editions (`assets`): download, verification by hash, location.

`fetch` downloads what is missing into the data directory (see `download`). Files brought along by the user are taken as
they are and named "unrecognised", with their hash, where they are not one of the known ones.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from kleval.tasks import datafile, download, registry
from kleval.tasks.assets import APART, ASSETS, Asset
from kleval.tasks.download import Progress
from kleval.types import UsageError

MOST_TOLD = 2  # of the files that could not be had

State = Literal["ok", "missing", "unrecognised", "pointer"]  # pointer: what Git LFS left in the file's place


class MissingData(UsageError):
    """A file of the official edition is not there. family: what `kleval data fetch` gets. how: what gets it, where that does not."""

    def __init__(self, message: str, family: str, how: str = "") -> None:
        super().__init__(message)
        self.family, self.how = family, how or f"`kleval data fetch {family}` gets it"


@dataclass(frozen=True, slots=True)
class Status:
    """One file of a family. sha256 is empty where it was not computed; revision is empty unless state is ok.

    path: of the file, or of what lies in its place in another form that its loader reads. pinned: some hash of it is
    known, so that it can be ok.
    """

    name: str
    path: Path
    state: State
    size_bytes: int
    sha256: str
    revision: str
    licence: str
    needed_for: str
    url: str
    pinned: bool = True

    @property
    def good(self) -> bool:
        """There, and what is pinned where something is."""
        return self.state == "ok" or (self.state == "unrecognised" and not self.pinned)


@dataclass(frozen=True, slots=True)
class Source:
    """The files that an official edition reads. sha256: of the one, or over those of several."""

    paths: tuple[Path, ...]
    revision: str
    sha256: str

    @property
    def path(self) -> Path:
        return self.paths[0]


def data_folder(family: str, data_dir: Path | None = None) -> Path:
    """Where the files of `family` lie: data_dir or KLEVAL_DATA_DIR (or its subfolder of that name, when there is one),
    else ~/.cache/kleval/data/FAMILY."""
    given = data_dir or (Path(os.environ["KLEVAL_DATA_DIR"]) if os.environ.get("KLEVAL_DATA_DIR") else None)
    if given is None:
        return Path.home() / ".cache" / "kleval" / "data" / family
    given = given.expanduser()
    return given / family if (given / family).is_dir() else given


def assets(family: str) -> tuple[Asset, ...]:
    """The downloads of a family; UsageError when it has none."""
    if family not in ASSETS:
        near = difflib.get_close_matches(family, ASSETS, n=1)
        raise UsageError(
            f"there is nothing to fetch for {family!r}: {f'did you mean {near[0]}? ' if near else ''}families with data are"
            f" {', '.join((*ASSETS, *(f'{prefix}NAME' for prefix in registry.OPEN if prefix.endswith('/'))))}"
        )
    return ASSETS[family]


def known_revisions(family: str) -> dict[str, str]:
    """Accepted sha256 -> revision, of all files of a family."""
    return {sha256: revision for asset in assets(family) for sha256, revision in asset.known.items()}


def family_of(name: str) -> str:
    """The family of a task, whose files its tasks share; a family and a provided task (lm_eval/NAME) stand for themselves.

    UsageError with the nearest names for a task that there is not.
    """
    family, slash, _ = name.partition("/")
    if not slash or family not in ASSETS:
        return name
    registry.expand([name])
    return APART.get(name, family)


def verify(family: str, data_dir: Path | None = None) -> list[Status]:
    """Every file of the family, or of a task's family, hashed. lm_eval/NAME: of a task or group of lm-eval's."""
    if (provided := registry.provider(family)) is not None:
        return provided.verify(family, data_dir)
    family = family_of(family)
    folder = data_folder(family, data_dir)
    return [status_of(asset, file, known, folder) for asset in assets(family) for file, known in asset.files().items()]


def status_of(asset: Asset, file: str, known: Mapping[str, str], folder: Path) -> Status:
    """One file of an asset as it lies in `folder`, or of what its loader reads in its place."""
    path = folder / file
    status = Status(file, path, "missing", 0, "", "", asset.licence, asset.needed_for, asset.url, bool(known))
    found = datafile.existing(path) if asset.any_format else datafile.packed_or_not(path)
    found = found or next((one for other in asset.stand_ins for one in _lying(folder, other)), None)
    if found is None:
        return status
    sha256 = file_sha256(found)
    revision = known.get(sha256, "")
    return replace(
        status,
        name=file if found == path else found.relative_to(folder).as_posix(),
        path=found,
        state="pointer" if datafile.pointer(found) else "ok" if revision else "unrecognised",
        size_bytes=found.stat().st_size,
        sha256=sha256,
        revision=revision,
        pinned=bool(known) and found == path,
    )


def _lying(folder: Path, other: str) -> Iterable[Path]:
    """The files that a stand-in is."""
    if other.endswith("/"):
        return (one for one in sorted((folder / other).rglob("*")) if one.is_file())
    return datafile.parts(folder / other)


def need(family: str, file: str, for_what: str, data_dir: Path | None = None) -> Status:
    """A file that is there, in whatever form. UsageError naming the command that fetches it when it is not."""
    folder = data_folder(family, data_dir)
    asset = next(asset for asset in assets(family) if file in asset.files())
    status = status_of(asset, file, asset.files()[file], folder)
    if status.state == "pointer":
        datafile.refuse_pointer(status.path)
    if status.state == "missing":
        raise missing(for_what, file, family, folder, data_dir)
    return status


def find(family: str, files: Sequence[str], for_what: str, data_dir: Path | None, named: str) -> Source:
    """Files that all have to be there, of the first one's revision where all are known. named: what they are of, where they are not."""
    got = [need(family, file, for_what, data_dir) for file in files]
    source = source_of([one.path for one in got], named)
    return replace(source, revision=got[0].revision) if all(one.state == "ok" for one in got) else source


def source_of(paths: Sequence[Path], named: str) -> Source:
    """Files no hash of which is known. named: what they are of."""
    hashes = [file_sha256(path) for path in paths]
    digest = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Source(tuple(paths), f"{named}, unpinned sha256:{digest[:16]}", digest)


def missing(for_what: str, what: str, family: str, folder: Path, data_dir: Path | None) -> MissingData:
    """The error for files that are not there, naming the command that fetches them."""
    where = f" --data-dir {data_dir}" if data_dir else ""
    return MissingData(
        f"{for_what} needs {what}, which is not in {folder}: `kleval data fetch {family}{where}` gets it,"
        f" --data-dir names another folder, --edition builtin needs no files",
        family,
    )


def fetch(family: str, data_dir: Path | None = None, progress: Progress | None = None) -> list[Status]:
    """Download what is missing of the family or of a task's family, and return what is there then.

    UsageError, once all were tried, for what cannot be downloaded, stops halfway or is not what is pinned; files that
    are there and good are left alone. lm_eval/NAME: what a task or group of lm-eval's reads.
    """
    if (provided := registry.provider(family)) is not None:
        return provided.fetch(family, data_dir, progress)
    family = family_of(family)
    folder = data_folder(family, data_dir)
    _fetch_all(assets(family), folder, progress, f"the {family} files: `kleval data verify {family}`")
    return verify(family, data_dir)


def _fetch_all(wanted: Iterable[Asset], folder: Path, progress: Progress | None, whole: str) -> int:
    """How many were fetched. UsageError, once all were tried: one line, the first few that could not be had and how many more.
    whole: what they are of, and the command that lists them."""
    fetched, problems, silent = 0, list[str](), set[str]()
    for asset in wanted:
        host = urlsplit(asset.url).netloc
        try:
            if host in silent and not _there(asset, folder):  # asking it takes seconds
                raise UsageError(f"{asset.name}: {host} cannot be reached; give the file by --data-dir")
            fetched += fetch_asset(asset, folder, progress)
        except UsageError as error:
            problems.append(str(error))
            silent |= {host} if isinstance(error, download.Unreachable) else set()
    if problems:
        more = len(problems) - MOST_TOLD
        rest = f" | and {more} more of {whole} lists what is missing" if more > 0 else ""
        raise UsageError(" | ".join(problems[:MOST_TOLD]) + rest)
    return fetched


def fetch_asset(asset: Asset, folder: Path, progress: Progress | None = None) -> bool:
    """One asset into `folder`. False when it was there already, in whatever form its loader reads."""
    if _there(asset, folder):
        return False
    if "*" in asset.name:
        parts = download.listed(asset, folder)
        return _fetch_all(parts, folder, progress, f"the parts of {asset.name}: `kleval data verify`") > 0
    download.get(asset, folder, progress)
    return True


def _there(asset: Asset, folder: Path) -> bool:
    return all(status_of(asset, file, known, folder).good for file, known in asset.files().items())


def file_sha256(path: Path) -> str:
    """sha256 of a file, hex; remembered until its size or time changes."""
    stat = path.stat()
    return _known_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:
    return download.sha256_of(path)
