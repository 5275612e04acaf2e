"""A second run of a program's tests, in a process that the program cannot reach.

It is for programs that passed with their tests in one process (`running.verdict`, as the harnesses do it), where a program can
read what is expected, take the tests' means away (`builtins.zip`) or give objects that equal everything.

In one sandbox the program is defined in a process of its own and its functions are called from another one, which holds the
tests. Arguments and results go through pipes as plain values; a result that is none arrives as an object that equals nothing.
The tests reach the second process after the first was split off, by an open file that the first has closed.
"""

from __future__ import annotations

import ast
import json
import secrets
from dataclasses import replace

from kleval import sandbox
from kleval.tasks.code import running
from kleval.tasks.code.running import Verdict, usual_packages, why

_RUNNER = r"""
import builtins, collections.abc, datetime, decimal, fractions, io, json, os, pickle, struct, sys
PLAIN = (tuple, list, dict, set, frozenset, str, bytes, int, float, complex)
VIEWS = (type({}.keys()), type({}.items()))
ORDERED = (collections.abc.Iterator, collections.abc.ValuesView)
AS_PLAIN = (*PLAIN, *VIEWS, *ORDERED, type, type(iter))
KNOWN = {("builtins", kind.__name__): kind for kind in (*PLAIN, bool, bytearray, range, slice)}
KNOWN["builtins", "iter"] = lambda values: iter(list(values))  # iter itself can be told to call something
KNOWN |= {("datetime", name): getattr(datetime, name) for name in ("date", "datetime", "time", "timedelta", "timezone")}
KNOWN |= {("decimal", "Decimal"): decimal.Decimal, ("collections", "deque"): __import__("collections").deque}
NUMPY = {(place, name) for place in ("numpy._core.multiarray", "numpy.core.multiarray") for name in ("scalar", "_reconstruct")}
NUMPY |= {("numpy", "dtype"), ("numpy", "ndarray")}
class Writer(pickle.Pickler):
    def __init__(self, file, strict):
        super().__init__(file, 4)
        self.strict = strict
    def persistent_id(self, value):
        kind = type(value)
        if kind is fractions.Fraction:
            return value.numerator, value.denominator
        if self.strict or value is None or isinstance(value, AS_PLAIN) or kind.__module__.split(".")[0] == "numpy":
            return None
        return None if KNOWN.get((kind.__module__, kind.__name__)) is kind else ()
    def reducer_override(self, value):
        if isinstance(value, type):
            return NotImplemented
        for kind in PLAIN:
            if isinstance(value, kind) and type(value) not in (kind, bool):
                return kind, (kind(value),) if kind is not tuple else (list(value),)
        if isinstance(value, VIEWS):
            return set, (list(value),)
        if isinstance(value, ORDERED):
            return iter, (list(value),)
        return NotImplemented
class Reader(pickle.Unpickler):
    def persistent_load(self, pair):
        return fractions.Fraction(*pair) if pair else object()
    def find_class(self, place, name):
        if (place, name) in NUMPY:
            __import__(place)
            return getattr(sys.modules[place], name)
        if (place, name) not in KNOWN:
            raise pickle.UnpicklingError(f"gives a {name}, which is no plain value")
        return KNOWN[place, name]
def dumped(value, strict=False):
    held = io.BytesIO()
    Writer(held, strict).dump(value)
    return held.getvalue()
def send(fd, raw):
    raw = struct.pack("<Q", len(raw)) + raw
    while raw:
        raw = raw[os.write(fd, raw):]
def receive(fd):
    def exactly(size):
        parts = []
        while size:
            part = os.read(fd, min(size, 1 << 20))
            if not part:
                raise EOFError("ended before its tests were through")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    return exactly(*struct.unpack("<Q", exactly(8)))
def answer(asked, told):
    space, failed = {}, None
    try:
        with open("program.py", encoding="utf-8", errors="surrogatepass") as file:
            exec(file.read(), space)
    except BaseException as error:
        failed = error
    while True:
        name, args, options = pickle.loads(receive(asked))
        try:
            if failed is not None:
                raise failed
            said = dumped(("value", space[name](*args, **options)))
        except BaseException as error:
            said = dumped(("raised", type(error).__name__, str(error)[:300]))
        send(told, said)
def main():
    to_ask, asked, told, to_tell = (*os.pipe()[::-1], *os.pipe())
    nothing = os.open(os.devnull, os.O_RDWR)
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        for fd in (to_ask, told, nothing):
            os.close(fd)
        try:
            answer(asked, to_tell)
        finally:
            os._exit(1)
    os.close(asked)
    os.close(to_tell)
    order = json.load(sys.stdin)
    done, words = os.dup(1), os.dup(2)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    broken = []
    def function(name):
        def call(*args, **options):
            try:
                question = dumped((name, args, options), strict=True)
            except (pickle.PicklingError, AttributeError, TypeError):
                os.write(done, order["unfit"].encode())
                os._exit(0)
            try:
                send(to_ask, question)
                kind, *held = Reader(io.BytesIO(receive(told))).load()
                if kind == "value":
                    return held[0]
                known = getattr(builtins, held[0], None)
                known = known if isinstance(known, type) and issubclass(known, Exception) else RuntimeError
                text = str(held[1])
            except Exception as error:
                broken.append(error)
                raise
            raise known(text)
        return call
    try:
        space = {}
        exec(order["around"], space)
        space |= {name: function(name) for name in order["names"]}
        exec(order["tests"], space)
        if broken:
            raise broken[0]
    except BaseException as error:
        os.write(words, f"{type(error).__name__}: {error}"[:500].encode("utf-8", "replace"))
        os._exit(1)
    os.write(done, order["mark"].encode())
    os._exit(0)
main()
"""


def verdict(program: str, tests: str, around: str, function: str = "") -> Verdict:
    """Whether `program` and `tests` run through in one process and, where they can be told apart, also in two.

    around: the benchmark's own text that defines the functions under test: its solution, or the head that it gives.
    function: the one under test, where that is known. Where the tests make objects of a class of the program's, the first
    run alone decides. SandboxFault when the sandbox failed.
    """
    found = running.verdict(f"{program}\n{tests}")
    names = taken(around, tests, function)
    if not found.passed or not names:
        return found
    mark, unfit = secrets.token_hex(16), secrets.token_hex(16)
    order = {"names": names, "around": around, "tests": tests, "mark": mark, "unfit": unfit}
    result = sandbox.run(
        _RUNNER,
        stdin=json.dumps(order),
        files={"program.py": program},
        packages=usual_packages(),
        limits=replace(running.LIMITS, seconds=2 * running.LIMITS.seconds),
    )
    if result.status == "ok" and result.stdout in (mark, unfit):
        return found
    return Verdict(False, f"passes only where it can reach its tests; apart from them: {why(result)}")


def taken(around: str, tests: str, function: str = "") -> list[str]:
    """The functions that the tests take from the program; none where the two cannot be told apart."""
    try:
        given, asking = ast.parse(around), ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    used = {node.id for node in ast.walk(asking) if isinstance(node, ast.Name)}
    if any(isinstance(node, ast.ClassDef) and node.name in used for node in given.body):
        return []
    if function:
        return [function]
    return [node.name for node in given.body if isinstance(node, ast.FunctionDef) and node.name in used]
