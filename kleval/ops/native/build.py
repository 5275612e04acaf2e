"""Build cache: the C++ sources compiled by the compiler at hand, kept in the user's cache folder.

A library's name is `KEY-CONTENT.so`: KEY is the hash of sources, flags and vector width, CONTENT that of the file itself. A file is
loaded only if it and its folder belong to this user, nobody else may write to them, and its content is what its name says: what a
crash or somebody else left there is passed over and built again. Two processes that build at once wait for one another (a lock
file); the finished library is moved into place in one go.

Flags choose the vector width and nothing else about the processor. `-ffast-math` is not among them: it makes NaN of finite numbers.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-pthread")
WIDTHS = {
    "avx512": ("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    "avx2": ("-mavx2", "-mfma"),
    "neon": (),
}
COMPILERS = ("c++", "g++", "clang++")
_SECONDS = 600.0  # that a build, one's own or another process's, may take


class BuildError(Exception):
    """Why there is no library, in one line."""


def cache_folder() -> Path:
    """KLEVAL_NATIVE_CACHE, else ~/.cache/kleval/native."""
    given = os.environ.get("KLEVAL_NATIVE_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "kleval" / "native"


def find_width() -> str:
    """The widest of WIDTHS that this processor has. BuildError where it has none."""
    import torch

    machine = platform.machine().lower()
    if os.name != "posix":
        raise BuildError(f"not built on {platform.system()}")
    if machine in ("aarch64", "arm64"):
        return "neon"
    name = torch.backends.cpu.get_cpu_capability().lower()
    if machine in ("x86_64", "amd64") and name in WIDTHS:
        return name
    raise BuildError(f"this processor ({platform.machine()}, {name}) has neither AVX2 nor NEON")


def find_compiler() -> list[str]:
    """$CXX, or a C++ compiler on the path. BuildError where there is none."""
    if given := os.environ.get("CXX", "").split():
        return given
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        raise BuildError("no C++ compiler: install g++ or clang++, or set CXX")
    return [found]


def sources() -> list[Path]:
    """Headers too, in order."""
    folder = Path(__file__).parent
    return sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])


def flags(width: str) -> list[str]:
    """Of the compiler; KLEVAL_NATIVE_FLAGS adds some, for sanitizers."""
    return [*FLAGS, *WIDTHS[width], *os.environ.get("KLEVAL_NATIVE_FLAGS", "").split()]


def library_key(width: str) -> str:
    """Hash of sources, flags and processor."""
    digest = hashlib.sha256()
    for file in sources():
        digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    digest.update("\0".join([*flags(width), width, platform.machine(), platform.system()]).encode())
    return digest.hexdigest()[:16]


def find_library(width: str) -> Path | None:
    """The library if it has been built and may be loaded."""
    folder = cache_folder()
    try:
        if not _ours(folder, stat.S_ISDIR):
            return None
        return next((file for file in sorted(folder.glob(f"{library_key(width)}-*.so")) if _intact(file)), None)
    except OSError:
        return None


def build_library(width: str) -> Path:
    """The library, found or built. BuildError where that cannot be."""
    from filelock import FileLock, Timeout

    found = find_library(width)
    if found is not None:
        return found
    compiler, folder, key = find_compiler(), cache_folder(), library_key(width)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _ours(folder, stat.S_ISDIR):
            raise BuildError(f"others may write to {folder}: chmod 700 {folder}, or set KLEVAL_NATIVE_CACHE")
        with FileLock(folder / f"{key}.lock", timeout=_SECONDS):
            return find_library(width) or _compile(compiler, flags(width), folder, key)
    except Timeout:
        raise BuildError(f"another process has been building for {_SECONDS:.0f} s ({folder / key}.lock)") from None
    except OSError as error:
        raise BuildError(f"{folder}: {error.strerror or error}") from None


def _compile(compiler: list[str], options: list[str], folder: Path, key: str) -> Path:
    with tempfile.TemporaryDirectory(prefix=f"{key}-", dir=folder) as work:
        objects = [Path(work) / f"{file.stem}.o" for file in sources() if file.suffix == ".cpp"]
        jobs = [
            _start([*compiler, *options, "-c", str(Path(__file__).parent / f"{target.stem}.cpp"), "-o", str(target)])
            for target in objects
        ]
        for job in jobs:
            _finish(job)
        whole = Path(work) / "whole.so"
        _finish(_start([*compiler, *options, "-shared", *map(str, objects), "-o", str(whole)]))
        whole.chmod(0o600)
        place = folder / f"{key}-{_content(whole)}.so"
        os.replace(whole, place)
    return place


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be started: {error.strerror or error}") from None


def _finish(job: subprocess.Popen[str]) -> None:
    try:
        _, said = job.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        job.kill()
        raise BuildError(f"the compiler took longer than {_SECONDS:.0f} s") from None
    if job.returncode:
        lines = [line for line in said.splitlines() if line.strip()]
        reason = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
        raise BuildError(f"the compiler failed ({job.returncode}): {reason.strip()[:200]}")


def _ours(path: Path, kind: object) -> bool:
    found = path.lstat()
    return (
        (stat.S_ISDIR if kind is stat.S_ISDIR else stat.S_ISREG)(found.st_mode)
        and found.st_uid == os.getuid()
        and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _intact(file: Path) -> bool:
    return _ours(file, stat.S_ISREG) and file.stem.rpartition("-")[2] == _content(file)


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:32]
