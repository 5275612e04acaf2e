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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kleval.packages import need
from kleval.tasks import data, datafile, tables
from kleval.tasks.cards import Card
from kleval.tasks.registry import check_protocol
from kleval.tasks.short import builtin, form
from kleval.tasks.short.question import Benchmark, Item
from kleval.tasks.short.task import ShortTask
from kleval.types import Task, UsageError

FAMILY = "short"
_REDUX_OK = "ok"
_REDUX_FILES = tuple(asset.name for asset in data.assets(FAMILY) if asset.name.startswith("mmlu_redux/"))
SUBJECTS = tuple(Path(name).stem for name in _REDUX_FILES)

Groups = dict[str, list[Item]]  # level, subject or grade -> what is asked


class _Files:
    """Files of a task. found: those that were looked for, in that order -> revision, empty where the hash is not a known one."""

    def __init__(self, name: str, data_dir: Path | None) -> None:
        self._name, self._data_dir = name, data_dir
        self.found: dict[Path, str] = {}

    def need(self, file: str) -> Path:
        """`file`, or the same in another format. MissingData naming what gets it when there is none."""
        status = data.need(FAMILY, file, f"{self._name} (official)", self._data_dir)
        self.found[status.path] = status.revision
        return status.path

    def any_of(self, stem: str) -> Path | None:
        """A file that is none of the downloads, in any format; None when there is none."""
        path = datafile.existing(data.data_folder(FAMILY, self._data_dir) / stem)
        if path is not None:
            self.found[path] = ""
        return path


Read = Callable[[Mapping[str, Any], _Files], tuple[Groups, Sequence[Item]]]  # a form and files -> groups, shots


def _load(name: str, read: Read, edition: str, protocol: str | None, data_dir: Path | None) -> Task:
    if edition == "builtin":
        return builtin.load(name, protocol)
    asked, files = form.of(name, official=True), _Files(name, data_dir)
    groups, shots = read(asked, files)
    revisions, shape = dict.fromkeys(files.found.values()), form.shape(asked)
    digest = data.source_of([*files.found], "").sha256
    protocol = check_protocol(name, protocol, (builtin.protocol_of(shape),))
    card = Card(FAMILY, (name.partition("/")[2],), "official", protocol)
    items = tuple(item for row in zip_longest(*groups.values()) for item in row if item is not None)
    return ShortTask(
        name,
        Benchmark(name, card.text("title"), card.text("source"), shape, items, tuple(shots)),
        None,
        edition="official",
        protocol=protocol,
        revision=", ".join(revisions) if all(revisions) else f"unpinned sha256:{digest[:16]}",
        digest=digest,
        deviations=card.texts("deviations"),
    )


def _plain(asked: Mapping[str, Any], files: _Files) -> tuple[Groups, Sequence[Item]]:
    """One file for each group."""
    groups: Groups = {}
    for group, file in asked["files"].items():
        groups[group] = []
        for where, row in tables.rows(files.need(file)):
            values = {name: tables.text(where, row, field) for name, field in asked["fields"].items()}
            groups[group].append(form.item(asked, {**values, "group": group}))
    return groups, ()


def _redux(asked: Mapping[str, Any], files: _Files) -> tuple[Groups, Sequence[Item]]:
    """One file for all subjects, or one for each."""
    whole = files.any_of("mmlu_redux")
    places = [("", whole)] if whole else [*zip(SUBJECTS, map(files.need, _REDUX_FILES), strict=True)]
    groups: Groups = {}
    for named, path in places:
        for where, row in _arrow(path) if path.suffix == ".arrow" else tables.rows(path):
            subject = named or tables.text(where, row, "subject")
            if tables.text(where, row, "error_type") == _REDUX_OK:
                groups.setdefault(subject, []).append(_four(asked, where, row, subject))
    shown = files.need("mmlu_dev.parquet")
    shots = [_four(asked, where, row, tables.text(where, row, "subject")) for where, row in tables.rows(shown)]
    if not groups:
        raise UsageError(f"{places[0][1]} has no question whose error_type is {_REDUX_OK!r}")
    return groups, shots


def _four(asked: Mapping[str, Any], where: str, row: dict[str, Any], subject: str) -> Item:
    options = tables.texts(where, row, "choices")
    gold = tables.integer(where, row, "answer")
    if len(options) != 4 or not 0 <= gold < 4:
        raise UsageError(f"{where}: there must be 4 choices and an answer from 0 to 3")
    question = tables.text(where, row, "question").strip()
    return form.item(asked, {"question": question, "group": subject}, options, gold)


def _cmath(asked: Mapping[str, Any], files: _Files) -> tuple[Groups, Sequence[Item]]:
    """The first problem of each grade of the dev split is shown before questions of every grade."""
    test, dev = (_by_grade(asked, files.need(f"cmath_{part}.jsonl")) for part in ("test", "dev"))
    return test, [replace(dev[grade][0], group="") for grade in sorted(dev)]


def _by_grade(asked: Mapping[str, Any], path: Path) -> Groups:
    grades: Groups = {}
    for where, row in tables.rows(path):
        grade, golden = (str(tables.value(where, row, name)).strip() for name in ("grade", "golden"))
        values = {"question": tables.text(where, row, "question").strip(), "right": golden, "group": f"grade {grade}"}
        grades.setdefault(values["group"], []).append(form.item(asked, values))
    return grades


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


hmmt25 = partial(_load, "short/hmmt25", _plain)
polymath_en = partial(_load, "short/polymath_en", _plain)
mmlu_redux = partial(_load, "short/mmlu_redux", _redux)
cmath = partial(_load, "short/cmath", _cmath)
cruxeval_output_cot = partial(_load, "short/cruxeval_output_cot", _plain)
