from __future__ import annotations

from types import SimpleNamespace

import pytest

from kleval.tables.cells import Cell, families, summarise
from kleval.tables.columns import COLUMNS, PAPER, column_rows

TASKS = {
    "ruler/vt": 0.9,
    "ruler/fwe": 0.7,
    "mrcr/2needle": 0.3,
    "mrcr/8needle": 0.1,
    "helmet_icl/nlu": 0.5,
    "helmet_icl/trec_fine": 0.7,
    "longbench2/overall": 0.4,
    "frames/oracle": 0.6,
    "repoqa/snf": 0.65,
    "lca/lib": 0.2,
    "lca/commit": 0.4,
}


def cells(tasks: dict[str, float], ctx: int = 4096) -> list[Cell]:
    rows = []
    for task, value in tasks.items():
        for i in range(3):
            row = SimpleNamespace(
                model="m", task=task, ctx=ctx, edition="builtin", protocol="p", metric="x", id=f"{task}{i}"
            )
            row.score, row.metrics, row.failure = value, {"x": value}, None
            row.outcomes, row.references, row.prompt_hash = (), (), ""
            row.max_new_tokens, row.answer_prefix = 32, ""
            rows.append(row)
    found = summarise(rows)
    return [*found, *families(found)]


def test_a_column_is_a_family_s_average_or_its_only_task() -> None:
    [(row, average)] = column_rows(cells(TASKS)).values()
    values = {name: cell.value for name, cell in zip(COLUMNS, row, strict=True) if cell is not None}
    expected = dict(zip(COLUMNS, (0.8, 0.2, 0.6, 0.4, 0.6, 0.65, 0.2, 0.4), strict=True))
    assert values == pytest.approx(expected)
    assert average is not None
    assert average.mean == pytest.approx(sum(expected.values()) / 8)


def test_there_is_no_average_while_a_column_is_missing() -> None:
    [(row, average)] = column_rows(cells({task: value for task, value in TASKS.items() if task != "lca/lib"})).values()
    assert row[list(COLUMNS).index("LCA-Lib")] is None
    assert average is None


def test_one_column_alone_is_no_table() -> None:
    assert column_rows(cells({"ruler/vt": 0.9, "ruler/fwe": 0.7})) == {}


def test_the_paper_s_rows_have_the_averages_that_it_prints() -> None:
    averages = [round(sum(values) / 8, 1) for values in PAPER.values()]
    assert averages == [52.2, 51.2, 51.8, 54.5]
