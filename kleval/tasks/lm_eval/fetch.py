"""`kleval data fetch lm_eval/NAME`: the data sets of lm-eval's tasks, from their authors or from the hub.

gsm8k and bbh come from their authors' repositories, file by file and checked by hash (kleval.tasks.assets). Everything
else comes from the hub through `datasets`, at the revision that lm-eval's YAML names, else at the commit that an earlier
fetch of the set noted, else at its newest commit. Which one it was, and the sha256 of every file written, is noted in
`source.json` beside them, so that what is read later can say where it came from. One Parquet file per split.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from kleval.files import replacing
from kleval.packages import install_line
from kleval.tasks import data, datafile
from kleval.tasks.assets import Asset
from kleval.tasks.data import Status
from kleval.tasks.download import Progress
from kleval.tasks.lm_eval import files, loading, task_index
from kleval.types import UsageError

AUTHORS = {"openai/gsm8k": "gsm8k", "SaylorTwift/bbh": "bbh", "lukaemon/bbh": "bbh"}  # data set -> family of ASSETS


@dataclass(frozen=True, slots=True)
class Wanted:
    """One configuration of a data set. tasks: that read it; splits: that they read."""

    path: str
    config: str | None
    revision: str | None
    splits: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def folder(self) -> str:
        return files.folder_names(self.path)[1 if "/" in self.path else 0]


class Hub(Protocol):
    """Where data sets come from."""

    def commit(self, path: str, revision: str | None) -> str: ...

    def split(self, path: str, config: str | None, revision: str, split: str) -> Any:
        """A datasets.Dataset."""
        ...


class HuggingFaceHub:
    def commit(self, path: str, revision: str | None) -> str:
        import huggingface_hub

        return str(huggingface_hub.HfApi().dataset_info(path, revision=revision).sha)

    def split(self, path: str, config: str | None, revision: str, split: str) -> Any:
        import datasets

        return datasets.load_dataset(path, config, revision=revision, split=split)


def wanted(task_id: str) -> list[Wanted]:
    """What the tasks of a name read, each configuration of a data set once."""
    found: dict[tuple[str, str | None, str | None], tuple[set[str], list[str]]] = {}
    for leaf in task_index.expand(task_id):
        name, _ = task_index.parse(leaf)
        config = loading.raw_config(name)
        needed = loading.needs(name, config)
        revision = (config.get("dataset_kwargs") or {}).get("revision")
        splits, tasks = found.setdefault((needed.path, needed.config, revision), (set(), []))
        splits |= {needed.evaluated, *needed.others}
        tasks.append(name)
    return [Wanted(*key, tuple(sorted(splits)), tuple(tasks)) for key, (splits, tasks) in found.items()]


def fetch(
    task_id: str, data_dir: Path | None = None, progress: Progress | None = None, hub: Hub | None = None
) -> list[Status]:
    """Get what is missing for a task or group, and return what is there then. UsageError, once all were tried."""
    problems = []
    hub = hub or HuggingFaceHub()
    for want in wanted(task_id):
        try:
            family = AUTHORS.get(want.path)
            if family is None:
                _from_hub(want, _root(data_dir) / want.folder, hub, progress)
            else:
                for asset in _assets(want, family):
                    data.fetch_asset(asset, _root(data_dir) / family, progress)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError(" | ".join(problems))
    return verify(task_id, data_dir)


def verify(task_id: str, data_dir: Path | None = None) -> list[Status]:
    """Every file of a task or group, hashed; a split that its data set turned out not to have is not among them."""
    return list({s.path: s for want in wanted(task_id) for s in _statuses(want, data_dir)}.values())


def _statuses(want: Wanted, data_dir: Path | None) -> Iterable[Status]:
    family = AUTHORS.get(want.path)
    if family is not None:
        folder = _folder(family, data_dir)
        for asset in _assets(want, family):
            for file, known in asset.files().items():
                yield data.status_of(asset, file, known, folder)
        return
    folder = _folder(want.folder, data_dir)
    noted = files.source(folder) or {"files": {}, "revision": "", "missing": []}
    for split in want.splits:
        file = _file(want, split)
        if file in noted.get("missing", ()):
            continue
        lying = files.splits_in(files.Needed("", want.path, want.config, split), folder).get(split)
        path = lying[0] if lying else folder / file
        there = lying is not None
        sha256 = data.file_sha256(path) if there else ""
        name = path.relative_to(folder).as_posix()
        good = there and noted["files"].get(name) == sha256
        pointer = there and datafile.pointer(path)
        yield Status(
            f"{want.folder}/{name}",
            path,
            "ok" if good else "pointer" if pointer else "unrecognised" if there else "missing",
            path.stat().st_size if there else 0,
            sha256,
            noted["revision"] if good else "",
            "see the data set's card",
            ", ".join(want.tasks[:3]) + (", …" if len(want.tasks) > 3 else ""),
            f"https://huggingface.co/datasets/{want.path}",
        )


def _from_hub(want: Wanted, folder: Path, hub: Hub, progress: Progress | None) -> None:
    noted = files.source(folder)
    done = dict(noted["files"]) if noted else {}
    lacking = list(noted.get("missing", ())) if noted else []
    todo = [s for s in want.splits if not _whole(folder, _file(want, s), done) and _file(want, s) not in lacking]
    if not todo:
        return
    if os.environ.get("KLEVAL_OFFLINE", "") not in ("", "0"):
        raise UsageError(f"{want.path} is not in {folder}, and --offline forbids to fetch it")
    what = want.path + (f" ({want.config})" if want.config else "")
    pin = want.revision or (noted["revision"] if noted else None)
    commit = _asked(f"{what}: its commit", partial(hub.commit, want.path, pin))
    for split in todo:
        file = _file(want, split)
        try:
            rows = _asked(f"{what}: its split {split}", partial(hub.split, want.path, want.config, commit, split))
        except _NoSuchSplit:
            lacking.append(file)
            continue
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        rows.to_parquet(str(part))
        os.replace(part, target)
        done[file] = data.file_sha256(target)
        if progress:
            progress(f"{want.folder}/{file}", target.stat().st_size, target.stat().st_size)
        _note(folder, want.path, commit, done, lacking)
    _note(folder, want.path, commit, done, lacking)


class _NoSuchSplit(Exception):
    pass


def _asked(what: str, ask: Callable[[], Any]) -> Any:
    """What the hub answers. UsageError in one line for what it refuses."""
    try:
        return ask()
    except ImportError as error:
        raise UsageError(f"fetching data from the hub needs {error.name}: {install_line('lm-eval')}") from error
    except Exception as error:  # of the hub's client, its HTTP library, pyarrow, …: all of them end this fetch alike
        line = " ".join(str(error).split())[:300]
        if isinstance(error, ValueError) and line.startswith(("Unknown split", "Bad split")):
            raise _NoSuchSplit from error
        kind = type(error).__name__
        gated = "gated" in kind.lower() or "gated" in line.lower()
        hint = "; accept its terms on the hub and set HF_TOKEN" if gated else ""
        raise UsageError(f"{what} cannot be had from the hub ({kind}: {line}){hint}") from error


def _note(folder: Path, path: str, commit: str, done: Mapping[str, str], lacking: Iterable[str]) -> None:
    noted = {
        "repository": path,
        "revision": commit,
        "files": dict(sorted(done.items())),
        "missing": sorted(set(lacking)),
    }
    with replacing(folder / files.SOURCE_FILE) as file:
        file.write(json.dumps(noted, indent=1) + "\n")


def _whole(folder: Path, file: str, done: Mapping[str, str]) -> bool:
    path = folder / file
    return path.is_file() and done.get(file) == data.file_sha256(path)


def _file(want: Wanted, split: str) -> str:
    return f"{want.config}/{split}.parquet" if want.config else f"{split}.parquet"


def _assets(want: Wanted, family: str) -> list[Asset]:
    """The authors' files that a configuration needs: its own where there is one per configuration, else all."""
    every = data.assets(family)
    own = [asset for asset in every if asset.name.partition(".")[0] == want.config]
    return own or list(every)


def _root(data_dir: Path | None) -> Path:
    """Where what is fetched goes: the folder `lm_eval` of the data directory."""
    return files.roots(data_dir)[0]


def _folder(name: str, data_dir: Path | None) -> Path:
    """Where a set lies already, else where it would be fetched to."""
    for root in files.roots(data_dir):
        if (root / name).is_dir():
            return root / name
    return _root(data_dir) / name
