"""Claims of the Kimi Linear paper beside what a page's runs and profiles measured, and what the paper says in two ways."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.report.figure import plain
from kleval.report.sections import Section, card, section
from kleval.tables.claims import COLUMNS, load_claims
from kleval.tables.costs import Profile
from kleval.tables.formats import to_csv
from kleval.tables.scorecard import BEHIND, HEADS, scorecard, spelled
from kleval.tables.scores import Entrant


def scorecard_section(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> Section | None:
    """None where nothing on the page speaks to a claim that can be tested."""
    claims = load_claims()
    rows = scorecard(claims, entrants, profiles)
    testable = {claim.id for claim in claims.claims if claim.released}
    if not any(row["value"] is not None and row["id"] in testable for row in rows):
        return None
    heads = [head.capitalize() for head in (*HEADS, *BEHIND)]
    notes = plain(("Note", "What the paper says, and what holds"), [(note.title, note.text) for note in claims.notes])
    cards = [
        card("claims", grid=plain(heads, map(spelled, rows)), csv=to_csv(rows, COLUMNS)),
        card("contradictions", grid=notes),
    ]
    return section("scorecard", cards, title=claims.title)
