"""`kleval gate`: exit codes, what is said, and what is no condition there."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from stored_profiles import make_profile
from stored_runs import make_run

from kleval.cli.main import call
from kleval.store import RunStore

__all__ = ["make_profile", "make_run"]
Make = Callable[..., RunStore]
Runs = dict[str, str]
ONE = {"models": ("one@nano",), "ctxs": (1024,), "n": 40}


@pytest.fixture
def runs(make_run: Make) -> Runs:
    def losing(k: int):  # type: ignore[no-untyped-def]
        return lambda model, task, ctx, index: float(index >= k)

    return {
        name: str(make_run(name, answer=losing(k), **ONE).path) for name, k in (("base", 0), ("near", 2), ("far", 12))
    }


def test_the_exit_code_is_the_verdict(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    wide, narrow = ("--fail-on", "ruler < -30"), ("--fail-on", "ruler < -1")
    assert call(["gate", runs["base"]]) == 0
    assert call(["gate", runs["near"], "--against", runs["base"], *wide]) == 0
    assert call(["gate", runs["far"], "--against", runs["base"], *narrow]) == 4
    capsys.readouterr()
    assert call(["gate", runs["near"], "--against", runs["base"], *narrow, "--format", "json"]) == 5
    said = capsys.readouterr()
    (ruler, *shares) = json.loads(said.out)
    assert (ruler["verdict"], ruler["value"], ruler["n"]) == ("undecided", pytest.approx(-5.0), 80)
    assert ruler["needed"] > 80
    assert [row["condition"] for row in shares] == ["failures > 1%", "cut > 1%"]
    assert said.err.endswith("gate: undecided\n")


def test_times_of_one_session_decide_nothing_and_bytes_do(make_profile: Make) -> None:
    one, two = str(make_profile("one").path), str(make_profile("two").path)
    assert call(["gate", one, "--against", two, "--fail-on", "state > +1%"]) == 0
    assert call(["gate", one, "--against", two, "--fail-on", "tpot@4k > +1000%"]) == 5


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("rulr < 3", "'rulr < 3' names nothing that is there: there are ruler, 1k"),
        ("tpot > 3", "names nothing that is there"),
        ("ruler@4k < 3", "names nothing that is there"),
        ("ruler < -3", "give what to compare with, --against BASE"),
        ("ruler is bad", "is no condition: write metric[@length]"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    runs: Runs, condition: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["gate", runs["base"], "--fail-on", condition]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_no_common_samples_is_one_line(make_run: Make, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    other = str(make_run("other", edition="official", **ONE).path)
    assert call(["gate", other, "--against", runs["base"], "--fail-on", "ruler < -3"]) == 2
    assert "no common samples: edition builtin against official" in capsys.readouterr().err
