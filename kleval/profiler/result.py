"""How a kernel profile ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from kleval.store import RunStore
from kleval.store.manifest import Status, now
from kleval.types import UsageError

R = TypeVar("R")
EXIT_CODES: dict[Status, int] = {"complete": 0, "incomplete": 3, "interrupted": 130}


def to_the_end(run: Callable[[], None], close: Callable[[Status | None], R]) -> R:
    """run, then close with how it ended: None where it came to its end. A KeyboardInterrupt is not raised again; what else
    ends it is, once closed."""
    try:
        run()
    except KeyboardInterrupt:
        return close("interrupted")
    except BaseException:
        with contextlib.suppress(UsageError):
            close("interrupted")
        raise
    return close(None)


def end_session(store: RunStore, status: Status, **fields: Any) -> None:
    """Write into the manifest that the session under way ended so, with other fields of it."""
    sessions = list(store.manifest["sessions"])
    sessions[-1] = {**sessions[-1], "status": status, "finished": now()}
    over = now() if status in ("complete", "incomplete") else None
    store.update(status=status, finished=over, sessions=sessions, **fields)
