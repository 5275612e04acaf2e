"""One program in a sandbox: a keeper process runs it, its output is read up to the limit, the result says how it ended."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.sandbox.kinds import Limits, Result, SandboxFault, Status

_SETUP_SECONDS = 30.0
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_ENVIRONMENT = {
    "HOME": "/box",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PATH": "",
    "PYTHONHASHSEED": "0",
    "TMPDIR": "/box",
}
_BOOT = "import sys; sys.path.append({root!r}); from kleval.sandbox.jail import main; main()"


def run_unchecked(
    code: str,
    *,
    stdin: str = "",
    files: Mapping[str, str] | None = None,
    packages: Sequence[str] = (),
    limits: Limits | None = None,
) -> Result:
    """`run` of `checked`, before it is known whether this machine isolates: for the probe."""
    from kleval.sandbox import view

    limits = limits or Limits()
    files = dict(files or {})
    view.names(list(files))
    order = {
        "code": code,
        "files": files,
        "packages": _places(packages),
        "interpreter": view.interpreter(),
        "environment": {**_ENVIRONMENT, **({"PYTHONPATH": view.PACKAGES} if packages else {})},
        "setup_seconds": _SETUP_SECONDS,
        **{name: getattr(limits, name) for name in limits.__slots__},
    }
    held: list[int] = []
    try:
        for name, text in (("order", json.dumps(order)), ("stdin", stdin)):
            held.append(_sealed(name, text))
        return _run(held[0], held[1], limits)
    except OSError as error:
        raise SandboxFault(f"the sandbox cannot be started: {error}") from error
    finally:
        for fd in held:
            os.close(fd)


def _sealed(name: str, text: str) -> int:
    """A file in memory that nobody can change, read from its beginning."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(text.encode("utf-8", "surrogatepass"))
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _places(packages: Sequence[str]) -> dict[str, str]:
    """Name at /packages -> directory or file here; what a wheel keeps in NAME.libs comes along."""
    found: dict[str, str] = {}
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.origin:
            raise ValueError(f"there is no package {name!r} here")
        place = Path(spec.origin)
        place = place.parent if spec.submodule_search_locations else place
        found[place.name] = str(place)
        libraries = place.parent / f"{name}.libs"
        if libraries.is_dir():
            found[libraries.name] = str(libraries)
    return found


def _run(order_fd: int, stdin_fd: int, limits: Limits) -> Result:
    report_read, report_write = os.pipe()
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-I", "-S", "-c", _BOOT.format(root=root)]
    command += [str(order_fd), str(report_write), str(os.getpid())]
    try:
        keeper = subprocess.Popen(
            command,
            stdin=stdin_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(order_fd, report_write),
            env={},
            cwd="/",
            start_new_session=True,
        )
    except BaseException:
        os.close(report_read)
        os.close(report_write)
        raise
    os.close(report_write)
    try:
        stdout, stderr, too_much = _read(keeper, limits)
        keeper.wait(timeout=_SETUP_SECONDS)
        with open(report_read, "rb", closefd=False) as file:
            raw = file.read()
    except subprocess.TimeoutExpired as error:
        raise SandboxFault("the sandbox did not end") from error
    finally:
        if keeper.poll() is None:
            keeper.kill()
            keeper.wait()
        for pipe in (keeper.stdout, keeper.stderr):
            if pipe is not None:
                pipe.close()
        os.close(report_read)
    return _result(raw, stdout, stderr, too_much)


def _read(keeper: subprocess.Popen[bytes], limits: Limits) -> tuple[bytes, bytes, bool]:
    """What it prints until its pipes end; once one holds too much everything is stopped."""
    assert keeper.stdout is not None
    assert keeper.stderr is not None
    kept = {keeper.stdout.fileno(): bytearray(), keeper.stderr.fileno(): bytearray()}
    too_much = False
    deadline = time.monotonic() + limits.seconds + 2 * _SETUP_SECONDS
    with selectors.DefaultSelector() as selector:
        for fd in kept:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise SandboxFault("the sandbox did not end in time")
            for key, _ in selector.select(left):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                    continue
                kept[key.fd] += chunk
                if len(kept[key.fd]) > limits.output_bytes:
                    del kept[key.fd][limits.output_bytes :]
                    if not too_much:
                        too_much = True
                        keeper.send_signal(signal.SIGTERM)
    stdout, stderr = kept.values()
    return bytes(stdout), bytes(stderr), too_much


def _result(raw: bytes, stdout: bytes, stderr: bytes, too_much: bool) -> Result:
    out, err = (text.decode("utf-8", "replace") for text in (stdout, stderr))
    try:
        report: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        last = err.strip().splitlines()[-1:] or ["it said nothing"]
        raise SandboxFault(f"the sandbox failed: {last[0]}") from error
    if "fault" in report:
        raise SandboxFault(f"the sandbox failed: {report['fault']}")
    code, seconds = report["code"], report["seconds"]
    if too_much:
        return Result("output", None, out, err, seconds)
    return Result(_status(report["by"], code, err), code, out, err, seconds)


def _status(by: Status | str, code: int | None, stderr: str) -> Status:
    if by == "timeout" or code == -signal.SIGXCPU:
        return "timeout"
    if by == "memory":
        return "memory"
    if code is None or code < 0:
        return "killed"
    if code == 0:
        return "ok"
    last = stderr.rstrip().rpartition("\n")[2]
    return "memory" if last.startswith(("MemoryError", "numpy._core._exceptions._ArrayMemoryError")) else "error"
