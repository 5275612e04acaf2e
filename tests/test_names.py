"""Module docstrings begin with a noun phrase in the field's words, then the contract."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "kleval"
QUESTIONS = {"What", "Where", "How", "When", "Which", "Why", "Whether", "Who", "Whose", "Does", "Is"}


def docstrings() -> dict[str, str]:
    """File -> its docstring, "" where it has none; files without content are left out."""
    texts = {str(path.relative_to(PACKAGE)): path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: ast.get_docstring(ast.parse(text)) or "" for name, text in texts.items() if text.strip()}


def test_every_module_says_what_it_is() -> None:
    assert [name for name, text in docstrings().items() if not text] == []


def test_no_module_begins_with_a_question() -> None:
    first = {name: text.split()[0].strip("`:,") for name, text in docstrings().items() if text}
    assert [name for name, word in first.items() if word in QUESTIONS] == []
