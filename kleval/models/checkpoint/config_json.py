"""config.json of a model folder, of both kinds: kleval's own, and `kimi_linear` as published and as transformers >= 5.17 writes it.

The published kind says which layers are MLA in `linear_attn_config` (`kda_layers`, `full_attn_layers`, counted from 1), transformers in
`layer_types`. transformers fills in a pattern of its own when both are missing, which is not the published one; here that is an error,
and so is any contradiction between two fields that say the same. What the decoder does not implement is refused by the field's name.
transformers has no field for the position encoding of its Kimi Linear: it is NoPE, and `mla_use_nope` need not be there.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kleval.models.checkpoint.formats import check_weights
from kleval.models.config import ModelConfig
from kleval.types import UsageError

MODEL_TYPE = "kimi_linear"
ARCHITECTURE = "KimiLinearForCausalLM"
K3_MODEL_TYPE = "kimi_k3"
MAX_NUMBER = 2**31 - 1
MAX_PARAMETERS = 2**50
_MAY_BE_ZERO = (
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "num_experts",
    "num_experts_per_token",
    "num_shared_experts",
    "moe_intermediate_size",
    "first_k_dense_replace",
)
# names of KDA's gates, at the top and in linear_attn_config (fla-core, Kimi K3, transformers' GLM-5.3-Flash)
_BOUND = ("gate_lower_bound", "lower_bound", "kda_lower_bound", "linear_lower_bound")
_GATES = (*_BOUND, "safe_gate", "use_full_rank_gate")
_LINEAR = ("head_dim", "num_heads", "short_conv_kernel_size", "kda_layers", "full_attn_layers", *_GATES)

# field of ModelConfig -> its names in config.json; where several are given they must agree
_NUMBERS = {
    "vocab_size": ("vocab_size",),
    "hidden_size": ("hidden_size",),
    "num_attention_heads": ("num_attention_heads",),
    "qk_nope_head_dim": ("qk_nope_head_dim",),
    "qk_rope_head_dim": ("qk_rope_head_dim",),
    "v_head_dim": ("v_head_dim",),
    "kv_lora_rank": ("kv_lora_rank",),
    "intermediate_size": ("intermediate_size",),
    "max_position_embeddings": ("model_max_length", "max_position_embeddings"),
}
_LINEAR_NUMBERS = {
    "kda_num_heads": ("linear_num_heads", "linear_attn_config.num_heads"),
    "kda_head_dim": ("linear_head_dim", "linear_attn_config.head_dim"),
    "short_conv_kernel_size": ("linear_conv_kernel_dim", "linear_attn_config.short_conv_kernel_size"),
}
_EXPERT_NUMBERS = {
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "num_experts_per_token": ("num_experts_per_token", "num_experts_per_tok"),
    "num_shared_experts": ("num_shared_experts", "n_shared_experts"),
    "moe_intermediate_size": ("moe_intermediate_size",),
}
# field -> the values that mean what the decoder does; a field that is not there means the same
_ONLY: dict[str, tuple[Any, ...]] = {
    "mla_use_nope": (True,),
    "q_lora_rank": (None,),
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "rope_scaling": (None,),
    "swiglu_limit": (None, False),
    "sliding_window": (None, False),
    "final_logit_softcapping": (None, False),
    "attn_logit_softcapping": (None, False),
    "allow_neg_eigval": (False, None),
    "use_short_conv": (True, None),
    "conv_bias": (False, None),
    "moe_router_activation_func": ("sigmoid",),
    "scoring_func": ("sigmoid",),
    "topk_method": ("noaux_tc",),
    "moe_layer_freq": (1,),
    "moe_renormalize": (True,),
    "norm_topk_prob": (True,),
    "num_expert_group": (1, None),
    "n_group": (1, None),
    "topk_group": (1, None),
}
# Read below, or nothing that a decoder is made of; layers that predict further tokens (num_nextn_predict_layers) are not loaded.
_OTHER = {
    *("num_hidden_layers", "rms_norm_eps", "routed_scaling_factor", "tie_word_embeddings", "num_key_value_heads", "layer_types"),
    *("mlp_layer_types", "first_k_dense_replace", "linear_attn_config", "rope_parameters", "rope_theta", "use_grouped_topk"),
    *("eos_token_id", "bos_token_id", "pad_token_id", "architectures", "auto_map", "model_type", "dtype", "torch_dtype"),
    *("head_dim", "qk_head_dim", "initializer_range", "use_cache", "pretraining_tp", "attention_dropout", "ep_size"),
    *("output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "chunk_size_feed_forward"),
    *("is_encoder_decoder", "id2label", "label2id", "problem_type", "num_nextn_predict_layers", "aux_loss_alpha", "seq_aux"),
    *("router_aux_loss_coef", "tokenizer_class", "quantization_config", "quantization"),
}  # fmt: skip


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. UsageError when the file is missing or anything else."""
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{file.parent} is not a model folder: it has no {file.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file} is not a JSON object")
    return values


