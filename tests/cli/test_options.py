"""Option values read as documented."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kleval.cli.options import json_pairs, names, parse_bytes, without_secrets
from kleval.types import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8GiB", 8 << 30),
        ("8g", 8 << 30),
        ("8 GB", 8_000_000_000),
        ("500MB", 500_000_000),
        ("1.5k", 1536),
        ("64kib", 64 << 10),
        ("1073741824", 1 << 30),
        ("12b", 12),
    ],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "-1GiB", "8 giga", "GiB", "1e3", "nan"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(UsageError, match="8GiB"):
        parse_bytes(text)


def test_names_keep_order_and_drop_blanks_and_repeats() -> None:
    assert names(" mla, kimi-linear,,mla ") == ("mla", "kimi-linear")
    assert names(None) == ()


@pytest.mark.parametrize("argument", ["--hf_token=x-1", " hf_token = x-1", "--engine-arg= hf-token=x-1", "API_KEY=x-1"])
def test_secrets_are_known_however_they_are_written(argument: str) -> None:
    assert "x-1" not in without_secrets(argument)


@pytest.mark.parametrize("given", ["enable_thinking", "=false"])
def test_a_template_argument_without_name_or_value_is_one_line(given: str, one_line: Callable[..., str]) -> None:
    said = one_line(["run", "--tasks", "smoke", "--template-arg", given])
    assert f"'{given}' is not an argument of a chat template: write KEY=VALUE" in said


def test_template_arguments_are_json_where_they_are_some() -> None:
    given = ["enable_thinking=false", "effort=low", "budget=12", "tools=[]"]
    assert json_pairs(given, "an argument") == {"enable_thinking": False, "effort": "low", "budget": 12, "tools": []}
    assert json_pairs(["a=False", "b=True", "c=None"], "an argument") == {"a": False, "b": True, "c": None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "0.33"], "'0.33' is no tag: write KEY=VALUE"),
        (["--tag", "=0.33"], "'=0.33' is no tag: write KEY=VALUE"),
        (["--tag", "engine="], "'engine=' is no tag: write KEY=VALUE"),
        (["--tag", "a=1", "--tag", "a=2"], "--tag a is given twice"),
        (["--name", "two\nlines"], "--name is one line of at most 100 characters"),
        (["--name", "x" * 101], "--name is one line of at most 100 characters"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["profile"], ["profile", "kernels"]])
def test_names_and_tags_that_cannot_be_are_one_line(
    command: list[str], words: list[str], said: str, one_line: Callable[..., str]
) -> None:
    assert said in one_line([*command, *words, "--out", "new"])
