"""Shards of one run joined into one directory, which then is as if the run had been one: rows, prompts, settings, skips, sessions.

Shards belong together when their settings differ in `shard` alone and they were planned alike; what does not is refused with the
difference, before anything is written. Merging again into the same directory adds what has come since; the command without `--shard`
goes on in it.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.harness.command_line import without
from kleval.harness.manifest import SHARD
from kleval.harness.shards import parse
from kleval.store import RunStore
from kleval.store.settings import compare
from kleval.text import plural
from kleval.types import UsageError

MOST_DIFFERENCES = 4


@dataclass(frozen=True, slots=True)
class Merged:
    """counts: as in run.json. n_shards: there were. missing: what is not there, a line per shard, with what makes it. added: rows."""

    counts: Mapping[str, int]
    n_shards: int
    missing: tuple[str, ...]
    added: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard's directory: part `number` (from 1) of `of`."""

    store: RunStore
    number: int
    of: int

    @property
    def label(self) -> str:
        return f"{self.number}/{self.of}"

    @property
    def path(self) -> Path:
        return self.store.path


def merge(places: Sequence[Path], out: Path, say: Callable[[str], None] = lambda text: None) -> Merged:
    """Join the shards at or below the places in `out`. UsageError where they do not belong together, one is being written or is there
    twice, or `out` is in use or holds something else. say: told of each shard."""
    paths = [path for path in RunStore.find_named(places) if path.resolve() != out.resolve()]
    RunStore.check_place(out)
    before = RunStore.open(out) if RunStore.exists(out) else None
    # A merged directory may lie below the places, a copy of a remote one under another name.
    shards = _opened([path for path in paths if before is None or RunStore.open(path).uid != before.uid], out)
    there = _rows(shards)
    known = before.manifest["sessions"] if before else []
    with RunStore.create(out, _manifest(shards, out, known)) as store:
        labels = {shard.store: shard.label for shard in shards}
        added = store.take([*labels], lambda of: say(f"shard {labels[of]}: {of.path}"))
        counts = _counts(shards, store)
        whole = counts["finished"] >= counts["planned"] and not counts["failed"]
        missing = () if whole else tuple(_missing(shards, there))
        ends = [shard.store.manifest["finished"] or "" for shard in shards]
        status = "incomplete" if missing else "complete"
        store.update(status=status, counts=counts, finished=max(ends) or None)
    return Merged(counts, len(shards), missing, added)


def _opened(paths: Sequence[Path], out: Path) -> list[Shard]:
    """The shards in order. UsageError for what does not belong together."""
    found: dict[int, Shard] = {}
    first: Shard | None = None
    for path in paths:
        store = RunStore.open(path)
        if store.is_profile:
            raise UsageError(f"{path} holds a profile: shards are of kleval run")
        if not store.manifest["settings"].get("shard"):
            raise UsageError(f"{path} is no shard: it was run without --shard")
        if store.status == "running":
            raise UsageError(f"{path} is in use by another kleval: wait for it, then merge")
        shard = _shard(store)
        if first is None:
            first = shard
        elif differences := _differences(first, shard):
            raise UsageError(
                f"{path} does not belong with {first.path} ({'; '.join(differences[:MOST_DIFFERENCES])}): "
                "shards of a run differ in --shard and --out alone"
            )
        if (other := found.setdefault(shard.number, shard)) is not shard:
            raise UsageError(f"{other.path} and {path} are both shard {shard.label}: leave one of them out")
    if first is None:
        raise UsageError(f"there is no shard beside {out}: name the shards' directories")
    return [found[number] for number in sorted(found)]


def _shard(store: RunStore) -> Shard:
    """UsageError where run.json lacks what a merge relies on."""
    manifest = store.manifest
    try:
        number, of = parse(str(manifest["settings"]["shard"]))
        planned = [*manifest["shards"], manifest["counts"]["planned"]]
        if len(planned) != of + 1 or not all(isinstance(n, int) and n >= 0 for n in planned):
            raise ValueError
    except (KeyError, TypeError, ValueError, UsageError):
        raise UsageError(
            f"{store.path}/run.json is damaged (which shard it is, or what was planned): restore it, or leave this shard out"
        ) from None
    return Shard(store, number, of)


def _differences(a: Shard, b: Shard) -> list[str]:
    if a.of != b.of:
        return [f"shard: {a.label} -> {b.label}"]
    old, new = ({n: v for n, v in shard.store.manifest["settings"].items() if n != "shard"} for shard in (a, b))
    changes = compare(old, new)
    plans = [shard.store.manifest.get("shards") for shard in (a, b)]
    planned = [] if plans[0] == plans[1] else [f"planned answers of the shards: {plans[0]} -> {plans[1]}"]
    return [*map(str, changes), *planned]


def _rows(shards: Sequence[Shard]) -> Counter[Path]:
    """How many rows are in each shard's files, whatever its run.json says. UsageError where a sample is in two of them. They may hold
    a million rows together: of each a digest is remembered."""
    seen: dict[bytes, Path] = {}
    for shard in shards:
        for key in shard.store.keys():  # noqa: SIM118 - a store is no dict
            digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
            if (other := seen.setdefault(digest, shard.path)) is not shard.path:
                raise UsageError(f"{other} and {shard.path} both have {key[1]} of {key[0]}: they are not of one run")
    return Counter(seen.values())