class ForeignArchitecture(UsageError):
    """A config.json of a model that kleval has no decoder for."""


def read_config(folder: Path) -> ModelConfig:
    """The model that the config.json of a folder describes. UsageError when it is missing or says what kleval cannot do."""
    file = folder / "config.json"
    values = read_json(file)
    named = values.get("architectures") or []
    if values.get("model_type") == MODEL_TYPE or (isinstance(named, list) and ARCHITECTURE in named):
        check_weights(file, values)
        try:
            config = _Reader(values).config()
        except UsageError as error:
            raise UsageError(f"{file}: {error}") from None
        return _checked(config, file)
    if values.get("model_type") == K3_MODEL_TYPE:
        raise ForeignArchitecture(f"{file}: {not_implemented(values)}; --backend vllm runs it")
    if "model_type" in values or named:
        what = values.get("model_type") or named
        raise ForeignArchitecture(
            f"{file}: unknown architecture {what!r}: kleval's decoder runs {MODEL_TYPE} and its own models; "
            "--backend hf or vllm run others"
        )
    return own_config(file)


def not_implemented(values: Mapping[str, Any]) -> str:
    """What kleval's decoder lacks of Kimi K3, by the names of its config.json's fields."""
    text = values.get("text_config")
    fields = dict.fromkeys(fault.split(" ", 1)[0] for fault in _Reader(text if isinstance(text, dict) else {}).faults())
    return f"Kimi K3: kleval's decoder does not implement {', '.join(fields)}"


def own_config(file: Path) -> ModelConfig:
    """The model of a config.json that kleval wrote, whatever the file's name. UsageError when it is none."""
    values = read_json(file)
    check_weights(file, values)
    return _checked(ModelConfig.from_dict(values), file)


def eos_ids(folder: Path, own: int | None = None) -> tuple[int, ...]:
    """The tokens that end an answer: of generation_config.json, else of config.json or its part for text, and the tokenizer's own.
    Empty when none is named.

    Any of them does, as in vLLM's server and lm-eval: Kimi's tokenizer_config.json names [EOS], which ends a text, its
    generation_config.json <|im_end|>, which ends an answer.
    """
    generation = folder / "generation_config.json"
    tokenizers = () if own is None else (own,)
    config = read_json(folder / "config.json")
    text = config.get("text_config")
    parts = [config, *([text] if isinstance(text, dict) else [])]
    for source in ([read_json(generation)] if generation.is_file() else []) + parts:
        found = source.get("eos_token_id")
        ids = found if isinstance(found, list) else [found]
        if ids and all(_is_int(i) for i in ids):
            return tuple(dict.fromkeys((*ids, *tokenizers)))
    return tokenizers


