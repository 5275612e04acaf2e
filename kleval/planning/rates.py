"""Rates that a plan goes by: those that the rows of profiles reached, else a share of what a datasheet promises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kleval.models.config import ModelConfig
from kleval.models.costs import Costs, Split
from kleval.models.registry import costs_of
from kleval.profiler.hardware import Hardware, of_device, parse_hardware
from kleval.profiler.memory import MAX_COUNT, Formats
from kleval.profiler.speeds import ASSUMED_SHARES, Measured, Speed, at_shares, of_others
from kleval.store import RunStore
from kleval.tables.costs import Measure, Profile, read_profile
from kleval.types import UsageError


class Rows:
    """Profiles that were given: the machine that they were made on, and the rates of each model in them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._profiles = [read_profile(RunStore.open(folder)) for folder in folders]
        self._measured = [(p, m) for p in self._profiles for m in _measured(p)]
        self.used: tuple[str, ...] = ()
        for profile in self._profiles:
            if not any(p is profile for p, _ in self._measured):
                what = (
                    "is of a served model: give one of kleval's own decoders"
                    if profile.of("served")
                    else "has no prompt or no decode step that could be timed"
                )
                raise UsageError(f"--measured {profile.path} {what}")

    @property
    def machine(self) -> Hardware | None:
        """One device of what the first was made on."""
        if not self._profiles:
            return None
        gpu = _gpu(self._profiles[0])
        if gpu is None:
            return self.cpu
        return parse_hardware(of_device(gpu) or gpu)

    @property
    def cpu(self) -> Hardware | None:
        for profile in self._profiles:
            if _gpu(profile) is None:
                environment = next(iter(profile.environments), {})
                memory = int(environment.get("memory_bytes") or 0)
                return Hardware("cpu", 1, memory, source=str(environment.get("cpu") or "a CPU"))
        return None

    def check(self, machine: Hardware) -> None:
        """UsageError where a profile was made on something else, or two on machines that differ."""
        if len(made := {_machine(profile): profile for profile in self._profiles}) > 1:
            told = " and ".join(f"{profile.path} on {of}" for of, profile in made.items())
            raise UsageError(f"--measured: {told}: give profiles of one machine")
        for profile in self._profiles:
            gpu = _gpu(profile)
            name = "cpu" if gpu is None else of_device(gpu) or gpu
            if name != machine.name:
                raise UsageError(
                    f"--measured {profile.path} was made on {gpu or 'a CPU'}, which says nothing of {machine.name}: leave one out"
                )

    def speeds(
        self, name: str, config: Costs, machine: Hardware, formats: Formats, split: Split
    ) -> tuple[tuple[Speed, ...], str]:
        """The fastest and the slowest that is planned with, or the one that was measured; and what they are from."""
        own = [m for _, m in self._measured if m.model == name and split.devices == 1 and formats == Formats(m.dtype)]
        if own:
            measured = own[0]
            for more in own[1:]:
                measured = measured.joined(more)
            self._use(measured)
            paths = ", ".join(dict.fromkeys(str(p.path) for p, m in self._measured if m in own))
            return (measured,), f"measured: {paths}, {len(measured.names)} rows of {name}"
        if self._measured:
            for _, measured in self._measured:
                self._use(measured)
            others = ", ".join(dict.fromkeys(m.model for _, m in self._measured))
            rates = of_others(config, formats, split, [m for _, m in self._measured])
            on = f" on {split.devices} devices" if split.devices > 1 else ""
            kinds = ", ".join(dict.fromkeys(kind for kind in (formats.dtype, formats.weights, formats.kv) if kind))
            return rates, (
                f"a range: the highest and lowest rates that rows of {others} reached; none is of {name} in {kinds}{on}"
            )
        best, worst = ASSUMED_SHARES
        basis = (
            f"a range, nothing was measured: an assumed {worst:.0%} to {best:.0%} of {machine.flops_per_second / 1e12:,.0f} TFLOP/s"
            f" (bfloat16, dense) and {machine.bytes_per_second / 1e12:,.3g} TB/s per device ({machine.source})"
        )
        return at_shares(config, formats, split, machine), basis

    def most_batch(self, speed: Speed, ctx: int) -> int:
        return speed.most_batch(ctx) if isinstance(speed, Measured) else MAX_COUNT

    def _use(self, measured: Measured) -> None:
        self.used = tuple(dict.fromkeys((*self.used, *measured.names)))


def _gpu(profile: Profile) -> str | None:
    environment = next(iter(profile.environments), {})
    gpu = environment.get("gpu") or profile.get("settings", "hardware")
    return str(gpu) if gpu else None


def _machine(profile: Profile) -> str:
    """What tells machines apart in a line: the processor or GPU, and how many threads it was used with."""
    environment = next(iter(profile.environments), {})
    return _gpu(profile) or f"{environment.get('cpu') or 'a CPU'}, {environment.get('threads')} threads"


def _measured(profile: Profile) -> list[Measured]:
    """Of each model whose shape is known here and of which both a prompt and a step were timed."""
    found = []
    for name in profile.models:
        mine = [m for m in profile.measures if m.model == name and m.kind in ("prefill", "decode") and not m.failed]
        mine.sort(key=lambda m: m.estimate, reverse=True)  # what ran in full counts over what was estimated
        mine = list({(m.kind, m.ctx, m.batch): m for m in mine}.values())
        prompts = {m.ctx: m.value for m in mine if m.kind == "prefill"}
        steps = {(m.ctx, m.batch): m.value * m.batch / 1000 for m in mine if m.kind == "decode"}
        if prompts and steps:
            try:
                _, config = costs_of(name)
            except UsageError:  # a folder that is not here; the profile holds its shape
                config = ModelConfig.from_dict(profile.get("models", name, "config", default={}))
            dtype = str(mine[0].first.settings.get("dtype", "bfloat16"))
            names = tuple(_row(profile, m) for m in mine)
            found.append(Measured(name, config, dtype, prompts, steps, names))
    return found


def _row(profile: Profile, measure: Measure) -> str:
    return f"{profile.path}: {measure.kind}/{measure.protocol}/{measure.model}/{measure.ctx}/{measure.batch}"
