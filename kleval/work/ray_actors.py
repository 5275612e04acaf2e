"""Workers as actors on a Ray cluster: one per GPUs of a model on every node, or one per node where there is no GPU.

Ray places the actors, carries jobs and results, tells of those that died and ends all of them when the driver's connection ends,
however that happens. Nodes that join get actors; of a node that leaves the work goes to others. kleval must be installed on every
node, in the same version, with the engine and the model's weights where the driver has them.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kleval.packages import need
from kleval.types import UsageError
from kleval.work.pool import Link, Place
from kleval.work.worker import Dead, Make, Reply, Setting, Worker

REACH_SECONDS = 5.0  # for the address to answer, then for what answers to be a cluster


class RayActors:
    """address: `auto`, HOST:PORT, `local` for a cluster of this machine alone that ends with the command. gpus: of each actor; None: 1
    where the cluster has any. UsageError where Ray is not installed, or there is no cluster at the address."""

    kind = "ray"

    def __init__(self, address: str, gpus: float | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise UsageError(f"--gpus-per-model {gpus:g}: above 1 give a whole number")
        if address != "local":  # of a cluster that is there; a second each, read when Ray is imported
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "4")
        self._ray = need("ray", "ray", "--executor ray")
        _connect(self._ray, address)
        n_gpus = [node["Resources"].get("GPU", 0.0) for node in self._nodes()]
        self._gpus = float(any(n_gpus)) if gpus is None else gpus  # decided once: nodes may go and come
        if self._gpus > max(n_gpus, default=0.0):
            there = f"give --gpus-per-model {max(n_gpus):g} or less" if any(n_gpus) else "it has none, leave it out"
            raise UsageError(f"no node of the Ray cluster has {self._gpus:g} GPUs: {there}")
        self._actor = self._ray.remote(max_restarts=0, max_task_retries=0)(Worker)

    def places(self) -> Sequence[Place]:
        gpus, found = self._gpus, []
        for node in self._nodes():
            n = node["Resources"].get("GPU", 0.0)
            here = node["NodeManagerAddress"]
            threads = int(os.environ.get("OMP_NUM_THREADS", node["Resources"].get("CPU", 0))) if not gpus else 0
            for slot in range(int(n / gpus) if gpus else 1):
                name = f"{here} ({node['NodeID'][:6]})" + (f", GPU {slot}" if gpus else "")
                found.append(Place((node["NodeID"], slot), name, "cuda" if gpus else "cpu", threads))
        return found

    def _nodes(self) -> list[Mapping[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def start(self, place: Place, make: Make) -> Link:
        node = cast(tuple[str, int], place.id)[0]
        gpus = 0.0 if place.device == "cpu" else self._gpus
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options = {
            "num_cpus": 0,
            "num_gpus": gpus,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }
        return _Actor(self._ray, self._actor.options(**options).remote(make, place.device, Setting(place.threads)))

    def wait(self, links: Sequence[Any], seconds: float) -> Sequence[Any]:
        waited = {link.replies[0]: link for link in links if link.replies}
        if not waited:
            return ()
        ready, _ = self._ray.wait(list(waited), num_returns=1, timeout=seconds)
        if ready:  # and what else is there by now
            ready, _ = self._ray.wait(list(waited), num_returns=len(waited), timeout=0)
        return [waited[reference] for reference in ready]


class _Actor:
    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self.replies: deque[Any] = deque([actor.open.remote()])

    def send(self, payloads: Sequence[Any]) -> None:
        self.replies.append(self._actor.work.remote(payloads))

    def receive(self) -> Reply:
        errors = self._ray.exceptions
        try:
            reply: Reply = self._ray.get(self.replies.popleft())
        except errors.OutOfMemoryError as error:
            raise Dead(f"was ended by Ray, as its node ran out of memory: {_line(error)}", True) from None
        except errors.RayError as error:
            with_node = isinstance(error, errors.NodeDiedError) or "node has died" in str(error)
            raise Dead(f"is gone: {_line(error)}", "out of memory" in str(error).lower(), with_node) from None
        return reply

    def close(self, idle: bool) -> None:
        with contextlib.suppress(Exception):
            if idle:
                self._ray.get(self._actor.close.remote(), timeout=REACH_SECONDS)
            self._ray.kill(self._actor)


def _line(error: BaseException) -> str:
    """What Ray says, short: its first sentence, and how the process ended."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    ended = [
        line
        for line in lines
        if line.startswith(("Worker exit detail", "Worker exit type", "The actor is dead because"))
    ]
    return " ".join((ended or lines or [type(error).__name__])[:1])[:300]


def _connect(ray: Any, address: str) -> None:
    """A notebook's own connection is used as it is."""
    if ray.is_initialized():
        return
    start = "start one with `ray start --head`, or work on this machine's devices with --devices"
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), REACH_SECONDS).close()
        except OSError as error:
            raise UsageError(f"no Ray cluster at {address} ({error}): {start}") from error
    try:
        ray.init(address=address, logging_level="ERROR", log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        raise UsageError(f"no Ray cluster at {address}: {start}") from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"--ray-address {address}: {' '.join(str(error).split())[:300]}") from error