class _Reader:
    """One config.json of the kimi_linear kind."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        linear = values.get("linear_attn_config") or {}
        if not isinstance(linear, dict):
            raise UsageError("linear_attn_config is not an object")
        self.linear: dict[str, Any] = linear
        self.values = {**values, **{f"linear_attn_config.{k}": v for k, v in linear.items()}}

    def config(self) -> ModelConfig:
        self._refuse()
        layers = self._number(("num_hidden_layers",))
        mixers = self._mixers(layers)
        dense = self._dense_layers(layers)
        found: dict[str, Any] = {field: self._number(names) for field, names in _NUMBERS.items()}
        # Where no layer is linear its numbers say nothing, and need not be there.
        default = None if "kda" in mixers else 1
        found |= {field: self._number(names, default) for field, names in _LINEAR_NUMBERS.items()}
        found |= {"kda_gate_lower_bound": self._bound(), "kda_full_rank_gate": self._flag("use_full_rank_gate")}
        if dense < layers:
            found |= {field: self._number(names) for field, names in _EXPERT_NUMBERS.items()}
            found["routed_scaling_factor"] = self._real("routed_scaling_factor")
            found["first_k_dense_replace"] = dense
            if not 0 < found["num_experts_per_token"] <= found["num_experts"]:
                raise UsageError("num_experts_per_token is not between 1 and num_experts")
        heads = found["num_attention_heads"]
        if self._given(("num_key_value_heads",)) not in (None, heads):
            raise UsageError("num_key_value_heads differs from num_attention_heads: MLA has one latent for all of them")
        tied = self._given(("tie_word_embeddings",))
        if not isinstance(tied, bool):
            raise UsageError("tie_word_embeddings is missing or neither true nor false")
        ends = self._given(("eos_token_id",))
        return ModelConfig(
            architecture="kimi-linear" if "kda" in mixers else "mla",
            layer_mixers=mixers,
            mla_use_nope=True,
            rms_norm_eps=self._real("rms_norm_eps"),
            tie_word_embeddings=tied,
            eos_token_id=ends[0] if isinstance(ends, list) and ends else ends if _is_int(ends) else None,
            bos_token_id=self._token("bos_token_id"),
            pad_token_id=self._token("pad_token_id"),
            **found,
        )

    def _given(self, names: tuple[str, ...]) -> Any:
        """The value under the first of the names that is there, None when none is; all must agree."""
        found = {name: self.values[name] for name in names if self.values.get(name) is not None}
        if len({repr(value) for value in found.values()}) > 1:
            raise UsageError("fields contradict each other: " + ", ".join(f"{n} is {v!r}" for n, v in found.items()))
        return next(iter(found.values()), None)

    def _token(self, name: str) -> int | None:
        value = self._given((name,))
        return value if _is_int(value) else None

    def _number(self, names: tuple[str, ...], default: int | None = None) -> int:
        value = self._given(names)
        if value is None:
            if default is None:
                raise UsageError(f"{' or '.join(names)} is missing")
            return default
        if not _is_int(value) or value < 0 or (value == 0 and "shared" not in names[0]):
            raise UsageError(f"{names[0]} is {value!r}: expected a positive whole number")
        if value > MAX_NUMBER:
            raise UsageError(f"{names[0]} is {value}: kleval takes numbers up to {MAX_NUMBER}")
        return int(value)

    def _real(self, name: str) -> float:
        value = self._given((name,))
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise UsageError(f"{name} is {'missing' if value is None else repr(value)}: expected a positive number")
        return float(value)

    def _bound(self) -> float | None:
        """KDA's lower bound of log-decays. safe_gate says whether there is one."""
        value = self._given(tuple(f"{place}{name}" for name in _BOUND for place in ("linear_attn_config.", "")))
        _check_bound(value)
        safe = self._given(("linear_attn_config.safe_gate", "safe_gate"))
        if safe not in (None, value is not None):
            raise UsageError(f"safe_gate is {safe!r}, but gate_lower_bound is {value!r}")
        return None if value is None else float(value)

    def _flag(self, name: str) -> bool:
        value = self._given((f"linear_attn_config.{name}", name))
        if value not in (None, True, False):
            raise UsageError(f"{name} is {value!r}: expected true or false")
        return bool(value)

    def _refuse(self) -> None:
        for fault in self.faults():
            raise UsageError(fault)

    def faults(self) -> Iterator[str]:
        """What the decoder does not implement; each begins with the field's name."""
        for name, meant in _ONLY.items():
            for key in (name, f"linear_attn_config.{name}"):
                if key in self.values and self.values[key] not in meant:
                    yield f"{key} is {self.values[key]!r}: kleval implements {meant[0]!r} only"
        rope = self.values.get("rope_parameters") or {}
        scaling = (rope.get("rope_type") or rope.get("type") or "default") if isinstance(rope, dict) else rope
        if scaling != "default":
            yield f"rope_parameters has rope_type {scaling!r}: kleval implements no scaling of positions"
        known = {*_LINEAR, *_ONLY}
        # What is false there may be what the decoder does: a switch that is on where it is not named.
        if unknown := [k for k, v in self.linear.items() if k not in known and v is not None]:
            yield f"linear_attn_config.{unknown[0]} is unknown: kleval cannot tell what it changes"
        read = {name for names in (_NUMBERS | _LINEAR_NUMBERS | _EXPERT_NUMBERS).values() for name in names}
        for name, value in self.values.items():
            told = (
                name in read | {*_GATES, *_ONLY} | _OTHER
                or name.startswith(("_", "linear_attn_config."))
                or name.endswith("_version")
            )
            if not told and value not in (None, False, [], {}):
                yield f"{name} is unknown: kleval cannot tell what it changes; take it out if that is nothing"

    def _mixers(self, layers: int) -> tuple[str, ...]:
        patterns = [p for p in (self._published_pattern(layers), self._layer_types(layers)) if p is not None]
        if not patterns:
            raise UsageError(
                "neither linear_attn_config (kda_layers, full_attn_layers) nor layer_types is there, so which layers are MLA "
                "is not known: add the one that the model was trained with"
            )
        if len(set(patterns)) > 1:
            layer = next(i for i in range(layers) if patterns[0][i] != patterns[1][i])
            raise UsageError(
                f"linear_attn_config and layer_types contradict each other at layer {layer + 1} of {layers}"
            )
        return patterns[0]

    def _published_pattern(self, layers: int) -> tuple[str, ...] | None:
        named: dict[int, str] = {}
        lists = {key: self.linear.get(key) for key in ("kda_layers", "full_attn_layers")}
        if all(value is None for value in lists.values()):
            return None
        for key, value in lists.items():
            if not isinstance(value, list) or not all(_is_int(layer) for layer in value):
                raise UsageError(f"linear_attn_config.{key} is missing or no list of layers")
            for layer in value:
                if not 1 <= layer <= layers or layer in named:
                    raise UsageError(
                        f"linear_attn_config.{key} names layer {layer} twice or out of range: layers count from 1 to {layers}"
                    )
                named[layer] = "mla" if key == "full_attn_layers" else "kda"
        if len(named) < layers:
            missing = next(layer for layer in itertools.count(1) if layer not in named)
            raise UsageError(
                f"linear_attn_config has layer {missing} neither in kda_layers nor in full_attn_layers; they count from 1"
            )
        return tuple(named[layer] for layer in range(1, layers + 1))

    def _layer_types(self, layers: int) -> tuple[str, ...] | None:
        types = self.values.get("layer_types")
        if types is None:
            return None
        mixers = {"linear_attention": "kda", "full_attention": "mla"}
        if not isinstance(types, list) or len(types) != layers or any(t not in (*mixers,) for t in types):
            raise UsageError(f"layer_types is no list of {layers} times linear_attention or full_attention")
        return tuple(mixers[t] for t in types)

    def _dense_layers(self, layers: int) -> int:
        """How many of the first layers have a dense MLP; the others have experts."""
        types, first = self.values.get("mlp_layer_types"), self.values.get("first_k_dense_replace")
        if types is None and not _is_int(first):
            raise UsageError("neither first_k_dense_replace nor mlp_layer_types says which layers have experts")
        if types is None:
            return min(int(first or 0), layers) if self._given(_EXPERT_NUMBERS["num_experts"]) else layers
        count = types.count("dense") if isinstance(types, list) else -1
        if types != ["dense"] * count + ["sparse"] * (layers - count):
            raise UsageError(f"mlp_layer_types is not {layers} times dense or sparse with the dense ones first")
        if _is_int(first) and min(int(first or 0), layers) != count:
            raise UsageError(f"first_k_dense_replace is {first}, but mlp_layer_types begins with {count} dense layers")
        return int(count)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_bound(value: Any) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | float)
    if value is not None and not (number and -math.inf < value < 0):
        raise UsageError(f"gate_lower_bound is {value!r}: expected a number below 0")


