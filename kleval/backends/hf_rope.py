"""RoPE scalings of transformers whose frequencies depend on the length of the call they are computed in (modeling_rope_utils.py).

LongRoPE has one set of frequencies up to the length that the model was first trained at, and another beyond; dynamic NTK has others for
each length beyond the config's longest. What a model computes of a text in pieces is then not what it computes of the whole.

Llama 4 and Inkling scale far queries by their place in the batch, its padding counted, where they should by their place in the text.
"""

from __future__ import annotations

from typing import Any


def rope_by_length(config: Any) -> tuple[str, int]:
    """The kind of RoPE scaling whose frequencies depend on the length of a call, "" for none; and up to which length they do not."""
    if config is None:
        return "", 0
    text = config.get_text_config()
    found = [getattr(text, name, None) for name in ("rope_parameters", "rope_scaling")]
    of_layers = [one for scaling in found if isinstance(scaling, dict) for one in scaling.values()]  # one for each kind
    for scaling in (one for one in (*found, *of_layers) if isinstance(one, dict)):
        kind = str(scaling.get("rope_type") or scaling.get("type"))
        if kind in ("longrope", "su"):
            places = (
                scaling.get("original_max_position_embeddings"),
                getattr(text, "original_max_position_embeddings", 0),
            )
            return kind, int(next((n for n in places if n), text.max_position_embeddings))
        if "dynamic" in kind:
            return kind, int(text.max_position_embeddings)
    return "", 0


def counts_padding(config: Any) -> bool:
    """Whether queries are scaled by where they stand in a batch, padding included."""
    text = None if config is None else config.get_text_config()
    llama = getattr(text, "attn_temperature_tuning", None) and getattr(text, "floor_scale", None)
    return bool(llama or getattr(text, "log_scaling_n_floor", None))
