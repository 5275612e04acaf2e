"""Law of the reference: another function of the same weights is seen, whichever part of the model it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kleval.backends.registry import open_backend
from kleval.verify.engine import Engine
from kleval.verify.judge import Finding, Judge
from kleval.verify.laws import LAWS, harmless
from kleval.verify.model import write_model
from kleval.verify.plan import Plan

Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]


def _swapped(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".layers.1." in name]:
        other = name.replace(".layers.1.", ".layers.2.")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def _of(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def apply(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            tensors[name] = change(tensors[name]).contiguous()

    return apply


CHANGES: dict[str, Change] = {
    "layer pattern": _swapped,
    "gate form": lambda config, tensors: config["linear_attn_config"].update(gate_lower_bound=-5.0),
    "norm epsilon": lambda config, tensors: config.update(rms_norm_eps=1e-3),
    "router bias": _of("e_score_correction_bias", torch.zeros_like),
    "router scale": lambda config, tensors: config.update(routed_scaling_factor=1.0),
    "convolution reversed": _of("conv1d", lambda taps: taps.flip(-1)),
    "head tied": lambda config, tensors: tensors.update(
        {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("reference") / "whole", max_ctx=2048, experts=8)


def changed(whole: Path, folder: Path, change: Change) -> Path:
    shutil.copytree(whole, folder)
    file, weights = folder / "config.json", folder / "model.safetensors"
    config, tensors = json.loads(file.read_text("utf-8")), load_file(weights)
    change(config, tensors)
    file.write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def against(
    engine: Path, reference: Path, backend: str = "native", dtypes: tuple[str, str] = ("float32", "float32")
) -> Finding:
    asked = Engine.of(open_backend(str(engine), "native", dtype=dtypes[0]))
    asked.reference = Engine.of(open_backend(str(reference), backend, dtype=dtypes[1]))
    judge = Judge(asked, Plan(230), 1e-3, n_checks=150)
    judge.measure(harmless.cases(asked, judge.plan)[:4])
    return judge.try_law(LAWS["reference"])


@pytest.mark.parametrize("name", CHANGES)
def test_another_function_is_seen(name: str, whole: Path, tmp_path: Path) -> None:
    assert against(changed(whole, tmp_path / "other", CHANGES[name]), whole).verdict == "broken"


def test_the_same_files_are_the_same_function(whole: Path) -> None:
    assert against(whole, whole).verdict == "holds"


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_reference_of_another_dtype_leaves_undecided_what_rounding_may_be(
    dtypes: tuple[str, str], whole: Path
) -> None:
    found = against(whole, whole, dtypes=dtypes)
    assert found.verdict == "undecided"
    assert any("give one of the same (--dtype)" in why for why in found.untold)


@pytest.mark.slow
def test_transformers_reads_the_same_function_from_these_files(whole: Path) -> None:
    pytest.importorskip("transformers")
    assert against(whole, whole, "hf").verdict == "holds"