def _checked(config: ModelConfig, file: Path) -> ModelConfig:
    """The same config when its numbers are numbers that a decoder can be made of. UsageError else."""
    expected = {"int": "a whole number", "float": "a number", "bool": "true or false"}
    for field in fields(config):
        value, kind = getattr(config, field.name), str(field.type)
        if kind not in expected:
            continue
        if kind == "bool":
            good = isinstance(value, bool)
        else:
            number = not isinstance(value, bool) and isinstance(value, int if kind == "int" else int | float)
            good = number and (0 if field.name in _MAY_BE_ZERO else math.ulp(0)) <= value <= MAX_NUMBER
        if not good:
            raise UsageError(f"{file}: {field.name} is {value!r}: expected {expected[kind]} that a model can have")
    try:
        _check_bound(config.kda_gate_lower_bound)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    if config.num_experts and not 0 < config.num_experts_per_token <= config.num_experts:
        raise UsageError(f"{file}: num_experts_per_token is not between 1 and num_experts")
    if not config.mla_use_nope and config.qk_rope_head_dim % 2:
        raise UsageError(
            f"{file}: qk_rope_head_dim is {config.qk_rope_head_dim}: pairs are rotated, so it must be even"
        )
    if config.parameters() > MAX_PARAMETERS:
        raise UsageError(
            f"{file} describes a model of {config.parameters()} parameters: one of its numbers must be wrong"
        )
    return config
