"""`kleval ls models`: every model with a name, or one model's card. From configurations alone: no torch, no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kleval.cli.console import table
from kleval.text import count, format_length, rate, size

if TYPE_CHECKING:
    from kleval.models.config import ModelConfig
    from kleval.models.costs import Costs
    from kleval.models.published import Shape
    from kleval.models.registry import ModelSpec

BESIDE = "kimi-linear@48b-a3b"
CARD_CTXS = (4096, 131072, 1048576)
NO_DECODER = "none: its costs are known, kleval does not run it"
DTYPE = "bfloat16"


def record(spec: ModelSpec, config: ModelConfig) -> dict[str, Any]:
    """All that is known of a model before it is built; JSON values. Bytes are those of bfloat16 weights and rows."""
    return {
        "model": spec.name,
        "architecture": config.architecture,
        "layers": config.num_hidden_layers,
        "parameters": config.parameters(),
        "active": config.active_parameters(),
        "weights": weights(spec),
        "path": None if spec.path is None else str(spec.path),
        **_costs(config),
        "config": config.describe(),
    }


def shape_record(name: str, shape: Shape) -> dict[str, Any]:
    """The same of a model that kleval has no decoder for."""
    return {
        "model": name,
        "architecture": shape.family,
        "layers": shape.num_hidden_layers,
        "parameters": shape.parameters(),
        "active": shape.active_parameters(),
        "weights": NO_DECODER,
        "path": None,
        **_costs(shape),
        "mixers": kinds(shape),
        "not_counted": list(shape.not_counted),
    }


def _costs(config: Costs) -> dict[str, Any]:
    from kleval.models.costs import paper_mixer_flops

    return {
        "dtype": DTYPE,
        "weight_bytes": config.weight_bytes(DTYPE),
        "kv_bytes_per_token": config.state_bytes(1, 1, DTYPE).growing,
        "fixed_state_bytes": config.state_bytes(0, 1, DTYPE).total,
        "parameters_by_component": config.parameters_by_component(),
        "active_by_component": config.active_parameters_by_component(),
        "costs": [
            {
                "ctx": ctx,
                "state_bytes": _state(config, ctx),
                "prefill_flops": config.prefill_flops(ctx),
                "prefill_flops_by_component": config.prefill_flops_by_component(ctx),
                "paper_mixer_flops": paper_mixer_flops(config, ctx),
                "decode_flops": config.decode_flops(ctx),
                "decode_flops_by_component": config.decode_flops_by_component(ctx),
                "decode_bytes": config.decode_bytes(ctx, 1, DTYPE),
                "decode_bytes_by_component": config.decode_bytes_by_component(ctx, 1, DTYPE),
            }
            for ctx in CARD_CTXS
        ],
    }


def _state(config: Costs, ctx: int) -> dict[str, int]:
    state = config.state_bytes(ctx, 1, DTYPE)
    late = {name: n for name, n in (("grouped", state.grouped), ("index", state.index)) if n}
    return {"latent": state.latent, "recurrent": state.recurrent, "conv": state.conv, **late, "total": state.total}


def show_shape(name: str, shape: Shape) -> None:
    """Layers, parameters by component, and costs at three lengths beside those of the published Kimi Linear."""
    from kleval.models.sizes import preset

    lines = [
        ("model", name),
        ("family", f"{shape.family}; {NO_DECODER}"),
        ("layers", f"{shape.num_hidden_layers}: {', '.join(f'{n} {kind}' for kind, n in kinds(shape).items())}"),
        ("hidden size", f"{shape.hidden_size}, vocabulary {shape.vocab_size}{', tied' * shape.tie_word_embeddings}"),
        ("not counted", ", ".join(shape.not_counted)),
    ]
    for label, text in lines:
        if text:
            click.echo(f"{label:<13}{text}")
    click.echo()
    active = shape.active_parameters_by_component()
    parts = [(n, count(c), count(active[n])) for n, c in shape.parameters_by_component().items() if c]
    table(("component", "parameters", "active"), parts)
    click.echo()
    table(("ctx", "what", name, BESIDE), beside(shape, preset("kimi-linear", "48b-a3b")))


def beside(*configs: Costs) -> list[tuple[str, ...]]:
    """Parameters, bytes and operations of several models, one line each."""
    rows: list[tuple[str, ...]] = [
        ("", "parameters", *(count(c.parameters()) for c in configs)),
        ("", "active", *(count(c.active_parameters()) for c in configs)),
        ("", "weights", *(size(c.weight_bytes(DTYPE)) for c in configs)),
    ]
    for ctx in CARD_CTXS:
        label = format_length(ctx)
        rows += [
            (label, "state", *(size(c.state_bytes(ctx, 1, DTYPE).total) for c in configs)),
            (label, "prefill", *(rate(c.prefill_flops(ctx), "FLOP") for c in configs)),
            (label, "decode", *(rate(c.decode_flops(ctx), "FLOP") for c in configs)),
            (label, "moved per step", *(size(c.decode_bytes(ctx, 1, DTYPE)) for c in configs)),
        ]
    return rows


def kinds(shape: Costs) -> dict[str, int]:
    """How many layers there are of each kind of mixer, in words."""
    from kleval.models.shape import Delta, Grouped

    found: dict[str, int] = {}
    for layer, n in shape.layers().items():
        mixer = layer.mixer
        if isinstance(mixer, Delta):
            kind = "KDA" if mixer.per_channel else "GDN"
        elif isinstance(mixer, Grouped):
            kind = "GQA" if mixer.window is None else f"GQA over {mixer.window} tokens"
        else:
            kind = "MLA" + (f" over the best {mixer.most} tokens" if mixer.most else "")
        found[kind] = found.get(kind, 0) + n
    return found


def weights(spec: ModelSpec) -> str:
    if spec.path is None:
        return "none: random for profiling"
    return "shipped" if spec.size else "here" if not spec.hub else "on the hub"


def show_table(models: list[tuple[ModelSpec, ModelConfig]]) -> None:
    """One line per model. State: bytes per token of context, and what every sequence has whatever its length."""
    rows = []
    for spec, config in models:
        per_token, fixed = config.state_bytes(1, 1, DTYPE).latent, config.state_bytes(0, 1, DTYPE).total
        counts = (count(config.parameters()), count(config.active_parameters()))
        rows.append((spec.name, config.num_hidden_layers, *counts, f"{per_token} B", size(fixed), weights(spec)))
    table(("model", "layers", "parameters", "active", "state/token", "fixed state", "weights"), rows)


def show_card(spec: ModelSpec, config: ModelConfig) -> None:
    """Shape, parameters by component, and costs at three lengths."""
    from kleval.models.sizes import K3_LEFT_OUT, NAMED

    heads = f"{config.num_attention_heads} heads of {config.qk_nope_head_dim} + {config.qk_rope_head_dim}"
    positions = "NoPE" if config.mla_use_nope else f"RoPE, theta {config.rope_theta:g}"
    lines = [
        ("model", spec.name),
        ("weights", weights(spec)),
        ("layers", f"{config.num_hidden_layers}: {mixers(config)}"),
        ("hidden size", f"{config.hidden_size}, vocabulary {config.vocab_size}{', tied' * config.tie_word_embeddings}"),
        ("MLA", f"{heads}, values {config.v_head_dim}, latent {config.kv_lora_rank}; {positions}"),
    ]
    if config.kda_layers:
        lines.append(
            ("GDN" if "gdn" in config.layer_mixers else "KDA", f"{config.kda_num_heads} heads of {config.kda_head_dim}")
        )
    if config.kda_gate_lower_bound is not None:
        lines.append(
            ("KDA's gate", f"lower bound {config.kda_gate_lower_bound:g}{', full rank' * config.kda_full_rank_gate}")
        )
    if spec.name in NAMED:
        lines.append(("left out", f"of Kimi K3: {K3_LEFT_OUT}"))
    lines.append(("MLP", _mlp(config)))
    lines.append(("parameters", f"{count(config.parameters())}, {size(config.weight_bytes(DTYPE))} in {DTYPE}"))
    lines.append(("active", f"{count(config.active_parameters())} per token"))
    width = max(len(name) for name, _ in lines) + 2
    for name, text in lines:
        click.echo(f"{name:<{width}}{text}")
    click.echo()
    active = config.active_parameters_by_component()
    parts = [(n, count(c), count(active[n])) for n, c in config.parameters_by_component().items() if c]
    table(("component", "parameters", "active"), parts)
    click.echo()
    rows = []
    for ctx in CARD_CTXS:
        state, moved = config.state_bytes(ctx, 1, DTYPE), config.decode_bytes(ctx, 1, DTYPE)
        rows.append(
            (
                ctx,
                size(state.latent),
                size(state.recurrent + state.conv),
                rate(config.prefill_flops(ctx), "FLOP"),
                size(moved),
            )
        )
    table(("ctx", "latent state", "fixed state", "prefill", "read and written per step"), rows)


def mixers(config: ModelConfig) -> str:
    """`20 KDA, 7 MLA (4, 8, 12, ...)`: how many of each, and where the MLA layers are, counted from 1, unless they all are."""
    parts = [f"{n} {mixer.upper()}" for mixer in ("kda", "gdn", "mla") if (n := config.layer_mixers.count(mixer))]
    where = f" ({', '.join(map(str, config.full_attn_layers))})" if len(parts) > 1 else ""
    return ", ".join(parts) + where


def _mlp(config: ModelConfig) -> str:
    sparse = sum(map(config.is_moe, range(config.num_hidden_layers)))
    dense = config.num_hidden_layers - sparse
    parts = [f"{dense} dense of {config.intermediate_size}"] if dense else []
    if sparse:
        experts = f"{config.num_experts} experts of {config.moe_intermediate_size}, top-{config.num_experts_per_token}"
        parts.append(f"{sparse} with {experts} and {config.num_shared_experts} shared")
    return ", ".join(parts)
