"""Wording of `kleval verify`, for kleval.cli.watch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.cli.shows import Cells, Show
from kleval.text import duration
from kleval.work import events as ev

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.work import Result


class VerifyShow(Show):
    """`kleval verify`."""

    unit, records = "laws", "laws"
    plan_header = ("law", "tried on")

    def launch(self, event: ev.Started) -> dict[str, Any]:
        return {"ctx": [self.spec.ctx], "settings": dict(event.settings)}

    def head_lines(self, opening: bool = False) -> list[str]:
        engine = self.spec.engine
        return [f"engine    {engine.model}, {engine.base_url or engine.backend}"]

    def first_lines(self, event: ev.Started) -> list[str]:
        told = {k.removeprefix("engine."): v for k, v in event.settings.items() if k.startswith("engine.")}
        return [f"dtype     {told['dtype']}"] if "dtype" in told else []

    def plan_lines(self, event: ev.Planned) -> list[str]:
        return [f"note      {text}" for text in event.facts["plan"]["notes"]]

    def planned(self, unit: Any, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Cells] | None:
        return {"law": unit.law.name, "title": unit.law.title, "ctx": unit.ctx}, (
            unit.law.title,
            f"up to {unit.ctx} tokens",
        )

    def dry_run(self, event: ev.Planned) -> str:
        return f"nothing was tried; {len(event.units)} laws, {duration(self.spec.time_budget)} at most"

    def write_table(self, store: RunStore) -> Path:
        from kleval.tables.verify import write_verify_csv

        return write_verify_csv(store, store.path / "verify.csv")

    def last_lines(self, store: RunStore, result: Result) -> list[str]:
        from kleval.tables.verify import broken_lines, law_rows

        return broken_lines(law_rows(store.points()))

    def done(self, result: Result) -> dict[str, Any]:
        if result.out is None:
            return {}
        from kleval.store import RunStore
        from kleval.tables.verify import law_rows

        store = RunStore.open(result.out)
        verdicts = [told["verdict"] for told in store.manifest.get("verify", {}).values()]
        return {"verdict": verdicts[0] if verdicts else None, "laws": law_rows(store.points())}
