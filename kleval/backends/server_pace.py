"""Congestion control: one more request in flight with every answer, half as many when the server says 429, and only then.

Starts at half of what is allowed. Until the first 429 an answer allows one more; after it, as many answers as are in flight do
(additive increase, multiplicative decrease). Requests that were sent before the last halving do not halve again.
Other failures leave it alone: a server that is broken is not one that is busy.
"""

from __future__ import annotations

import asyncio
import random

FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 30.0


class Pace:
    """most: of requests in flight. The limit outlives a call of `Backend.run`; `begin` is called first in its event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(max(1, -(-most // 2)))
        self.n_refused = 0
        self._fast = True
        self._era = 0
        self.begin()

    def begin(self) -> None:
        self._in_flight = 0
        self._open_at = 0.0
        self._changed = asyncio.Condition()

    async def enter(self) -> int:
        """Wait for a place; what comes back is handed to `refused`."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._in_flight < int(self.limit))
                closed = self._open_at - loop.time()
                if closed <= 0:
                    self._in_flight += 1
                    return self._era
            await asyncio.sleep(closed)

    async def leave(self) -> None:
        async with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()

    def answered(self) -> None:
        self.limit = min(float(self.most), self.limit + (1.0 if self._fast else 1.0 / self.limit))

    def refused(self, era: int, attempt: int, asked_seconds: float | None) -> float:
        """A 429 came: seconds to wait, as the server asks or longer each time. attempt: from 1, of this request.

        What the server asked for holds for all requests.
        """
        self.n_refused += 1
        if era == self._era:
            self.limit = max(1.0, self.limit / 2)
            self._fast = False
            self._era += 1
        if asked_seconds is None:
            return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)
        self._open_at = max(self._open_at, asyncio.get_running_loop().time() + asked_seconds)
        return asked_seconds
