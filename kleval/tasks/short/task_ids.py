"""Task ids with a number of shots: `short/cmath:6shot`, as the tasks of lm-eval are named."""

from __future__ import annotations

import re

_ID = re.compile(r"(?P<name>[^:\s]+)(?::(?P<shots>\d{1,3})shot)?")


def parse(task_id: str) -> tuple[str, int | None] | None:
    """The name, and the shots that it asks for or None; None altogether for what is no such id."""
    match = _ID.fullmatch(task_id)
    if match is None:
        return None
    return match["name"], None if match["shots"] is None else int(match["shots"])
