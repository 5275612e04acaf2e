"""RULER's instructions cut at the place where the text goes, for training samples that fill in texts of their own."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.tasks.ruler import cwe, fwe, niah, qa, vt


def _cut(template: str, **fields: str) -> tuple[str, str]:
    head, _, tail = template.partition("{context}")
    return head.format(**fields), tail.format(**fields)


def listed(items: Sequence[str]) -> str:
    """`a, b, and c`, as the questions list what they ask for."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f", and {items[-1]}"


def needle(kind: str, key: str, value: str) -> str:
    return niah.NEEDLE.format(kind=kind, key=key, value=value)


def question(kind: str, asked: Sequence[str], n_answers: int) -> tuple[str, str, str]:
    """What comes before the text, after it, and the answer prefix, of a needle question. kind: `numbers` or `uuids`."""
    one = n_answers == 1
    fields = {"kind": kind[:-1] if one else kind, "query": listed(asked)}
    head, tail = _cut(niah.ONE if one else niah.MANY, **fields)
    return head, tail, (niah.ONE_PREFIX if one else niah.MANY_PREFIX).format(**fields)


def track(value: str, n_names: int) -> tuple[str, str, str]:
    """The same for variable tracking."""
    head, tail = _cut(vt.TEMPLATE, value=value)
    return head, tail, vt.PREFIX.format(count=n_names, value=value)


def common() -> tuple[str, str, str]:
    """The same for the most common words of a list."""
    return *_cut(cwe.TEMPLATE), cwe.PREFIX


def count() -> tuple[str, str, str]:
    """The same for coded words."""
    return *_cut(fwe.TEMPLATE), fwe.PREFIX


def article(query: str) -> tuple[str, str, str]:
    """The same for questions over documents."""
    return *_cut(qa.TEMPLATE, query=query), qa.PREFIX


def instructions() -> list[str]:
    """Every instruction once, with neutral names in its places: text that the tokenizer may learn from."""
    frames = [
        *(question(kind, ["key"], n) for kind in ("numbers", "uuids") for n in (1, 4)),
        track("value", 5),
        common(),
        count(),
        article("question"),
    ]
    return [f"{head} {needle('numbers', 'key', 'value')} VAR A = VAR B {tail}{prefix}" for head, tail, prefix in frames]
