"""Requests in flight: an event loop in a thread of its own behind a plain generator, and one request through its 429s.

Closing the generator, by the caller or by a KeyboardInterrupt, cancels what is in flight. Everything else that fails is told at once:
asking again is the harness's.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kleval.backends.server_address import Server
from kleval.backends.server_errors import failure_of_exception, failure_of_status, retry_after
from kleval.backends.server_pace import Pace
from kleval.backends.server_reply import Answer
from kleval.backends.server_wire import EventReader, bounded, events, read_object
from kleval.types import Failure, Outcome, UsageError

CONNECT_SECONDS = 30.0
LEAVE_SECONDS = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asker:
    """request_timeout: seconds for one answer, and at most for the waiting that 429s ask for. keeps: connections, open for later."""

    server: Server
    pace: Pace
    request_timeout: float
    keeps: bool = True

    def client(self) -> Any:
        import httpx2

        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=self.pace.most if self.keeps else 0)
        return httpx2.AsyncClient(
            headers=list(self.server.headers),
            params=list(self.server.params) or None,
            timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self.request_timeout)),
            limits=limits,
            trust_env=not self.server.is_local,
        )

    async def ask(self, client: Any, path: str, content: bytes, stream: bool) -> tuple[Answer | Failure, float]:
        """An answer, or why there is none; and the seconds of the attempt that brought it. UsageError for a refused key."""
        loop = asyncio.get_running_loop()
        attempt, give_up = 0, None
        while True:
            try:
                async with asyncio.timeout_at(give_up):
                    era = await self.pace.enter()
            except TimeoutError:
                return Failure("rate_limit", f"no place within {self.request_timeout:g} seconds of 429s", True), 0.0
            attempt += 1
            started = loop.time()
            try:
                answer, asked = await self._once(client, path, content, stream)
            finally:
                await self.pace.leave()
            seconds = loop.time() - started
            if not (isinstance(answer, Failure) and answer.kind == "rate_limit" and answer.retryable):
                if isinstance(answer, Answer):
                    self.pace.answered()
                return answer, seconds
            wait = self.pace.refused(era, attempt, asked)
            give_up = give_up if give_up is not None else loop.time() + self.request_timeout
            if loop.time() + wait > give_up:
                why = f"to wait {wait:.3g} seconds more takes longer than {self.request_timeout:g} (--request-timeout)"
                return Failure("rate_limit", f"{answer.message}; {why}", retryable=True), seconds
            await asyncio.sleep(wait)

    async def _once(
        self, client: Any, path: str, content: bytes, stream: bool
    ) -> tuple[Answer | Failure, float | None]:
        """One attempt; and what a 429 says about when to come back."""
        try:
            async with asyncio.timeout(self.request_timeout):
                request = client.stream(
                    "POST", self.server.url + path, content=content, headers={"Content-Type": "application/json"}
                )
                async with request as response:
                    chunks = bounded(response.aiter_bytes())
                    if response.status_code != 200:
                        body = b"".join([chunk async for chunk in chunks]).decode("utf-8", "replace")
                        asked = retry_after(response.headers.get("retry-after"))
                        return failure_of_status(self.server, response.status_code, body), asked
                    answer, reader = Answer(), EventReader()
                    if stream:
                        async for piece in events(chunks, reader):
                            answer.feed(piece)
                    else:
                        answer.feed(read_object(b"".join([chunk async for chunk in chunks]), "the answer"))
                    answer.ended = reader.ended or not stream
                    return answer, None
        except UsageError:
            raise
        except Exception as error:
            return failure_of_exception(self.server, error, self.request_timeout), None


def in_background(
    items: Sequence[T], answer: Callable[[Any, T], Awaitable[Outcome]], asker: Asker, timeout: float | None
) -> Iterator[tuple[int, Outcome]]:
    """(position, await answer(client, item)) of each item, as they finish. timeout: seconds for all together.

    Items are begun in their order as the pace admits. Those not done when the time is over are Failure(timeout). A UsageError of one
    ends all.
    """
    box: queue.SimpleQueue[tuple[int, Outcome] | BaseException | None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None] = queue.SimpleQueue()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        ready.put((asyncio.get_running_loop(), task))
        await _all(items, answer, asker, timeout, box.put)

    def body() -> None:
        everything = work()
        try:
            asyncio.run(everything)
        except asyncio.CancelledError:
            box.put(None)
        except BaseException as error:
            box.put(error)
        else:
            box.put(None)
        finally:
            everything.close()
            ready.put(None)  # where not even a loop could be made, as without descriptors left

    thread = threading.Thread(target=body, name="kleval-server", daemon=True)
    thread.start()
    running = ready.get()
    try:
        while (got := box.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got
    finally:
        if running is not None and thread.is_alive():
            loop, task = running
            with contextlib.suppress(RuntimeError):  # it ended in this moment
                loop.call_soon_threadsafe(task.cancel)
            thread.join(LEAVE_SECONDS)


async def _all(
    items: Sequence[T],
    answer: Callable[[Any, T], Awaitable[Outcome]],
    asker: Asker,
    timeout: float | None,
    put: Callable[[tuple[int, Outcome]], None],
) -> None:
    asker.pace.begin()
    waiting = set(range(len(items)))
    failed: list[UsageError] = []
    places = asyncio.Semaphore(2 * asker.pace.most)  # more than may be in flight: some wait for their 429 to pass

    async def one(client: Any, position: int) -> None:
        try:
            outcome = await answer(client, items[position])
        except UsageError as error:
            failed.append(error)
            everything.cancel()
            return
        except Exception as error:
            outcome = failure_of_exception(asker.server, error, asker.request_timeout)
        finally:
            places.release()
        waiting.discard(position)
        put((position, outcome))

    async def each() -> None:
        async with asker.client() as client, asyncio.TaskGroup() as group:
            for position in range(len(items)):
                await places.acquire()
                group.create_task(one(client, position))

    everything = asyncio.ensure_future(each())
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await everything
    except asyncio.CancelledError:
        if not failed:
            raise
    if failed:
        raise failed[0]
    for position in sorted(waiting):
        put((position, Failure("timeout", f"not answered within {timeout:g} seconds of all requests (--timeout)")))
