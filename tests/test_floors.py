"""Imports inside kleval only ever point down: each part may import the floors below its own, never up, never sideways
where the floor is shared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "kleval"

BASE = {"types", "text", "lengths", "files", "quantiles", "tokenization"}
RUNNABLE = BASE | {"store", "ops", "models", "backends", "tasks", "suites", "sandbox"}

# part -> the other parts that it may import. Imports within a part are always fine.
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "text": set(),
    "lengths": {"types", "text"},
    "tokenization": {"types"},
    "files": {"types"},
    "quantiles": set(),
    "store": BASE,
    "ops": BASE,
    "models": BASE | {"ops"},
    "backends": BASE | {"store", "ops", "models"},
    "sandbox": {"types"},
    "tasks": BASE | {"store", "sandbox"},
    "suites": BASE | {"store", "tasks"},
    "harness": RUNNABLE,
    "profiler": RUNNABLE,
    "train": RUNNABLE,
    "tables": {"types", "text", "lengths", "files", "quantiles", "store"},
    "report": {"types", "text", "lengths", "files", "quantiles", "store", "tables"},
    "api": RUNNABLE | {"suites", "harness", "tables", "report"},
    "cli": RUNNABLE | {"harness", "profiler", "train", "tables", "report"},
}


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
        ("kleval.report.build", "from kleval.models.config import ModelConfig"),
        ("kleval.report.build", "from kleval import models"),
        ("kleval.models.decoder", "if True:\n    import kleval.tasks"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kleval.cli.run", "from kleval.harness.run import run"),
        ("kleval.report.build", "from kleval.store import RunStore"),
        ("kleval.tasks.ruler.qa", "from . import words"),
        ("kleval.models.decoder", "from kleval.ops.kda import kda"),
        ("kleval.ops.kda", "import torch"),
        ("kleval.ops.kda", "from kleval import __version__"),
        ("kleval.ops.kda", "import kleval"),
    ],
)
def test_a_permitted_import_is_not(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_allowed_imports_have_no_cycle() -> None:
    """Only then is there a ground floor and an up."""
    left = dict(ALLOWED)
    while left:
        ground = [part for part, below in left.items() if not below & set(left)]
        assert ground, f"these import each other: {sorted(left)}"
        for part in ground:
            del left[part]
