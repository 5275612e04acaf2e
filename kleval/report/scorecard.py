"""Claims of the Kimi Linear paper beside what a page's runs and profiles measured.

Folded: those without a measurement, and what the paper says in two ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kleval.report.figure import plain
from kleval.report.sections import Section, card, section, whole
from kleval.tables.claims import COLUMNS, load_claims
from kleval.tables.costs import Profile
from kleval.tables.formats import to_csv
from kleval.tables.scorecard import BEHIND, HEADS, scorecard, spelled
from kleval.tables.scores import Entrant
from kleval.text import plural


def scorecard_section(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> Section | None:
    """None where nothing on the page speaks to a claim that can be tested."""
    claims = load_claims()
    rows = scorecard(claims, entrants, profiles)
    testable = {claim.id for claim in claims.claims if claim.released}
    if not any(row["value"] is not None and row["id"] in testable for row in rows):
        return None
    heads = [head.capitalize() for head in (*HEADS, *BEHIND)]
    measured = [spelled(row) for row in rows if row["value"] is not None]
    absent = [(line[0], line[1], line[4], line[6]) for line in (spelled(row) for row in rows if row["value"] is None)]
    notes = plain(("Note", "What the paper says, and what holds"), [(note.title, note.text) for note in claims.notes])
    found = section(
        "scorecard", [card("claims", grid=plain(heads, measured), csv=to_csv(rows, COLUMNS))], title=claims.title
    )
    more = [
        card("unmeasured", grid=plain(("Claim", "Published", "Verdict", "Why"), absent)),
        card("contradictions", grid=notes),
    ]
    title = f"{plural(len(absent), 'claim')} that nothing here measures, and what the paper leaves open"
    return replace(found, more=whole(more), more_title=title)
