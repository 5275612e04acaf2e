"""LiveCodeBench's tests: a program's output for an input, or a function's result for arguments, compared with the expected one.

Outputs are compared here, outside the sandbox, and expected outputs never enter it: a program can only pass by giving them.
Lines are stripped and compared as texts, else number by number as decimals (official `grade_stdio`); returned values as
JSON values (official `grade_call_based`: a tuple counts as a list). The first test that fails ends it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from kleval import sandbox
from kleval.sandbox import Limits
from kleval.tasks import packaged
from kleval.tasks.code.running import usual_packages, why
from kleval.tasks.code.task import Problem

SECONDS = 6.0
_MIB = 1 << 20
_START_SECONDS = 1.0
# What official runs put in front of a program.
_STARRED = packaged.words("code/prompts.toml", "livecodebench", "starred")
_PRELUDE = (
    "".join(f"from {name} import *\n" for name in _STARRED)
    + "".join(f"import {name}\n" for name in _STARRED if name not in ("builtins", "typing"))
    + "sys.setrecursionlimit(50000)\n"
)
# Leaving by sys.exit is an end like any other, with whatever code.
_STARTER = """
try:
    with open("program.py", encoding="utf-8", errors="surrogatepass") as file:
        exec(compile(file.read(), "program.py", "exec"), {"__name__": "__main__"})
except SystemExit:
    pass
"""
_CALLER = """
import json, os, signal, sys
def run():
    order = json.load(open("order.json"))
    done = os.dup(1)
    told = os.dup(2)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    def plain(value, top=False):
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, list) or (top and isinstance(value, tuple)):
            return [plain(one) for one in value]
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return {key: plain(one) for key, one in value.items()}
        return {"no JSON": type(value).__name__}
    def late(number, frame):
        os.write(told, b"timed out")
        os._exit(1)
    try:
        signal.signal(signal.SIGALRM, late)
        space = {"__name__": "solution"}
        signal.setitimer(signal.ITIMER_REAL, order["seconds"])
        exec(order["code"], space)
        owner = space["Solution"]() if "class Solution" in order["code"] else None
        method = getattr(owner, order["function"]) if owner is not None else space[order["function"]]
        for arguments in order["arguments"]:
            signal.setitimer(signal.ITIMER_REAL, order["seconds"])
            answer = json.dumps(plain(method(*arguments), True))
            signal.setitimer(signal.ITIMER_REAL, 0)
            line = (answer + "\\n").encode()
            while line:
                line = line[os.write(done, line):]
    except BaseException as error:
        os.write(told, f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace"))
        os._exit(1)
    os._exit(0)
run()
"""


def code_of(answer: str) -> str:
    """What lies between the last two lines with a fence; the whole answer where it has no fence, as base models write."""
    lines = answer.split("\n")
    fences = [i for i, line in enumerate(lines) if "```" in line]
    if not fences:
        return answer.strip()
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def grade(problem: Problem, answers: Sequence[str]) -> tuple[dict[str, float], Any]:
    code = code_of(answers[0])
    tests = problem.data["tests"]
    reason = "no code in the answer"
    if code:
        function = problem.data["function"]
        reason = _call(code, function, tests) if function else _feed(code, tests)
    return {"pass@1": float(not reason)}, reason or "passed"


def _limits(seconds: float) -> Limits:
    return Limits(seconds=seconds + _START_SECONDS, memory_bytes=2048 * _MIB, output_bytes=32 * _MIB)


def _feed(code: str, tests: Sequence[tuple[str, str]]) -> str:
    """Why a program fails its tests on standard input; empty when it passes."""
    for number, (given, expected) in enumerate(tests):
        result = sandbox.run(
            _STARTER,
            stdin=given,
            files={"program.py": _PRELUDE + code},
            packages=usual_packages(),
            limits=_limits(SECONDS),
        )
        if result.status != "ok":
            return f"test {number}: {why(result)}"
        if not same_output(result.stdout, expected):
            return f"test {number}: wrong answer"
    return ""


def _call(code: str, function: str, tests: Sequence[tuple[str, str]]) -> str:
    """The same for a function; all tests in one process, as officially."""
    order = {
        "code": _PRELUDE + code,
        "function": function,
        "seconds": SECONDS,
        "arguments": [[json.loads(line) for line in given.split("\n")] for given, _ in tests],
    }
    result = sandbox.run(
        _CALLER,
        files={"order.json": json.dumps(order)},
        packages=usual_packages(),
        limits=_limits(SECONDS * (len(tests) + 1)),
    )
    lines = result.stdout.split("\n")
    for number, (_, expected) in enumerate(tests):
        if number >= len(lines) - 1:
            return f"test {number}: {why(result)}"
        if not _same_value(lines[number], expected):
            return f"test {number}: wrong answer"
    return ""


def _same_value(got: str, expected: str) -> bool:
    try:
        return bool(json.loads(got) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def same_output(got: str, expected: str) -> bool:
    """Line for line, blanks around lines and texts aside; as decimals where the texts differ."""
    mine, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (got, expected))
    if len(mine) != len(theirs):
        return False
    return all(a == b or _same_numbers(a, b) for a, b in zip(mine, theirs, strict=True))


def _same_numbers(got: str, expected: str) -> bool:
    try:
        return [Decimal(word) for word in got.split()] == [Decimal(word) for word in expected.split()]
    except InvalidOperation:
        return False
