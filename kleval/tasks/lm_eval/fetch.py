"""`kleval data fetch lm_eval/NAME`: the data sets of lm-eval's tasks, from their authors or from the hub.

gsm8k and bbh come from their authors' repositories, file by file and checked by hash (kleval.tasks.assets). Everything
else comes from the hub through `datasets`, at the revision that lm-eval's YAML names, else at the commit that an earlier
fetch of the set noted, else at its newest commit. Which one it was, and the sha256 of every file written, is noted in
`source.json` beside them, so that what is read later can say where it came from. One Parquet file per split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.files import replacing
from kleval.packages import install_line
from kleval.tasks import data
from kleval.tasks.assets import Asset
from kleval.tasks.data import Status
from kleval.tasks.datafile import one_line
from kleval.tasks.download import Progress
from kleval.tasks.lm_eval import files, loading, task_index
from kleval.types import UsageError


@dataclass(slots=True)
class Wanted:
    """One configuration of a data set. tasks: that read it; splits: that they read; evaluated: those of them that are asked."""

    path: str
    config: str | None
    revision: str | None
    splits: set[str] = field(default_factory=set)
    evaluated: set[str] = field(default_factory=set)
    tasks: list[str] = field(default_factory=list)

    @property
    def authors(self) -> str | None:
        """The family of assets that its authors' files are, where they come from there."""
        family: str | None = loading.TABLES["authors"].get(self.path)
        return family

    @property
    def folder(self) -> str:
        return self.authors or files.folder_names(self.path)[1 if "/" in self.path else 0]

    def file(self, split: str) -> str:
        return f"{self.config}/{split}.parquet" if self.config else f"{split}.parquet"


class Hub:
    """Where data sets come from: Hugging Face's hub."""

    def commit(self, path: str, revision: str | None) -> str:
        import huggingface_hub

        return str(huggingface_hub.HfApi().dataset_info(path, revision=revision).sha)

    def splits(self, path: str, config: str | None, revision: str) -> Mapping[str, Any]:
        """Split -> datasets.Dataset."""
        import datasets

        found: Mapping[str, Any] = datasets.load_dataset(path, config, revision=revision)
        return found


def wanted(task_id: str) -> list[Wanted]:
    """What the tasks of a name read, each configuration of a data set once."""
    found: dict[tuple[str, str | None, str | None], Wanted] = {}
    for leaf in task_index.expand(task_id):
        name, _ = task_index.parse(leaf)
        config = task_index.config(name)
        needed = loading.needs(name, config)
        key = needed.path, needed.config, (config.get("dataset_kwargs") or {}).get("revision")
        want = found.setdefault(key, Wanted(*key))
        want.splits |= {needed.evaluated, *needed.others}
        want.evaluated.add(needed.evaluated)
        want.tasks.append(name)
    return list(found.values())


def fetch(
    task_id: str, data_dir: Path | None = None, progress: Progress | None = None, hub: Hub | None = None
) -> list[Status]:
    """Get what is missing for a task or group, and return what is there then. UsageError, once all were tried."""
    problems = []
    root = files.roots(data_dir)[0]
    for want in wanted(task_id):
        try:
            if want.authors is None:
                _from_hub(want, root, hub or Hub(), progress)
            else:
                for asset in _assets(want, root):
                    data.fetch_asset(asset, root / want.folder, progress)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(" | ".join(problems))
    return verify(task_id, data_dir)


def verify(task_id: str, data_dir: Path | None = None) -> list[Status]:
    """Every file of a task or group, hashed; a split that its data set turned out not to have is not among them."""
    found = {}
    for want in wanted(task_id):
        places = files.roots(data_dir)
        root = next((root for root in places if (root / want.folder).is_dir()), places[0])
        place = root if want.authors is None else root / want.folder
        for asset in _assets(want, root):
            statuses = [data.status_of(asset, file, known, place) for file, known in asset.files().items()]
            found.update({status.path: status for status in statuses})
    return list(found.values())


def _assets(want: Wanted, root: Path) -> list[Asset]:
    """The files of a configuration: its authors' (its own where there is one per configuration, else all), or one for each split that
    it has, known by what an earlier fetch noted."""
    if want.authors is not None:
        every = data.assets(want.authors)
        own = [asset for asset in every if asset.name.partition(".")[0] == want.config]
        return own or list(every)
    noted = files.source(root / want.folder)
    tasks = ", ".join(want.tasks[:3]) + (", …" if len(want.tasks) > 3 else "")
    return [
        Asset(
            name=f"{want.folder}/{file}",
            url=f"https://huggingface.co/datasets/{want.path}",
            known={noted["files"][file]: noted["revision"]} if file in noted["files"] else {},
            size_bytes=0,
            licence="see the data set's card",
            needed_for=tasks,
            stand_ins=tuple(
                f"{want.folder}/{stem}" for stem in files.stems(want.path, want.config, split, split in want.evaluated)
            ),
        )
        for split in sorted(want.splits)
        if (file := want.file(split)) not in noted["missing"]
    ]


def _from_hub(want: Wanted, root: Path, hub: Hub, progress: Progress | None) -> None:
    assets = _assets(want, root)
    todo = {asset.name for asset in assets if not data.status_of(asset, asset.name, asset.known, root).good}
    if not todo:
        return
    folder = root / want.folder
    if os.environ.get("KLEVAL_OFFLINE", "") not in ("", "0"):
        raise UsageError(f"{want.path} is not in {folder}, and --offline forbids to fetch it")
    noted = files.source(folder)
    with _hub_errors(want.path + (f" ({want.config})" if want.config else "")):
        commit = hub.commit(want.path, want.revision or noted["revision"] or None)
        splits = hub.splits(want.path, want.config, commit)
    noted |= {"repository": want.path, "revision": commit}
    for split in sorted(want.splits):
        file = want.file(split)
        if f"{want.folder}/{file}" not in todo:
            continue
        if split in splits:
            with replacing(folder / file) as written:
                splits[split].to_parquet(written.buffer)
            noted["files"][file] = data.file_sha256(folder / file)
            if progress:
                size = (folder / file).stat().st_size
                progress(f"{want.folder}/{file}", size, size)
        else:
            noted["missing"].append(file)
        with replacing(folder / files.SOURCE_FILE) as note:
            note.write(json.dumps(noted, indent=1) + "\n")


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """While it lasts, UsageError in one line for what the hub refuses."""
    try:
        yield
    except ImportError as error:
        raise UsageError(f"fetching data from the hub needs {error.name}: {install_line('lm-eval')}") from error
    except Exception as error:  # of the hub's client, its HTTP library, pyarrow, …: all of them end this fetch alike
        said = f"{type(error).__name__}: {one_line(error)}"
        hint = "; accept its terms on the hub and set HF_TOKEN" if "gated" in said.lower() else ""
        raise UsageError(f"{what} cannot be had from the hub ({said}){hint}") from error
