"""LiveCodeBench v6 (LiveCodeBench/LiveCodeBench, MIT; hub livecodebench/code_generation_lite; arXiv 2403.07974), code generation,
problems of August 2024 to May 2025.

Chat models get the benchmark's generic system message and format request, and the last fenced block of the answer is run;
base models get one worked example, and the whole answer is run (`GenericBase`). The example is the benchmark's own
(`few_shot_examples/generation/func.json`, `stdin.json`), read from the data directory. The paper's numbers are Avg@k at
temperature 1: `--temperature 1 --repeats k`.
"""

from __future__ import annotations

import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from kleval.tasks import datafile, packaged, tables
from kleval.tasks.code import files
from kleval.tasks.code.judging import grade
from kleval.tasks.code.task import CodeTask, Problem
from kleval.tasks.data import MissingData
from kleval.types import UsageError

_FIRST, _LAST = date(2024, 8, 1), date(2025, 5, 31)
# test and test2 end in May 2024; 11 problems of August 2024 are in test3. One file alone may hold all.
_STEMS = ("test3", "test4", "test5", "test6")
_SHOTS = "few_shot_examples/generation"
_MOST_UNPACKED = 1 << 30
_BROKEN = (ValueError, LookupError, TypeError, RecursionError, EOFError, AttributeError, ImportError)


def load(edition: str, protocol: str | None, data_dir: Path | None) -> CodeTask:
    name = "livecodebench_v6"
    protocol = files.protocol_of(name, edition, protocol)
    shots: Mapping[str, Mapping[str, str]] = packaged.load("code/items.toml")["shots"]
    deviations: tuple[str, ...] = ()
    if edition == "official":
        paths = _files(f"code/{name}", data_dir)
        lacking = [stem for stem in _STEMS if not any(path.name.startswith(stem) for path in paths)]
        if lacking and len(lacking) < len(_STEMS):
            deviations = (f"without the problems of {', '.join(lacking)}, which were not there",)
        shots = _official_shots(paths[0].parent)
        problems, revision, digest = files.read(paths, partial(_official, shots))
    else:
        problems = [_problem(shots, **row) for row in files.bank("problems")]
        revision, digest = files.OWN_REVISION, files.own_digest(problems)
    missing = (
        f"base models are shown an example: put func.json and stdin.json of the repository's lcb_runner/prompts/{_SHOTS} into"
        f" the data directory, under livecodebench/{_SHOTS}"
    )
    more = {"no_plain": "" if shots else missing, "deviations": deviations}
    return files.task_of(name, edition, protocol, grade, problems, revision, digest, **more)


def _files(task_id: str, data_dir: Path | None) -> list[Path]:
    """The parts wherever some are, else the one file of all."""
    try:
        return files.find(task_id, "livecodebench", _STEMS, data_dir, every=True)
    except MissingData:
        return files.find(task_id, "livecodebench", ("test",), data_dir)


def _official(shots: Mapping[str, Mapping[str, str]], where: str, row: dict[str, Any]) -> Problem | None:
    """The problem of a row, None outside the months."""
    try:
        day = date.fromisoformat(str(tables.value(where, row, "contest_date"))[:10])
    except ValueError as error:
        raise UsageError(f"{where}: contest_date is no date") from error
    if not _FIRST <= day <= _LAST:
        return None
    packed = [tables.text(where, row, f"{kind}_test_cases") for kind in ("public", "private")]
    try:
        facts = json.loads(tables.text(where, row, "metadata") or "{}")
    except ValueError as error:
        raise UsageError(f"{where}: metadata is not JSON") from error
    return _problem(
        shots,
        name=str(row.get("question_id", where)),
        question=tables.text(where, row, "question_content"),
        starter=str(row.get("starter_code") or ""),
        function=str(facts.get("func_name") or ""),
        tests=[test for cases in packed for test in _tests(where, cases)],
    )


def _problem(
    shots: Mapping[str, Mapping[str, str]],
    *,
    name: str,
    question: str,
    starter: str,
    function: str,
    tests: Sequence[Sequence[str]],
    solution: str = "",
) -> Problem:
    shot = shots.get("func" if starter else "stdin")
    words = packaged.load("code/prompts.toml")["livecodebench"]
    about, code = (words["starter"], starter) if starter else (words["stdin"], "# YOUR CODE HERE")
    form = f"### Format: {about}\n```python\n{code}\n```\n\n"
    asked = f"### Question:\n{question}\n\n{form}### Answer: (use the provided format with backticks)\n\n"
    plain = ""
    if shot is not None:
        example = _base(shot["question"], shot.get("sample_code", "") if starter else "")
        plain = f"{example}{shot['answer']}\n\n{_base(question, starter)}"
    return Problem(
        name=name,
        plain=plain,
        chat=({"role": "system", "content": words["system"]}, {"role": "user", "content": asked}),
        data={"function": function, "tests": tuple((given, expected) for given, expected in tests)},
        solution=f"```python\n{solution}\n```" if solution else "",
    )


def _base(question: str, starter: str) -> str:
    head = f"### Starter Code\n{starter}\n\n" if starter else ""
    return f"### Question\n{question}\n\n{head}### Answer\n\n"


def _tests(where: str, packed: str) -> list[tuple[str, str]]:
    """Input and output of each test: JSON, or JSON in a pickled text, compressed, in base64."""
    try:
        try:
            found = json.loads(packed)
        except ValueError:
            found = json.loads(_unpacked(packed))
        return [(str(test["input"]), str(test["output"])) for test in found]
    except (*_BROKEN, zlib.error, pickle.UnpicklingError) as error:
        raise UsageError(f"{where}: its tests cannot be read: {datafile.one_line(error)}") from error


def _unpacked(packed: str) -> str:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(base64.b64decode(packed), _MOST_UNPACKED)
    text = _Texts(io.BytesIO(raw)).load()
    if not isinstance(text, str):
        raise ValueError("the tests are packed as something else than a text")
    return text


class _Texts(pickle.Unpickler):
    """Reads pickles of plain values. A pickle from elsewhere may name any function to be called: none is looked up."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")


def _official_shots(folder: Path) -> dict[str, dict[str, str]]:
    found = {}
    for kind in ("func", "stdin"):
        path = folder / _SHOTS / f"{kind}.json"
        if path.is_file():
            where, row = next(iter(tables.rows(path)))
            names = ("question", "answer", *(("sample_code",) if kind == "func" else ()))
            found[kind] = {name: tables.text(where, row, name) for name in names}
    return found if len(found) == 2 else {}
