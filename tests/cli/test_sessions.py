"""What a run came to over all its sessions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kleval.cli.sessions import speed_lines
from kleval.text import duration

KILLED = {"started": "2026-01-01T10:00:00+00:00", "finished": None, "seen": "2026-01-01T10:02:00+00:00"}
WHOLE = {"started": "2026-01-02T10:00:00+00:00", "finished": "2026-01-02T10:10:00+00:00"}


def row(finished: str) -> Any:
    outcome = {"kind": "generate", "text": "a", "prompt_tokens": 600, "output_tokens": 6, "seconds": 1.0}
    return SimpleNamespace(
        finished=finished, outcomes=(outcome,), failed=False, failure=None, prompt_tokens=600, seconds=1.0, meta={}
    )


@pytest.mark.parametrize(
    ("killed", "filed", "seconds"),
    [
        (KILLED, "2026-01-01T10:01:00+00:00", 120 + 600),
        (KILLED, "2026-01-01T10:05:00+00:00", 300 + 600),
        (KILLED | {"seen": None}, "2026-01-01T10:05:00+00:00", 300 + 600),
        (KILLED | {"shard": "1/2"}, "2026-01-01T10:05:00+00:00", 120 + 600),
    ],
)
def test_a_killed_session_took_until_it_was_last_seen(killed: dict[str, Any], filed: str, seconds: float) -> None:
    store: Any = SimpleNamespace(manifest={"sessions": [killed, WHOLE]}, rows=lambda: [row(filed), row(filed)])
    (line,) = speed_lines(store)
    assert line.startswith(f"time      {duration(seconds)} ")
