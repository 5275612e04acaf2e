"""Functions and comments in source code of five languages, read by tree-sitter.

Source: evalplus/repoqa @ ae876de, repoqa/utility.py (FUNCTION_QUERY, COMMENT_QUERY). The official code needs
tree_sitter <= 0.21.3 and tree_sitter_languages; here tree-sitter >= 0.25 and the wheels of the five grammars, which
find the same functions in all outputs that the official code was run on.

Code that never closes what it opens takes tree-sitter time that grows with the square of its length, so only the first
PARSED_BYTES of a text are read: more than any generation budget of these tasks amounts to.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tree_sitter

LANGUAGES = ("python", "cpp", "java", "typescript", "rust")
PARSED_BYTES = 1 << 15
COMMENT_PREFIX = {language: "#" if language == "python" else "//" for language in LANGUAGES}

_GRAMMARS = {
    "python": ("tree_sitter_python", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "java": ("tree_sitter_java", "language"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
    "rust": ("tree_sitter_rust", "language"),
}
_FUNCTIONS = {
    "python": "(function_definition name: (_)) @found",
    "cpp": "(function_definition declarator: (function_declarator declarator: (identifier))) @found",
    "java": "(method_declaration name: (_)) @found",
    "typescript": "(function_declaration name: (_)) @found",
    "rust": "(function_item name: (_)) @found",
}
_BLOCK_AND_LINE = ("(line_comment) @found", "(block_comment) @found")
_COMMENTS = {
    "python": ("(block (expression_statement (string) @found))", "(comment) @found"),
    "cpp": ("(comment) @found",),
    "java": _BLOCK_AND_LINE,
    "typescript": ("(comment) @found",),
    "rust": _BLOCK_AND_LINE,
}


@cache
def _language(name: str) -> tree_sitter.Language:
    import tree_sitter

    module, function = _GRAMMARS[name]
    return tree_sitter.Language(getattr(import_module(module), function)())


@cache
def _query(language: str, pattern: str) -> tree_sitter.Query:
    import tree_sitter

    return tree_sitter.Query(_language(language), pattern)


def parse(code: bytes, language: str) -> tree_sitter.Tree:
    """The tree of the first PARSED_BYTES of `code`."""
    import tree_sitter

    return tree_sitter.Parser(_language(language)).parse(code[:PARSED_BYTES])


def captures(root: tree_sitter.Node, language: str, pattern: str) -> list[tree_sitter.Node]:
    """The nodes that a query captures as `found`: first before later, outer before inner."""
    import tree_sitter

    nodes = tree_sitter.QueryCursor(_query(language, pattern)).captures(root).get("found", [])
    return sorted(nodes, key=lambda node: (node.start_byte, -node.end_byte))


def first_function(code: str, language: str) -> str | None:
    """The text of the first function in `code`, None when there is none."""
    raw = code.encode("utf-8", "surrogatepass")
    nodes = captures(parse(raw, language).root_node, language, _FUNCTIONS[language])
    return raw[nodes[0].start_byte : nodes[0].end_byte].decode("utf-8", "replace") if nodes else None


def without_comments(code: str, language: str) -> str:
    """`code` without its comments and, in Python, without strings that are statements (docstrings)."""
    raw = code.encode("utf-8", "surrogatepass")
    root = parse(raw, language).root_node
    nodes = [node for pattern in _COMMENTS[language] for node in captures(root, language, pattern)]
    for node in sorted(nodes, key=lambda node: node.start_byte, reverse=True):
        raw = raw[: node.start_byte] + raw[node.end_byte :]
    return raw.decode("utf-8", "replace")
