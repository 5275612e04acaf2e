"""The native library of this process: built or found at first use, or the reason why there is none.

KLEVAL_NATIVE=off asks for the torch forms, `on` for the C++ ones (the default too, without a word where they cannot be had; having
asked for them one is told, once). Nothing here raises: without a library every operator takes its torch form.
"""

from __future__ import annotations

import ctypes
import functools
import os
import warnings
from dataclasses import dataclass

from kleval.ops.native.build import BuildError, build_library, find_width

VARIABLE = "KLEVAL_NATIVE"
_OFF = ("off", "0", "no", "false", "torch")


@dataclass(frozen=True, slots=True)
class Native:
    """code: the loaded library. width: of its vectors. key: of sources and flags."""

    code: ctypes.CDLL
    width: str
    key: str

    def __str__(self) -> str:
        return f"C++ {self.width} {self.key[:8]}"


def choose(kernels: str) -> None:
    """`native` or `torch`, for this process and those it starts."""
    os.environ[VARIABLE] = "off" if kernels == "torch" else "on"


def native() -> Native | None:
    """The library, or None where the torch forms are to be used."""
    return None if _asked() in _OFF else _load()[0]


def why_not() -> str | None:
    """One line, or None where the library is used."""
    return f"{VARIABLE}={_asked()}" if _asked() in _OFF else _load()[1]


def _asked() -> str:
    return os.environ.get(VARIABLE, "").strip().lower()


@functools.cache
def _load() -> tuple[Native | None, str | None]:
    try:
        width = find_width()
        path = build_library(width)
        code = ctypes.CDLL(str(path))
    except BuildError as error:
        reason = str(error)
    except OSError as error:  # a folder mounted without leave to execute, a library that is missing
        reason = f"the built library cannot be loaded: {str(error).splitlines()[0]}"
    else:
        return Native(code, width, path.name.partition("-")[0]), None
    if _asked():
        warnings.warn(f"kernels in C++ are not used: {reason}", stacklevel=3)
    return None, reason
