"""Python file that a user named: run once per load, and what it calls NAME.

It is run as the user's own code, with its folder on the import path, so that it can import what lies beside it. Whatever goes wrong in
it is a UsageError with its line.
"""

from __future__ import annotations

import hashlib
import importlib.util
import linecache
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from kleval.types import UsageError

_KLEVAL = Path(__file__).parents[2]
_KEYS = ("stdlib", "platstdlib", "purelib", "platlib")
_LIBRARIES = tuple(Path(place) for key, place in sysconfig.get_paths().items() if key in _KEYS)


def is_own(file: str) -> bool:
    """Whether a file is the user's: neither kleval's nor an installed library's. A notebook's cells are."""
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in (_KLEVAL, *_LIBRARIES)) and not file.startswith("<frozen")


def attribute(target: str) -> Any:
    """What `FILE.py:NAME` is. UsageError for a file or a name that there is not, and for a file that cannot be run."""
    file, _, name = target.rpartition(":")
    path = Path(file).expanduser()
    if not file or not name.isidentifier():
        raise UsageError(f"{target} names nothing in a file: write FILE.py:NAME")
    if not path.is_file():
        raise UsageError(f"{target}: there is no file {path}")
    module = _run(path)
    if not hasattr(module, name):
        own = [
            key for key, value in vars(module).items() if not key.startswith("_") and _made_in(value, module.__name__)
        ]
        raise UsageError(f"{path} has no {name}: it has {', '.join(own) or 'nothing of its own'}")
    return getattr(module, name)


def _run(path: Path) -> Any:
    path = path.resolve()
    linecache.checkcache(str(path))  # it may have been edited since this process read it
    name = f"kleval_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} cannot be run: {said(error, path)}") from error
    return module


def _made_in(value: object, module: str) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module


def said(error: BaseException, path: Path | None = None) -> str:
    """An exception as one line, with the place in the user's file where it arose: in `path`, or outside kleval."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name} line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if (Path(f.filename) == path if path else is_own(f.filename))]
    return f"{text} ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else text
