"""Verdicts of `kleval verify` before a run or a profile, which keeps them (`--verify`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.cli.console import note
from kleval.types import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from kleval.backends.spec import BackendSpec

SECONDS, LONGEST = 120.0, 2304  # of each model


def verdicts(engines: Sequence[BackendSpec], out: Path) -> dict[str, Any]:
    """By model, what its manifest keeps. The verification of out is in a directory beside it; one that is there is not made again."""
    from kleval.store import RunStore
    from kleval.tables.verify import broken_lines, law_rows
    from kleval.verify import VerifySpec, verify

    found: dict[str, Any] = {}
    for number, engine in enumerate(engines, 1):
        place = out.with_name(f"{out.name}-verify" + (f"-{number}" if number > 1 else ""))
        note(f"verifying {engine.model}, at most {SECONDS:.0f} s")
        spec = VerifySpec(engine=engine, ctx=LONGEST, time_budget=SECONDS, out=place, command=f"verify before {out}")
        try:
            if verify(spec).exit_code == INTERRUPTED:
                raise KeyboardInterrupt
        except (
            UsageError
        ) as error:  # what cannot be opened here is told by the command itself, or need not be opened (random weights)
            note(f"verified  {engine.model}: not, {error}")
            continue
        store = RunStore.open(place)
        for model, told in store.manifest.get("verify", {}).items():
            found[model] = told
            note(f"verified  {model}: {told['verdict']} ({place})")
        for line in broken_lines(law_rows(store.points())):
            note(line)
    return found
