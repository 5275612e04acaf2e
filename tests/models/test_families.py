"""Shapes of other families: transformers' own modules and caches, Kimi K3 by hand and as llama.cpp reads it, published totals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.models.checkpoint.families import FAMILIES, read_shape
from kleval.models.costs import Split
from kleval.models.number_formats import matrix_bytes
from kleval.models.published import FOLDER, PUBLISHED, Shape
from kleval.models.registry import costs_of
from kleval.types import UsageError

TOKENS = 11
LAYER_TYPES = ["linear_attention"] * 3 + ["full_attention"]
BASE = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "pad_token_id": 0}
MLA = {
    "kv_lora_rank": 12,
    "q_lora_rank": 20,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "num_key_value_heads": 4,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "intermediate_size": 40,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 40}
INDEX = {"index_n_heads": 2, "index_head_dim": 8, "index_topk": 8}
GDN = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
    "linear_conv_kernel_dim": 4,
}
KDA = {"linear_num_heads": 2, "linear_head_dim": 8, "linear_conv_kernel_dim": 4}
KIMI = {
    "linear_attn_config": {
        "num_heads": 2,
        "head_dim": 8,
        "short_conv_kernel_size": 4,
        "kda_layers": [1, 2],
        "full_attn_layers": [3],
    }
}
SMALL: dict[str, dict[str, Any]] = {
    "llama": {**GROUPED, "num_hidden_layers": 2, "attention_bias": True},
    "mistral": {**GROUPED, "num_hidden_layers": 2, "sliding_window": 6},
    "qwen2": {**GROUPED, "num_hidden_layers": 2},
    "qwen3": {**GROUPED, "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"], "sliding_window": 5}
    | {"use_sliding_window": True},
    "qwen3_moe": {**GROUPED, **MOE, "num_hidden_layers": 2},
    "gpt_oss": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 3, "sliding_window": 5},
    "qwen3_5_text": {**GROUPED, **GDN, "num_hidden_layers": 4, "full_attention_interval": 4},
    "qwen3_5_moe_text": {**GROUPED, **GDN, **MOE, "num_hidden_layers": 4, "shared_expert_intermediate_size": 16},
    "qwen3_next": {**GROUPED, **GDN, **MOE, "num_hidden_layers": 4, "shared_expert_intermediate_size": 16},
    "deepseek_v3": {**MLA, **ROUTED, "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "deepseek_v32": {**MLA, **ROUTED, **INDEX, "num_hidden_layers": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1},
    "glm_moe_dsa": {**MLA, **ROUTED, **INDEX, "num_hidden_layers": 3, "first_k_dense_replace": 1}
    | {"indexer_types": ["full", "shared", "full"]},
    "glm5_next_text": {**MLA, **ROUTED, **INDEX, **KDA, "num_hidden_layers": 4, "qk_rope_head_dim": 0, "index_kpool": 4}
    | {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "hc_mult": 2},
    "kimi_linear": {**MLA, **MOE, **KIMI, "num_hidden_layers": 3, "q_lora_rank": None, "first_k_dense_replace": 1}
    | {"num_shared_experts": 1, "intermediate_size": 40, "tie_word_embeddings": False},
}  # fmt: skip


def write(folder: Path, family: str, **fields: Any) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps({"model_type": family, **fields}))
    return file


def small(folder: Path, family: str, **fields: Any) -> Shape:
    return read_shape(write(folder, family, **{**BASE, **SMALL[family], **fields}))


def their_model(family: str, plain_module: Callable[[str], Any]) -> Any:
    module = plain_module(family.removesuffix("_text"))
    names = [name for name in vars(module) if name.endswith("ForCausalLM")] or ["Glm5NextTextModel"]
    kind = getattr(module, names[0])
    config = kind.config_class(**BASE, **SMALL[family], attn_implementation="eager")
    return kind(config).eval()


def their_bytes(cache: Any) -> dict[str, int]:
    """Numbers of a transformers cache by kind, in bytes."""
    found: Counter[str] = Counter()

    def add(kind: str, tensors: Any) -> None:
        for x in tensors.values() if isinstance(tensors, dict) else tensors if isinstance(tensors, list) else [tensors]:
            found[kind] += 0 if x is None else x.numel() * x.element_size()

    for layer in cache.layers:
        for name in ("keys", "values"):
            add("rows", getattr(layer, name, None))
        add("index", getattr(layer, "indexer_keys", None))
        add("conv", getattr(layer, "conv_states", None))
        add("recurrent", getattr(layer, "recurrent_states", None))
    return dict(found)


@pytest.mark.parametrize("family", SMALL)
def test_state_and_parameters_are_those_of_transformers(
    family: str, plain_module: Callable[[str], Any], tmp_path: Path
) -> None:
    model, ours = their_model(family, plain_module), small(tmp_path, family)
    with torch.no_grad():
        output = model(torch.ones(2, TOKENS, dtype=torch.long), use_cache=True)
    theirs = their_bytes(output.get("past_key_values", output.get("cache")))
    state, taps = ours.state_bytes(TOKENS, 2, "float32"), 4
    assert state.latent + state.grouped == theirs["rows"]
    assert (state.index, state.recurrent) == (theirs["index"], theirs["recurrent"])
    assert state.conv * taps == theirs["conv"] * (taps - 1)  # theirs keeps the newest input once more
    buffers = sum(b.numel() for n, b in model.state_dict().items())
    head = 0 if hasattr(model, "lm_head") else ours.parameters_by_component()["lm_head"]
    assert ours.parameters() == buffers + head


def test_every_family_is_tried_or_read_like_one_that_is() -> None:
    like = {"kimi_k3", "kimi_k2", "glm5_next", "qwen3_5", "qwen3_5_moe"}
    assert set(FAMILIES) == set(SMALL) | like


@pytest.mark.parametrize(
    ("name", "total", "active"), [("deepseek-v3", 671.0, 37), ("qwen3.5-35b-a3b", 34.7, 3), ("llama-3.1-70b", 70.6, 70)]
)
def test_published_models_have_as_many_parameters_as_they_say(name: str, total: float, active: int) -> None:
    shape = costs_of(name)[1]
    assert (round(shape.parameters() / 1e9, 1), round(shape.active_parameters() / 1e9)) in [
        (total, active),
        (total, active - 1),
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures_say_where_they_were_read(name: str) -> None:
    assert len(json.loads((FOLDER / PUBLISHED[name]).read_text())["_source"]) > 40


def test_kimi_k3_by_hand() -> None:
    """69 KDA layers of 96 heads of 128, 24 MLA layers of 512 + 64, 92 layers of 896 experts in 3584 dimensions."""
    shape = costs_of("kimi-k3")[1]
    state = shape.state_bytes(1000)
    assert state.latent == 24 * 1000 * 576 * 2
    assert state.recurrent == 69 * 96 * 128 * 128 * 4
    assert state.conv == 69 * 3 * 96 * 128 * 3 * 2
    parts = shape.parameters_by_component()
    inner = 96 * 128
    assert parts["experts"] == 92 * 896 * 3 * 3584 * 3072
    assert parts["shared_experts"] == 92 * (3 * 7168 * 6144 + 2 * 7168 * 3584 + 3584)
    assert parts["linear_attention"] == 69 * (
        5 * 7168 * inner + 7168 * 96 + 7168 * 128 + 128 * inner + 3 * inner * 4 + 96 + inner + 128
    )
    assert parts["mla"] == 24 * (
        7168 * 1536 + 1536 * 96 * 192 + 1536 + 7168 * 576 + 512 + 512 * 96 * 256 + 2 * 96 * 128 * 7168
    )
    assert parts["residual"] == 93 * 4 * 7168 + 2 * 7168
    assert (round(shape.parameters() / 1e12, 2), round(shape.active_parameters() / 1e9)) == (2.78, 104)


def test_kimi_k3_as_llama_cpp_reads_it() -> None:
    """`conversion/kimi_k3.py` writes keys, `llama_hparams` makes numbers of state of them (llama-cpp-python 0.3.36's source):
    n_embd_s = kda_head_dim^2 heads and n_embd_r = 3 (ssm_conv_kernel - 1) heads kda_head_dim per recurrent layer, float32;
    key_length = kv_lora_rank + qk_rope_head_dim per token and layer with a key-value head, of which the values are a part."""
    shape = costs_of("kimi-k3")[1]
    text = json.loads((FOLDER / PUBLISHED["kimi-k3"]).read_text())["text_config"]
    linear, heads = text["linear_attn_config"], text["num_attention_heads"]
    kv_heads = [1 if i + 1 in linear["full_attn_layers"] else 0 for i in range(text["num_hidden_layers"])]
    key_length = text["kv_lora_rank"] + text["qk_rope_head_dim"]
    n_embd_s = linear["head_dim"] ** 2 * heads
    n_embd_r = 3 * (linear["short_conv_kernel_size"] - 1) * heads * linear["head_dim"]
    state = shape.state_bytes(4096, dtype="float32")
    assert state.latent == sum(kv_heads) * key_length * 4096 * 4
    assert (state.recurrent, state.conv) == tuple(kv_heads.count(0) * n * 4 for n in (n_embd_s, n_embd_r))


def test_fp8_rows_gain_less_where_recurrent_states_keep_their_dtype() -> None:
    hybrid, dense = costs_of("kimi-k3")[1], costs_of("deepseek-v3")[1]

    def gain(shape: Any) -> float:
        return shape.state_bytes(4096).total / shape.state_bytes(4096, form="fp8").total

    assert gain(dense) == 2
    assert gain(hybrid) < 1.2
    assert hybrid.state_bytes(4096, form="fp8").recurrent == hybrid.state_bytes(4096).recurrent


def test_formats_are_bits_and_their_scales() -> None:
    numbers = 128 * 128 * 6
    assert [
        matrix_bytes(numbers, form, "bfloat16", routed=True) / numbers for form in ("bfloat16", "int4", "mxfp4")
    ] == [2, 4.5 / 8, 4.25 / 8]
    assert matrix_bytes(numbers, "fp8", "bfloat16") == numbers + 6 * 4
    assert matrix_bytes(numbers, "mxfp4", "bfloat16") == 2 * numbers  # not an expert's


@pytest.mark.parametrize("name", PUBLISHED)
def test_devices_hold_all_of_a_model_and_what_they_hold_in_common_more_often(name: str) -> None:
    shape = costs_of(name)[1]
    whole, part = shape.weight_bytes(), shape.weight_bytes(split=Split(8))
    assert whole < 8 * part < 1.15 * whole
    state, cut = shape.state_bytes(1000), shape.state_bytes(1000, split=Split(8))
    assert (cut.latent, cut.index) == (state.latent, state.index)
    assert (8 * cut.recurrent, 8 * cut.conv) == (state.recurrent, state.conv)
    kv_heads = {layer.mixer.kv_heads for layer in shape.layers() if hasattr(layer.mixer, "kv_heads")}
    assert cut.grouped * min(8, *kv_heads, 8) == state.grouped


def test_ranks_beyond_the_key_value_heads_hold_one_each() -> None:
    shape = costs_of("llama-3.1-70b")[1]
    matrices = 80 * 8192 * 128 * 2 * 2
    assert (
        16 * shape.weight_bytes(split=Split(16)) - 8 * shape.weight_bytes(split=Split(8))
        == 8 * matrices + 8 * 161 * 8192 * 2
    )


def test_experts_alone_are_dealt_out_where_copies_serve_sequences_of_their_own() -> None:
    shape = costs_of("deepseek-v3")[1]
    experts = shape.parameters_by_component()["experts"] * 2
    rest = shape.weight_bytes() - experts
    assert shape.weight_bytes(split=Split(1, 8)) == rest + experts // 8
    assert shape.state_bytes(1000, 16, split=Split(1, 8)).total == shape.state_bytes(1000, 2).total


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Split(5), "--tp 5 does not divide the 128 heads of its mla layers"),
        (Split(8, 12), "one must be a multiple of the other"),
        (Split(1, 3), "does not divide its 256 experts"),
        (Split(0), "both are at least 1"),
    ],
)
def test_a_split_that_does_not_divide_is_refused(split: Split, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        costs_of("deepseek-v3")[1].weight_bytes(split=split)


@pytest.mark.parametrize(
    ("family", "fields", "said"),
    [
        ("mamba2", {}, "model_type is 'mamba2', whose costs kleval does not know"),
        ("llama", {"cross_layer_kv": 2}, "cross_layer_kv is unknown"),
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ("llama", {"hidden_size": "32"}, "hidden_size is '32': expected a whole number"),
        ("llama", {"vocab_size": None}, "vocab_size is missing"),
        ("mistral", {"sliding_window": -4}, "sliding_window is -4"),
        ("qwen3_5_text", {"layer_types": ["full_attention"] * 4}, "layer_types contradicts linear_attn_config or full_attention"),
        ("qwen3_5_text", {"layer_types": ["mamba"] * 4}, "layer_types is no list of 4 times"),
        ("deepseek_v3", {"num_experts": 8}, "fields contradict each other: num_experts is 8, n_routed_experts is 4"),
        ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads is 2: kleval counts 4 only"),
        ("deepseek_v3", {"first_k_dense_replace": None}, "neither first_k_dense_replace nor mlp_layer_types"),
        ("deepseek_v3", {"num_experts_per_tok": 9}, "num_experts_per_token 9 is more than the 4 experts"),
        ("kimi_linear", {"linear_attn_config": {"kda_layers": [1, 2]}}, "do not name each of 3 layers once"),
        ("glm5_next_text", {"linear_attn_config": {"kda_layers": [3]}, "layer_types": LAYER_TYPES}, "and layer_types contradict"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_name(
    family: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        read_shape(write(tmp_path, family, **{**BASE, **SMALL.get(family, {}), **fields}))


def test_two_places_that_say_different_things_are_refused(tmp_path: Path) -> None:
    text = {**BASE, **SMALL["qwen3_5_text"], "model_type": "qwen3_5_text"}
    file = write(tmp_path, "qwen3_5", hidden_size=64, text_config=text)
    with pytest.raises(UsageError, match=r"hidden_size is 64, but text_config\.hidden_size is 32"):
        read_shape(file)
