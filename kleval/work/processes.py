"""Workers as processes of this machine, one per device named.

A process is started afresh, in a session of its own: Ctrl-C in the terminal reaches its driver alone, which ends it. It dies with its
driver however that ends, since it reads from it all the time, and takes what it started itself along.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any

from kleval.store.machine import usable_cores
from kleval.types import UsageError
from kleval.work.pool import Link, Place
from kleval.work.worker import Dead, Make, Reply, Setting, Worker, visible_device

CLOSE_SECONDS = 10.0


class Processes:
    """devices: of the workers, as `--device` takes them; one may be named more than once. UsageError for what is not there."""

    kind = "processes"

    def __init__(self, devices: Sequence[str]) -> None:
        if not devices:
            raise UsageError("no device given: write --devices cuda:0,cuda:1")
        from kleval.backends.devices import find_device

        found = [find_device(name) for name in devices]
        n_cpu = sum(device.type == "cpu" for device in found)
        own = "OMP_NUM_THREADS" in os.environ
        threads = 0 if own or not n_cpu else max(1, usable_cores() // n_cpu)
        seen: Counter[str] = Counter()
        self._places = []
        for at, device in enumerate(found):
            seen[str(device)] += 1
            name = str(device) if seen[str(device)] == 1 else f"{device} ({seen[str(device)]})"
            self._places.append(Place(at, name, str(device), threads if device.type == "cpu" else 0))

    def places(self) -> Sequence[Place]:
        return self._places

    def start(self, place: Place, make: Make) -> Link:
        kind, _, index = place.device.partition(":")
        # A worker sees its device alone and calls it cuda:0.
        visible = visible_device(int(index)) if kind == "cuda" and index else None
        return _Process(make, kind, Setting(place.threads, visible))

    def wait(self, links: Sequence[Any], seconds: float) -> Sequence[Any]:
        ready = set(map(id, wait([link.connection for link in links], seconds)))
        return [link for link in links if id(link.connection) in ready]


class _Process:
    def __init__(self, make: Make, device: str, setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, device, setting))
        self._process.start()
        there.close()
        atexit.register(self.close, False)

    def send(self, payloads: Sequence[Any]) -> None:
        try:
            self.connection.send(payloads)
        except OSError:
            raise self._dead() from None

    def receive(self) -> Reply:
        try:
            reply: Reply = self.connection.recv()
        except (EOFError, OSError):
            raise self._dead() from None
        return reply

    def close(self, idle: bool) -> None:
        atexit.unregister(self.close)
        if idle:
            with contextlib.suppress(OSError):
                self.connection.send(None)
            self._process.join(CLOSE_SECONDS)
        self._end()
        self.connection.close()

    def _dead(self) -> Dead:
        self._process.join(CLOSE_SECONDS)
        code = self._process.exitcode
        self._end()
        if code is None or code >= 0:
            return Dead(f"ended with exit code {code}")
        named = signal.Signals(-code).name
        return Dead(f"was ended by {named}" + (" (out of memory?)" if named == "SIGKILL" else ""))

    def _end(self) -> None:
        """The process, if it is still there, and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, make: Make, device: str, setting: Setting) -> None:
    """What a process does."""
    os.setsid()
    os.dup2(2, 1)  # what an engine prints is no result of the command
    inbox: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    worker = Worker(make, device, setting)
    connection.send(worker.open())
    while (payloads := inbox.get()) is not None:
        connection.send(worker.work(payloads))
    worker.close()


def _read(connection: Connection, inbox: SimpleQueue[Any]) -> None:
    """Reads all the time, so that the driver never waits for a worker at work, and its end is noticed."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
