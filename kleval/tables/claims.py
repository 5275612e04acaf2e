"""Claims of a paper as data, and the verdict that a measured value with its 95 % interval allows on one.

`claims.toml` beside this file has the Kimi Linear paper's; another paper's are a file of the same form (docs/scorecard.md). A claim
is never called reproduced by a point value: its interval decides, and what differs from the paper's own setting limits the verdict.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kleval.files import packaged, usage_errors
from kleval.lengths import parse_lengths
from kleval.text import format_lengths
from kleval.types import UsageError

REPRODUCED, IN_PART, NOT_REPRODUCED = "reproduced", "in part", "not reproduced"
UNRELEASED = "not testable: weights were never released"
ABOVE_BOUND = "above a byte bound"
UNDECIDED, NOT_MEASURED = "undecided", "not measured"
UNITS = {"ratio": "×", "saving": "%", "score": "points", "difference": "points", "none": ""}
KINDS = {"ratio": ("prefill", "decode", "kernel"), "saving": ("memory",)}  # of points; of other measures none
NO_EFFECT = {"ratio": 1.0, "saving": 0.0, "difference": 0.0}
SCORE_WIDTH = 10.0  # points: a wider interval says too little of a score


class Claim(BaseModel):
    """One claim, of one value or of a table of them, at one length or at several.

    measure: ratio (the baseline's time over the model's), saving (percent of the baseline's bytes), score, difference (model minus
    baseline), or none where kleval has no such record, and `why` says so. side: what more than the published value means. kind,
    protocols (the first is preferred), quantity, heads, scale, device: of points. table, columns: a row of claims per benchmark of
    that table; column -> the model's name here. bound: what bytes allow at most. released: whether the weights ever were.
    width: of an interval that is too wide to reproduce anything.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    id: str
    claim: str
    where: str
    measure: Literal["ratio", "saving", "score", "difference", "none"] = "none"
    side: Literal["about", "at least", "at most"] = "at least"
    published: float | int | None = None
    model: str = ""
    baseline: str = ""
    ctx: str = ""
    kind: Literal["", "prefill", "decode", "kernel", "memory"] = ""
    protocols: tuple[str, ...] = ()
    quantity: str = "state_bytes"
    heads: int | None = None
    scale: str = ""
    device: str = ""
    task: str = ""
    edition: str = "official"
    temperature: float | None = None
    table: str = ""
    columns: Mapping[str, str] = Field(default_factory=dict)
    bound: float | None = None
    released: bool = True
    width: float | None = None
    why: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Claim:
        needed = {
            "ratio": ("model", "baseline", "kind", "protocols", "ctx"),
            "saving": ("model", "baseline", "kind", "protocols", "ctx"),
            "score": ("table", "columns") if self.table else ("model", "task", "ctx"),
            "difference": ("table", "columns") if self.table else ("model", "baseline", "task", "ctx"),
        }
        missing = [name for name in needed.get(self.measure, ()) if not getattr(self, name)]
        if self.measure != "none" and not self.table and self.published is None:
            missing.append("published")
        if missing:
            raise ValueError(f"{self.measure} needs {', '.join(missing)}")
        if self.columns and not self.table:
            raise ValueError("columns are of a table: name it")
        if self.kind not in KINDS.get(self.measure, ("",)):
            raise ValueError(f"{self.measure} is not of points of the kind {self.kind}")
        if self.measure == "difference" and self.table and len(self.columns) != 2:
            raise ValueError("difference of a table needs two columns: the model's, then the baseline's")
        if self.ctx:
            parse_lengths(self.ctx)
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        return parse_lengths(self.ctx) if self.ctx else ()

    def by_length(self) -> list[Claim]:
        """One claim per length, where it is made at several; else itself."""
        several = self.lengths if len(self.lengths) > 1 else ()
        return [self.model_copy(update={"ctx": str(length)}) for length in several] or [self]

    @property
    def half_digit(self) -> float:
        """Half a unit of the last printed digit: 2.88 is a printed 2.9."""
        return 0.5 * 10 ** -len(str(self.published).partition(".")[2])


