"""Sets of reports of kleval's own in AA-LCR's form: figures in several documents, and a question that takes more than one of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tasks import packaged

REPORTS_VERSION = "reports-1"
BANK = packaged.load("aa_lcr/reports.toml")
_COMPANIES, _QUARTERS = 3, 3
_RANGES = {"revenue": (400, 9000), "costs": (400, 9000), "staff": (20, 900), "crates": (100, 5000)}

Figures = dict[tuple[str, str, str], int]  # (company, quarter, figure) -> value


@dataclass(frozen=True, slots=True)
class ReportSet:
    """figures: all of one kind are different. reports: title and statements of each document."""

    year: int
    figures: Figures
    reports: Sequence[tuple[str, Sequence[str]]]
    question: str
    answer: str
    kind: str

    def documents(self, filler: Sequence[str]) -> list[str]:
        """Each report with its share of the filler: one statement, some filler, the next statement."""
        made = []
        for n, (title, statements) in enumerate(self.reports):
            own = filler[n :: len(self.reports)]
            parts = [(said, *own[at :: len(statements)]) for at, said in enumerate(statements)]
            made.append("\n\n".join([title, *(" ".join(part) for part in parts)]))
        return made


def report_set(rng: random.Random) -> ReportSet:
    year = rng.randint(1961, 1999)
    companies = rng.sample(BANK["companies"], _COMPANIES)
    first = rng.randrange(len(BANK["quarters"]) - _QUARTERS + 1)
    quarters = BANK["quarters"][first : first + _QUARTERS]
    places = [(company, quarter) for company in companies for quarter in quarters]
    figures: Figures = {}
    for figure, (least, most) in _RANGES.items():
        values = rng.sample(range(least, most), len(places))
        figures |= {(*place, figure): value for place, value in zip(places, values, strict=True)}
    reports = []
    for company, quarter in rng.sample(places, len(places)):
        names = {"company": company, "quarter": quarter, "year": year}
        said = [form.format(**names, n=figures[company, quarter, figure]) for figure, form in BANK["figures"].items()]
        reports.append((BANK["title"].format(**names), rng.sample(said, len(said))))
    kind = rng.choice(tuple(BANK["questions"]))
    company, rival = rng.sample(companies, 2)
    quarter, other = rng.sample(quarters, 2)
    figure = rng.choice(tuple(BANK["words"]))
    answers = {
        "highest": max(quarters, key=lambda one: figures[company, one, figure]),
        "most": max(companies, key=lambda one: figures[one, quarter, "staff"]),
        "difference": abs(figures[company, quarter, "costs"] - figures[company, other, "costs"]),
        "together": figures[company, quarter, "revenue"] + figures[rival, quarter, "revenue"],
        "between": abs(figures[company, quarter, "revenue"] - figures[company, quarter, "costs"]),
        "sum": sum(figures[company, one, "crates"] for one in quarters),
    }
    words = {"company": company, "rival": rival, "quarter": quarter, "other": other, "year": year}
    question = BANK["questions"][kind].format(**words, verb=BANK["words"][figure])
    return ReportSet(year, figures, reports, question, str(answers[kind]), kind)
