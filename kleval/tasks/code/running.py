"""Verdict on a program with its assertions, run in the sandbox: the score of HumanEval+, MBPP+ and CRUXEval.

As Hugging Face's `code_eval` (MIT, which lm-eval uses) asks it: the text is executed in an empty namespace, so that a block
under `__name__ == "__main__"` does not run, what it prints is thrown away, standard input cannot be read, and it passes when
no exception leaves it. In place of functions set to None there is the sandbox. A program that ends itself before its
assertions were reached (`os._exit(0)`) has not passed: the end is marked with a word that it is not told.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from kleval import sandbox
from kleval.sandbox import Limits, Result

# code_eval allows 3 s in a process that is up already; starting Python and importing numpy takes the rest.
LIMITS = Limits(seconds=5.0)

# The mark lies in no variable while the program runs, only where an expression's values lie: neither a frame nor the garbage
# collector gives it, and what it is read from is closed. What is called afterwards was looked up before.
_RUNNER = """
import io, os, sys
def mark():
    word = os.read(0, 100).strip()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return word
def run():
    with open("program.py", encoding="utf-8", errors="surrogatepass") as file:
        source = file.read()
    os.unlink("program.py")
    class Closed(io.StringIO):
        def read(self, *args):
            raise OSError("standard input cannot be read")
        readline = readlines = __next__ = read
    told, sys.stdin = os.dup(2), Closed()
    write, leave = os.write, os._exit
    done = os.dup(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    try:
        write(done, (mark(), exec(source, {}))[0])
    except BaseException as error:
        write(told, f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace"))
        leave(1)
    leave(0)
run()
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    passed: bool
    reason: str


def verdict(program: str) -> Verdict:
    """Whether `program` runs through within LIMITS. SandboxFault when the sandbox failed."""
    mark = secrets.token_hex(16)
    result = sandbox.run(
        _RUNNER, stdin=f"{mark}\n", files={"program.py": program}, packages=usual_packages(), limits=LIMITS
    )
    if result.status == "ok" and result.stdout.endswith(mark):
        return Verdict(True, "passed")
    return Verdict(False, why(result))


def why(result: Result) -> str:
    """Why a program did not get through, in a few words."""
    if result.status == "timeout":
        return "timed out"
    if result.status == "memory":
        return "out of memory"
    if result.status == "output":
        return "printed too much"
    if result.status == "killed":
        return f"killed by signal {-result.exit_code}" if result.exit_code else "killed"
    last = result.stderr.strip().rpartition("\n")[2][:300]
    return last or ("ended before its tests were through" if result.exit_code == 0 else f"exit code {result.exit_code}")


@cache
def usual_packages() -> tuple[str, ...]:
    """What programs and their tests may import beside the standard library: numpy, which EvalPlus's tests do."""
    return ("numpy",) if find_spec("numpy") else ()
