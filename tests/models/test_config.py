"""Configurations: what differs between architectures, and what a bad one says."""

from __future__ import annotations

import json

import pytest

from kleval.models.config import ARCHITECTURES, SIZES, ModelConfig, preset
from kleval.types import UsageError


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_a_config_survives_json(architecture: str, size: str) -> None:
    config = preset(architecture, size, vocab_size=100, eos_token_id=3)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_architectures_differ_in_mixers_and_positions_alone() -> None:
    kimi = preset("kimi-linear", "nano").to_dict()
    for architecture in ARCHITECTURES:
        other = preset(architecture, "nano").to_dict()
        different = {name for name in kimi if kimi[name] != other[name]}
        assert different <= {"architecture", "layer_mixers", "mla_use_nope"}
    assert preset("gdn-h", "nano").layer_mixers == ("gdn", "gdn", "gdn", "mla")
    assert preset("mla", "nano").layer_mixers == ("mla",) * 4
    assert [preset(a, "nano").mla_use_nope for a in ARCHITECTURES] == [True, False, True, False]


def test_positions_can_be_switched() -> None:
    config = preset("mla", "nano", mla_use_nope=True, rope_theta=5e5)
    assert (config.mla_use_nope, config.rope_theta) == (True, 5e5)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean kimi-linear"):
        preset("kimi-linaer", "nano")


def test_unknown_size_names_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"nano, 48b-a3b"):
        preset("mla", "7b")


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
