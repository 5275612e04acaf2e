from __future__ import annotations

import pytest

from kleval.suites import SUITES, suite
from kleval.tasks.registry import expand, families
from kleval.types import UsageError


def test_every_suite_names_tasks_that_exist() -> None:
    for name, found in SUITES.items():
        assert found.name == name
        assert expand(found.tasks)


def test_long_is_every_family_of_the_paper_s_table() -> None:
    assert set(suite("long").tasks) == {"ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca"}
    assert set(suite("long").tasks) <= set(families())
    assert suite("long-official").tasks == suite("long").tasks
    assert suite("long-official").edition == "official"


def test_smoke_asks_one_sample_per_task() -> None:
    assert suite("smoke").limit == 1
    assert suite("long").limit is None


@pytest.mark.parametrize(("name", "said"), [("lnog", "long"), ("smok", "smoke"), ("zzz", "there are long, long-off")])
def test_an_unknown_suite_names_the_nearest(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        suite(name)
