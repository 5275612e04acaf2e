"""Programs that fake a pass do not pass, and honest ones that return odd things do."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from kleval import sandbox
from kleval.tasks.code import cruxeval, isolated_tests, running

pytestmark = pytest.mark.skipif(bool(sandbox.available()), reason=f"no isolation here: {sandbox.available()}")

HEAD = "def inc(x):\n    pass\n"
TESTS = "def check(candidate):\n    for x, y in zip([1, 2], [2, 3]):\n        assert candidate(x) == y\ncheck(inc)"
WALK = """
import gc, os, sys
frame, found = sys._getframe(), []
while frame:
    found += gc.get_referents(frame) + list(frame.f_locals.values())
    frame = frame.f_back
"""
# Each leaves, or passes, without having computed what is asked.
LEAVERS = {
    "the mark read again": "import os\nos.lseek(0, 0, 0)\nos.write(1, os.read(0, 99).strip())\nos._exit(0)\n",
    "the mark in a frame": WALK
    + "for one in found:\n    if isinstance(one, bytes) and len(one) == 32:\n        os.write(1, one)\nos._exit(0)\n",
    "another write": "import os\nreal, os.write = os.write, lambda fd, text: 0\nleave, os._exit = os._exit, lambda code: leave(0)\n",
    "the tests in a file": "def inc(x):\n    return int(open('program.py').read().split(f'[{x}')[1].split('[')[1][0])\n",
    "leaving": "import sys\nsys.exit(0)\n",
    "leaving at the end": "import atexit, os\natexit.register(os._exit, 0)\ndef inc(x):\n    return 0\n",
}
LIARS = {
    "equal to everything": "class Equal:\n    def __eq__(self, other):\n        return True\ndef inc(x):\n    return Equal()\n",
    "a number that is": "class Equal(int):\n    def __eq__(self, other):\n        return True\ndef inc(x):\n    return Equal(0)\n",
    "anything": "from unittest.mock import ANY\ndef inc(x):\n    return ANY\n",
    "no tests": "import builtins\nbuiltins.zip = lambda *lists: []\ndef inc(x):\n    return 0\n",
    "no tests, by a name": "zip = lambda *lists: []\ndef inc(x):\n    return 0\n",
    "the expected value": "import sys\ndef inc(x):\n    return sys._getframe(1).f_locals['y']\n",
}


@pytest.mark.parametrize("name", LEAVERS)
def test_the_end_of_a_program_cannot_be_claimed(name: str) -> None:
    assert not running.verdict(f"{LEAVERS[name]}\n{TESTS}").passed


@pytest.mark.parametrize("name", LIARS)
def test_what_passes_beside_its_tests_alone_does_not_pass(name: str) -> None:
    found = isolated_tests.verdict(LIARS[name], TESTS, HEAD, "inc")
    assert not found.passed
    assert "apart" in found.reason


@pytest.mark.parametrize("raw", [b"cos\n_exit\n(I0\ntR.", b"cbuiltins\neval\n(V1\ntR.", pickle.dumps("no pair"), b""])
def test_an_answer_that_is_no_plain_value_is_not_built(raw: bytes) -> None:
    code = (
        "import os, struct, sys\ndef inc(x):\n    frame = sys._getframe(1)\n    if 'told' not in frame.f_locals:\n"
        f"        return x + 1\n    os.write(frame.f_locals['told'], struct.pack('<Q', {len(raw)}) + {raw!r})\n    os._exit(0)\n"
    )
    assert not isolated_tests.verdict(code, "assert inc(1) == 2", HEAD).passed


HONEST = (
    ("def f(x):\n    return (i for i in range(x))", "assert list(f(3)) == [0, 1, 2]"),
    ("from collections import namedtuple\nP = namedtuple('P', 'a b')\ndef f(x):\n    return P(x, 1)", "assert f(3) == (3, 1)"),
    ("from collections import Counter\ndef f(x):\n    return Counter(x)", "assert f('aab') == {'a': 2, 'b': 1}"),
    ("import re\ndef f(x):\n    return re.match('a', x)", "assert f('a')\nassert True == (f('a') is not None)\nassert f('b') is None"),
    ("def f(x):\n    return 1j, {1}, b'x', range(2), float('inf')", "assert f(0) == (1j, {1}, b'x', range(2), float('inf'))"),
    ("from fractions import Fraction\ndef f(x):\n    return Fraction(1, x)", "assert f(2) == 0.5"),
    ("def f(x):\n    raise ValueError('no')", "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'"),
    ("def f(g, x):\n    return g(x)", "assert f(lambda v: v + 1, 1) == 2"),
    ("import math\ndef f(x):\n    return math.sqrt(x)", "assert math.isclose(f(4), 2)"),
    ("def sum(a, b):\n    return a + b", "assert sum(1, 2) == 3"),
    ("class P:\n    def __init__(self, a):\n        self.a = a\ndef f(p):\n    return p.a", "assert f(P(1)) == 1"),
)  # fmt: skip


@pytest.mark.parametrize(("program", "tests"), HONEST)
def test_honest_programs_pass(program: str, tests: str) -> None:
    found = isolated_tests.verdict(program, tests, program)
    assert found.passed, found.reason


def test_arrays_are_values() -> None:
    pytest.importorskip("numpy")
    program = "import numpy as np\ndef f(x):\n    return np.array(x), np.float64(2)"
    tests = "import numpy as np\na, b = f([1, 2])\nnp.testing.assert_allclose(a, [1, 2])\nassert b == 2"
    assert isolated_tests.verdict(program, tests, program).passed


ROW: dict[str, Any] = {"code": "def f(x):\n    return x + 1", "input": "1", "output": "2"}


@pytest.mark.parametrize(
    ("backwards", "answer", "passed"),
    [
        (False, "assert f(1) == f(1)", False),
        (False, "f(1)", False),
        (False, "assert f(1) == 3 or 2", False),
        (False, "assert f('==') == 2", True),
        (False, "2 # two", True),
        (True, "1) or (1", False),
        (True, "type('E', (int,), {'__add__': lambda s, o: 2})(0)", False),
        (True, "assert f((f := lambda x: 2)(1) - 1) == 2", False),
        (True, "''.__class__(1)", False),
        (True, "assert f(len('a')) == 2", True),
        (True, "f(1)", True),
        (True, "x=1", True),
    ],
)
def test_own_protocol_takes_no_prediction_that_cheats(backwards: bool, answer: str, passed: bool) -> None:
    made = cruxeval._own_test(backwards, ROW, f"[ANSWER]{answer}[/ANSWER]")
    assert running.verdict(made).passed is passed


@pytest.mark.parametrize("answer", ["+".join("1" * 3000), "-" * 9000 + "1", "(" * 300, "\0", "\ud800", "*", ""])
def test_no_prediction_breaks_the_reading(answer: str) -> None:
    for backwards in (True, False):
        assert cruxeval._own_test(backwards, ROW, answer).startswith(ROW["code"])
