"""Records of one kind in a run directory: their files and where each record stands.

Records are appended to files of JSON lines. The last line of a file, when a kill cut it short, is no record: readers stop before it
and `Records.repair` cuts it off. Anything else that is not a valid record is an error that names file and line. A record that failed
may be made again, and the new one stands for it; one that did not fail is never overwritten.

Rows of a cell (model, task, length) may lie in one Parquet file (kleval.store.parquet), with lines beside it that were appended since.
`Records.compact` makes it out of the lines: they are removed when the new file is on the disk and was read back as it was written, so
that a kill leaves a row in at least one of the two, and one that is in both is read once.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from kleval import files
from kleval.store import parquet
from kleval.store.names import cell_order, row_file_order
from kleval.store.records import Point, R, Record, Row, from_line, to_line
from kleval.types import UsageError


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is, and what is asked of it so often that it is not read again for it; a point is no more than failed.

    offset: of its line, or the number of its row in a Parquet file.
    """

    file: Path
    offset: int
    order: tuple[Any, ...]
    failed: bool
    scored: bool = False
    task: str = ""
    ctx: int = 0
    prompt_hash: str = ""
    max_new_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Compacted:
    """Cells that were put into Parquet files, their rows, and what their files took before and after."""

    cells: int = 0
    rows: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class Records(Generic[R]):
    """The records of one kind in a run directory, one per key. Whoever appends holds the run's lock."""

    def __init__(self, kind: type[R], folder: Path, appender: files.Appender) -> None:
        self.kind: type[R] = kind
        self.folder, self._appender = folder, appender
        self.places: dict[Any, Place] = {}
        self._files: dict[str, Path] = {}  # of what is appended: a path per file, not per record
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of each file that are in `places`
        # By cell: bytes of its files, and where the records that stand are: place in the file, and in which file in the last bit.
        self._standing: dict[Any, tuple[tuple[int, ...], array[int]]] = {}

    def append(self, record: R) -> None:
        """Add a record, as Appender.append does. ValueError when there is one that did not fail, or it is not valid."""
        earlier = self.places.get(record.key)
        if earlier is not None and not earlier.failed:
            raise ValueError(f"{record.key} {self.kind.ABOUT[1]}")
        line = to_line(record)
        from_line(self.kind, line)
        file = self._files.setdefault(record.file, self.folder / record.file)
        self.places[record.key] = _place(file, self._appender.append(file, line), record)

    def take(self, records: Iterable[R]) -> int:
        """Append those that have no answer here, in their order; how many."""
        added = 0
        for record in records:
            place = self.places.get(record.key)
            if place is None or (place.failed and not record.failed):
                self.append(record)
                added += 1
        return added

    def repair(self) -> list[Path]:
        """Cut off lines that a kill cut short; the files that had one."""
        return [file for file in sorted(self.folder.glob(self.kind.FILES)) if files.cut(file, files.end_of_lines(file))]

    def refresh(self) -> None:
        """Find what was added since the last time. UsageError for a line that is no record."""
        for file in itertools.chain(*self.cells()):
            for record, offset, end, number in self._scan(file, *self._read.get(file, (0, 0))):
                earlier = self.places.get(record.key)
                if earlier is None or earlier.failed:
                    self.places[record.key] = _place(file, offset, record)
                self._read[file] = end, number

    def cells(self) -> list[list[Path]]:
        """The files of each cell, one or two: the Parquet file before the lines that were appended since."""
        kind: type[Record] = self.kind
        found = [file for pattern in (kind.FILES, kind.COMPACT) if pattern for file in self.folder.glob(pattern)]
        found.sort(key=row_file_order)
        return [list(of_cell) for _, of_cell in itertools.groupby(found, key=cell_order)]

    def firsts(self) -> Iterator[R]:
        """A record of each cell that has one."""
        for of_cell in self.cells():
            yield from itertools.islice((record for file in of_cell for record, *_ in self._scan(file)), 1)

    def _scan(self, file: Path, offset: int = 0, number: int = 0) -> Iterator[tuple[R, int, int, int]]:
        """Records behind an offset and so many lines or rows: where each begins and ends, and its number."""
        if file.suffix == parquet.SUFFIX:
            with files.usage_errors(file), contextlib.closing(parquet.Table(file)) as table:
                for number, row in enumerate(table.rows(offset), offset):
                    yield row, number, number + 1, number + 1  # type: ignore[misc]
            return
        with files.usage_errors(file), file.open("rb") as handle:
            handle.seek(offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # still being written, or cut off by `repair` before anything is appended
                number += 1
                try:
                    record = from_line(self.kind, line)
                except ValueError as error:
                    what, _, again = self.kind.ABOUT
                    raise UsageError(
                        f"{file} line {number} is not a valid {what} ({error}): delete that line and run the same "
                        f"command again, which {again}"
                    ) from error
                yield record, offset, offset + len(line), number
                offset += len(line)

    def rewrite(self, change: Callable[[R], R], say: Callable[[str], None]) -> None:
        """Put a changed record in the place of each one that stands; every file is whole or as it was. say: told of each file."""
        standing = {(place.file, place.offset) for place in self.places.values()}
        for file in sorted({file for file, _ in standing}, key=row_file_order):
            say(str(file.relative_to(self.folder)))
            records = (
                change(record) if (file, offset) in standing else record for record, offset, _, _ in self._scan(file)
            )
            if file.suffix == parquet.SUFFIX:
                self._write(file, records)  # type: ignore[arg-type]
                continue
            with files.usage_errors(file), files.replacing(file, self.folder / "tmp") as new:
                new.buffer.writelines(map(to_line, records))
        self._again()

    def compact(self, say: Callable[[str], None]) -> Compacted:
        """Put the lines of each cell into its Parquet file and remove them. say: told of each. UsageError where a file that was
        written cannot be read back: the lines stay."""
        done = Compacted()
        for of_cell in self.cells():
            lines = of_cell[-1]
            if lines.suffix == parquet.SUFFIX:
                continue
            say(str(lines.relative_to(self.folder)))
            with files.usage_errors(lines):
                before = sum(file.stat().st_size for file in of_cell)
                target = lines.with_suffix(parquet.SUFFIX)
                n = self._write(target, self._in_order(of_cell))  # type: ignore[arg-type]
                lines.unlink()
                files.sync_directory(lines.parent)
                after = target.stat().st_size
            done = Compacted(done.cells + 1, done.rows + n, done.bytes_before + before, done.bytes_after + after)
        if self._read:  # who has asked for no index needs none now
            self._again()
        return done

    def _in_order(self, of_cell: Sequence[Path]) -> Iterator[R]:
        """All records of a cell, those that failed before what stands for them; what is in both files, after a kill, once."""
        found = sorted(
            (record.order, rank, offset)
            for rank, file in enumerate(of_cell)
            for record, offset, _, _ in self._scan(file)
        )
        seen: set[bytes] | None = set() if len(of_cell) > 1 else None
        for record in self._at((of_cell[rank], offset) for _, rank, offset in found):
            if seen is not None:
                digest = hashlib.blake2b(to_line(record), digest_size=16).digest()
                if digest in seen:
                    continue
                seen.add(digest)
            yield record

    def _write(self, file: Path, rows: Iterable[Row]) -> int:
        """Put rows into a Parquet file, which takes its place once it was read back; how many."""
        written = 0, ""

        def check(draft: Path) -> None:
            if parquet.digest(draft) != written:
                raise UsageError(f"{file} cannot be read back as it was written: the rows stay as they are")

        with files.usage_errors(file), files.replacing(file, self.folder / "tmp", check=check) as new:
            written = parquet.write(rows, new.buffer)
        return written[0]

    def _again(self) -> None:
        """Find the records anew, after their files were replaced."""
        self.places.clear()
        self._read.clear()
        self.refresh()

    def all(self) -> Iterator[R]:
        """One record per key, read one at a time, in an order that does not depend on the one in which they came."""
        by_cell: dict[Any, list[Place]] = {}
        for place in self.places.values():
            by_cell.setdefault(cell_order(place.file), []).append(place)
        for cell in sorted(by_cell):
            places = sorted(by_cell[cell], key=lambda place: (place.order, row_file_order(place.file), place.offset))
            yield from self._at((place.file, place.offset) for place in places)

    def keys(self) -> Iterator[Any]:
        """The keys of what is on the disk now, cell by cell, for one who needs no index."""
        for of_cell in self.cells():
            yield from self._find(of_cell)

    def read(self) -> Iterator[R]:
        """As `all`, of what is on the disk now, for one who needs no index: of each cell only where the records that stand are is
        remembered. A key is in one cell."""
        for of_cell in self.cells():
            cell = cell_order(of_cell[0])
            if cell not in self._standing or self._standing[cell][0] != _sizes(of_cell):
                self._find(of_cell)
            yield from self._at((of_cell[at & 1], at >> 1) for at in self._standing[cell][1])

    def _find(self, of_cell: Sequence[Path]) -> Iterable[Any]:
        """Remember where the records of a cell that stand are; their keys."""
        sizes = _sizes(of_cell)
        found: dict[Any, tuple[tuple[Any, ...], int, bool]] = {}
        for rank, file in enumerate(of_cell):
            for record, offset, _, _ in self._scan(file):
                earlier = found.get(record.key)
                if earlier is None or earlier[2]:
                    found[record.key] = record.order, offset << 1 | rank, record.failed
        stands = array("Q", (at for _, at, _ in sorted(found.values())))
        self._standing[cell_order(of_cell[0])] = sizes, stands
        return found.keys()

    def _at(self, places: Iterable[tuple[Path, int]]) -> Iterator[R]:
        with contextlib.ExitStack() as stack:
            opened: dict[Path, Callable[[int], R]] = {}
            for file, offset in places:
                if file not in opened:
                    opened[file] = stack.enter_context(self._opened(file))
                yield opened[file](offset)

    @contextlib.contextmanager
    def _opened(self, file: Path) -> Iterator[Callable[[int], R]]:
        """What reads the record at a place of a file."""
        with files.usage_errors(file):
            if file.suffix == parquet.SUFFIX:
                with contextlib.closing(parquet.Table(file)) as table:
                    yield table.row  # type: ignore[misc]
                return
            with file.open("rb") as handle:

                def read(offset: int) -> R:
                    handle.seek(offset)
                    return from_line(self.kind, handle.readline())

                yield read

    def get(self, key: Any) -> R | None:
        """The record of a key, failed or not; None when there is none."""
        place = self.places.get(key)
        return None if place is None else next(self._at([(place.file, place.offset)]))


def _sizes(of_cell: Sequence[Path]) -> tuple[int, ...]:
    with files.usage_errors(of_cell[-1]):
        return tuple(file.stat().st_size for file in of_cell)


def _place(file: Path, offset: int, record: Row | Point) -> Place:
    if isinstance(record, Point):
        return Place(file, offset, record.order, record.failed)
    return Place(
        file,
        offset,
        record.order,
        record.failed,
        record.score is not None,
        sys.intern(record.task),
        record.ctx,
        record.prompt_hash,
        record.max_new_tokens,
    )
