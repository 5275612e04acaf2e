"""The named sizes: the published shape field by field, and what the sizes between are for."""

from __future__ import annotations

import pytest

from kleval.models.config import ARCHITECTURES
from kleval.models.sizes import SIZES, preset
from kleval.types import UsageError

# moonshotai/Kimi-Linear-48B-A3B-Instruct at e1df551a: what its config.json says of the model.
PUBLISHED = {
    "hidden_size": 2304,
    "num_hidden_layers": 27,
    "intermediate_size": 9216,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 72,
    "vocab_size": 163840,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "max_position_embeddings": 1048576,
    "tie_word_embeddings": False,
    "bos_token_id": 163584,
    "eos_token_id": 163586,
    "pad_token_id": 163839,
    "rope_theta": 10000.0,
    "mla_use_nope": True,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "kda_head_dim": 128,
    "kda_num_heads": 32,
    "short_conv_kernel_size": 4,
    "kda_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26],
    "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_shared_experts": 1,
    "moe_intermediate_size": 1024,
    "moe_router_activation_func": "sigmoid",
    "moe_renormalize": True,
    "routed_scaling_factor": 2.446,
    "use_grouped_topk": True,
    "num_expert_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 0,
}


def test_the_published_shape_field_by_field() -> None:
    described = preset("kimi-linear", "48b-a3b").describe()
    assert {name: described[name] for name in PUBLISHED} == PUBLISHED
    assert set(described) - set(PUBLISHED) == {"architecture", "layer_mixers", "embedding_multiplier"}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_architectures_differ_in_mixers_and_positions_alone(architecture: str, size: str) -> None:
    kimi, other = (preset(a, size).to_dict() for a in ("kimi-linear", architecture))
    assert {name for name in kimi if kimi[name] != other[name]} <= {"architecture", "layer_mixers", "mla_use_nope"}


@pytest.mark.parametrize("size", SIZES)
def test_mixers_and_positions_of_the_architectures(size: str) -> None:
    kimi, rope, gdn, mla = (preset(a, size) for a in ("kimi-linear", "kimi-linear-rope", "gdn-h", "mla"))
    assert kimi.layer_mixers == rope.layer_mixers
    assert tuple("kda" if m == "gdn" else m for m in gdn.layer_mixers) == kimi.layer_mixers
    assert set(mla.layer_mixers) == {"mla"}
    assert [c.mla_use_nope for c in (kimi, rope, gdn, mla)] == [True, False, True, False]
    assert kimi.layer_mixers[-1] == "mla"
    assert kimi.layer_mixers[:4] == ("kda", "kda", "kda", "mla")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("size", "parameters"), [("0.1b", 0.1e9), ("1b", 1e9), ("48b-a3b", 49e9)])
def test_a_size_is_about_what_it_is_called(architecture: str, size: str, parameters: float) -> None:
    assert preset(architecture, size).parameters() == pytest.approx(parameters, rel=0.1)


def test_another_vocabulary_has_no_special_tokens_of_the_published_one() -> None:
    config = preset("kimi-linear", "48b-a3b", vocab_size=100, eos_token_id=3)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, 3, None)


def test_positions_can_be_switched() -> None:
    config = preset("mla", "nano", mla_use_nope=True, rope_theta=5e5)
    assert (config.mla_use_nope, config.rope_theta) == (True, 5e5)


def test_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean kimi-linear"):
        preset("kimi-linaer", "nano")


def test_unknown_size_names_what_there_is() -> None:
    with pytest.raises(UsageError, match=r"nano, 0\.1b, 1b, 48b-a3b"):
        preset("mla", "7b")
