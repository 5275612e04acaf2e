"""Models by name and by folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from kleval.models.decoder import Decoder
from kleval.models.registry import MODELS, config_of, load, load_model_tokenizer, resolve, weights_digest
from kleval.types import UsageError


@pytest.fixture
def folder(tmp_path: Path, tiny_decoder: Callable[..., Decoder]) -> Path:
    decoder = tiny_decoder("kimi-linear").float()
    Tokenizer(models.WordLevel({"<|eos|>": 0, "a": 1}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(decoder.config.to_dict()), encoding="utf-8")
    save_file({n: p.contiguous() for n, p in decoder.named_parameters()}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_bare_architecture_is_its_nano_size() -> None:
    assert resolve("kimi-linear") is MODELS["kimi-linear@nano"]


def test_every_name_resolves_and_has_a_config() -> None:
    for name, spec in MODELS.items():
        assert resolve(name) == spec
        assert config_of(spec).architecture == spec.architecture


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("kimi-linaer", "did you mean kimi-linear"),
        ("mla@nanoo", "nano, 0.1b, 1b, 48b-a3b"),
        ("kimi@nano", "did you mean"),
        ("zzzzzz", "kimi-linear, kimi-linear-rope, gdn-h, mla"),
    ],
)
def test_an_unknown_name_says_what_there_is(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        resolve(name)


@pytest.mark.parametrize("name", ["kimi-linear@48b-a3b", "mla@48b-a3b"])
def test_a_model_without_weights_cannot_be_scored(name: str) -> None:
    with pytest.raises(UsageError, match="weights are not shipped"):
        load(resolve(name))


def test_a_folder_loads_and_gives_its_weights(folder: Path, tiny_decoder: Callable[..., Decoder]) -> None:
    decoder, tokenizer = load(resolve(str(folder)))
    expected = dict(tiny_decoder("kimi-linear").float().named_parameters())
    assert all(torch.equal(p, expected[n]) for n, p in decoder.named_parameters())
    assert tokenizer.eos_id == 0
    assert not decoder.training
    assert len(weights_digest(resolve(str(folder)))) == 64


def test_the_tokenizer_may_be_shared_one_level_up(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(below / name)
    assert load_model_tokenizer(str(below)).vocab_size == 2


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"hidden_size": 32}))
    with pytest.raises(UsageError, match=r"embed_tokens.weight has shape \[50, 16\], config.json asks for \[50, 32\]"):
        load(resolve(str(folder)))


def test_cut_off_weights_are_one_clear_line(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"model\.safetensors cannot be read") as error:
        load(resolve(str(folder)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("missing", "text"), [("config.json", "no config.json"), ("model.safetensors", "no model.saf")]
)
def test_a_folder_without_a_file_says_which(folder: Path, missing: str, text: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(UsageError, match=text):
        load(resolve(str(folder)))


def test_a_config_that_is_not_json_is_one_clear_line(folder: Path) -> None:
    (folder / "config.json").write_text("{oops")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        resolve(str(folder))
