"""Hardware by name, `8xH200`: how many devices, the memory of each, and what its datasheet promises (`hardware.toml`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kleval import files
from kleval.types import UsageError

_OTHERS = {"laptop", "mig", "nvl", "pcie"}  # of a name that is known without: less memory, or slower
_NAME = re.compile(r"(?:(\d+)\s*x\s*)?(\S.*)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Hardware:
    """devices: of the kind `name`. memory_bytes: of one. flops_per_second, bytes_per_second: of one, by its datasheet `source`; 0 where
    there is none."""

    name: str
    devices: int
    memory_bytes: int
    flops_per_second: float = 0.0
    bytes_per_second: float = 0.0
    source: str = ""

    @property
    def words(self) -> str:
        return f"{self.devices}x {self.name}" if self.devices > 1 else self.name


HARDWARE: dict[str, Hardware] = {
    name: Hardware(name, 1, of["mebibytes"] << 20, of["teraflops"] * 1e12, of["gigabytes_per_second"] * 1e9, of["of"])
    for name, of in files.packaged("profiler/hardware.toml").items()
}


def parse_hardware(text: str, here: Hardware | None = None) -> Hardware:
    """`8xH200`, `4 x a100-80gb`, `h100`. here: what `cpu` is. UsageError, naming what is known, for anything else."""
    match = _NAME.fullmatch(text.strip())
    known = {**HARDWARE, **({"cpu": here} if here else {})}
    name = match[2].strip().lower().replace(" ", "-") if match else ""
    if match is None or name not in known:
        more = "; cpu, with --measured DIR of a profile made on it" if here is None else ""
        raise UsageError(f"unknown hardware {text!r}: write 8xh200 or one of {', '.join(known)}{more}")
    devices = int(match[1] or 1)
    if not 1 <= devices <= 1 << 20:
        raise UsageError(f"--hardware {text}: {devices} devices run nothing; write 8x{name}")
    return replace(known[name], devices=devices)


def of_device(reported: str) -> str:
    """The name here of a GPU as its driver calls it (`NVIDIA H200`), "" for one that is not known, a part of one, or a kin of it."""
    words = set(re.split(r"[^a-z0-9]+", reported.lower()))
    if words & _OTHERS:
        return ""
    return max((name for name in HARDWARE if words.issuperset(name.split("-"))), key=len, default="")