def _manifest(shards: Sequence[Shard], out: Path, known: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """run.json of the whole as it is before the rows are there. known: sessions that are in it."""
    manifests = [shard.store.manifest for shard in shards]
    first = manifests[0]
    spec = {**first.get("spec", {}), "shard": None, "out": str(out)}
    spec["command"] = command(line, None, out) if (line := spec.get("command", "")) else ""
    if isinstance(options := spec.get("options"), Mapping):
        spec["options"] = {name: value for name, value in options.items() if name not in ("shard", "out")}
    sessions = [{**session, "shard": shard.label} for shard in shards for session in shard.store.manifest["sessions"]]
    sessions.sort(key=lambda session: str(session.get("started")))
    own = ("name", "uid", "shards", "schema_version")
    return {
        **{name: value for name, value in first.items() if name not in own},
        "status": "running",
        "started": min(manifest["started"] for manifest in manifests),
        "finished": None,
        "spec": spec,
        "settings": {name: value for name, value in first["settings"].items() if name != "shard"},
        "tags": {key: value for manifest in manifests for key, value in manifest["tags"].items()},
        "counts": {},
        "skips": _skips(manifests),
        "errors": [error for manifest in manifests for error in manifest.get("errors") or ()],
        "caveats": [
            *dict.fromkeys(
                caveat for manifest in manifests for caveat in manifest["caveats"] if not caveat.startswith(SHARD)
            ),
            *_unlike(manifests),
        ],
        "sessions": [session for session in sessions if session not in known],
        "amendments": [],
        "merged": [{"shard": shard.label, "name": shard.store.name, "uid": shard.store.uid} for shard in shards],
    }


def _unlike(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Machines and versions that differ between shards."""
    found = []
    places = {
        "machines": [
            ", ".join(m.get("hardware", {}).get("gpus") or [str(m.get("hardware", {}).get("cpu"))]) for m in manifests
        ],
        "versions of kleval": [str(m.get("kleval", {}).get("version")) for m in manifests],
    }
    for what, values in places.items():
        if len(kinds := dict.fromkeys(values)) > 1:
            found.append(f"The shards of this run ran on different {what}: {'; '.join(kinds)}.")
    return found


def _skips(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One record per cell: of how many samples in all, and the nearest reason."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for skip in (skip for manifest in manifests for skip in manifest["skips"]):
        cell = skip["model"], skip["task"], skip["ctx"]
        before = found.get(cell)
        if before is None:
            found[cell] = dict(skip)
        else:
            near = min(before, skip, key=lambda one: one.get("minimum_tokens", 0))
            found[cell] = {**near, "n": before["n"] + skip["n"]}
    return list(found.values())


def _counts(shards: Sequence[Shard], store: RunStore) -> dict[str, int]:
    planned_of = shards[0].store.manifest["shards"]
    there = {shard.number for shard in shards}
    planned = sum(shard.store.manifest["counts"]["planned"] for shard in shards)
    planned += sum(n for number, n in enumerate(planned_of, 1) if number not in there)
    return {"planned": planned, **store.counts(), "skipped": sum(skip["n"] for skip in store.manifest["skips"])}


def _missing(shards: Sequence[Shard], rows: Mapping[Path, int]) -> list[str]:
    """A line per shard that is not there or not complete, by what it says or by its rows."""
    planned, there = shards[0].store.manifest["shards"], {shard.number: shard for shard in shards}
    given = shards[0].store.manifest.get("spec", {}).get("command", "")
    found = []
    for number, n in enumerate(planned, 1):
        shard = there.get(number)
        label = f"{number}/{len(planned)}"
        if shard is None:
            if n:
                found.append(f"shard {label} is not there, {plural(n, 'answer')}: {command(given, label, Path('DIR'))}")
            continue
        planned_here = shard.store.manifest["counts"]["planned"]
        if shard.store.status != "complete":
            counts = RunStore.open(shard.path).counts()  # the index that this makes is held of one shard at a time
            left, why = planned_here - counts["answered"], str(shard.store.status)
        elif left := max(0, planned_here - rows[shard.path]):
            why = "complete by its run.json, not by its rows"
        else:
            continue
        again = command(shard.store.manifest.get("spec", {}).get("command", ""), label, shard.path)
        found.append(f"shard {label} lacks {left} of {planned_here} answers ({why}): {again}")
    return found


def command(line: str, shard: str | None, out: Path | None) -> str:
    """A command line with another --shard and another --out, or without; of a run that was no command line what to call instead."""
    if not line:
        given = [f"shard={shard!r}"] * bool(shard) + [f"out={str(out)!r}"] * bool(out)
        return f"the same call of kleval.evaluate with {' and '.join(given or ['no shard'])}"
    words = without(line, ("--shard", "--out"))
    words += ["--shard", shard] if shard else []
    return shlex.join([*words, *(["--out", str(out)] if out else [])])
