"""Laws of an engine: a verdict per law, and of each that is broken what shows it."""

from __future__ import annotations

from kleval.report.figure import Cell, plain
from kleval.report.sections import Card, Section, card, section
from kleval.tables.costs import Profile
from kleval.tables.formats import to_csv
from kleval.tables.verify import COLUMNS, HEADER, cells, law_rows

KINDS = {"broken": "failed", "undecided": "estimate", "not testable": "skipped"}
SHOWN_CHARS = 400


def verify_section(profile: Profile) -> Section | None:
    if not profile.laws:
        return None
    rows = law_rows(profile.laws)
    lines = []
    for row in rows:
        name, verdict, *rest = cells(row)
        lines.append((name, Cell(verdict, kind=KINDS.get(verdict, "")), *rest))
    cards = [Card(grid=plain([head.capitalize() for head in HEADER], lines), csv=to_csv(rows, COLUMNS))]
    for row in rows:
        prompt = row.get("prompt")
        if row["verdict"] == "broken" and prompt:
            said = {"title": row["title"], "case": row["case"], "cause": row["cause"], "of": prompt["case"]}
            shown = plain(
                ("Prompt", "Text"), [("token ids", _some(prompt["token_ids"])), ("text", prompt["text"][:SHOWN_CHARS])]
            )
            cards.append(
                card("broken-law", grid=shown, card_id=f"law-{row['law']}", n=str(len(prompt["token_ids"])), **said)
            )
    return section("laws", cards, model=rows[0]["model"])


def _some(ids: list[int]) -> str:
    text = " ".join(map(str, ids))
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS].rpartition(' ')[0]} …"
