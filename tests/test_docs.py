"""What the documentation shows exists: every command line parses, every import resolves, every link leads somewhere."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

from kleval.cli.main import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def fences(page: Path) -> list[tuple[str, str]]:
    """(language, content) of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> list[list[str]]:
    lines = [line for language, text in fences(page) if not language for line in text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"(\.venv/bin/)?kleval [a-z]", line)]


COMMANDS = [pytest.param(words, id=" ".join(words)) for page in PAGES for words in command_lines(page)]
BLOCKS = [
    pytest.param(text, id=f"{page.name}-{i}")
    for page in PAGES
    for i, (language, text) in enumerate(fences(page))
    if language == "python"
]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_line_parses(words: list[str]) -> None:
    command: click.Command = cli
    context = click.Context(cli, info_name="kleval")
    while isinstance(command, click.Group):
        if command.invoke_without_command and (not words or words[0].startswith("-")):
            break
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("text", BLOCKS)
def test_an_example_imports_what_there_is(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kleval"):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_modules_resolve(page: Path) -> None:
    for name in set(re.findall(r"`(kleval(?:\.\w+)+)[(`]", page.read_text("utf-8"))):
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:cut]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part)
            break


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_files_on_the_map_are_there() -> None:
    named = re.findall(r"`((?:kleval|tests)/[\w./]+)`", (ROOT / "docs" / "architecture.md").read_text("utf-8"))
    assert len(named) > 30
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_commands_of_the_manual_were_found() -> None:
    assert len(COMMANDS) > 20
    assert len(BLOCKS) > 5
