"""A native profile: models of this package with random weights, measured in this process. A Job of kleval.work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from kleval.files import usage_errors
from kleval.profiler.building import WEIGHTS
from kleval.profiler.environment import machine_settings
from kleval.profiler.judge import caveats, checks, noise, sharing
from kleval.profiler.opened import Device, Facts, Say
from kleval.profiler.plan import Plan, make_plan
from kleval.profiler.points import PlannedPoint, point_verdict
from kleval.profiler.side_by_side import Devices
from kleval.profiler.workload import ProfileSpec, unique_lengths
from kleval.store import Point, RunStore
from kleval.text import plural
from kleval.types import UsageError
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.executors import find_launcher
from kleval.work.loop import OnEvent
from kleval.work.pool import Launcher


def profile(spec: ProfileSpec, on_event: OnEvent = lambda event: None, launcher: Launcher | None = None) -> Result:
    """Measure what spec says, continuing what its run directory already holds: `kleval.work.work` says how it ends.

    launcher: of the processes that measure, each on a device of its own; none: this one does.
    UsageError besides: what is asked cannot be measured, told before anything is allocated.
    """
    return work(NativeJob(spec, launcher), on_event)


def launched(spec: ProfileSpec) -> tuple[ProfileSpec, Launcher | None]:
    """A spec as this process has it, which plans for the first device, and what starts the processes that it names, if any."""
    launcher = find_launcher(spec.executor, spec.devices, spec.ray_address, spec.gpus_per_model, spec.device)
    return replace(spec, device=spec.devices[0]) if spec.devices else spec, launcher


class NativeJob(Job):
    """Points of prefill, decode and memory, models in turn: on one device here, or a group at a time on each of several."""

    spec: ProfileSpec
    in_seconds = True
    plan: Plan
    opened: Facts

    def __init__(self, spec: ProfileSpec, launcher: Launcher | None = None) -> None:
        super().__init__(spec)
        self.limit_seconds = None if spec.repeats else spec.time_budget
        self._launcher = None if spec.dry_run else launcher
        self.side_by_side = self._launcher is not None
        self._devices: Devices | None = None

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        """Find the models' shapes and the device, and see that they fit into its memory; nothing is allocated in this process."""
        spec, self._old = self.spec, old
        with contextlib.ExitStack() as stack:
            if self._launcher is not None:
                self._devices = stack.enter_context(contextlib.closing(Devices(self._launcher, spec)))
                self.opened, threads = self._devices.open(), self._devices.threads_here()
            else:
                self._device = Device(spec)
                self.opened, threads = self._device.facts, {}
            self.models = {name: {} for name in self.opened.configs}
            self.environment = self.opened.environment
            self.told = {
                "models": list(self.opened.configs),
                "ctx": list(unique_lengths(spec.ctxs)),
                "batch": [str(batch) for batch in spec.batches],
                "prefill": spec.prefill,
                "decode_tokens": spec.decode_tokens,
                "repeats": spec.repeats,
                "memory_budget": spec.memory_budget,
                "time_budget": spec.time_budget,
                "chunk_tokens": self.opened.chunk,
                "device": self.opened.device,
                "dtype": self.opened.dtype,
                "seed": spec.seed,
                **machine_settings({**self.environment, **threads}),
            }
            yield

    def units(self, say: Say) -> tuple[PlannedPoint, ...]:
        """Build the models and see how fast they are; the plan is that of the first session if there was one."""
        spec, opened = self.spec, self.opened
        if spec.out is not None and not spec.dry_run:
            with usage_errors(spec.out):  # before models are built for nothing
                spec.out.mkdir(parents=True, exist_ok=True)
        if self._devices is None:
            self._device.try_out(say)
        if self._old is not None and not spec.dry_run:
            try:
                self.plan = Plan.from_record(self._old.manifest["plan"])
            except (KeyError, TypeError) as error:
                raise UsageError(f"{spec.out}/run.json has no plan that can be read: give another --out") from error
            if spec.append:
                self.plan = self.plan.another_session(self._old)
        else:
            self.plan = make_plan(
                spec, opened.configs, opened.rates, opened.dtype, opened.chunk, opened.budget, opened.device
            )
        return self.plan.points

    def facts(self) -> dict[str, Any]:
        return {
            "dtype": self.opened.dtype,
            "models": {
                name: {
                    "name": name,
                    "weights": WEIGHTS,
                    "config": config.to_dict(),
                    "parameters": config.parameters(),
                    "active_parameters": config.active_parameters(),
                    "rates": self.opened.rates[name].record(),
                }
                for name, config in self.opened.configs.items()
            },
            "plan": self.plan.record(),
            "unmeasured": list(self.plan.unmeasured),
            "seeds": {"seed": self.spec.seed},
            "caveats": [*self.plan.notes, *caveats(self.opened.configs)],
        }

    def measure(self, group: Sequence[PlannedPoint], session: Session) -> Iterator[tuple[PlannedPoint, Point]]:
        if self._devices is not None:
            return self._devices.measure(group, self.plan.points, session)
        return self._device.points(group, self.plan.points, session)

    def verdict(self, session: Session) -> Verdict:
        """With what the points say of noise, and of sampling against full runs."""
        points = list(session.store.points())
        (spreads, noisy), (errors, checked) = noise(points), checks(points)
        # The plan's own word on sampling makes way for what the checks found.
        stale = ("Noisy", "Sampled", "Slower", "Side by side", "Threads", *(("sampled prefill",) if checked else ()))
        kept = [text for text in session.store.manifest["caveats"] if not text.startswith(stale)]
        left_out = len(session.left_out)
        if left_out:
            kept.append(
                f"Slower than planned: left out when the time budget was spent: {plural(left_out, 'repeat')}; the same command on this "
                "directory measures what is missing."
            )
        more = {"session": {"workers": self._devices.record()}} if self._devices is not None else {}
        return point_verdict(
            session,
            left_out,
            caveats=[*kept, *noisy, *checked, *sharing(points)],
            noise=spreads,
            sampling_checks=errors,
            **more,
        )
