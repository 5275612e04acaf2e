"""Tokens that end an answer: the tokenizer's own and those of generation_config.json, whichever comes first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.registry import open_backend
from kleval.models.checkpoint.config_json import eos_ids
from kleval.types import Completion, Request


@pytest.mark.parametrize("backend", ["native", "hf", "vllm"])
def test_the_tokenizers_end_and_the_generation_configs_both_end_an_answer(
    tmp_path: Path, hf_folder: Callable[[str], Path], fake_vllm: None, backend: str
) -> None:
    folder = Path(shutil.copytree(hf_folder("kimi_linear"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())

    def answer(own: int, named: int) -> Completion:
        token = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        text = next(text for text, i in token.items() if i == own)
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": text}))
        (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": named}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
        opened: Any = open_backend(str(folder), backend=backend, device="cpu")
        [(_, got)] = opened.run([Request("generate", "", token_ids=(65,), max_new_tokens=8)])
        assert isinstance(got, Completion)
        return got

    whole = answer(256, 256)
    assert whole.finish_reason == "length"
    for own, named in ((whole.token_ids[0], 256), (256, whole.token_ids[0])):
        got = answer(own, named)
        assert (got.finish_reason, got.token_ids) == ("eos", whole.token_ids[:1])


def test_the_end_of_a_model_for_pictures_too_may_stand_in_its_part_for_text(tmp_path: Path) -> None:
    """Gemma 3 and Llama 4, where generation_config.json is not there."""
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": [1, 106]}}))
    assert eos_ids(tmp_path, 2) == (1, 106, 2)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3, "text_config": {"eos_token_id": 1}}))
    assert eos_ids(tmp_path) == (3,)
