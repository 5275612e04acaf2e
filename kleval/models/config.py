"""Configuration of a model: one frozen record for the four architectures at any size.

Field names are those of the published `config.json` (Hugging Face `moonshotai/Kimi-Linear-48B-A3B-Instruct`) where it has one.
`layer_mixers` replaces its 1-based `kda_layers` and `full_attn_layers`; `embedding_multiplier` is an addition (1 there). The published
shape and smaller ones are in `sizes`, the formulas behind parameters, bytes and operations in `costs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, get_args

from kleval.models.costs import Costs
from kleval.models.shape import Delta, Dense, Experts, Latent, Layer, Mixer
from kleval.types import UsageError

Architecture = Literal["kimi-linear", "kimi-linear-rope", "gdn-h", "mla"]
MixerName = Literal["kda", "gdn", "mla"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)

# Fields of the published config.json for which the decoder has one value: what it does.
FIXED: Mapping[str, Any] = MappingProxyType(
    {
        "hidden_act": "silu",
        "q_lora_rank": None,
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "moe_renormalize": True,
        "use_grouped_topk": True,
        "num_expert_group": 1,
        "topk_group": 1,
        "num_nextn_predict_layers": 0,
    }
)


@dataclass(frozen=True, slots=True)
class ModelConfig(Costs):
    """layer_mixers: the mixer of each layer. num_experts 0: every layer is dense (`intermediate_size`).

    kda_*: KDA and GDN alike; kda_head_dim is also the rank of the two low-rank gates. kda_gate_lower_bound: KDA's log-decay lies
    between it and 0 (`ops.kda.log_decay`), None for the unbounded one; kda_full_rank_gate: the output gate is one matrix.
    mla_use_nope False: the rope dims are rotated with rope_theta. bos_token_id and pad_token_id are the tokenizer's business, carried
    along: the decoder reads neither, and configs that differ in them alone are equal.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    layer_mixers: tuple[str, ...]
    kda_num_heads: int
    kda_head_dim: int
    num_attention_heads: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    kv_lora_rank: int
    mla_use_nope: bool
    intermediate_size: int
    short_conv_kernel_size: int = 4
    rope_theta: float = 10000.0
    num_experts: int = 0
    num_experts_per_token: int = 0
    num_shared_experts: int = 0
    moe_intermediate_size: int = 0
    kda_gate_lower_bound: float | None = None
    kda_full_rank_gate: bool = False
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    embedding_multiplier: float = 1.0
    eos_token_id: int | None = None
    bos_token_id: int | None = field(default=None, compare=False)
    pad_token_id: int | None = field(default=None, compare=False)
    max_position_embeddings: int = 1048576

    def __post_init__(self) -> None:
        unknown = set(self.layer_mixers) - set(get_args(MixerName))
        if self.architecture not in ARCHITECTURES or unknown or not self.layer_mixers:
            raise UsageError(
                f"model config: architecture {self.architecture!r} with mixers {self.layer_mixers}: "
                f"expected one of {', '.join(ARCHITECTURES)} and mixers out of {', '.join(get_args(MixerName))}"
            )

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_mixers)

    def is_moe(self, layer: int) -> bool:
        return self.num_experts > 0 and layer >= self.first_k_dense_replace

    def layers(self) -> Counter[Layer]:
        return _layers(self)

    def full_attention(self) -> ModelConfig:
        return replace(self, architecture="mla", layer_mixers=("mla",) * self.num_hidden_layers)

    @property
    def kda_layers(self) -> tuple[int, ...]:
        """Layers with KDA or GDN, counted from 1 as published."""
        return tuple(i for i, mixer in enumerate(self.layer_mixers, 1) if mixer != "mla")

    @property
    def full_attn_layers(self) -> tuple[int, ...]:
        """Layers with MLA, counted from 1 as published."""
        return tuple(i for i, mixer in enumerate(self.layer_mixers, 1) if mixer == "mla")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From `to_dict`'s output or a config.json of this package. UsageError on missing or unknown fields."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known - {"num_hidden_layers"}):
            raise UsageError(f"model config: unknown field {unknown[0]!r}; this is not a config.json that kleval wrote")
        mixers, layers = values.get("layer_mixers"), values.get("num_hidden_layers")
        if "layer_mixers" in values and not isinstance(mixers, list | tuple):
            raise UsageError(
                f"model config: layer_mixers is {mixers!r}: expected a list of {', '.join(get_args(MixerName))}"
            )
        if layers is not None and mixers is not None and layers != len(mixers):
            raise UsageError(
                f"model config: num_hidden_layers is {layers!r}, but layer_mixers names {len(mixers)} layers"
            )
        arguments: dict[str, Any] = {k: tuple(v) if k == "layer_mixers" else v for k, v in values.items() if k in known}
        try:
            return cls(**arguments)
        except TypeError as error:
            raise UsageError(f"model config: {str(error).removeprefix('ModelConfig.__init__() ')}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what only some models have is left out where it is not there."""
        values = asdict(self) | {"layer_mixers": list(self.layer_mixers)}
        optional = ("bos_token_id", "pad_token_id", "kda_gate_lower_bound", "kda_full_rank_gate")
        return {k: v for k, v in values.items() if k not in optional or (v is not None and v is not False)}

    def describe(self) -> dict[str, Any]:
        """`to_dict` with what follows from it, in the published words, and what the decoder does in one way only."""
        return self.to_dict() | {
            "num_hidden_layers": self.num_hidden_layers,
            "kda_layers": list(self.kda_layers),
            "full_attn_layers": list(self.full_attn_layers),
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
            **FIXED,
        }


@lru_cache(maxsize=64)
def _layers(config: ModelConfig) -> Counter[Layer]:
    heads, dim, taps = config.kda_num_heads, config.kda_head_dim, config.short_conv_kernel_size
    mixers: dict[str, Mixer] = {
        name: Delta(heads, heads, dim, dim, taps, name == "kda", config.kda_full_rank_gate) for name in ("kda", "gdn")
    }
    mixers["mla"] = Latent(
        config.num_attention_heads,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
        config.kv_lora_rank,
    )
    dense, inner = Dense(config.intermediate_size), config.moe_intermediate_size
    experts = Experts(config.num_experts, config.num_experts_per_token, inner, config.num_shared_experts * inner)
    return Counter(
        Layer(mixers[mixer], experts if config.is_moe(i) else dense) for i, mixer in enumerate(config.layer_mixers)
    )
