"""Laws on an engine of a few lines: what a right one obeys, what a fault breaks, and what is left where little can be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from toy import Toy

from kleval.backends.spec import BackendSpec
from kleval.store import Point, RunStore
from kleval.verify import VerifySpec, verify
from kleval.work import Result


def verified(engine: Toy, out: Path, laws: tuple[str, ...] = (), **more: Any) -> tuple[Result, dict[str, Point]]:
    spec = VerifySpec(engine=BackendSpec(model="toy"), ctx=120, laws=laws, out=out, command="kleval verify", **more)
    result = verify(spec, backend=engine, reference=Toy() if "reference" in laws else None)
    return result, {point.protocol: point for point in RunStore.open(out).points()}


def verdicts(points: dict[str, Point]) -> dict[str, str]:
    return {name: point.settings["verdict"] for name, point in points.items()}


@pytest.mark.parametrize("abilities", [("scores", "tells", "ids"), ("tells", "ids"), ("tells",), ()])
def test_a_right_engine_breaks_nothing_however_it_can_be_asked(abilities: tuple[str, ...], tmp_path: Path) -> None:
    result, points = verified(Toy(abilities=abilities), tmp_path / "out")
    assert result.exit_code == 0
    assert "broken" not in verdicts(points).values()


def test_what_cannot_be_tried_is_told_first(tmp_path: Path) -> None:
    verified(Toy(abilities=()), tmp_path / "out")
    notes = RunStore.open(tmp_path / "out").manifest["plan"]["notes"]
    assert notes[0] == "read: texts"
    assert any(note.startswith("not testable: Causality") for note in notes)


@pytest.mark.parametrize("noise", [1e-5, 1e-2])
def test_noise_of_the_engine_itself_is_no_fault(noise: float, tmp_path: Path) -> None:
    result, points = verified(Toy(noise=noise, dtype="bfloat16"), tmp_path / "out", ("state", "batch", "causality"))
    assert set(verdicts(points).values()) == {"holds"}
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        ("future", "causality"),
        ("batch", "batch"),
        ("slot", "slots"),
        ("chunk", "state"),
        ("chunk", "reference"),
        ("forgets", "long"),
    ],
)
def test_a_fault_breaks_its_law(fault: str, law: str, tmp_path: Path) -> None:
    result, points = verified(Toy(fault), tmp_path / "out", (law,))
    assert verdicts(points) == {law: "broken"}
    assert result.exit_code == 4
    assert points[law].settings["cause"]


def test_the_smallest_prompt_that_shows_it_is_saved_as_ids_and_text(tmp_path: Path) -> None:
    _, points = verified(Toy("chunk"), tmp_path / "out", ("state",))
    prompt = points["state"].settings["prompt"]
    assert len(prompt["token_ids"]) == points["state"].values["prompt_tokens"] < 16
    assert len(prompt["text"]) == len(prompt["token_ids"])


def test_a_fault_of_texts_alone_is_found(tmp_path: Path) -> None:
    _, points = verified(Toy("batch", abilities=()), tmp_path / "out", ("batch",))
    assert verdicts(points) == {"batch": "broken"}


def test_a_server_that_dies_leaves_the_verdicts_that_were_reached(tmp_path: Path) -> None:
    whole = Toy()
    verified(whole, tmp_path / "whole", ("causality", "state"))
    result, points = verified(Toy(dies_after=whole.n_asked - 17), tmp_path / "out", ("causality", "state"))
    assert verdicts(points) == {"causality": "holds"}
    assert (result.status, result.exit_code) == ("incomplete", 3)
    assert "gives no answers any more" in result.message


def test_the_same_command_tries_what_is_left(tmp_path: Path) -> None:
    whole = Toy()
    verified(whole, tmp_path / "whole", ("causality", "state"))
    verified(Toy(dies_after=whole.n_asked - 17), tmp_path / "out", ("causality", "state"))
    result, points = verified(Toy(), tmp_path / "out", ("causality", "state"))
    assert verdicts(points) == {"causality": "holds", "state": "holds"}
    assert result.exit_code == 0


def test_without_time_laws_are_undecided(tmp_path: Path) -> None:
    result, points = verified(Toy(), tmp_path / "out", ("state",), time_budget=1e-6)
    assert verdicts(points) == {"state": "undecided"}
    assert result.exit_code == 5


def test_where_no_early_token_says_anything_the_long_law_cannot_be_tried(tmp_path: Path) -> None:
    result, points = verified(Toy(keeps=0.1), tmp_path / "out", ("long",))
    assert verdicts(points) == {"long": "not testable"}
    assert "makes nothing of a token" in points["long"].settings["why"]
    assert result.exit_code == 5  # nothing was found out
