"""Executors: where a command's work is done besides this process, as the command line says it."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.types import UsageError
from kleval.work.pool import Launcher

EXECUTORS = ("local", "ray")


def find_launcher(
    executor: str = "local",
    devices: Sequence[str] = (),
    ray_address: str | None = None,
    gpus_per_model: float | None = None,
    device: str = "auto",
    served: bool = False,
) -> Launcher | None:
    """What starts workers; None: the work is done in this process.

    devices: one process for each, on this machine. executor `ray`: actors on the cluster at ray_address (`auto`: the one that this
    machine is part of), each with gpus_per_model GPUs (None: one where the cluster has any). device: of this process, where it was
    named. served: whether a server answers. UsageError for what is not there, and what does not go together.
    """
    if executor not in EXECUTORS:
        raise UsageError(f"unknown executor {executor!r}: choose one of {', '.join(EXECUTORS)}")
    for name, there in (("devices", bool(devices)), ("executor ray", executor == "ray")):
        if there and served:
            raise UsageError(
                f"--{name} is for engines that kleval opens itself; of a server raise --concurrency instead"
            )
        if there and device != "auto":
            raise UsageError(f"--device is of one process: leave it out, or leave out --{name}")
    if executor == "ray":
        if devices:
            raise UsageError("--devices names devices of this machine: leave it out, Ray finds the cluster's")
        from kleval.work.ray_actors import RayActors

        return RayActors(ray_address or "auto", gpus_per_model)
    for name, value in (("ray-address", ray_address), ("gpus-per-model", gpus_per_model)):
        if value is not None:
            raise UsageError(f"--{name} is for --executor ray: add it")
    if not devices:
        return None
    from kleval.work.processes import Processes

    return Processes(devices)
