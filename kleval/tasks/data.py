"""The files that official editions read: where they come from, what they must be, and how they get here.

Every file is pinned by sha256. `fetch` downloads what is missing into the data directory (see `download`). Files
brought along by the user are taken as they are and named "unrecognised", with their hash, where they are not one of
the known ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kleval.tasks import download
from kleval.tasks.download import Progress
from kleval.types import UsageError

State = Literal["ok", "missing", "unrecognised"]


class MissingData(UsageError):
    """A file of the official edition is not there. family: what `kleval data fetch` gets."""

    def __init__(self, message: str, family: str) -> None:
        super().__init__(message)
        self.family = family


@dataclass(frozen=True, slots=True)
class Asset:
    """One download.

    name: the file under the data directory. known: accepted sha256 -> revision; the first one is what `url` serves;
    empty where no hash of the file is known, and then its readers check what it holds.
    size_bytes: of that one. needed_for: tasks, for people. members: of a zip archive, its members -> (file under the
    data directory, sha256); then these files are what counts, and the archive is not kept.
    """

    name: str
    url: str
    known: Mapping[str, str]
    size_bytes: int
    licence: str
    needed_for: str
    members: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def files(self) -> dict[str, Mapping[str, str]]:
        """File under the data directory -> accepted sha256 -> revision."""
        if not self.members:
            return {self.name: self.known}
        revision = next(iter(self.known.values()))
        return {file: {sha256: revision} for file, sha256 in self.members.values()}


_RULER_REPO = "NVIDIA/RULER/c3f5e3b4f87f97e048793bb510a3a6b19a46bf3a/scripts/data/synthetic/json"
_ESSAYS_REPO = "Chen3776/baseline_ruler/314ff301d5d33184e9b9ba765a0d9833d81495c9/scripts/data/synthetic/json"
_NLTK_REPO = "nltk/nltk_data/550b6625bcef1f2abff2ff770a5a0d272c9c6b2a"
_LCA_HUB = "https://huggingface.co/datasets/JetBrains-Research"
PUNKT = "nltk_data/tokenizers/punkt_tab/english"

ASSETS: dict[str, tuple[Asset, ...]] = {
    "ruler": (
        # The official script builds this file from 218 live web pages, so its content drifts: hence a copy, by hash.
        Asset(
            "PaulGrahamEssays.json",
            f"https://raw.githubusercontent.com/{_ESSAYS_REPO}/PaulGrahamEssays.json",
            {
                "d9e4663b58000c644994bb677b6c47a6c0e026d1bc2386aade8963ae7bd9e039": "baseline_ruler-314ff30",
                "d4cd6848b412d74df12b2830fc2855c3c4fdb7d94ce2b460bdd1a5e5a0bec81b": "MiguelMouraRamos-RULER",
            },
            3_101_008,
            "Paul Graham; no licence stated",
            "niah_single_2, niah_single_3, niah_multikey_1, niah_multivalue, niah_multiquery",
        ),
        Asset(
            "punkt_tab.zip",
            f"https://raw.githubusercontent.com/{_NLTK_REPO}/packages/tokenizers/punkt_tab.zip",
            {"e57f64187974277726a3417ca6f181ec5403676c717672eef6a748a7b20e0106": "nltk_data-550b662"},
            4_319_076,
            "MIT",
            "the same (sentence splitting)",
            {
                f"punkt_tab/english/{file}": (f"{PUNKT}/{file}", sha256)
                for file, sha256 in (
                    ("abbrev_types.txt", "92a3e070f43d9b4c5534758ca40ad7343b04e7e29bfe0c2eb658a39445a4f779"),
                    ("collocations.tab", "8e2da1225e4dd2cc9dba261ee231ccb134859e21b46006e7f472c5ee269af0cf"),
                    ("ortho_context.tab", "4bbcca25ed3d3f06c02402abf8419b9f033b8adc06e7b482eca4e45f81a5dc4c"),
                    ("sent_starters.txt", "f3f8535483e1dba487241b764945168123bca3209a9645e59acd1225dc76edac"),
                )
            },
        ),
        Asset(
            "squad.json",
            "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
            {"80a5225e94905956a6446d296ca1093975c4d3b3260f1d6c8f68bc2ab77182d8": "SQuAD-dev-v2.0"},
            4_370_528,
            "CC BY-SA 4.0",
            "qa_1",
        ),
        Asset(
            "hotpotqa.json",
            "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
            {"4e9ecb5c8d3b719f624d66b60f8d56bf227f03914f5f0753d6fa1b359d7104ea": "HotpotQA-dev-distractor-v1"},
            46_320_117,
            "CC BY-SA 4.0",
            "qa_2",
        ),
        Asset(
            "english_words.json",
            f"https://media.githubusercontent.com/media/{_RULER_REPO}/english_words.json",
            {"affcd6d45fdf3cc843d585c99c97ad615094e760e6c4756b654bab6c73bc2eca": "RULER-c3f5e3b"},
            8_564_991,
            "Apache-2.0",
            "cwe where more than 8,166 distinct words are needed (about 100k tokens)",
        ),
    ),
    "repoqa": (
        Asset(
            "repoqa-2024-06-23.json.gz",
            "https://github.com/evalplus/repoqa_release/releases/download/2024-06-23/repoqa-2024-06-23.json.gz",
            {"c050a2ad90a7df89d9dc1f1c3b3b20683edd20a56293b35fcaae43dec115d681": "repoqa_release-2024-06-23"},
            71_510_991,  # unpacked; what it takes packed is not known here
            "Apache-2.0; the repositories in it keep their own",
            "snf",
        ),
    ),
    # No hash of these two is known: what comes is kept as unrecognised, and every row is checked when it is read.
    "lca": (
        Asset(
            "lca-library-based-code-generation.parquet",
            f"{_LCA_HUB}/lca-library-based-code-generation/resolve/main/data/test-00000-of-00001-518ed46ecbe35ff9.parquet",
            {},
            4_580_000,
            "Apache-2.0",
            "lib (no hash known; rows are checked when read)",
        ),
        Asset(
            "lca-commit-message-generation.parquet",
            f"{_LCA_HUB}/lca-commit-message-generation/resolve/main/commitchronicle-py-long/test-00000-of-00001.parquet",
            {},
            537_000,
            "Apache-2.0",
            "commit (no hash known, address not verified; rows are checked when read)",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Status:
    """One file of a family. sha256 is empty where it was not computed; revision is empty unless state is ok."""

    name: str
    path: Path
    state: State
    size_bytes: int
    sha256: str
    revision: str
    licence: str
    needed_for: str
    url: str


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
        raise UsageError(f"there is nothing to fetch for {family!r}: families with data are {', '.join(ASSETS)}")
    return ASSETS[family]


def verify(family: str, data_dir: Path | None = None) -> list[Status]:
    """Every file of the family, hashed."""
    folder = data_folder(family, data_dir)
    return [_status(asset, file, known, folder) for asset in assets(family) for file, known in asset.files().items()]


def listing(family: str, data_dir: Path | None = None) -> list[Status]:
    """Every file of the family; files are small enough to be hashed, so that a listing never says ok unseen."""
    return verify(family, data_dir)


def _status(asset: Asset, file: str, known: Mapping[str, str], folder: Path) -> Status:
    path = folder / file
    found = path.is_file()
    sha256 = file_sha256(path) if found else ""
    state: State = "missing" if not found else "ok" if sha256 in known else "unrecognised"
    size = path.stat().st_size if found else 0
    revision = known.get(sha256, "")
    return Status(file, path, state, size, sha256, revision, asset.licence, asset.needed_for, asset.url)


def need(family: str, file: str, for_what: str, data_dir: Path | None = None) -> Status:
    """A file that is there. UsageError naming the command that fetches it when it is not."""
    folder = data_folder(family, data_dir)
    for asset in assets(family):
        known = asset.files().get(file)
        if known is not None:
            status = _status(asset, file, known, folder)
            if status.state == "missing":
                where = f" --data-dir {data_dir}" if data_dir else ""
                raise MissingData(
                    f"{for_what} needs {file}, which is not in {folder}: `kleval data fetch {family}{where}` gets it,"
                    f" --data-dir names another folder, --edition builtin needs no files",
                    family,
                )
            return status
    raise KeyError(file)


def fetch(
    family: str, data_dir: Path | None = None, names: Sequence[str] | None = None, progress: Progress | None = None
) -> list[Status]:
    """Download what is missing of the family (or of `names`), and return what is there then.

    UsageError, once all were tried, for what cannot be downloaded, stops halfway or is not what is pinned; files that
    are there and good are left alone.
    """
    folder = data_folder(family, data_dir)
    problems = []
    for asset in assets(family):
        if names is None or asset.name in names:
            try:
                fetch_asset(asset, folder, progress)
            except UsageError as error:
                problems.append(str(error))
    if problems:
        raise UsageError(" | ".join(problems))
    return verify(family, data_dir)


def fetch_asset(asset: Asset, folder: Path, progress: Progress | None = None) -> bool:
    """One asset into `folder`. False when it was there already."""
    good = ("ok",) if asset.known else ("ok", "unrecognised")
    if all(_status(asset, file, known, folder).state in good for file, known in asset.files().items()):
        return False
    download.get(asset, folder, progress)
    return True


def file_sha256(path: Path) -> str:
    """sha256 of a file, hex; remembered until its size or time changes."""
    stat = path.stat()
    return _known_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _known_sha256(path: Path, size_bytes: int, mtime_ns: int) -> str:
    return download.sha256_of(path)


def as_record(status: Status) -> dict[str, Any]:
    """JSON values of a status."""
    return {
        "name": status.name,
        "state": status.state,
        "size_bytes": status.size_bytes,
        "sha256": status.sha256,
        "revision": status.revision,
        "licence": status.licence,
        "needed_for": status.needed_for,
        "path": str(status.path),
        "url": status.url,
    }
