"""Imports inside kleval only ever point down the floors, lazy ones and those for types alone too, and no two files import each other,
directly or through others. Names in registries ("module:attribute") and the lazy public names of `kleval/__init__.py` are no imports.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kleval"

# From the ground up; parts of one floor do not import each other.
FLOORS: tuple[set[str], ...] = (
    {"types", "text"},
    {"files", "lengths", "packages", "quantiles"},
    {"tokenization", "sandbox", "ops"},
    {"store", "models"},
    {"backends", "tasks", "paper"},
    {"suites"},
    {"work"},
    {"harness", "profiler", "verify", "train"},
    {"tables"},
    {"report", "planning"},
    {"api", "cli"},
    {"__main__"},
)
GROUND = FLOORS[0] | FLOORS[1]
# Parts that import less than all that lies below them.
NARROWER = {
    "sandbox": {"types"},
    "store": GROUND | {"tokenization"},
    "models": GROUND | {"tokenization", "ops"},
    "backends": GROUND | {"tokenization", "ops", "store", "models"},
    "tasks": GROUND | {"tokenization", "sandbox", "store"},
    "tables": GROUND | {"store"},
    "report": GROUND | {"store", "tables"},
}
ALLOWED: dict[str, set[str]] = {
    part: NARROWER.get(part, set[str]().union(*FLOORS[:floor])) for floor, parts in enumerate(FLOORS) for part in parts
}
# Families of tasks that are made of another one's: lm-eval's names have the builtin items of `short`. Paired likelihood asks `own`
# what of a task's code is the user's.
FAMILIES_OF_FAMILIES = {("lm_eval", "short"), ("", "own")}


def imports(source: str, module: str) -> set[str]:
    """Every kleval module that the source of `module` imports, anywhere in it, relative imports resolved."""
    package = module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "kleval"}


def violations(source: str, module: str) -> list[str]:
    """What the module imports and must not, one line each."""
    part = module.split(".")[1]
    wrong = []
    for name in sorted(imports(source, module)):
        target = name.partition(".")[2].split(".")[0]
        if target in ALLOWED and target != part and target not in ALLOWED[part]:
            wrong.append(f"{module} imports {name}")
    return wrong


def modules() -> list[tuple[str, Path]]:
    """Every module of the package but its root, by dotted name; a package is named with its __init__."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]
    return [(".".join(["kleval", *path.relative_to(PACKAGE).with_suffix("").parts]), path) for path in files]


def test_every_module_has_a_floor() -> None:
    assert {name.split(".")[1] for name, _ in modules()} <= set(ALLOWED)


def test_no_import_points_up_or_sideways() -> None:
    wrong = [line for name, path in modules() for line in violations(path.read_text("utf-8"), name)]
    assert wrong == []


def test_the_root_package_imports_nothing() -> None:
    assert imports((PACKAGE / "__init__.py").read_text("utf-8"), "kleval.__init__") == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kleval.types", "from kleval.store import Row"),
        ("kleval.store", "import kleval.harness.run"),
        ("kleval.tasks.ruler.qa", "from kleval.backends import registry"),
        ("kleval.backends.native", "def f():\n    from kleval.tasks.registry import load_task"),
        ("kleval.harness.run", "from kleval.train import nano"),
        ("kleval.harness.run", "from ..train import nano"),
        ("kleval.harness.__init__", "from ..cli import main"),
        ("kleval.report.page", "from kleval.models.config import ModelConfig"),
        ("kleval.report.page", "from kleval import models"),
        ("kleval.models.decoder", "if True:\n    import kleval.tasks"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kleval.cli.run", "from kleval.harness.job import run"),
        ("kleval.report.page", "from kleval.store import RunStore"),
        ("kleval.tasks.ruler.qa", "from . import words"),
        ("kleval.models.decoder", "from kleval.ops.kda import kda"),
        ("kleval.ops.kda", "import torch"),
        ("kleval.ops.kda", "from kleval import __version__"),
        ("kleval.ops.kda", "import kleval"),
    ],
)
def test_a_permitted_import_is_not(module: str, source: str) -> None:
    assert violations(source, module) == []


def files() -> dict[str, Path]:
    """Every file of the package by the name it is imported by."""
    return {name.removesuffix(".__init__"): path for name, path in [*modules(), ("kleval", PACKAGE / "__init__.py")]}


def graph() -> dict[str, set[str]]:
    """File -> the files that it imports, anywhere in it; a package imported as a whole is its __init__."""
    every = files()
    found = {}
    for name, path in every.items():
        written = f"{name}.__init__" if path.name == "__init__.py" else name
        targets = imports(path.read_text("utf-8"), written)
        found[name] = {t if t in every else t.rpartition(".")[0] for t in targets} - {name}
    return found


def test_no_two_files_import_each_other() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_families_of_tasks_import_no_other_family() -> None:
    def family(name: str) -> str:
        parts = name.split(".")
        return parts[2] if parts[1:2] == ["tasks"] and (PACKAGE / "tasks" / ".".join(parts[2:3])).is_dir() else ""

    wrong = [
        f"{name} imports {target}"
        for name, targets in graph().items()
        for target in sorted(targets)
        if name.startswith("kleval.tasks.") and family(target) and len(target.split(".")) > 2
        if family(name) != family(target) and (family(name), family(target)) not in FAMILIES_OF_FAMILIES
    ]
    assert wrong == []
