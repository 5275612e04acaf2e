"""Functions and comments in source code of five languages (`languages.toml`), read by tree-sitter.

The official code (evalplus/repoqa @ ae876de, repoqa/utility.py) needs tree_sitter <= 0.21.3 and tree_sitter_languages 1.10.2; here
tree-sitter >= 0.25 and the wheels of the five grammars. Code that does not parse is repaired otherwise by another grammar: Python's is
the official one, 0.21.0 (also that of Long Code Arena's lock file), and the other four find the same functions in all outputs that the
official code was run on.

Code that never closes what it opens takes tree-sitter time that grows with the square of its length, so only the first
PARSED_BYTES of a text are read: more than any generation budget of these tasks amounts to.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from kleval.tasks import packaged

if TYPE_CHECKING:
    import tree_sitter

PARSED_BYTES = 1 << 15
_BY_NAME = packaged.load("languages.toml")
LANGUAGES = tuple(_BY_NAME)
COMMENT_PREFIX: dict[str, str] = {name: facts["comment"] for name, facts in _BY_NAME.items()}
_CAPSULE_NAME = b"tree_sitter.Language"  # kept: a capsule holds the address of its name


@cache
def _language(name: str) -> tree_sitter.Language:
    import tree_sitter

    module, function = _BY_NAME[name]["grammar"].split(":")
    pointer = getattr(import_module(module), function)()
    return tree_sitter.Language(_capsule(pointer) if isinstance(pointer, int) else pointer)


def _capsule(pointer: int) -> object:
    """A grammar's address as tree-sitter takes it today; grammars of its time give the bare number."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    made: object = new(pointer, _CAPSULE_NAME, None)
    return made


@cache
def _query(language: str, pattern: str) -> tree_sitter.Query:
    import tree_sitter

    return tree_sitter.Query(_language(language), pattern)


def captures(code: bytes, language: str, pattern: str) -> list[tree_sitter.Node]:
    """The nodes that a query captures as `found` in the first PARSED_BYTES of `code`: first before later, outer before inner."""
    import tree_sitter

    root = tree_sitter.Parser(_language(language)).parse(code[:PARSED_BYTES]).root_node
    nodes = tree_sitter.QueryCursor(_query(language, pattern)).captures(root).get("found", [])
    return sorted(nodes, key=lambda node: (node.start_byte, -node.end_byte))


def first_function(code: str, language: str) -> str | None:
    """The text of the first function in `code`, None when there is none."""
    raw = code.encode("utf-8", "surrogatepass")
    nodes = captures(raw, language, _BY_NAME[language]["functions"])
    return raw[nodes[0].start_byte : nodes[0].end_byte].decode("utf-8", "replace") if nodes else None


def without_comments(code: str, language: str) -> str:
    """`code` without its comments and, in Python, without strings that are statements (docstrings)."""
    raw = code.encode("utf-8", "surrogatepass")
    for node in reversed(captures(raw, language, _BY_NAME[language]["comments"])):
        raw = raw[: node.start_byte] + raw[node.end_byte :]
    return raw.decode("utf-8", "replace")
