"""A run directory: what was asked, under which settings, and one row per answer; safe against a kill at any moment.

    run.json                                 manifest, replaced atomically (kleval.store.manifest says what is in it)
    samples/<model>/<family>__<task>.<ctx>.jsonl   append-only, one JSON line per (model, sample id, repeat)
    samples/<model>/<family>__<task>.<ctx>.parquet the compact form (kleval.store.parquet); lines beside it were appended since
    prompts/<family>__<task>.<ctx>.<tokenizer>.gz  append-only, each unique prompt once (kleval.store.prompts)
    prompts/….excerpts                       what a page shows of the long ones
    points.jsonl                             append-only, one JSON line per measurement of a profile, by point id
    .lock, tmp/                              one writer at a time; files before they are renamed into place

A row is safe from a kill of the process once its line, newline included, is written, and from a loss of power within a
second: one fsync covers what finished together. Its prompt is on the disk before it. A line cut short by a kill is the last one of its
file and is cut off when the run is opened for writing; anything else that is not a valid row is an error naming file
and line. A sample that failed is asked again when the command runs again and its new row stands for the old one; a
sample that was answered is never asked again. Readers see one row per key, in an order that does not depend on the
order in which the answers came.
"""

from kleval.store.manifest import SCHEMA_VERSION
from kleval.store.records import Point, Row
from kleval.store.run import RunStore
from kleval.store.settings import Change, compare

__all__ = ["SCHEMA_VERSION", "Change", "Point", "Row", "RunStore", "compare"]
