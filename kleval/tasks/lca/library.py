"""An invented library (`library.toml`) and a script to write with it.

Every function has a name without meaning (two invented words) and a docstring that says what it does to what ("Polish
the quiet kettle."); no two functions of a library do the same. The instruction names what is to be done, step by step,
so that the names, modules and parameters can only come from the library's code in the context. The script that the
instruction describes follows from it to the letter: imports in the order of the steps, one call per line, a print.
"""

from __future__ import annotations

import keyword
import math
import random
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from kleval.tasks import lexicon as lx
from kleval.tasks import packaged
from kleval.tasks.lca import prompts
from kleval.tasks.plain_editions import Asked

VERSION = "library-1"
_FORMS = packaged.load("lca/library.toml")
_SYLLABLES = lx.syllables("libraries")
_PER_MODULE = 10
_UNNUMBERED = 400  # modules that have a pair of words to themselves; there are not many more pairs


def assignment(rng: random.Random, n_steps: int, syllables: lx.Syllables = _SYLLABLES) -> Asked:
    """A script of that many steps; all of it drawn from `rng`. syllables: of the names without meaning. Its pieces are functions that
    nobody asks for."""
    makers = functions(rng, syllables)
    needed = [next(makers) for _ in range(n_steps)]
    package = _coined(rng, syllables) + rng.choice(lx.PLACES)
    modules = _module_names(rng, n_steps, ())
    start = rng.choice(lx.NAMES).lower()
    steps = [
        {**function, "i": i, "value": rng.randint(11, 99), "module": module, "package": package}
        for i, (module, function) in enumerate(zip(modules, needed, strict=True), 1)
    ]

    def of_each(form: str) -> str:
        return "\n".join(_FORMS[form].format_map(step) for step in steps)

    instruction = _FORMS["instruction"].format(package=package, start=start, steps=of_each("step"))
    script = _FORMS["script"].format(imports=of_each("import"), start=start, calls=of_each("call"))
    sources = {module: function["source"] for module, function in zip(modules, needed, strict=True)}
    seed, references = rng.getrandbits(64), (script,)
    meta = {"package": package, "apis": [function["name"] for function in needed], "modules": modules}
    return Asked(
        lambda filler: prompts.in_context(package, _code(package, sources, filler, seed), instruction),
        references,
        pieces=(function["source"] for function in makers),
        told=lambda n: (references, {**meta, "library_functions": n_steps + n}),
    )


def _code(package: str, needed: Mapping[str, str], filler: Sequence[str], seed: int) -> str:
    """The library's files: the needed functions, each in its module, and `filler` functions around them. Where a needed function lies
    depends on how many there are."""
    rng = random.Random(seed)
    share = min(_PER_MODULE - 1, len(filler) // (2 * len(needed)))
    ours: list[tuple[str, list[str]]] = []
    for i, (module, source) in enumerate(needed.items()):
        inside = list(filler[i * share : (i + 1) * share])
        inside.insert(rng.randint(0, len(inside)), source)
        ours.append((module, inside))
    rest = [list(filler[i : i + _PER_MODULE]) for i in range(len(needed) * share, len(filler), _PER_MODULE)]
    modules = list(zip(_module_names(rng, len(rest), needed), rest, strict=True))
    places = sorted(rng.sample(range(len(ours) + len(rest)), len(ours)))
    rng.shuffle(ours)
    for place, one in zip(places, ours, strict=True):
        modules.insert(place, one)
    return "\n\n".join("\n\n".join((f"# {package}/{module}.py", *inside)) for module, inside in modules)


def _coined(rng: random.Random, syllables: lx.Syllables) -> str:
    """A syllable that is no keyword of Python."""
    while True:
        word = "".join(map(rng.choice, syllables))
        if not keyword.iskeyword(word):
            return word


def _module_names(rng: random.Random, n: int, taken: Container[str]) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < n:
        name = f"{rng.choice(lx.PLACES)}_{rng.choice(lx.THINGS)}" + f"_{len(names)}" * (len(names) >= _UNNUMBERED)
        if name not in taken:
            names[name] = None
    return list(names)


def functions(rng: random.Random, syllables: lx.Syllables) -> Iterator[dict[str, Any]]:
    """Functions without end, each its `source` and what that is made of; no two with one name, nor with one purpose until all
    purposes are used up."""
    n_purposes = len(lx.VERBS) * len(lx.ADJECTIVES) * len(lx.THINGS)
    # A walk over all purposes: a step that shares no factor with their number meets each once.
    step = rng.randrange(n_purposes // 3, n_purposes)
    while math.gcd(step, n_purposes) > 1:
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
        made = {
            "name": name,
            "verb": lx.VERBS[verb],
            "Verb": lx.VERBS[verb].capitalize(),
            "adjective": lx.ADJECTIVES[adjective],
            "thing": lx.THINGS[thing],
            "parameter": rng.choice(lx.PARAMETERS),
            "default": rng.randint(1, 9),
        }
        fields = {**made, "key": _coined(rng, syllables), "amount": rng.randint(1, 99)}
        fields["operation"] = rng.choice(_FORMS["operations"])
        fields |= {"change": _FORMS["change"].format_map(fields), "limit": rng.randint(100, 999)}
        body = rng.choice(_FORMS["bodies"]).format_map(fields)
        yield {**made, "source": _FORMS["function"].format(body=body, **fields)}