class Note(BaseModel):
    """A contradiction or a gap in the paper, explained; claims name it by id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    title: str
    text: str


class Benchmark(BaseModel):
    """A row of a published table: a score per column, by one task."""

    benchmark: str
    tasks: str = ""
    ctx: str = ""
    scores: tuple[float, ...]


class Table(BaseModel):
    """A published table of scores. ctx: of all rows that do not say their own."""

    columns: tuple[str, ...]
    ctx: str = ""
    rows: tuple[Benchmark, ...]


class Claims(BaseModel):
    """A file of claims. tables: by the name that claims call them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    tables: Mapping[str, Table] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = Field(min_length=1)
    notes: tuple[Note, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Claims:
        ids = [claim.id for claim in self.claims]
        if twice := next((name for name in ids if ids.count(name) > 1), None):
            raise ValueError(f"two claims are called {twice}")
        for claim in self.claims:
            if claim.note and claim.note not in {note.id for note in self.notes}:
                raise ValueError(f"claim {claim.id} names the note {claim.note}, which is not there")
            if claim.table and claim.table not in self.tables:
                raise ValueError(f"claim {claim.id} names the table {claim.table}, which is not there")
            if lost := [name for name in claim.columns if name not in self.tables[claim.table].columns]:
                raise ValueError(
                    f"claim {claim.id} names the column {lost[0]}, which table {claim.table} does not have"
                )
        return self

    def head(self, claim: Claim) -> Claim:
        """What stands for all of a table's claims where none was measured."""
        return claim.model_copy(update={"claim": _filled(claim, "each benchmark", "each model")})

    def by_benchmark(self, claim: Claim) -> Iterator[Claim]:
        """One claim per benchmark of its table that one task asks, and of scores per column; itself, where it has no table."""
        if not claim.table:
            yield claim
            return
        table = self.tables[claim.table]
        for row in table.rows:
            scores = dict(zip(table.columns, row.scores, strict=False))
            if len(row.tasks.split()) != 1 or not claim.columns.keys() <= scores.keys():
                continue
            parts = [(name, model, "", scores[name]) for name, model in claim.columns.items()]
            if claim.measure == "difference":
                (name, model, _, score), (_, baseline, _, other) = parts
                parts = [(name, model, baseline, round(score - other, 6))]
            for name, model, baseline, value in parts:
                said = {"claim": _filled(claim, row.benchmark, name), "published": value}
                place = {"task": row.tasks, "ctx": row.ctx or table.ctx, "model": model, "baseline": baseline}
                yield claim.model_copy(update=said | place)


def _filled(claim: Claim, benchmark: str, model: str) -> str:
    return claim.claim.replace("{benchmark}", benchmark).replace("{model}", model)


def load_claims(path: Path | None = None) -> Claims:
    """The claims of a file, the Kimi Linear paper's unless given. UsageError saying what is wrong with it, and where."""
    if path is None:
        data = dict(packaged("tables/claims.toml"))
    else:
        with usage_errors(path):
            raw = path.read_bytes()
        try:
            data = tomllib.loads(raw.decode("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not TOML: {error}") from None
    if data.get("tables") == "paper.toml":
        data["tables"] = packaged("paper.toml")["tables"]
    try:
        return Claims.model_validate(data)
    except UsageError as error:
        raise UsageError(f"{path} is no file of claims: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = [str(part + 1 if isinstance(part, int) else part) for part in first["loc"]]
        where = f"{' '.join(named)}: " if named else ""
        raise UsageError(f"{path} is no file of claims ({where}{first['msg'].removeprefix('Value error, ')})") from None


@dataclass(frozen=True, slots=True)
class Measured:
    """A value in the claim's unit with its 95 % interval, NaN limits where there is none; equal to the value where bytes were counted.

    n: repeats, samples or pairs. model, ctx, protocol, setting: of what was measured. differs: from what is claimed. rows: where the
    records behind it are.
    """

    value: float
    low: float
    high: float
    n: int
    model: str
    ctx: int
    protocol: str
    setting: str
    differs: tuple[str, ...]
    rows: str


def verdict(claim: Claim, found: Measured | None) -> tuple[str, str]:
    """What can be said of the claim, and why.

    Reproduced: the interval includes the published value or lies on the claimed side, excludes no effect at all (a ratio of 1, a
    difference of 0), is no wider than the claimed effect where it does not lie on that side as a whole, and the setting is the
    paper's. In part: the same in another setting, or an effect in the claimed direction of another size.
    """
    above = claim.bound is not None and claim.published is not None and claim.published > claim.bound
    bound = f"bytes allow at most {claim.bound:.2f}" if above else ""
    if found is None:
        if above:
            return ABOVE_BOUND, bound
        return (NOT_MEASURED, claim.why or "no record here") if claim.released else (UNRELEASED, "")
    if not claim.released:
        return UNRELEASED, "measured with other weights"
    word, why = _judged(claim, found)
    elsewhere = "; ".join(found.differs)
    if word == REPRODUCED and found.differs:
        word, why = IN_PART, f"holds in another setting: {elsewhere}"
    elif found.differs:
        why += f"; another setting: {elsewhere}"
    if above:
        return (word, f"{why}; {bound}") if word == REPRODUCED else (ABOVE_BOUND, f"{bound}; here {word}: {why}")
    return word, why


def _judged(claim: Claim, found: Measured) -> tuple[str, str]:
    """By value and interval alone."""
    assert claim.published is not None
    if math.isnan(found.low):
        return UNDECIDED, "a single value has no interval"
    least, most = claim.published - claim.half_digit, claim.published + claim.half_digit
    misses = (claim.side != "at most" and found.high < least) or (claim.side != "at least" and found.low > most)
    whole = (claim.side == "at least" and found.low >= least) or (claim.side == "at most" and found.high <= most)
    none = None if claim.side == "at most" else NO_EFFECT.get(claim.measure)
    if none is not None and claim.published != none:
        sign = 1 if claim.published > none else -1
        if sign * (found.low if sign > 0 else found.high) <= sign * none:
            if misses:
                return NOT_REPRODUCED, "the interval excludes the published value and not its absence"
            return UNDECIDED, "the interval includes no effect at all"
        if misses and sign * (claim.published - found.value) > 0:
            share = (found.value - none) / (claim.published - none)
            return IN_PART, f"in the claimed direction, {share:.0%} of the claimed effect"
    if misses:
        return NOT_REPRODUCED, "the interval excludes the published value"
    if whole:
        return REPRODUCED, "the interval lies on the claimed side"
    if claim.side == "at most":
        return UNDECIDED, "the interval includes the limit"
    limit = claim.width or (SCORE_WIDTH if none is None else abs(claim.published - none))
    if (width := found.high - found.low) > limit > 0:
        needed = math.ceil(found.n * (width / limit) ** 2)
        return UNDECIDED, f"the interval is too wide: n = {found.n}, about {needed} would do"
    return REPRODUCED, "the interval includes the published value"


def row_of(claim: Claim, found: Measured | None) -> dict[str, Any]:
    """A line of the scorecard with the keys of COLUMNS, None for what is not there."""
    word, why = verdict(claim, found)
    row: dict[str, Any] = {**dict(claim), "unit": UNITS[claim.measure], "verdict": word, "why": why, "rows": None}
    row |= dict.fromkeys(("model", "ctx"))
    if found is not None:
        row |= {name: getattr(found, name) for name in Measured.__dataclass_fields__}
        row |= {name: None for name in ("low", "high") if math.isnan(row[name])}
        row["differs"] = "; ".join(found.differs)
        row["of_published"] = found.value / claim.published if claim.published else None
    row["claimed_ctx"] = format_lengths(claim.lengths)
    return {name: row.get(name) for name in COLUMNS}


COLUMNS = (
    *("id", "claim", "where", "claimed_ctx", "scale", "side", "published", "unit", "value", "low", "high", "n"),
    *("of_published", "model", "ctx", "protocol", "setting", "differs", "bound", "verdict", "why", "rows", "note"),
)
