"""A repository's files cut to a token budget, with the needle at a wanted place.

Source: evalplus/repoqa @ ae876de, repoqa/search_needle_function.py (make_code_context) and repoqa/utility.py
(topological_sort). Files come dependencies first. Before the needle: the lines above it in its file, taken upwards;
then the files before, nearest first, each from its top. After it: the rest of its file, then the files behind. Every
file begins with a comment that names its path; a file that is cut ends with a line of three dots. Tokens are counted
line by line. Known and kept, beside what the card says: the dots come even where no line of a file fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kleval.tasks.languages import COMMENT_PREFIX

LineCount = Callable[[str], int]
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


@dataclass(frozen=True, slots=True)
class Asked:
    """A needle, its middle wanted at `position` (0 to 1) of the code. order: paths of the repository's files."""

    language: str
    repository: str
    needle: Needle
    content: Mapping[str, str] = field(repr=False)
    order: Sequence[str] = field(repr=False)
    position: float

    def cut(self) -> list[str]:
        """Its file in three parts: before it, itself, after it."""
        raw, start, end = self.content[self.needle.path].encode(), self.needle.start_byte, self.needle.end_byte
        return [part.decode() for part in (raw[:start], raw[start:end], raw[end:])]

    def is_shifted(self) -> bool:
        """Whether the official code, which takes the offsets as characters, shows other code than the function."""
        text, start, end = self.content[self.needle.path], self.needle.start_byte, self.needle.end_byte
        return [text[:start], text[start:end], text[end:]] != self.cut()

    def code(self, size_tokens: int, count: LineCount) -> Context:
        """About size_tokens of code around it; more where the needle alone takes more. count: tokens of a text; asked line by line,
        the newline included."""
        (above, needle, below), at = self.cut(), self.order.index(self.needle.path)
        needle_tokens = count(needle)
        room_before = int(size_tokens * self.position - needle_tokens / 2)
        before = _Side(self, room_before, count)
        before.upwards([before.heading(self.needle.path), *above.split("\n")])
        before.files(reversed(self.order[:at]))
        after = _Side(self, size_tokens - needle_tokens - room_before, count)
        after.downwards(below.split("\n"))
        after.files(self.order[at + 1 :])
        return Context(
            "".join(reversed(before.texts)).replace("\0", ""),
            needle.replace("\0", ""),
            "".join(after.texts).replace("\0", ""),
            not before.is_cut and not after.is_cut,
            (self.needle.path, *before.paths, *after.paths),
            (before.tokens, needle_tokens, after.tokens),
        )


class _Side:
    """What stands on one side of the needle, in at most `room` tokens. texts: from it away; paths: of the files but its own; is_cut:
    something did not fit."""

    def __init__(self, asked: Asked, room: int, count: LineCount) -> None:
        self._asked, self._room, self._count = asked, room, count
        self.texts, self.paths = list[str](), list[str]()
        self.tokens, self.is_cut = 0, False

    def heading(self, path: str) -> str:
        return f"{COMMENT_PREFIX[self._asked.language]} Path: {path}"

    def upwards(self, lines: Sequence[str]) -> None:
        """The last lines that fit."""
        self.texts.append("".join(reversed(self._fitting(reversed(lines)))))

    def downwards(self, lines: Iterable[str]) -> None:
        """The first lines that fit, and three dots where some did not."""
        kept = self._fitting(lines)
        if self.is_cut:
            kept.append(_DOTS)
            self.tokens += self._count(_DOTS)
        self.texts.append("".join(kept))

    def files(self, paths: Iterable[str]) -> None:
        for path in paths:
            if self.is_cut or self.tokens >= self._room:
                self.is_cut = True
                break
            self.paths.append(path)
            self.downwards([self.heading(path), *self._asked.content[path].split("\n")])

    def _fitting(self, lines: Iterable[str]) -> list[str]:
        """The lines up to the first that does not fit, newlines included."""
        kept = list[str]()
        for line in lines:
            tokens = self._count(line + "\n")
            if self.tokens + tokens > self._room:
                self.is_cut = True
                break
            kept.append(line + "\n")
            self.tokens += tokens
        return kept


def dependency_order(dependencies: Mapping[str, Sequence[str]]) -> list[str]:
    """Paths with those they depend on before them: depth first, in the order given, cycles cut where they close."""
    order: list[str] = []
    seen: set[str] = set()
    stack = [(path, False) for path in reversed(list(dependencies))]  # a path, and whether those it depends on are done
    while stack:
        path, done = stack.pop()
        if done:
            order.append(path)
        elif path not in seen:
            seen.add(path)
            stack.append((path, True))
            stack += [(other, False) for other in reversed(dependencies.get(path, ()))]
    return order
