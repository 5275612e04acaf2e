"""Prompts of a run, each once by its hash, in one compressed file per task, length and tokenizer that only grows.

    prompts/<family>__<task>.<ctx>.<tokenizer digest>.gz
    prompts/<family>__<task>.<ctx>.<tokenizer digest>.excerpts

A prompt is one gzip member (RFC 1952): `zcat` shows all of a file. The member's extra field holds the prompt's hash and the
member's length, so that a file is indexed without being decompressed. Text is stored as it is, messages as JSON. A member
that a kill cut short is the file's last one: readers stop before it, `repair` cuts it off. Runs of kleval before this
layout hold one file per prompt, prompts/<hash[:2]>/<hash>.txt.gz; it is read, and nothing in it is stored again.

Of a long prompt its excerpt (kleval.store.excerpts) is kept beside it, a line with its hash and JSON, so that a page of many prompts
is made without unpacking them: gigabytes at 128k. Where there is none it is made from the prompt.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from typing import Any

from kleval import files
from kleval.store.excerpts import WHOLE, as_text, excerpt
from kleval.store.names import folder_name
from kleval.types import Prompt, UsageError, prompt_hash

_HEAD = struct.Struct(
    "<4sIBBH2sH32sQ"
)  # gzip's fixed head, then the extra field: length, id, length, hash, member's length
_TAIL = struct.Struct("<II")  # crc32, bytes before compression modulo 2**32
_FIXED = (b"\x1f\x8b\x08\x04", 0, 0, 255, 44, b"KL", 40)
LEVEL = 1  # half of what level 6 takes, and a tenth more bytes


class Prompts:
    """The prompts below a run directory. Whoever puts holds the run's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "prompts"
        self._appender = files.Appender()
        self._found: dict[
            str, dict[str, tuple[Path, int, int]]
        ] = {}  # by task and length, by hash: file, offset, bytes
        self._ends: dict[Path, int] = {}
        self._unsynced: set[str] = set()
        self._excerpts: tuple[str, dict[str, str]] = "", {}  # of the group that was read last

    def put(
        self,
        task: str,
        ctx: int,
        tokenizer: str,
        digest: str,
        prompt: Prompt,
        references: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a prompt unless it is there. It is durable after `sync`. references, meta: of its sample, for the excerpt."""
        group = _group(task, ctx)
        if digest in self._index(group) or self._old(digest).exists():
            return
        text = prompt if isinstance(prompt, str) else json.dumps([dict(m) for m in prompt], ensure_ascii=False)
        member = _member(digest, text.encode("utf-8", "surrogatepass"))
        name = f"{group}.{tokenizer[:8] or 'unknown'}"
        file = self.folder / f"{name}.gz"
        shown = as_text(prompt)
        if len(shown) > WHOLE:
            line = f"{digest} {excerpt(shown, references, meta).json}\n"
            self._appender.append(self.folder / f"{name}.excerpts", line.encode("utf-8", "replace"))
        self._found[group][digest] = file, self._appender.append(file, member), len(member)
        self._unsynced.add(digest)

    def take(self, others: Sequence[Prompts]) -> None:
        """Store the prompts of other directories that are not here, as they are there, with their excerpts. Durable after `sync`. Where
        they are is held of one file at a time."""
        for name in sorted({file.name for other in others for file in other.folder.glob("*.gz")}):
            here, own = self._index(name.rsplit(".", 2)[0]), self.folder / name
            for file in (other.folder / name for other in others):
                if not file.exists():
                    continue
                there: dict[str, tuple[Path, int, int]] = {}
                self._scan(file, there, 0)
                shown = self._excerpts_of(file.with_suffix(".excerpts"))
                with files.usage_errors(file), file.open("rb") as members:
                    for digest in [digest for digest in there if digest not in here]:
                        _, begin, length = there[digest]
                        members.seek(begin)
                        if digest in shown:
                            line = f"{digest} {shown[digest]}\n".encode("utf-8", "replace")
                            self._appender.append(own.with_suffix(".excerpts"), line)
                        here[digest] = own, self._appender.append(own, members.read(length)), length
            self._found.clear()
            self._ends.clear()

    def sync(self, digest: str | None = None) -> None:
        """What was put is on the disk when this returns; with digest, only if that prompt is not there yet."""
        if digest is None or digest in self._unsynced:
            self._appender.sync()
            self._unsynced.clear()

    def read(self, task: str, ctx: int, digest: str, answer_prefix: str) -> Prompt:
        """A prompt, checked against its hash. UsageError when it is missing or damaged."""
        group = _group(task, ctx)
        if digest not in self._index(group):
            self._refresh(group)
        file, offset, length = self._found[group].get(digest) or (self._old(digest), 0, -1)
        try:
            with file.open("rb") as handle:
                handle.seek(offset)
                text = gzip.decompress(handle.read(length)).decode("utf-8", "surrogatepass")
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the prompt {digest} in {file}: {error}") from error
        if prompt_hash(text, answer_prefix) == digest:
            return text
        with contextlib.suppress(ValueError, TypeError, KeyError):
            messages = tuple(json.loads(text))
            if prompt_hash(messages, answer_prefix) == digest:
                return messages
        raise UsageError(f"the prompt {digest} in {file} is damaged: it does not have the hash of its name")

    def excerpt(self, task: str, ctx: int, digest: str) -> str | None:
        """As it was stored with the prompt, in JSON (`Excerpt.json`); None where it was not."""
        group = _group(task, ctx)
        if self._excerpts[0] != group or digest not in self._excerpts[1]:
            found: dict[str, str] = {}
            for file in sorted(self.folder.glob(f"{escape(group)}.*.excerpts")):
                found |= self._excerpts_of(file)
            self._excerpts = group, found
        return self._excerpts[1].get(digest)

    @staticmethod
    def _excerpts_of(file: Path) -> dict[str, str]:
        with contextlib.suppress(OSError):
            lines = file.read_text("utf-8", "replace").split("\n")[:-1]  # the last one, cut short, is none
            return {line[:64]: line[65:] for line in lines}
        return {}

    def repair(self) -> list[Path]:
        """Cut off members that a kill cut short; the files that had one. UsageError when more than the last one is damaged."""
        repaired = []
        for file in sorted(self.folder.glob("*.gz")):
            end = self._scan(file, {}, 0)
            with files.usage_errors(file), file.open("rb") as handle:
                handle.seek(end)
                rest = handle.read(_HEAD.size)
            if len(rest) == _HEAD.size and _parsed(rest) is None and rest.strip(b"\0"):
                raise UsageError(
                    f"{file} is damaged at byte {end}: move it away and run the same command again; answers stay, their "
                    "prompts cannot be shown"
                )
            if files.cut(file, end):
                repaired.append(file)
        lines = sorted(self.folder.glob("*.excerpts"))
        return repaired + [file for file in lines if files.cut(file, files.end_of_lines(file))]

    def _old(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.txt.gz"

    def _index(self, group: str) -> dict[str, tuple[Path, int, int]]:
        if group not in self._found:
            self._refresh(group)
        return self._found[group]

    def _refresh(self, group: str) -> None:
        found = self._found.setdefault(group, {})
        for file in sorted(self.folder.glob(f"{escape(group)}.*.gz")):
            self._ends[file] = self._scan(file, found, self._ends.get(file, 0))

    def _scan(self, file: Path, found: dict[str, tuple[Path, int, int]], begin: int) -> int:
        """Add the whole members from begin on to found; where the last one ends."""
        with files.usage_errors(file), file.open("rb") as handle:
            size = handle.seek(0, 2)
            while begin + _HEAD.size <= size:
                handle.seek(begin)
                head = _parsed(handle.read(_HEAD.size))
                if head is None or begin + head[1] > size:
                    break
                found[head[0]] = file, begin, head[1]
                begin += head[1]
        return begin


def _group(task: str, ctx: int) -> str:
    return f"{folder_name(task)}.{ctx}"


def _member(digest: str, data: bytes) -> bytes:
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    magic, seconds, flags, system, extra, name, size = _FIXED
    length = _HEAD.size + len(body) + _TAIL.size
    head = _HEAD.pack(magic, seconds, flags, system, extra, name, size, bytes.fromhex(digest), length)
    return head + body + _TAIL.pack(zlib.crc32(data), len(data) & 0xFFFFFFFF)


def _parsed(head: bytes) -> tuple[str, int] | None:
    """Hash and length of the member that begins so; None when none does."""
    if len(head) < _HEAD.size:
        return None
    *fixed, digest, length = _HEAD.unpack(head)
    return (digest.hex(), length) if tuple(fixed) == _FIXED and length >= _HEAD.size + _TAIL.size else None
