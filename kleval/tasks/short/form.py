"""Forms of the short benchmarks (`benchmarks.toml`): from a table there to a shape, and from a row of data to an item.

A form takes what it does not say itself from the one that it is `like`; `official` holds what is said otherwise of the benchmark's own
data. The keys of `Shape` describe how it is asked. Its items are made of rows: `fields` names a row's first values, and of the rest
the first is right. Where there is `right`, the rest are options, of which the right one is put at a place that goes round with the
row's number, and `{option}` and `{letter}` differ from one to the next; else the rest are right answers. `text`, `answer` (as a shot
shows it), `right` (the reference), `choice` (what may follow, for likelihoods) and `each` (texts that differ by option) are texts
with the fields in braces, and `{right}`, `{lettered}` and `{bracketed}` (all options, a line each).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from kleval.tasks import packaged
from kleval.tasks.short import answers
from kleval.tasks.short.question import Item, Shape

_FORMS = packaged.load("short/benchmarks.toml")
NAMES = tuple(f"{family}/{task}" for family, tasks in _FORMS.items() if family != "forms" for task in tasks)


@cache
def of(name: str, official: bool = False) -> Mapping[str, Any]:
    """The form of the task id `name`; official: for the benchmark's own data."""
    family, _, task = name.partition("/")
    own = _FORMS[family][task]
    like = of(f"forms/{own['like']}") if "like" in own else {}
    return {**like, **own, **(own.get("official", {}) if official else {})}


def shape(form: Mapping[str, Any]) -> Shape:
    said = {one.name: form[one.name] for one in fields(Shape) if one.name in form}
    read = getattr(answers, form["read"]) if "read" in form else None
    return Shape(**{**said, "read": read, "stop": tuple(form.get("stop", ()))})


def items(form: Mapping[str, Any]) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Those of the builtin edition that are only shown, and those that are asked. Of a bank by subject, `shown` (the first) and `asked`
    (from, to; else all others) count in each subject."""
    shown = form.get("shown", 0)
    first, last = form.get("asked", (shown, None))
    banks = list(_banks(form["rows"]))
    made = [[_of_row(form, row, n, group) for n, row in enumerate(rows)] for group, rows in banks]
    return tuple(one for bank in made for one in bank[:shown]), tuple(one for bank in made for one in bank[first:last])


def _banks(name: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """(group, rows)."""
    found = next(bank for file in ("items", "computed") if (bank := packaged.load(f"short/{file}.toml").get(name)))
    yield from found.items() if isinstance(found, dict) else [("", found)]


def _of_row(form: Mapping[str, Any], row: Sequence[Any], number: int, group: str) -> Item:
    values = {"group": group, **dict(zip(form["fields"], row, strict=False))}
    right, *rest = row[len(form["fields"]) :]
    if "right" not in form:
        return item(form, {**values, "right": right}, also=rest)
    if rest and isinstance(rest[-1], int):
        *rest, gold = rest
        return item(form, values, (*rest[:gold], right, *rest[gold:]), gold)
    return item(form, values, *placed(right, rest, number))


def item(
    form: Mapping[str, Any],
    values: Mapping[str, str],
    options: Sequence[str] = (),
    gold: int = 0,
    also: Sequence[str] = (),
) -> Item:
    """values: by the names in braces. also: other right answers than `right`."""
    each = [{**values, "option": option, "letter": chr(ord("A") + n)} for n, option in enumerate(options)]
    lines = {
        "lettered": "".join("{letter}. {option}\n".format_map(one) for one in each),
        "bracketed": "".join("({letter}) {option}\n".format_map(one) for one in each),
    }
    right = form["right"].format_map(each[gold]) if each else values["right"]
    texts = tuple(form["each"].format_map(one) for one in each) if "each" in form else ()
    choices = tuple(form["choice"].format_map(one) for one in each) if "choice" in form else ()
    return Item(
        text=texts[0] if texts else form["text"].format_map({**values, **lines}),
        answer=form.get("answer", "").format_map({**values, "right": right}),
        references=(right, *also),
        group=values.get("group", ""),
        choices=choices,
        gold=gold if choices else 0,
        texts=texts,
    )


def placed(right: str, wrong: Sequence[str], number: int) -> tuple[tuple[str, ...], int]:
    """The options with the right one at a place that goes round with `number`, and that place."""
    n = len(wrong) + 1
    gold = (number * 3 + number // n) % n
    return (*wrong[:gold], right, *wrong[gold:]), gold
