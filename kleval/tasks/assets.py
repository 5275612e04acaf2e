"""Official data files by family: address, accepted hashes, size, licence. The table itself is `assets.toml`.

Files are pinned by sha256 wherever a hash is known; where none is, `known` is empty and their readers check what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kleval.tasks import packaged


@dataclass(frozen=True, slots=True)
class Asset:
    """One download.

    name: the file under the data directory; with a star, all of the hub's files that it fits. known: accepted sha256 -> revision; the
    first one is what `url` serves; empty where no hash of the file is known, and then its readers check what it holds.
    size_bytes: of that one, 0 where it is not known. needed_for: tasks, for people. members: of a zip archive, its members ->
    (file under the data directory, sha256); then these files are what counts, and the archive is not kept.
    any_format: its loader reads the file in any format of rows (`datafile`). stand_ins: what it reads in the file's place, in any
    format of rows and in parts too; a folder ends in /.
    """

    name: str
    url: str
    known: Mapping[str, str]
    size_bytes: int
    licence: str
    needed_for: str
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    any_format: bool = False
    stand_ins: tuple[str, ...] = ()

    def files(self) -> dict[str, Mapping[str, str]]:
        """File under the data directory -> accepted sha256 -> revision."""
        if not self.members:
            return {self.name: self.known}
        revision = next(iter(self.known.values()))
        return {file: {sha256: revision} for file, sha256 in self.members.values()}


def _assets(group: Mapping[str, Any], any_format: bool) -> Iterator[Asset]:
    for own in group.get("files", [{}]):
        one = {**group, **own}
        name, url, needed_for = (one[key].replace("{}", own.get("file", "")) for key in ("name", "url", "needed_for"))
        known = {one["sha256"]: one["revision"], **one.get("also", {})} if "sha256" in one else {}
        members = {member: (file, sha256) for member, (file, sha256) in one.get("members", {}).items()}
        stand_ins = tuple(one.get("stand_ins", ()))
        yield Asset(name, url, known, one.get("bytes", 0), one["licence"], needed_for, members, any_format, stand_ins)


_TABLE = packaged.load("assets.toml")
ASSETS: dict[str, tuple[Asset, ...]] = {
    family: tuple(asset for group in groups for asset in _assets(group, family in _TABLE["any_format"]))
    for family, groups in _TABLE["families"].items()
}
APART: Mapping[str, str] = _TABLE["apart"]  # task -> the family that its files are, where that is not the task's own
