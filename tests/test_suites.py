from __future__ import annotations

import pytest

from kleval.suites import SUITES, suite
from kleval.tasks.registry import TASKS, expand
from kleval.types import UsageError


def test_every_suite_names_tasks_that_exist() -> None:
    for name, found in SUITES.items():
        assert found.name == name
        assert expand(found.tasks)


def test_long_is_the_thirteen_tasks_of_ruler() -> None:
    assert expand(suite("long").tasks) == [t for t in TASKS if t.startswith("ruler/")]
    assert len(expand(suite("long").tasks)) == 13


def test_smoke_asks_one_sample_per_task() -> None:
    assert suite("smoke").limit == 1
    assert suite("long").limit is None


@pytest.mark.parametrize(("name", "said"), [("lnog", "long"), ("smok", "smoke"), ("zzz", "there are long, smoke")])
def test_an_unknown_suite_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        suite(name)
