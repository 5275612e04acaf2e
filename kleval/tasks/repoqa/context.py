"""A repository's files cut to a token budget, with the needle at a wanted place.

Source: evalplus/repoqa @ ae876de, repoqa/search_needle_function.py (make_code_context) and repoqa/utility.py
(topological_sort). Files come dependencies first. Before the needle: the lines above it in its file, taken upwards;
then the files before, nearest first, each from its top. After it: the rest of its file, then the files behind. Every
file begins with a comment that names its path; a file that is cut ends with a line of three dots. Tokens are counted
line by line.

Fixed here: the official code takes the needle's byte offsets as character offsets, which shifts the cut wherever a
character outside ASCII comes before. `official_offsets` brings that back. Known and kept: an indented needle leaves its
indentation behind as a line of its own; the budget before the needle may be negative, and then the context is longer
than wanted; the dots come even where no line of a file fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

LineCount = Callable[[str], int]
File = tuple[str, str]  # path, content
_DOTS = "...\n"


@dataclass(frozen=True, slots=True)
class Needle:
    """A function that can be asked for. Offsets into the UTF-8 bytes of its file; code: its lines, which answers are compared
    with."""

    name: str
    path: str
    description: str
    start_byte: int
    end_byte: int
    code: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A file in three parts around the needle."""

    path: str
    before: str
    needle: str
    after: str


@dataclass(frozen=True, slots=True)
class Context:
    """complete: no file was cut, so that a larger budget would not make it longer. paths: files in it, in any order.
    tokens: of the three parts, counted line by line."""

    before: str
    needle: str
    after: str
    complete: bool
    paths: tuple[str, ...] = field(repr=False)
    tokens: tuple[int, int, int]

    @property
    def text(self) -> str:
        return self.before + self.needle + self.after


def dependency_order(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Paths with those they depend on before them: depth first, in the order given, cycles cut where they close."""
    order: list[str] = []
    seen: set[str] = set()
    for root in dependencies:
        if root in seen:
            continue
        seen.add(root)
        stack: list[tuple[str, Iterator[str]]] = [(root, iter(dependencies[root]))]
        while stack:
            path, rest = stack[-1]
            for neighbour in rest:
                if neighbour not in seen:
                    seen.add(neighbour)
                    stack.append((neighbour, iter(dependencies.get(neighbour, ()))))
                    break
            else:
                stack.pop()
                order.append(path)
    return order


def cut_out(path: str, content: str, start_byte: int, end_byte: int, official_offsets: bool = False) -> Cut:
    """The needle of a file by its offsets into the file's UTF-8 bytes (official_offsets: taken as characters)."""
    if official_offsets:
        return Cut(path, content[:start_byte], content[start_byte:end_byte], content[end_byte:])
    raw = content.encode("utf-8", "surrogatepass")
    parts = (raw[:start_byte], raw[start_byte:end_byte], raw[end_byte:])
    return Cut(path, *(part.decode("utf-8", "surrogatepass") for part in parts))


def build(
    cut: Cut,
    files_before: Iterable[File],
    files_after: Iterable[File],
    position: float,
    size_tokens: int,
    count: LineCount,
    comment: str,
) -> Context:
    """Code around the needle of about size_tokens, the needle's middle at `position` (0 to 1) of them.

    files_before: from the nearest one away. count: tokens of a text; asked line by line, the newline included.
    """
    needle_tokens = count(cut.needle)
    room_before = int(size_tokens * position - needle_tokens / 2)
    first = [_heading(comment, cut.path), *cut.before.split("\n")]
    before = _side(_upwards(first, room_before, count), files_before, room_before, count, comment)
    room_after = size_tokens - needle_tokens - room_before
    after = _side(_downwards(cut.after.split("\n"), room_after, count), files_after, room_after, count, comment)
    return Context(
        "".join(reversed(before.texts)).replace("\0", ""),
        cut.needle.replace("\0", ""),
        "".join(after.texts).replace("\0", ""),
        not before.is_cut and not after.is_cut,
        (cut.path, *before.paths, *after.paths),
        (before.tokens, needle_tokens, after.tokens),
    )


@dataclass(slots=True)
class _Taken:
    """What stands on one side of the needle. texts: from it away; paths: of the files but its own; is_cut: something did not fit."""

    texts: list[str]
    tokens: int
    is_cut: bool
    paths: list[str] = field(default_factory=list)


def _side(own: _Taken, files: Iterable[File], room: int, count: LineCount, comment: str) -> _Taken:
    """own: what was taken of the needle's own file."""
    for path, content in files:
        if own.is_cut or own.tokens >= room:
            own.is_cut = True
            break
        more = _downwards([_heading(comment, path), *content.split("\n")], room - own.tokens, count)
        own.texts += more.texts
        own.tokens += more.tokens
        own.is_cut = more.is_cut
        own.paths.append(path)
    return own


def _heading(comment: str, path: str) -> str:
    return f"{comment} Path: {path}"


def _upwards(lines: Sequence[str], room: int, count: LineCount) -> _Taken:
    """The last lines that fit."""
    kept, used = _fitting(reversed(lines), room, count)
    return _Taken(["".join(reversed(kept))], used, len(kept) < len(lines))


def _downwards(lines: Sequence[str], room: int, count: LineCount) -> _Taken:
    """The first lines that fit, and three dots where some did not."""
    kept, used = _fitting(lines, room, count)
    if len(kept) == len(lines):
        return _Taken(["".join(kept)], used, False)
    return _Taken(["".join([*kept, _DOTS])], used + count(_DOTS), True)


def _fitting(lines: Iterable[str], room: int, count: LineCount) -> tuple[list[str], int]:
    """The lines up to the first that does not fit, newlines included, and their tokens."""
    kept, used = list[str](), 0
    for line in lines:
        tokens = count(line + "\n")
        if used + tokens > room:
            break
        kept.append(line + "\n")
        used += tokens
    return kept, used
