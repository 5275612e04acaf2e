"""Cards out of TOML: what is more particular wins, lists add up, and no text has a place that nothing fills."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kleval.tasks
from kleval.tasks import packaged
from kleval.tasks.cards import Card
from kleval.tasks.registry import EDITIONS, UnknownProtocol, families, make_task
from kleval.types import UsageError

FOLDER = Path(kleval.tasks.__file__).parent
WHOLE: dict[str, Any] = {
    "metric": "m of {who}",
    "who": "all",
    "defects": ["first"],
    "official": {"metric": "official m of {who}", "defects": ["second"]},
    "protocols": {"p": {"defects": ["last, {n:,}"]}},
    "tasks": {"one": {"who": "one", "defects": ["third"], "protocols": {"p": {"metric": "m by p"}}}},
}


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(packaged, "load", lambda name: WHOLE)
    return lambda name, edition, protocol: Card("family", (name,), edition, protocol, {"n": 1000})


@pytest.mark.parametrize(
    ("name", "edition", "protocol", "metric"),
    [
        ("two", "builtin", "q", "m of all"),
        ("two", "official", "q", "official m of all"),
        ("one", "official", "q", "official m of one"),
        ("one", "official", "p", "m by p"),
    ],
)
def test_the_most_particular_text_is_taken(card: Any, name: str, edition: str, protocol: str, metric: str) -> None:
    assert card(name, edition, protocol).text("metric") == metric


def test_lists_add_up_protocols_last(card: Any) -> None:
    assert card("one", "official", "p").texts("defects") == ("first", "second", "third", "last, 1,000")
    assert card("two", "builtin", "q").texts("defects") == ("first",)


def test_a_place_that_nothing_fills_is_an_error(card: Any) -> None:
    made = card("two", "builtin", "q")
    with pytest.raises(KeyError, match="whom"):
        made["whom"]


@pytest.mark.parametrize("family", sorted(file.parent.name for file in FOLDER.glob("*/card.toml")))
def test_every_text_of_every_protocol_can_be_shown(family: str) -> None:
    whole = packaged.load(f"{family}/card.toml")
    named = {name for part in (whole, *whole.get("tasks", {}).values()) for name in part.get("protocols", {})}
    seen = set()
    for task_id in families().get(family, ()):
        for edition in EDITIONS:
            for protocol in (None, *named):
                try:
                    card: Any = make_task(task_id, edition, protocol)
                except UnknownProtocol:
                    continue
                except UsageError:  # some read their data at once
                    seen.add(protocol)
                    continue
                seen.add(card.protocol)
                assert all(text for text in card.card()["deviations"])
    assert named <= seen
