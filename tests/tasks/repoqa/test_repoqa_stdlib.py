"""The standard library as a repository."""

from __future__ import annotations

import ast
import platform
from pathlib import Path

import pytest

from kleval.tasks.repoqa import stdlib


@pytest.fixture(scope="module")
def corpus() -> stdlib.Corpus:
    return stdlib.corpus()


def test_files_without_docstrings_are_python(corpus: stdlib.Corpus) -> None:
    for path in ("textwrap.py", "json/decoder.py", "asyncio/queues.py", "bisect.py"):
        tree = ast.parse(corpus.files[path])
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        assert not any(ast.get_docstring(n) for n in ast.walk(tree) if isinstance(n, documented))


def test_a_function_is_where_it_says(corpus: stdlib.Corpus) -> None:
    for function in corpus.functions[::20]:
        raw = corpus.files[function.path].encode()
        assert raw[function.start_byte : function.end_byte].decode() == function.code
        assert f"def {function.name}" in function.code.split("\n")[0]


def test_descriptions_do_not_give_the_name_away(corpus: stdlib.Corpus) -> None:
    assert not [f.name for f in corpus.functions if f.name.lower() in f.description.lower().split()]


def test_names_and_descriptions_are_unique(corpus: stdlib.Corpus) -> None:
    assert (
        len({f.name for f in corpus.functions})
        == len({f.description for f in corpus.functions})
        == len(corpus.functions)
    )


def test_descriptions_are_not_in_the_code(corpus: stdlib.Corpus) -> None:
    for function in corpus.functions[::40]:
        assert function.description not in " ".join(corpus.files[function.path].split())


def test_the_revision_names_python_and_the_content() -> None:
    revision, digest = stdlib.identity()
    assert platform.python_version() in revision
    assert digest[:16] in revision


def test_what_is_kept_is_what_was_parsed_and_a_damaged_file_is_none(corpus: stdlib.Corpus, tmp_path: Path) -> None:
    file = tmp_path / "new" / "kept.json"
    stdlib._keep(corpus, file)
    assert stdlib._read(file) == corpus
    packed = bytearray(file.read_bytes())
    packed[len(packed) // 2] ^= 1
    file.write_bytes(packed)
    assert stdlib._read(file) is None
    stdlib._keep(corpus, file / "below a file")  # nothing is kept, nothing is raised


def test_offsets_follow_docstrings_that_go(monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        '"""Module: ä."""\nclass A:\n    "Only this."\n\ndef f(x): "One line."\n\ndef g(y):\n'
        '    """Turn what comes in into something else, twice as long.\n\n    More.\n    """\n\n    z = y * 2\n    return z\n'
    )
    definitions = list(stdlib._definitions(ast.parse(source)))
    text, found = stdlib._strip("m.py", source.encode(), definitions)
    ast.parse(text)
    assert '"' not in text
    assert found == []  # g has three lines of code: too short to be asked for
    monkeypatch.setattr(stdlib, "MIN_LINES", 3)
    _, (function,) = stdlib._strip("m.py", source.encode(), definitions)
    assert function.code == "def g(y):\n\n    z = y * 2\n    return z"
    assert function.description == "Turn what comes in into something else, twice as long. More."
    assert text.encode()[function.start_byte : function.end_byte].decode() == function.code
