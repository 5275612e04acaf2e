"""What a model is: one frozen record for the four architectures at any size.

Field names are those of the published `config.json` (Hugging Face `moonshotai/Kimi-Linear-48B-A3B-Instruct`) where it has one.
`layer_mixers` replaces its 1-based `kda_layers` and `full_attn_layers`; `embedding_multiplier` is an addition (1 there).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from kleval.types import UsageError

Architecture = Literal["kimi-linear", "kimi-linear-rope", "gdn-h", "mla"]
Mixer = Literal["kda", "gdn", "mla"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """layer_mixers: the mixer of each layer. num_experts 0: every layer is dense (`intermediate_size`).

    kda_*: KDA and GDN alike; kda_head_dim is also the rank of the two low-rank gates. mla_use_nope False: the rope dims are
    rotated with rope_theta.
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
    routed_scaling_factor: float = 1.0
    first_k_dense_replace: int = 0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    embedding_multiplier: float = 1.0
    eos_token_id: int | None = None
    max_position_embeddings: int = 1048576

    def __post_init__(self) -> None:
        unknown = set(self.layer_mixers) - set(get_args(Mixer))
        if self.architecture not in ARCHITECTURES or unknown or not self.layer_mixers:
            raise UsageError(
                f"model config: architecture {self.architecture!r} with mixers {self.layer_mixers}: "
                f"expected one of {', '.join(ARCHITECTURES)} and mixers out of {', '.join(get_args(Mixer))}"
            )

    @property
    def num_hidden_layers(self) -> int:
        return len(self.layer_mixers)

    def is_moe(self, layer: int) -> bool:
        return self.num_experts > 0 and layer >= self.first_k_dense_replace

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From `to_dict`'s output or a config.json of this package. UsageError on missing or unknown fields."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known - {"num_hidden_layers"}):
            raise UsageError(f"model config: unknown field {unknown[0]!r}; this is not a config.json that kleval wrote")
        arguments: dict[str, Any] = {k: tuple(v) if k == "layer_mixers" else v for k, v in values.items() if k in known}
        try:
            return cls(**arguments)
        except TypeError as error:
            raise UsageError(f"model config: {str(error).removeprefix('ModelConfig.__init__() ')}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {"layer_mixers": list(self.layer_mixers)}

    def parameters(self, active: bool = False) -> int:
        """Number of parameters, closed form; active: those that one token passes through, embedding lookup not counted."""
        h = self.hidden_size
        total = self.vocab_size * h if self.tie_word_embeddings or not active else 0
        total += 0 if self.tie_word_embeddings else self.vocab_size * h
        total += h  # final norm
        for layer, mixer in enumerate(self.layer_mixers):
            total += 2 * h + self._mixer_parameters(mixer) + self._mlp_parameters(layer, active)
        return total

    def _mixer_parameters(self, mixer: str) -> int:
        h = self.hidden_size
        if mixer == "mla":
            heads, nope, rope = self.num_attention_heads, self.qk_nope_head_dim, self.qk_rope_head_dim
            rank, value = self.kv_lora_rank, self.v_head_dim
            query, down = h * heads * (nope + rope), h * (rank + rope) + rank
            return query + down + rank * heads * (nope + value) + heads * value * h
        heads, dim = self.kda_num_heads, self.kda_head_dim
        inner = heads * dim
        low_rank = h * dim + dim * inner
        shared = 4 * h * inner + 3 * inner * self.short_conv_kernel_size + h * heads + low_rank + dim
        if mixer == "gdn":
            return shared + h * heads + 2 * heads
        return shared + low_rank + heads + inner

    def _mlp_parameters(self, layer: int, active: bool) -> int:
        h = self.hidden_size
        if not self.is_moe(layer):
            return 3 * h * self.intermediate_size
        routed = self.num_experts_per_token if active else self.num_experts
        experts = (routed + self.num_shared_experts) * 3 * h * self.moe_intermediate_size
        return experts + self.num_experts * h + self.num_experts


def preset(
    architecture: str,
    size: str,
    vocab_size: int | None = None,
    eos_token_id: int | None = None,
    mla_use_nope: bool | None = None,
    rope_theta: float | None = None,
) -> ModelConfig:
    """The configuration of an architecture at `nano` or `48b-a3b`, vocabulary and positions overridable.

    nano: hidden 128, 4 layers, dense, tied embeddings, inputs scaled by sqrt(hidden). 48b-a3b: the published shape.
    """
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ARCHITECTURES)}"
        raise UsageError(f"unknown architecture {architecture!r}: {hint}")
    if size not in SIZES:
        raise UsageError(f"unknown model size {size!r}: choose one of {', '.join(SIZES)}")
    config = SIZES[size]
    linear = "gdn" if architecture == "gdn-h" else "mla" if architecture == "mla" else "kda"
    nope = architecture in ("kimi-linear", "gdn-h") if mla_use_nope is None else mla_use_nope
    return replace(
        config,
        architecture=architecture,
        layer_mixers=tuple(linear if mixer == "kda" else mixer for mixer in config.layer_mixers),
        mla_use_nope=nope,
        rope_theta=config.rope_theta if rope_theta is None else rope_theta,
        vocab_size=config.vocab_size if vocab_size is None else vocab_size,
        eos_token_id=config.eos_token_id if eos_token_id is None else eos_token_id,
    )


_NANO = ModelConfig(
    architecture="kimi-linear",
    vocab_size=1024,
    hidden_size=128,
    layer_mixers=("kda", "kda", "kda", "mla"),
    kda_num_heads=2,
    kda_head_dim=64,
    num_attention_heads=4,
    qk_nope_head_dim=32,
    qk_rope_head_dim=32,
    v_head_dim=32,
    kv_lora_rank=96,
    mla_use_nope=True,
    intermediate_size=256,
    embedding_multiplier=128**0.5,
)

_FULL_ATTENTION_48B = (4, 8, 12, 16, 20, 24, 27)  # counted from 1, as published
_48B_A3B = ModelConfig(
    architecture="kimi-linear",
    vocab_size=163840,
    hidden_size=2304,
    layer_mixers=tuple("mla" if layer in _FULL_ATTENTION_48B else "kda" for layer in range(1, 28)),
    kda_num_heads=32,
    kda_head_dim=128,
    num_attention_heads=32,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    kv_lora_rank=512,
    mla_use_nope=True,
    intermediate_size=9216,
    num_experts=256,
    num_experts_per_token=8,
    num_shared_experts=1,
    moe_intermediate_size=1024,
    routed_scaling_factor=2.446,
    first_k_dense_replace=1,
    tie_word_embeddings=False,
    eos_token_id=163586,
)

SIZES: dict[str, ModelConfig] = {"nano": _NANO, "48b-a3b": _48B_A3B}
