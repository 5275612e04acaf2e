"""RepoQA's context builder against the official one's prompts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.repoqa import context
from kleval.tasks.repoqa.task import prompt_text

COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(re.findall(r"\w+|[^\w\s]", text)),
    "words_and_newlines": lambda text: len(re.findall(r"\w+|[^\w\s]|\n", text)),
}


def test_every_official_prompt_comes_out_to_the_byte(golden: dict[str, Any]) -> None:
    n = 0
    for case in golden["prompts"]:
        count = COUNTS[case["tokenizer"]]
        for expected in case["expected"]:
            repos = golden["dataset"][expected["language"]]
            repo = next(r for r in repos if r["repo"] == expected["repo"])
            asked = next(x for x in repo["needles"] if x["name"] == expected["name"])
            order, content = context.dependency_order(repo["dependency"]), repo["content"]
            places = asked["start_byte"], asked["end_byte"]
            needle = context.Needle(asked["name"], asked["path"], asked["description"], *places, "")
            position = expected["position_ratio"]
            one = context.Asked(expected["language"], repo["repo"], needle, content, order, position)
            made = one.code(case["code_context_size"], count)
            prompt = prompt_text(made.text, asked["description"])
            assert hashlib.sha256(prompt.encode()).hexdigest() == expected["prompt_sha256"]
            start = count(made.before)
            assert start == expected["needle_token_start"]
            assert start + count(made.needle) == expected["needle_token_end"]
            assert start + count(made.needle) + count(made.after) == expected["code_context_ntokens"]
            n += 1
    assert n == 80


def test_dependencies_come_first_and_cycles_end() -> None:
    graph = {"a": ["b", "c"], "b": ["d"], "c": ["a"], "d": ["b"]}
    assert context.dependency_order(graph) == ["d", "b", "c", "a"]


def test_a_long_chain_of_dependencies_is_no_recursion() -> None:
    graph = {str(i): [str(i + 1)] for i in range(5000)}
    assert context.dependency_order(graph)[0] == "5000"


def asked(before: str, needle: str, after: str, position: float = 0.5, **others: str) -> context.Asked:
    """A needle of `p.py`, among other files that come in that order, one that begins with `z` behind it."""
    start, end = (len(text.encode()) for text in (before, before + needle))
    content = {f"{name}.py": text for name, text in {**others, "p": before + needle + after}.items()}
    order = sorted(content, key=lambda path: (path[0] == "z", path == "p.py"))
    return context.Asked("python", "r", context.Needle("n", "p.py", "", start, end, ""), content, order, position)


def test_offsets_are_bytes_and_the_official_ones_shift() -> None:
    shifted, plain = asked("# äöü\n", "def f():\n    pass", "\n"), asked("# aou\n", "def f():\n    pass", "\n")
    assert shifted.cut()[1] == plain.cut()[1] == "def f():\n    pass"
    assert shifted.is_shifted()
    assert not plain.is_shifted()


@given(
    lines=st.lists(st.text("ab \n", max_size=8), min_size=1, max_size=30),
    size=st.integers(0, 60),
    position=st.floats(0.05, 0.95),
)
@settings(deadline=None, max_examples=80)
def test_the_code_keeps_its_order_and_complete_means_all_of_it(lines: list[str], size: int, position: float) -> None:
    content = "\n".join(lines)
    half = len(content) // 2
    before, needle, after = content[:half], content[half : half + 3], content[half + 3 :]
    made = asked(before, needle, after, position, q="x y", z="z").code(size, COUNTS["words"])
    assert made.needle == needle
    whole = f"# Path: q.py\nx y\n# Path: p.py\n{before}\n{needle}{after}\n# Path: z.py\nz\n"
    assert made.complete == (made.text == whole)


@pytest.mark.parametrize("size", [0, 5, 50])
def test_a_larger_budget_is_never_a_shorter_context(size: int) -> None:
    one = asked("a b c\n" * 20, "n e e d l e", "\nd e f" * 20)
    less, more = (one.code(tokens, COUNTS["words"]) for tokens in (size, size + 10))
    assert len(less.before) <= len(more.before)
