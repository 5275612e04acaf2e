"""An invented library and a script to write with it.

Every function has a name without meaning (two invented words) and a docstring that says what it does to what ("Polish
the quiet kettle."); no two functions of a library do the same. The instruction names what is to be done, step by step,
so that the names, modules and parameters can only come from the library's code in the context. The script that the
instruction describes follows from it to the letter: imports in the order of the steps, one call per line, a print.
"""

from __future__ import annotations

import keyword
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kleval.tasks import lexicon as lx

LIBRARY_VERSION = "library-1"
Syllables = tuple[tuple[str, ...], ...]  # the choices for each part of a syllable
_SYLLABLES: Syllables = lx.syllables("libraries")
_PER_MODULE = 10
_OPERATIONS = ("+", "-", "*")


@dataclass(frozen=True, slots=True)
class Function:
    """name(item, parameter=default) does `purpose`."""

    name: str
    purpose: tuple[str, str, str]  # verb, adjective, thing
    parameter: str
    default: int
    source: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A sample: the script to write, and what there is to make the library of.

    needed: module -> the function in it that the script calls, in the order of the steps.
    """

    package: str
    instruction: str
    reference: str
    needed: dict[str, Function]
    filler: Iterator[str] = field(repr=False)
    seed: int

    @property
    def apis(self) -> tuple[str, ...]:
        return tuple(function.name for function in self.needed.values())

    def text(self, filler: Sequence[str]) -> str:
        """The library's files: the needed functions, each in its module, and `filler` functions around them.

        The same for the same filler; where a needed function lies depends on how many there are.
        """
        rng = random.Random(self.seed)
        share = min(_PER_MODULE - 1, len(filler) // (2 * len(self.needed)))
        modules: list[tuple[str, list[str]]] = []
        at = 0
        for module, function in self.needed.items():
            functions = list(filler[at : at + share])
            functions.insert(rng.randint(0, len(functions)), function.source)
            modules.append((module, functions))
            at += share
        rest = [list(filler[i : i + _PER_MODULE]) for i in range(at, len(filler), _PER_MODULE)]
        names = _module_names(rng, len(rest), set(self.needed))
        total = len(modules) + len(rest)
        places = set(rng.sample(range(total), len(modules)))
        rng.shuffle(modules)
        ours, others = iter(modules), iter(zip(names, rest, strict=True))
        ordered = [next(ours) if i in places else next(others) for i in range(total)]
        return "\n\n".join(f"# {self.package}/{module}.py\n\n" + "\n\n".join(inside) for module, inside in ordered)


def assignment(rng: random.Random, n_steps: int, syllables: Syllables = _SYLLABLES) -> Assignment:
    """A sample of that many steps; all of it drawn from `rng`. syllables: of the names without meaning."""
    makers = functions(rng, syllables)
    needed_functions = [next(makers) for _ in range(n_steps)]
    package = _coined(rng, syllables) + rng.choice(lx.PLACES)
    modules = _module_names(rng, n_steps, set())
    needed = dict(zip(modules, needed_functions, strict=True))
    start = rng.choice(lx.NAMES).lower()
    steps, calls = [], [f'    item = {{"name": "{start}"}}']
    for i, function in enumerate(needed_functions, 1):
        value = rng.randint(11, 99)
        verb, adjective, thing = function.purpose
        steps.append(f"{i}. {verb} the {adjective} {thing}, with a {function.parameter} of {value}")
        calls.append(f"    item = {function.name}(item, {function.parameter}={value})")
    instruction = (
        f"Use the library {package} and define a function main. It begins with"
        f' item = {{"name": "{start}"}} and then, in this order, replaces item by what the one function of the library for'
        f" each step makes of it:\n"
        + "\n".join(steps)
        + "\nAt last it prints item. Import every function by its name from"
        " its module, in the order of the steps; give item as the first argument and the number by its parameter's name;"
        " call main under the usual guard."
    )
    imports = [f"from {package}.{module} import {function.name}" for module, function in needed.items()]
    reference = "\n".join(
        [*imports, "", "", "def main():", *calls, "    print(item)", "", "", 'if __name__ == "__main__":', "    main()"]
    )
    seed = rng.getrandbits(64)
    return Assignment(package, instruction, reference + "\n", needed, (f.source for f in makers), seed)


def _coined(rng: random.Random, syllables: Syllables) -> str:
    """A syllable that is no keyword of Python."""
    while True:
        word = "".join(map(rng.choice, syllables))
        if not keyword.iskeyword(word):
            return word


def _module_names(rng: random.Random, n: int, taken: set[str]) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < n:
        words = [rng.choice(lx.PLACES), rng.choice(lx.THINGS)]
        # More modules than pairs of words: the further ones are numbered.
        suffix = f"_{len(names)}" if len(names) >= 400 else ""
        name = "_".join(words) + suffix
        if name not in taken:
            names[name] = None
    return list(names)


def functions(rng: random.Random, syllables: Syllables) -> Iterator[Function]:
    """Functions without end, no two with one name; no two with one purpose until all purposes are used up."""
    n_purposes = len(lx.VERBS) * len(lx.ADJECTIVES) * len(lx.THINGS)
    # A walk over all purposes: a step that shares no factor with their number meets each once.
    step = rng.randrange(n_purposes // 3, n_purposes)
    while _common(step, n_purposes) > 1:
        step += 1
    at = rng.randrange(n_purposes)
    names: set[str] = set()
    while True:
        at = (at + step) % n_purposes
        rest, thing = divmod(at, len(lx.THINGS))
        verb, adjective = divmod(rest, len(lx.ADJECTIVES))
        name = f"{_coined(rng, syllables)}{_coined(rng, syllables)}_{_coined(rng, syllables)}"
        while name in names:
            name += _coined(rng, syllables)
        names.add(name)
        yield _function(rng, syllables, name, (lx.VERBS[verb], lx.ADJECTIVES[adjective], lx.THINGS[thing]))


def _common(a: int, b: int) -> int:
    while b:
        a, b = b, a % b
    return a


def _function(rng: random.Random, syllables: Syllables, name: str, purpose: tuple[str, str, str]) -> Function:
    verb, adjective, thing = purpose
    parameter, default = rng.choice(lx.PARAMETERS), rng.randint(1, 9)
    key = _coined(rng, syllables)
    change = f'item.get("{key}", {rng.randint(1, 99)}) {rng.choice(_OPERATIONS)} {parameter}'
    bodies = (
        f'    return {{**item, "{key}": {change}}}\n',
        f'    {key} = {change}\n    return {{**item, "{key}": {key}}}\n',
        f'    if {parameter} > {rng.randint(100, 999)}:\n        return item\n    return {{**item, "{key}": {change}}}\n',
        f'    made = dict(item)\n    made["{key}"] = {change}\n    return made\n',
    )
    source = (
        f"def {name}(item, {parameter}={default}):\n"
        f'    """{verb.capitalize()} the {adjective} {thing}."""\n{rng.choice(bodies)}'
    )
    return Function(name, purpose, parameter, default, source)
