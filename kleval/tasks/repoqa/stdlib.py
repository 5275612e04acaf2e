"""The running Python's standard library as a repository: its functions are needles, their docstrings the descriptions.

Docstrings of functions, classes and modules are taken out of the code (a body of nothing else becomes `pass`), so that
a description cannot be looked up word for word. A function can be asked for when its name and its description are its
own alone, the description has MIN_WORDS to MAX_WORDS words without the function's name (longer ones: their first
paragraph), and the code left has at least MIN_LINES lines and at most the official 2,000 bytes.

Left out: tests, packages that are data rather than code, and modules written when this Python was built.

What was parsed is kept in the user's cache, under the hash of the library and of this file: parsing takes seconds,
reading what is kept a fraction of one. A file that is damaged is parsed again; a cache that cannot be written keeps nothing.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import hashlib
import inspect
import json
import os
import platform
import re
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from kleval.files import replacing
from kleval.tasks.datafile import READ_ERRORS
from kleval.tasks.repoqa.context import Needle
from kleval.types import UsageError

CORPUS_VERSION = "stdlib-1"
MIN_WORDS, MAX_WORDS = 8, 120
MIN_LINES, MAX_BYTES = 4, 2000
_LEFT_OUT = (
    "__pycache__", "__phello__", "config", "dist-packages", "encodings", "ensurepip", "idlelib", "lib2to3", "lib-dynload",
    "pydoc_data", "site-packages", "test", "tests", "turtledemo",
)  # fmt: skip

_Definition = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
_BLOCKS = ("body", "orelse", "handlers", "finalbody", "cases")  # where statements hold statements


@dataclass(frozen=True, slots=True)
class Corpus:
    """files: path -> text without docstrings, in sorted order. functions: with offsets from the beginning of their first lines."""

    files: dict[str, str] = field(repr=False)
    functions: tuple[Needle, ...] = field(repr=False)


def _root() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _paths(root: Path) -> Iterator[str]:
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(d for d in inside if d not in _LEFT_OUT and not d.startswith("config-"))
        for file in sorted(files):
            if file.endswith(".py") and not file.startswith("_sysconfigdata"):
                yield Path(folder, file).relative_to(root).as_posix()


@lru_cache(maxsize=1)
def identity() -> tuple[str, str]:
    """(revision, sha256): Python's name, version and the beginning of the hash; the hash of the files that are read."""
    h = hashlib.sha256(CORPUS_VERSION.encode())
    root = _root()
    for path in sorted(_paths(root)):
        h.update(f"\0{path}\0".encode())
        h.update((root / path).read_bytes())
    name = f"{platform.python_implementation().lower()}-{platform.python_version()}"
    return f"{name} standard library, {CORPUS_VERSION}, sha256:{h.hexdigest()[:16]}", h.hexdigest()


@lru_cache(maxsize=1)
def corpus() -> Corpus:
    """All of it, parsed once per Python. UsageError where this Python's library is not there as source."""
    own = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    file = Path.home() / ".cache" / "kleval" / "parsed" / f"stdlib-{identity()[1][:32]}-{own[:16]}.json.gz"
    found = _read(file)
    if found is None:
        found = _parsed()
        _keep(found, file)
    return found


def _keep(found: Corpus, file: Path) -> None:
    """Packed, so that damage shows when it is read."""
    body = json.dumps([found.files, [astuple(function) for function in found.functions]])
    with contextlib.suppress(OSError, UsageError), replacing(file) as out:
        out.buffer.write(gzip.compress(body.encode(), compresslevel=1))


def _read(file: Path) -> Corpus | None:
    """None for one that is not there, or not as it was written."""
    try:
        files, functions = json.loads(gzip.decompress(file.read_bytes()))
    except (*READ_ERRORS, ValueError):
        return None
    return Corpus(files, tuple(Needle(*fields) for fields in functions))


