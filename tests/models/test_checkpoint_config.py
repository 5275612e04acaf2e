"""config.json of both kinds, and every way in which one can contradict itself or ask for what is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.models.checkpoint.config_json import eos_ids, read_config
from kleval.models.checkpoint.layout import transformers_config
from kleval.models.config import ModelConfig
from kleval.models.sizes import preset
from kleval.types import UsageError

# The fields of moonshotai/Kimi-Linear-48B-A3B-Instruct's config.json.
PUBLISHED: dict[str, Any] = {
    "architectures": ["KimiLinearForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_kimi.KimiLinearConfig"},
    "bos_token_id": 163584,
    "dtype": "bfloat16",
    "eos_token_id": 163586,
    "first_k_dense_replace": 1,
    "head_dim": 72,
    "hidden_act": "silu",
    "hidden_size": 2304,
    "initializer_range": 0.02,
    "intermediate_size": 9216,
    "kv_lora_rank": 512,
    "linear_attn_config": {
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "head_dim": 128,
        "kda_layers": [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15, 17, 18, 19, 21, 22, 23, 25, 26],
        "num_heads": 32,
        "short_conv_kernel_size": 4,
    },
    "mla_use_nope": True,
    "model_max_length": 1048576,
    "model_type": "kimi_linear",
    "moe_intermediate_size": 1024,
    "moe_layer_freq": 1,
    "moe_renormalize": True,
    "moe_router_activation_func": "sigmoid",
    "num_attention_heads": 32,
    "num_expert_group": 1,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_hidden_layers": 27,
    "num_key_value_heads": 32,
    "num_nextn_predict_layers": 0,
    "num_shared_experts": 1,
    "pad_token_id": 163839,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "routed_scaling_factor": 2.446,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "transformers_version": "4.57.0",
    "use_cache": True,
    "use_grouped_topk": True,
    "v_head_dim": 128,
    "vocab_size": 163840,
}
LAYER_TYPES = ["full_attention" if i in (4, 8, 12, 16, 20, 24, 27) else "linear_attention" for i in range(1, 28)]
LINEAR = PUBLISHED["linear_attn_config"]


def read(folder: Path, values: dict[str, Any]) -> ModelConfig:
    (folder / "config.json").write_text(json.dumps(values))
    return read_config(folder)


def changed(**changes: Any) -> dict[str, Any]:
    """PUBLISHED with fields replaced; ... removes one."""
    return {k: v for k, v in {**PUBLISHED, **changes}.items() if v is not ...}


def by_transformers() -> dict[str, Any]:
    """The same model as transformers writes it: another word for the pattern, none for NoPE."""
    return changed(
        linear_attn_config=...,
        mla_use_nope=...,
        first_k_dense_replace=...,
        layer_types=LAYER_TYPES,
        mlp_layer_types=["dense"] + ["sparse"] * 26,
        linear_head_dim=128,
        linear_num_heads=32,
        linear_conv_kernel_dim=4,
    )


def test_the_published_config_is_the_48b_preset(tmp_path: Path) -> None:
    assert read(tmp_path, PUBLISHED) == preset("kimi-linear", "48b-a3b")


def test_the_config_of_transformers_is_the_same_model(tmp_path: Path) -> None:
    assert read(tmp_path, by_transformers()) == read(tmp_path, PUBLISHED)


def test_what_is_written_for_transformers_reads_back(tmp_path: Path) -> None:
    config = preset("kimi-linear", "48b-a3b")
    assert read(tmp_path, transformers_config(config, "bfloat16")) == config
    assert read(tmp_path, transformers_config(config, "bfloat16") | {"layer_types": None}) == config


def test_fields_that_change_no_function_are_read_past(tmp_path: Path) -> None:
    more = {
        "num_nextn_predict_layers": 1,
        "unsloth_version": "1",
        "_name_or_path": "x",
        "sliding_window": None,
        "use_mla": False,
    }
    assert read(tmp_path, PUBLISHED | more) == read(tmp_path, PUBLISHED)


def test_a_model_without_linear_layers_is_mla_without_rotation(tmp_path: Path) -> None:
    values = by_transformers() | {"layer_types": ["full_attention"] * 27}
    config = read(tmp_path, {k: v for k, v in values.items() if not k.startswith("linear_")})
    assert config.architecture == "mla"
    assert config.mla_use_nope


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"q_lora_rank": 1536}, "q_lora_rank is 1536"),
        ({"num_expert_group": 8}, "num_expert_group is 8"),
        ({"topk_group": 4}, "topk_group is 4"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"mla_use_nope": False}, "mla_use_nope is False"),
        ({"moe_router_activation_func": "softmax"}, "moe_router_activation_func is 'softmax'"),
        ({"moe_renormalize": False}, "moe_renormalize is False"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "rope_scaling is"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters has rope_type 'yarn'"),
        ({"rope_parameters": {"type": "yarn", "factor": 4}}, "rope_parameters has rope_type 'yarn'"),
        ({"kda_layers": [1, 2, 3]}, "kda_layers is unknown"),
        ({"short_conv_kernel_size": 8}, "short_conv_kernel_size is unknown"),
        ({"num_heads": 8}, "num_heads is unknown"),
        ({"quantization": {"quant_method": "x", "bits": 4}}, "quantization_config is x"),
        ({"use_short_conv": False}, "use_short_conv is False"),
        ({"linear_attn_config": {**LINEAR, "use_beta_sigmoid": False}}, "use_beta_sigmoid is unknown"),
        ({"swiglu_limit": 7.0}, "swiglu_limit is 7.0"),
        ({"sliding_window": 4096}, "sliding_window is 4096"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ({"kda_lower_bound": 5.0}, "gate_lower_bound is 5.0"),
        ({"embedding_multiplier": 12}, "embedding_multiplier is unknown"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is fp8: kleval's decoder reads plain"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "--backend hf, --backend vllm or a server"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config is gptq"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantized by MLX, whose server runs them (mlx_lm.server)"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"linear_attn_config": {**LINEAR, "safe_gate": True}}, "safe_gate is True, but gate_lower_bound is None"),
        ({"linear_attn_config": {**LINEAR, "expand_v": 2}}, "linear_attn_config.expand_v is unknown"),
        ({"num_key_value_heads": 8}, "num_key_value_heads differs"),
    ],
)
def test_what_the_decoder_does_not_implement_is_refused_by_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    refused(tmp_path, changed(**changes), said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (changed(linear_attn_config=...), "neither linear_attn_config"),
        (changed(linear_attn_config={"head_dim": 128, "num_heads": 32}), "neither linear_attn_config"),
        (changed(linear_attn_config={**LINEAR, "full_attn_layers": None}), "full_attn_layers is missing"),
        (changed(linear_attn_config={**LINEAR, "full_attn_layers": [4, 8]}), "has layer 12 neither in"),
        (changed(linear_attn_config={**LINEAR, "kda_layers": list(range(27))}), "names layer 0 twice or out of range"),
        (changed(linear_attn_config={**LINEAR, "full_attn_layers": [4, 4]}), "names layer 4 twice"),
        (changed(linear_attn_config=3), "linear_attn_config is not an object"),
        (changed(layer_types=[*LAYER_TYPES[1:], "linear_attention"]), "contradict each other at layer 3 of 27"),
        (changed(layer_types=LAYER_TYPES[1:]), "layer_types is no list of 27"),
        (changed(layer_types=["sliding_attention"] * 27), "layer_types is no list"),
        (changed(linear_num_heads=16), "linear_num_heads is 16, linear_attn_config.num_heads is 32"),
        (changed(num_local_experts=8), "num_experts is 256, num_local_experts is 8"),
        (changed(first_k_dense_replace=...), "neither first_k_dense_replace nor mlp_layer_types"),
        (changed(mlp_layer_types=["dense"] * 2 + ["sparse"] * 25), "first_k_dense_replace is 1"),
        (changed(mlp_layer_types=["sparse"] * 26 + ["dense"]), "with the dense ones first"),
        (changed(hidden_size=...), "hidden_size is missing"),
        (changed(hidden_size="2304"), "hidden_size is '2304'"),
        (changed(hidden_size=-1), "hidden_size is -1"),
        (changed(kv_lora_rank=0), "kv_lora_rank is 0"),
        (changed(rms_norm_eps="1e-5"), "rms_norm_eps is '1e-5'"),
        (changed(tie_word_embeddings=...), "tie_word_embeddings is missing"),
        (changed(num_experts_per_token=300), "num_experts_per_token is not between"),
        (changed(rms_norm_eps=float("nan")), "rms_norm_eps is nan"),
        (changed(hidden_size=10**30), "kleval takes numbers up to"),
        (changed(hidden_size=2**31 - 1, vocab_size=2**31 - 1), "one of its numbers must be wrong"),
        (changed(num_hidden_layers=10**9), "has layer 28 neither in"),
        (changed(layer_types=[[]] * 27), "layer_types is no list"),
    ],
)
def test_what_is_missing_wrong_or_contradictory_is_said(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    refused(tmp_path, values, said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "unknown architecture 'llama'"),
        ({"architectures": ["Qwen3NextForCausalLM"]}, "unknown architecture"),
        ({"architecture": "kimi-linear"}, "missing"),
        (preset("mla", "nano").to_dict() | {"hidden_size": "128"}, "hidden_size is '128': expected a whole number"),
        (preset("mla", "nano").to_dict() | {"mla_use_nope": 1}, "mla_use_nope is 1: expected true or false"),
        (preset("mla", "nano").to_dict() | {"rank": 1}, "unknown field 'rank'"),
        (preset("mla", "nano").to_dict() | {"layer_mixers": None}, "layer_mixers is None: expected a list"),
        (preset("mla", "nano").to_dict() | {"num_attention_heads": 0}, "num_attention_heads is 0"),
        (preset("mla", "nano").to_dict() | {"rms_norm_eps": float("inf")}, "rms_norm_eps is inf"),
        (preset("mla", "nano").to_dict() | {"qk_rope_head_dim": 5}, "must be even"),
        (preset("mla", "0.1b").to_dict() | {"num_experts_per_token": 99}, "num_experts_per_token is not between"),
        (preset("kimi-linear", "nano").to_dict() | {"kda_gate_lower_bound": 5.0}, "gate_lower_bound is 5.0"),
        (preset("kimi-linear", "nano").to_dict() | {"kda_gate_lower_bound": "-5"}, "gate_lower_bound is '-5'"),
        (preset("kimi-linear", "nano").to_dict() | {"num_hidden_layers": 99}, "num_hidden_layers is 99, but"),
    ],
)
def test_other_models_and_broken_configs_of_ours_are_refused(values: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, values)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{oops", "cannot be read as JSON"), ("[]", "is not a JSON object"), ("[" * 99999, "cannot be read as JSON")],
)
def test_a_config_that_is_no_object_is_one_clear_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_config(tmp_path)


def test_the_end_of_an_answer_is_the_generation_configs_then_the_configs(tmp_path: Path) -> None:
    assert read(tmp_path, changed(eos_token_id=[7, 8])).eos_token_id == 7
    assert eos_ids(tmp_path) == (7, 8)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 9}')
    assert eos_ids(tmp_path) == (9,)
    (tmp_path / "generation_config.json").write_text("{}")
    assert eos_ids(tmp_path) == (7, 8)
    read(tmp_path, changed(eos_token_id=...))
    assert eos_ids(tmp_path) == ()


def test_the_tokenizers_own_end_is_one_beside_those_of_the_configs(tmp_path: Path) -> None:
    read(tmp_path, changed(eos_token_id=7))
    assert eos_ids(tmp_path, 5) == (7, 5)
    assert eos_ids(tmp_path, 7) == (7,)
    read(tmp_path, changed(eos_token_id=...))
    assert eos_ids(tmp_path, 5) == (5,)


def refused(folder: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        read(folder, values)
    message = str(error.value)
    assert said in message
    assert message.startswith(str(folder / "config.json"))
    assert "\n" not in message
