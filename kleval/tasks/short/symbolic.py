"""Equality of two mathematical answers in value, by math-verify (sympy): LaTeX is parsed, nothing of it is evaluated as Python.

Answers come from models, and sympy may take forever, or the machine's memory, for `9^{9^{9^9}}`; its own timeouts are alarms,
which other threads cannot use and which long multiplications do not hear. So one process is kept that compares, with bounded
memory; a comparison that takes longer than SECONDS ends it, counts as different, and the next one starts another.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache

from kleval.types import UsageError

SECONDS = 5.0
_START_SECONDS = 60.0
_MEMORY_BYTES = 2 << 30
_WORKER = f"""
import json, os, sys
answers = os.fdopen(os.dup(1), "w")
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY_BYTES}, {_MEMORY_BYTES}))
except (ImportError, ValueError, OSError):
    pass
import logging
logging.disable(logging.CRITICAL)
from math_verify import LatexExtractionConfig, parse, verify
how = [LatexExtractionConfig()]
def read(text):
    return parse("$" + text + "$", how, fallback_mode="no_fallback", parsing_timeout=None)
print("ready", file=answers, flush=True)
for line in sys.stdin:
    try:
        right, given = json.loads(line)
        wanted, found = read(right), read(given)
        same = bool(wanted and found and verify(wanted, found, timeout_seconds=None))
    except BaseException:
        same = False
    print(int(same), file=answers, flush=True)
"""


class _Comparer:
    """The process that compares, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def same(self, given: str, right: str) -> bool:
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._process = self._started()
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps([right, given]) + "\n")
                process.stdin.flush()
                answer = _line(process, SECONDS)
            except OSError:
                answer = ""
            if not answer:
                self._end()
            return answer == "1"

    def _started(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            start_new_session=True,
        )
        if _line(process, _START_SECONDS) != "ready":
            process.kill()
            said = (process.communicate()[1].strip().splitlines() or ["nothing"])[-1]
            raise UsageError(
                f"answers cannot be compared by math-verify ({said}): pip install math-verify 'antlr4-python3-runtime==4.11.*'"
            )
        assert process.stderr is not None
        threading.Thread(target=process.stderr.read, daemon=True).start()
        atexit.register(process.kill)
        return process

    def _end(self) -> None:
        if self._process is not None:
            with suppress(OSError):
                self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    pipe and pipe.close()
            self._process = None


def _line(process: subprocess.Popen[str], seconds: float) -> str:
    """The next line that it writes; empty when none comes in time."""
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(process.stdout.readline().strip()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    reader.join(seconds)
    return found[0] if found else ""


_COMPARER = _Comparer()


def _afresh() -> None:
    """A copy of this process shares the pipes: it starts a comparer of its own."""
    global _COMPARER
    _COMPARER = _Comparer()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_afresh)


@lru_cache(maxsize=4096)
def same(given: str, right: str) -> bool:
    """Whether the value of `given` is that of `right`; False where one of them cannot be read or takes too long."""
    return _COMPARER.same(given, right)