def _parsed() -> Corpus:
    root = _root()
    files: dict[str, str] = {}
    found: list[Needle] = []
    names: Counter[str] = Counter()
    for path in sorted(_paths(root)):
        try:
            with tokenize.open(root / path) as file:
                text = file.read()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                definitions = list(_definitions(ast.parse(text)))
        except (OSError, SyntaxError, ValueError):
            continue
        files[path], functions = _strip(path, text.encode("utf-8", "surrogatepass"), definitions)
        found += functions
        names.update(node.name for node, _ in definitions if isinstance(node, _Definition))
    described = Counter(f.description for f in found)
    kept = tuple(f for f in found if names[f.name] == 1 and described[f.description] == 1)
    if len(kept) < 20:
        raise UsageError(
            f"repoqa (builtin) reads the sources of Python's standard library, and {root} has {len(kept)} functions that"
            f" can be asked for: use a Python installed with its sources, or --edition official"
        )
    return Corpus(files, kept)


def _strip(path: str, raw: bytes, definitions: Sequence[tuple[_Documented, bool]]) -> tuple[str, list[Needle]]:
    """The file without docstrings, and its functions that have a fit description and size."""
    starts = [0, *accumulate(len(line) + 1 for line in raw.split(b"\n"))]

    def span(node: Any) -> tuple[int, int]:
        """Where a statement begins and ends, in bytes."""
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    edits: list[tuple[int, int, bytes]] = []  # begin, end, what takes its place
    described: list[tuple[_Definition, str]] = []
    for node, is_top in definitions:
        text = ast.get_docstring(node, clean=False)
        if text is None:
            continue
        first: Any = node.body[0]
        start, end = span(first)
        line_start, line_end = starts[first.lineno - 1], starts[first.end_lineno] - 1
        alone = not raw[line_start:start].strip() and not raw[end:line_end].strip()
        if alone and (len(node.body) > 1 or isinstance(node, ast.Module)):
            edits.append((line_start, min(line_end + 1, len(raw)), b""))
        else:
            edits.append((start, end, b"pass"))
        if is_top and isinstance(node, _Definition):
            described.append((node, text))

    stripped = raw
    for begin, until, instead in sorted(edits, reverse=True):  # from the end, so that offsets stay what they are
        stripped = stripped[:begin] + instead + stripped[until:]

    def moved(position: int) -> int:
        return position + sum(len(instead) - (until - begin) for begin, until, instead in edits if until <= position)

    functions = []
    for node, text in described:
        description = _description(text, node.name)
        start, end = map(moved, span(node))
        if description is None or end - start > MAX_BYTES:
            continue
        first_line = stripped.rfind(b"\n", 0, start) + 1
        code = (stripped[first_line:end] + stripped[end:].partition(b"\n")[0]).decode("utf-8", "replace")
        if sum(bool(line.strip()) for line in code.split("\n")) >= MIN_LINES:
            # From the beginning of its line: cut at `def`, its indentation would stand alone and point it out.
            functions.append(Needle(node.name, path, description, first_line, end, code))
    return stripped.decode("utf-8", "replace"), functions


def _definitions(tree: ast.Module) -> Iterator[tuple[_Documented, bool]]:
    """Whatever can have a docstring, and whether it is outside all functions."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, is_top = stack.pop()
        if isinstance(node, _Documented):
            yield node, is_top
        inside = is_top and not isinstance(node, _Definition)
        stack += [(child, inside) for block in _BLOCKS for child in getattr(node, block, ())]


def _description(docstring: str, name: str) -> str | None:
    """The docstring in one line, or its first paragraph where it is long; None when it does not do as a description."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", inspect.cleandoc(docstring))]
    text = " ".join(paragraphs)
    if len(text.split()) > MAX_WORDS:
        text = paragraphs[0]
    if not MIN_WORDS <= len(text.split()) <= MAX_WORDS or not text.isascii() or not text.isprintable():
        return None
    if name.startswith("__") or re.search(rf"\b{re.escape(name.strip('_'))}\b", text, re.IGNORECASE):
        return None
    return text
