"""A configuration as JSON, in published words, and what a bad one says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.models.sizes import SIZES, preset
from kleval.types import UsageError


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_a_config_survives_json(architecture: str, size: str) -> None:
    config = preset(architecture, size)
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert (again, again.bos_token_id, again.pad_token_id) == (config, config.bos_token_id, config.pad_token_id)


def test_layers_are_counted_from_one() -> None:
    config = replace(preset("gdn-h", "nano"), layer_mixers=("gdn", "mla", "gdn"))
    assert (config.kda_layers, config.full_attn_layers) == ((1, 3), (2,))


def test_tokens_that_the_decoder_does_not_read_make_no_other_model() -> None:
    config = preset("mla", "nano")
    assert replace(config, bos_token_id=5) == config != replace(config, eos_token_id=5)
    assert "bos_token_id" not in config.to_dict()


@pytest.mark.parametrize(
    "change", [{"hidden": 3}, {"layer_mixers": ["lstm"]}, {"architecture": "gpt"}, {"layer_mixers": []}]
)
def test_a_wrong_field_is_a_usage_error(change: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="model config"):
        ModelConfig.from_dict(preset("mla", "nano").to_dict() | change)


def test_a_missing_field_is_a_usage_error() -> None:
    values = preset("mla", "nano").to_dict()
    del values["hidden_size"]
    with pytest.raises(UsageError, match="hidden_size"):
        ModelConfig.from_dict(values)
