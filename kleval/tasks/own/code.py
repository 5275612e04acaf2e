"""Digest of a task's own code, in two parts: what makes and asks its samples, and what scores the answers.

Each part is a function's source, without comments and white space, and that of everything it names: functions, classes and constants
of the user's own files (or notebook), followed from file to file. Libraries are not: their versions are the environment's. So a
changed metric is told from a changed prompt, and an edited comment from both.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import re
import textwrap
import types
from collections.abc import Iterable, Iterator
from typing import Any

from kleval.tasks.own.files import is_own

_SCORING = ("score",)
_NAMED = (
    "id",
    "metric",
    "version",
    "edition",
    "protocol",
    "data_revision",
    "data_digest",
    "description",
)  # settings of their own
_PLAIN = (str, bytes, int, float, bool, type(None))


def digests(task: object) -> tuple[str, str]:
    """(asked by, scored by) of a task, as sha256 (hex); empty for what kleval's own code does. A task that is no class of its user's
    tells its own as `code`."""
    told = getattr(task, "code", None)
    if isinstance(told, tuple):
        return told
    kinds = [kind for kind in type(task).__mro__ if kind is not object and not _is_kleval(kind)]
    if not kinds:
        return "", ""
    roots = {kind.__module__.partition(".")[0] for kind in kinds}
    methods = {name: value for kind in reversed(kinds) for name, value in vars(kind).items()}
    scoring = [value for name, value in methods.items() if name in _SCORING]
    # Of an object's own values texts alone: numbers and lists may be what it counts while it works.
    texts = {name: value for name, value in getattr(task, "__dict__", {}).items() if isinstance(value, str)}
    held = {**methods, **texts}
    asking = [
        (name, value) for name, value in held.items() if name not in (*_SCORING, *_NAMED) and not name.startswith("__")
    ]
    made = methods.get("__init__")
    return digest([*asking, made], roots), digest(scoring, roots)


def digest(parts: Iterable[object], roots: Iterable[str] = ()) -> str:
    """sha256 (hex) over parts and all that they name; empty for none. roots: packages that count as the user's wherever they are."""
    texts = sorted(set(_closure(list(parts), set(roots))))
    return hashlib.sha256("\0".join(texts).encode("utf-8", "replace")).hexdigest() if texts else ""


def _closure(stack: list[object], roots: set[str]) -> Iterator[str]:
    seen: set[int] = set()
    kept: list[object] = []  # while they are looked at, ids are not given twice
    while stack:
        one = stack.pop()
        name, value = one if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) else ("", one)
        value = _unwrapped(value)
        if _is_plain(value):
            if value is not None or name:
                yield f"{name} = {_spelled(value)}"
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        kept.append(value)
        if isinstance(value, types.FunctionType):
            if _is_own(value, roots):
                yield f"{value.__qualname__}: {_source(value)}"
                stack += _named(value, roots)
        elif isinstance(value, type):
            if _is_own(value, roots):
                yield f"class {value.__qualname__}"
                stack += [(key, part) for key, part in vars(value).items() if not key.startswith("__")]
                stack += [value.__dict__.get("__init__"), *value.__bases__]
        elif isinstance(value, re.Pattern):
            yield f"{name} = {value.pattern!r}"


def _named(function: types.FunctionType, roots: set[str]) -> list[object]:
    """What a function names: globals, what its closure holds, its defaults; of modules of the user's what it takes from them."""
    codes: list[types.CodeType] = [function.__code__]
    names: list[str] = []
    while codes:
        code = codes.pop()
        names += code.co_names
        codes += [const for const in code.co_consts if isinstance(const, types.CodeType)]
    found: list[object] = [cell.cell_contents for cell in function.__closure__ or () if _has(cell)]
    found += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
    for name in dict.fromkeys(names):
        value = function.__globals__.get(name)
        if isinstance(value, types.ModuleType):
            if _is_place(getattr(value, "__file__", None), value.__name__, roots):
                found += [(other, getattr(value, other)) for other in names if hasattr(value, other)]
        elif name in function.__globals__:
            found.append((name, value))
    return found


def _has(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _unwrapped(value: object) -> object:
    while True:
        if isinstance(value, staticmethod | classmethod | types.MethodType):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.partial | functools.cached_property):
            value = value.func
        elif hasattr(value, "__wrapped__") and callable(value):
            value = value.__wrapped__
        else:
            return value


def _is_plain(value: object) -> bool:
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, dict) and all(map(_is_plain, [*value, *value.values()]))


def _spelled(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, set | frozenset) else repr(value)


def _source(function: types.FunctionType) -> str:
    """As a syntax tree, so that comments do not count; the compiled code where there is no source."""
    try:
        return ast.dump(ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, TypeError, SyntaxError, ValueError):
        code = function.__code__
        return f"{code.co_code.hex()} {[c for c in code.co_consts if _is_plain(c)]} {code.co_names}"


def _is_own(value: Any, roots: set[str]) -> bool:
    try:
        file = inspect.getsourcefile(value)
    except TypeError:  # of a notebook
        file = None
    return _is_place(file, str(value.__module__), roots)


def _is_place(file: str | None, module: str, roots: set[str]) -> bool:
    if module.partition(".")[0] == "kleval":
        return False
    if module.partition(".")[0] in roots or file is None or file.startswith("<"):
        return module != "builtins"
    return is_own(file)


def _is_kleval(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in ("kleval", "abc", "typing")
