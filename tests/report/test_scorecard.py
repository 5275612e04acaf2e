"""The section of claims: there where a page's records speak to one that can be tested."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from kleval.report.scorecard import scorecard_section
from kleval.store import RunStore
from kleval.tables.claims import load_claims
from kleval.tables.costs import read_profile
from kleval.tables.scores import collect

Make = Callable[..., RunStore]


def test_claims_stand_beside_a_profile_s_values_and_the_contradictions(make_profile: Make) -> None:
    profile = read_profile(make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,), repeats=2))
    found = scorecard_section([], [profile])
    assert found is not None
    (claims,) = found.cards
    absent, notes = found.more
    assert claims.grid is not None
    assert absent.grid is not None
    assert notes.grid is not None
    assert claims.grid.columns[:5] == ("Claim", "Published", "Measured", "Of published", "Verdict")
    rows = list(csv.DictReader(io.StringIO(claims.csv)))
    verdicts = [row["verdict"] for row in rows if row["value"]], [row["verdict"] for row in rows if not row["value"]]
    assert verdicts[0] == [row.cells[3].text for row in claims.grid.rows]
    assert verdicts[1] == [row.cells[1].text for row in absent.grid.rows]
    assert len(notes.grid.rows) == len(load_claims().notes)


def test_scores_of_other_models_than_the_released_are_no_reason_for_it(make_run: Make) -> None:
    run = make_run(models=("kimi-linear@nano", "mla@nano"), tasks=("repoqa/snf",))
    assert scorecard_section(collect([run]), []) is None
