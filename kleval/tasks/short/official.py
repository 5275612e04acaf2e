"""The tasks that lm-eval 0.4.13 lacks, on their own data: HMMT 2025, PolyMath-en, MMLU-Redux by likelihood, CMATH; and
CRUXEval's output prediction, scored without running code.

Data, under the data directory (`kleval data fetch short`), any other format of rows in place of what is named:

- `hmmt_feb_2025.parquet`: hub MathArena/hmmt_feb_2025 {problem, answer}, 30 problems of February 2025
- `polymath/en/LEVEL.jsonl`: QwenLM/PolyMath {id, question, answer}, 125 problems for each of low, medium, high and top
- `mmlu_redux/SUBJECT.arrow`: hub edinburgh-dawg/mmlu-redux-2.0 {question, choices, answer, error_type}, 57 subjects, or one
  `mmlu_redux.jsonl` with a field `subject`; and `mmlu_dev.parquet`: hub cais/mmlu, all/dev {question, subject, choices,
  answer}, from which the shots come
- `cmath_test.jsonl`, `cmath_dev.jsonl`: hub weitianwen/cmath {grade, question, golden}
- `cruxeval/cruxeval.jsonl`: facebookresearch/cruxeval {code, input, output, id}

Of groups (levels, subjects) the first questions come first, so that a limit covers all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kleval.packages import need
from kleval.tasks import data, datafile, tables
from kleval.tasks.cards import Card
from kleval.tasks.data import Source
from kleval.tasks.registry import check_protocol
from kleval.tasks.short import builtin, shapes
from kleval.tasks.short.items.sums import LEVELS
from kleval.tasks.short.items.written import program_text
from kleval.tasks.short.question import Benchmark, Item, Shape, lettered
from kleval.tasks.short.task import ShortTask
from kleval.types import Task, UsageError

FAMILY = "short"
_REDUX_OK = "ok"
_REDUX_FILES = tuple(asset.name for asset in data.assets(FAMILY) if asset.name.startswith("mmlu_redux/"))
SUBJECTS = tuple(Path(name).stem for name in _REDUX_FILES)


def hmmt25(edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    name = "short/hmmt25"
    if edition == "builtin":
        return builtin.load(name, protocol)
    found = [_find(name, "hmmt_feb_2025.parquet", data_dir)]
    items = [
        Item(_text(where, row, "problem") + shapes.BOXED, "", (_text(where, row, "answer"),))
        for where, row in _rows(found[0].path)
    ]
    return _task(name, shapes.TOURNAMENT, items, (), protocol, found)


def polymath_en(edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    name = "short/polymath_en"
    if edition == "builtin":
        return builtin.load(name, protocol)
    found = [_find(name, f"polymath/en/{level}.jsonl", data_dir) for level in LEVELS]
    levels = [
        [
            Item(_text(where, row, "question") + shapes.POLYMATH_NOTE, "", (_text(where, row, "answer"),), level)
            for where, row in _rows(file.path)
        ]
        for level, file in zip(LEVELS, found, strict=True)
    ]
    return _task(name, shapes.LEVELLED, _in_turn(levels), (), protocol, found)


def mmlu_redux(edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    name = "short/mmlu_redux"
    if edition == "builtin":
        return builtin.load(name, protocol)
    found, rows = _redux_rows(name, data_dir)
    by_subject: dict[str, list[Item]] = {}
    for where, subject, row in rows:
        if _text(where, row, "error_type") == _REDUX_OK:
            by_subject.setdefault(subject, []).append(_four(where, row, subject))
    shown = _find(name, "mmlu_dev.parquet", data_dir)
    shots = [_four(where, row, _text(where, row, "subject")) for where, row in _rows(shown.path)]
    if not by_subject:
        raise UsageError(f"{found[0].path} has no question whose error_type is {_REDUX_OK!r}")
    items = _in_turn(by_subject.values())
    return _task(name, shapes.REDUX, items, shots, protocol, [*found, shown])


def cmath(edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    name = "short/cmath"
    if edition == "builtin":
        return builtin.load(name, protocol)
    found = [_find(name, f"cmath_{part}.jsonl", data_dir) for part in ("test", "dev")]
    shots: dict[str, Item] = {}
    for where, row in _rows(found[1].path):
        made = _word_problem(where, row)
        shots.setdefault(made.group, made)
    # Shown before questions of every grade.
    shown = [Item(shots[grade].text, shots[grade].answer, shots[grade].references) for grade in sorted(shots)]
    grades: dict[str, list[Item]] = {}
    for where, row in _rows(found[0].path):
        made = _word_problem(where, row)
        grades.setdefault(made.group, []).append(made)
    return _task(name, shapes.WORD_PROBLEM, _in_turn(grades.values()), shown, protocol, found)


def cruxeval_output_cot(edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    name = "short/cruxeval_output_cot"
    if edition == "builtin":
        return builtin.load(name, protocol)
    found = [_find(name, "cruxeval/cruxeval.jsonl", data_dir)]
    items = [
        Item(
            program_text(_text(where, row, "code"), _text(where, row, "input")),
            "",
            (_text(where, row, "output"),),
        )
        for where, row in _rows(found[0].path)
    ]
    return _task(name, shapes.PROGRAM, items, (), protocol, found)


def _task(
    name: str,
    shape: Shape,
    items: Sequence[Item],
    shots: Sequence[Item],
    protocol: str | None,
    found: Sequence[Source],
) -> Task:
    digest = found[0].sha256
    if len(found) > 1:
        digest = hashlib.sha256("".join(file.sha256 for file in found).encode()).hexdigest()
    known = all(file.revision for file in found)
    revision = ", ".join(dict.fromkeys(file.revision for file in found)) if known else f"unpinned sha256:{digest[:16]}"
    protocol = check_protocol(name, protocol, (builtin.protocol_of(shape),))
    card = Card(FAMILY, (name.partition("/")[2],), "official", protocol)
    return ShortTask(
        name,
        Benchmark(name, card.text("title"), card.text("source"), shape, tuple(items), tuple(shots)),
        None,
        edition="official",
        protocol=protocol,
        revision=revision,
        digest=digest,
        deviations=card.texts("deviations"),
    )


def _find(name: str, file: str, data_dir: Path | None) -> Source:
    """`file`, or the same name in another format; its revision is empty where its hash is not a known one. UsageError naming what
    gets it when there is none."""
    status = data.need(FAMILY, file, f"{name} (official)", data_dir)
    return Source((status.path,), status.revision, status.sha256)


def _redux_rows(name: str, data_dir: Path | None) -> tuple[list[Source], Iterator[tuple[str, str, dict[str, Any]]]]:
    """The files, and their rows with their subject: one file for all, or one for each."""
    folder = data.data_folder(FAMILY, data_dir)
    whole = datafile.existing(folder / "mmlu_redux")
    if whole is not None:
        found = [Source((whole,), "", data.file_sha256(whole))]
        return found, ((where, _text(where, row, "subject"), row) for where, row in _rows(whole))
    found = [_find(name, file, data_dir) for file in _REDUX_FILES]
    return found, (
        (where, subject, row) for subject, file in zip(SUBJECTS, found, strict=True) for where, row in _rows(file.path)
    )


def _four(where: str, row: dict[str, Any], subject: str) -> Item:
    options = tables.texts(where, row, "choices")
    gold = tables.integer(where, row, "answer")
    if len(options) != 4 or not 0 <= gold < 4:
        raise UsageError(f"{where}: there must be 4 choices and an answer from 0 to 3")
    letter = "ABCD"[gold]
    text = lettered(_text(where, row, "question").strip(), options)
    return Item(text, f" {letter}", (letter,), subject, tuple("ABCD"), gold)


def _word_problem(where: str, row: dict[str, Any]) -> Item:
    golden = str(tables.value(where, row, "golden")).strip()
    grade = f"grade {tables.value(where, row, 'grade')}"
    return Item(f"问题：{_text(where, row, 'question').strip()}\n答案：", golden, (golden,), grade)


def _text(where: str, row: dict[str, Any], name: str) -> str:
    return tables.text(where, row, name)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    return _arrow(path) if path.suffix == ".arrow" else tables.rows(path)


def _arrow(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of an Arrow stream, as the library `datasets` keeps them."""
    pyarrow = need("pyarrow", "data", f"reading {path.name}")
    try:
        with path.open("rb") as file:
            n = 0
            for batch in pyarrow.ipc.open_stream(file):
                for row in batch.to_pylist():
                    yield f"{path} row {n}", row
                    n += 1
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{path} cannot be read as an Arrow stream: {datafile.one_line(error)}") from error
    if not n:
        raise UsageError(f"{path} has no rows")


def _in_turn(groups: Iterable[Sequence[Item]]) -> list[Item]:
    return [item for row in zip_longest(*groups) for item in row if item is not None]
