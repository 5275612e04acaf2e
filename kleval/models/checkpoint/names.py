"""Names of stored tensors, and where in the decoder's parameters their content goes.

One name per tensor is canonical: the one in the published files. The others are brought to it first:
- transformers >= 5.17 writes those too, but the dense layer's under `block_sparse_moe.`, where it reads both;
- transformers in memory: `self_attn.forget_gate.*`, `self_attn.conv1d.weight` (q, k and v joined), `mlp.*` for all layers, and experts
  stacked as `experts.gate_up_proj` [E, 2 I, h] and `experts.down_proj` [E, h, I];
- kleval's own: the published names with stacked experts;
- the language model of a larger one: all of it below `language_model.` or `model.language_model.`.

What every engine passes over is no content: rotary frequencies, which follow from the config, and layers that predict further tokens.

A published expert is three matrices, w1 (gate), w3 (up) and w2 (down), and each is a slice of a stacked parameter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Shape = tuple[int, ...]

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_MLP = re.compile(r"(model\.layers\.\d+\.)(?:mlp|block_sparse_moe)\.(.+)")
_CONVOLUTION = re.compile(r"(.+\.self_attn\.)([qkv])_conv1d\.weight")
_EXPERTS = re.compile(r"(.+\.block_sparse_moe\.experts\.)(gate_up|down)_proj")


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `source` of a stored tensor (all if None) are what belongs into `parameter[index]`."""

    parameter: str
    index: tuple[int | slice, ...] = ()
    source: slice | None = None


def canonical(name: str) -> str:
    """The published name of a stored tensor; unknown names come back as they are."""
    if name.startswith("model.language_model."):
        name = name.replace("language_model.", "", 1)
    name = name.removeprefix("language_model.").replace(".self_attn.forget_gate.", ".self_attn.")
    if found := _MLP.fullmatch(name):
        layer, rest = found.groups()
        dense = rest.startswith(("gate_proj.", "up_proj.", "down_proj."))
        return f"{layer}{'mlp' if dense else 'block_sparse_moe'}.{rest}"
    return name


def is_passed_over(name: str, layers: int, predicting: int) -> bool:
    """Whether a decoder of so many layers leaves a canonical name unread. predicting: layers behind them, for further tokens."""
    if name.endswith("rotary_emb.inv_freq") or name.startswith(("mtp.", "model.mtp.")):
        return True
    found = _LAYER.match(name)
    return found is not None and layers <= int(found[1]) < layers + predicting


def places(parameters: Mapping[str, Shape]) -> dict[str, tuple[Piece, ...]]:
    """Canonical name -> where its content goes, for every name under which a decoder's parameters may be stored."""
    table: dict[str, tuple[Piece, ...]] = {}
    for name, shape in parameters.items():
        table[name] = (Piece(name),)
        if found := _EXPERTS.fullmatch(name):
            table |= {stored: (piece,) for stored, piece in _expert_pieces(found[1], found[2], name, shape)}
        elif found := _CONVOLUTION.fullmatch(name):
            rows = slice("qkv".index(found[2]) * shape[0], ("qkv".index(found[2]) + 1) * shape[0])
            joined = f"{found[1]}conv1d.weight"
            table[joined] = (*table.get(joined, ()), Piece(name, (), rows))
    return table


def published(parameters: Mapping[str, Shape]) -> dict[str, Piece]:
    """The published names of a decoder's tensors, in the decoder's order, and where their content lies."""
    names: dict[str, Piece] = {}
    for name, shape in parameters.items():
        if found := _EXPERTS.fullmatch(name):
            names |= dict(_expert_pieces(found[1], found[2], name, shape))
        else:
            names[name] = Piece(name)
    return names


def _expert_pieces(prefix: str, kind: str, parameter: str, shape: Shape) -> list[tuple[str, Piece]]:
    inner = shape[1] // 2
    halves = {"w1": (slice(0, inner),), "w3": (slice(inner, None),)} if kind == "gate_up" else {"w2": ()}
    return [
        (f"{prefix}{expert}.{matrix}.weight", Piece(parameter, (expert, *rows)))
        for expert in range(shape[0])
        for matrix, rows in halves.items()
    ]
