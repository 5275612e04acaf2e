"""RepoQA's context builder against the official one's prompts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.languages import COMMENT_PREFIX
from kleval.tasks.repoqa import context
from kleval.tasks.repoqa.questions import prompt_text

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
            at = order.index(asked["path"])
            made = context.build(
                context.cut_out(asked["path"], content[asked["path"]], asked["start_byte"], asked["end_byte"]),
                [(path, content[path]) for path in reversed(order[:at])],
                [(path, content[path]) for path in order[at + 1 :]],
                expected["position_ratio"],
                case["code_context_size"],
                count,
                COMMENT_PREFIX[expected["language"]],
            )
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


def test_offsets_are_bytes_and_the_official_ones_shift() -> None:
    content = "# äöü\ndef f():\n    pass\n"
    start = len("# äöü\n".encode())
    end = start + len("def f():\n    pass")
    assert context.cut_out("p", content, start, end).needle == "def f():\n    pass"
    assert context.cut_out("p", content, start, end, official_offsets=True).needle != "def f():\n    pass"


@given(
    lines=st.lists(st.text("ab \n", max_size=8), min_size=1, max_size=30),
    size=st.integers(0, 60),
    position=st.floats(0.05, 0.95),
)
@settings(deadline=None, max_examples=80)
def test_the_code_keeps_its_order_and_complete_means_all_of_it(lines: list[str], size: int, position: float) -> None:
    content = "\n".join(lines)
    half = len(content) // 2
    cut = context.Cut("p.py", content[:half], content[half : half + 3], content[half + 3 :])
    made = context.build(cut, [("q.py", "x y")], [("r.py", "z")], position, size, COUNTS["words"], "#")
    assert made.needle == cut.needle
    whole = f"# Path: q.py\nx y\n# Path: p.py\n{cut.before}\n{cut.needle}{cut.after}\n# Path: r.py\nz\n"
    assert made.complete == (made.text == whole)


@pytest.mark.parametrize("size", [0, 5, 50])
def test_a_larger_budget_is_never_a_shorter_context(size: int) -> None:
    cut = context.Cut("p.py", "a b c\n" * 20, "n e e d l e", "\nd e f" * 20)

    def made(tokens: int) -> context.Context:
        return context.build(cut, [], [], 0.5, tokens, COUNTS["words"], "#")

    assert len(made(size).before) <= len(made(size + 10).before)
