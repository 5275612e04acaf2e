"""`kleval doctor`: what this machine has, what is missing, and the one line that installs it.

A check is ok, missing something optional, or broken; only what every run needs can be broken.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from kleval.cli import options
from kleval.cli.console import emit
from kleval.packages import install_line, origin, plugins, unreadable
from kleval.text import size
from kleval.types import UsageError

REQUIRED = (
    "antlr4", "filelock", "h11", "httpx2", "huggingface_hub", "jinja2", "math_verify", "matplotlib", "nltk", "numpy", "packaging",
    "pandas", "plotly", "psutil", "pydantic", "rich", "sacrebleu", "safetensors", "scipy", "tiktoken", "tokenizers", "tree_sitter",
    "tree_sitter_cpp", "tree_sitter_java", "tree_sitter_python", "tree_sitter_rust", "tree_sitter_typescript", "wonderwords", "yaml",
)  # fmt: skip
EXTRAS = {
    "gpu": ("triton", "fla"),
    "hf": ("transformers",),
    "vllm": ("vllm",),
    "lm-eval": ("lm_eval", "datasets"),
    "ray": ("ray",),
    "data": ("pyarrow",),
}
# Made in kleval/models/nano: sha256sum tokenizer*.json */config.json */model.safetensors
WEIGHTS_SUMS = Path(__file__).with_name("nano.sha256")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: Literal["ok", "optional", "broken"]
    detail: str


@click.command(short_help="Say what this machine has and what is missing.")
@options.data_dir
@options.json_output
def doctor(data_dir: Path | None, as_json: bool) -> int:
    """Check Python, torch, memory, disk, GPU, shipped weights, optional extras and data files.

    Exit code 0 unless something that every run needs is broken.
    """
    broken = 0
    for check in checks(data_dir):
        broken += check.state == "broken"
        if as_json:
            emit("check", **asdict(check))
        else:
            mark = {"ok": "ok     ", "optional": "-      ", "broken": "BROKEN "}[check.state]
            click.echo(f"{mark} {check.name:<16} {check.detail}")
    if as_json:
        emit("done", ok=not broken)
    return 1 if broken else 0


def checks(data_dir: Path | None) -> Iterator[Check]:
    """Every check, as it is made."""
    for make in (_python, _packages, _torch, _cpu, _native, _memory, _disk, _gpu):
        yield from _guarded(make)
    yield from _guarded(_weights)
    yield from _extras()
    yield from _guarded(_plugins)
    yield from _guarded(lambda: _data(data_dir))


def _guarded(make: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    name = getattr(make, "__name__", "check").lstrip("_")
    try:
        yield from make()
    except Exception as error:
        yield Check(name, "broken", f"{type(error).__name__}: {' '.join(str(error).split())}")


def _python() -> Iterator[Check]:
    enough = sys.version_info >= (3, 11)
    wants = "" if enough else ", kleval needs 3.11 or newer"
    yield Check("python", "ok" if enough else "broken", f"{platform.python_version()} on {platform.platform()}{wants}")


def _packages() -> Iterator[Check]:
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        yield Check(
            "packages",
            "broken",
            f"{', '.join(missing)} not installed; in a checkout: pip install -c locks/kleval.txt -e .",
        )
    else:
        yield Check("packages", "ok", f"all {len(REQUIRED)} required packages")


def _torch() -> Iterator[Check]:
    import torch

    product = torch.ones(2, 3) @ torch.ones(3, 2)
    right = bool((product == 3).all())
    yield Check("torch", "ok" if right else "broken", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cpu() -> Iterator[Check]:
    import psutil

    from kleval.store.machine import cpu_name, usable_cores

    cores = psutil.cpu_count(logical=False)
    yield Check("cpu", "ok", f"{cpu_name()}, {cores or '?'} cores, {usable_cores()} usable threads")


def _native() -> Iterator[Check]:
    from kleval.ops.native.build import cache_folder
    from kleval.ops.native.loading import native, why_not

    library = native()
    if library is None:
        yield Check("native", "optional", f"models run in plain torch on the CPU, several times slower: {why_not()}")
    else:
        yield Check("native", "ok", f"{library}, in {cache_folder()}")


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    yield Check("memory", "ok", f"{size(memory.available)} available of {size(memory.total)}")


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    writable = os.access(Path.cwd(), os.W_OK)
    detail = f"{size(free)} free here" + ("" if writable else "; this directory cannot be written: use --out")
    yield Check("disk", "ok" if free > 1 << 28 else "optional", detail)


def _gpu() -> Iterator[Check]:
    import torch

    if not torch.cuda.is_available():
        yield Check("gpu", "optional", "none that torch can use: models run on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Check("gpu", "ok", f"cuda:{index} {properties.name}, {size(properties.total_memory)}")


def _weights() -> Iterator[Check]:
    import kleval.models
    from kleval.models.registry import MODELS

    shipped = [spec.name for spec in MODELS.values() if spec.path is not None]
    wrong = damaged(Path(kleval.models.__file__).parent / "nano", WEIGHTS_SUMS)
    if not shipped or wrong:
        detail = f"{', '.join(wrong)} missing or not as released" if wrong else "none in this installation"
        yield Check("weights", "broken", f"{detail}: install kleval again")
    else:
        yield Check("weights", "ok", f"{', '.join(shipped)}; hashes as released")


def damaged(folder: Path, sums: Path) -> list[str]:
    """The files of folder that sums (as sha256sum writes it) names and that are missing or different."""
    wrong = []
    for line in sums.read_text("utf-8").splitlines():
        digest, name = line.split(maxsplit=1)
        file = folder / name
        if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            wrong.append(name)
    return wrong


def _extras() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield Check(f"extra {extra}", "optional", f"not installed: {install_line(extra)}")
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(modules))


def _plugins() -> Iterator[Check]:
    """Tasks and backends of other packages. One that cannot be used breaks nothing else."""
    from kleval.backends import registry as backends
    from kleval.tasks import registry as tasks

    for package in unreadable():
        yield Check("plugins", "optional", f"{package} brings nothing: its entry points cannot be read")
    for registry, kind, ours in ((tasks, "task", tasks.TASKS), (backends, "backend", backends.BACKENDS)):
        for name, plugin in plugins(registry.GROUP).items():
            try:
                used = tasks.make_task if kind == "task" else backends.find_opener
                used(name)
                taken = f", not used: {name} is kleval's own" if name in ours else ""
                yield Check(f"{kind} {name}", "optional" if taken else "ok", f"of {origin(plugin)}{taken}")
            except UsageError as error:
                yield Check(f"{kind} {name}", "optional", str(error))


def _data(data_dir: Path | None) -> Iterator[Check]:
    from kleval.tasks.assets import ASSETS
    from kleval.tasks.data import data_folder, verify

    for family in ASSETS:
        files = verify(family, data_dir)
        good = sum(status.state == "ok" for status in files)
        folder = data_folder(family, data_dir)
        if good == len(files):
            yield Check(f"data {family}", "ok", f"all {good} official files in {folder}")
        else:
            gets = f"kleval data fetch {family} gets the others; the builtin edition needs none"
            yield Check(f"data {family}", "optional", f"{good} of {len(files)} official files in {folder}: {gets}")
