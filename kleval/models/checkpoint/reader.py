"""Weights from safetensors files straight into a decoder's parameters.

Parameters are made first, on their device and in their dtype; then tensor after tensor is read to that device and copied to its place,
expert matrices into slices of the stacked parameters. So there is never more than the model and one tensor of it. On a CPU a file is
mapped into memory, and what has been read of it counts as used until the mapping goes: it goes every PORTION_BYTES.

Decay rates (A_log, dt_bias) and the router's bias stay float32 whatever the rest is cast to, as vLLM and the published files have them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kleval.models.checkpoint.config_json import read_config, read_json
from kleval.models.checkpoint.files import Stored, stored_tensors
from kleval.models.checkpoint.names import Piece, canonical, is_passed_over, places, published
from kleval.models.config import ModelConfig
from kleval.types import UsageError

if TYPE_CHECKING:
    import torch

    from kleval.models.decoder import Decoder

FLOAT32 = ("A_log", "dt_bias", "e_score_correction_bias")
PORTION_BYTES = 64 << 20
_DTYPES = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def load_decoder(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Decoder:
    """The decoder in a folder, in any of the layouts of `names`, ready to answer. dtype None: that of the stored embeddings.

    UsageError, naming tensor, file and expected shape, when a tensor is missing, unknown, stored twice or of another shape; before
    anything is allocated.
    """
    import torch

    from kleval.models.decoder import Decoder

    config = read_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    parameters = dict(decoder.named_parameters())
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    predicting = read_json(folder / "config.json").get("num_nextn_predict_layers")
    tensors = [
        stored
        for stored in stored_tensors(folder)
        if not is_passed_over(
            canonical(stored.name), config.num_hidden_layers, predicting if isinstance(predicting, int) else 0
        )
    ]
    plan = _plan(tensors, shapes, config, folder)
    if dtype is None:
        dtype = next(_torch_dtype(s) for s, pieces in plan if pieces[0].parameter == "model.embed_tokens.weight")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    place = torch.device(device)
    dtypes = {name: wide if name.endswith(FLOAT32) else dtype for name in shapes}
    try:
        filled = {name: torch.empty(shape, dtype=dtypes[name], device=place) for name, shape in shapes.items()}
    except RuntimeError as error:  # the base of torch.OutOfMemoryError, and what a CPU raises
        size = sum(math.prod(shape) * dtypes[name].itemsize for name, shape in shapes.items())
        raise UsageError(
            f"{folder}: its {size / 1e9:.1f} GB of weights do not fit into the memory of {place}: "
            "choose a smaller --dtype or another --device"
        ) from error
    _fill(filled, plan, place)
    decoder.load_state_dict(filled, assign=True)
    return decoder.eval().requires_grad_(False)


def _plan(
    tensors: Sequence[Stored], shapes: Mapping[str, tuple[int, ...]], config: ModelConfig, folder: Path
) -> list[tuple[Stored, tuple[Piece, ...]]]:
    """Where every stored tensor goes. UsageError unless they fill all parameters exactly once."""
    table = places(shapes)
    plan: list[tuple[Stored, tuple[Piece, ...]]] = []
    seen: dict[tuple[str, str], Stored] = {}
    faults: list[str] = []
    unexpected: list[str] = []
    for stored in tensors:
        pieces = table.get(canonical(stored.name))
        if pieces is None:
            if canonical(stored.name) == "lm_head.weight" and config.tie_word_embeddings:
                if not _same_content(stored, [s for s in tensors if canonical(s.name) == "model.embed_tokens.weight"]):
                    faults.append(
                        f"{stored.file} has a lm_head.weight other than the embeddings, but config.json says tie_word_embeddings: "
                        "set it to false"
                    )
            else:
                unexpected.append(
                    f"{stored.file}: unexpected tensor {stored.name} {_text(stored.shape)}: "
                    f"the {config.architecture} model of config.json has none of that name"
                )
            continue
        expected = _stored_shape(pieces, shapes)
        if stored.shape != expected and not _flat_rates(stored, expected):
            faults.append(
                f"{stored.file}: {stored.name} has shape {_text(stored.shape)}, config.json asks for {_text(expected)}"
            )
        elif stored.dtype not in _DTYPES:
            faults.append(
                f"{stored.file}: {stored.name} is stored as {stored.dtype}: kleval reads {', '.join(_DTYPES)}; "
                "--backend hf or vllm may run it"
            )
        for piece in pieces:
            for element in _elements(piece, shapes):
                if (before := seen.setdefault(element, stored)) is not stored:
                    where = before.name if before.name != stored.name else f"that in {before.file.name}"
                    faults.append(f"{stored.file}: {stored.name} and {where} are the same weights, stored twice")
        plan.append((stored, pieces))
    for name, piece in published(shapes).items():
        if (piece.parameter, repr(piece.index)) not in seen:
            faults.append(
                f"{folder}: tensor {name} {_text(_stored_shape((piece,), shapes))} is missing from its safetensors files"
            )
    faults += unexpected
    if faults:
        more = f" (and {len(faults) - 1} more faults like it)" if len(faults) > 1 else ""
        raise UsageError(faults[0] + more)
    return plan


def _flat_rates(stored: Stored, expected: tuple[int, ...]) -> bool:
    """Whether these are KDA's decay rates as Kimi K3 stores them: [H] in place of [1, 1, H, 1]."""
    return stored.name.endswith(".A_log") and stored.shape == (math.prod(expected),)


def _same_content(one: Stored, others: Sequence[Stored]) -> bool:
    """Whether a stored tensor is the only other one, number by number."""
    import torch
    from safetensors import safe_open

    if len(others) != 1 or (one.shape, one.dtype) != (others[0].shape, others[0].dtype):
        return False
    tensors = []
    for stored in (one, others[0]):
        with safe_open(stored.file, framework="pt") as content:
            tensors.append(content.get_tensor(stored.name))
    return torch.equal(*tensors)


def _elements(piece: Piece, shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    """The published tensors that a piece fills, by parameter and index: all experts' for a whole stacked parameter."""
    if piece.index or not piece.parameter.endswith((".experts.gate_up_proj", ".experts.down_proj")):
        return [(piece.parameter, repr(piece.index))]
    parts = published({piece.parameter: shapes[piece.parameter]})
    return [(part.parameter, repr(part.index)) for part in parts.values()]


def _stored_shape(pieces: Sequence[Piece], shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    shape = list(shapes[pieces[0].parameter])
    for dimension, at in enumerate(pieces[0].index):
        if isinstance(at, slice):
            shape[dimension] = len(range(*at.indices(shape[dimension])))
    kept = shape[sum(isinstance(at, int) for at in pieces[0].index) :]
    return (sum(shapes[p.parameter][0] for p in pieces), *kept[1:]) if len(pieces) > 1 else tuple(kept)


def _fill(
    filled: Mapping[str, torch.Tensor], plan: Sequence[tuple[Stored, tuple[Piece, ...]]], device: torch.device
) -> None:
    from safetensors import SafetensorError, safe_open

    for portion in _portions(plan):
        file = portion[0][0].file
        try:
            with safe_open(file, framework="pt", device=str(device)) as content:
                for stored, pieces in portion:
                    tensor = content.get_tensor(stored.name)
                    for piece in pieces:
                        part = tensor if piece.source is None else tensor[piece.source]
                        target = filled[piece.parameter][piece.index]
                        target.copy_(part.view(target.shape))
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{file} cannot be read as safetensors: {' '.join(str(error).split())}") from error


def _portions(plan: Sequence[tuple[Stored, tuple[Piece, ...]]]) -> Iterator[list[tuple[Stored, tuple[Piece, ...]]]]:
    """Consecutive tensors of one file, up to PORTION_BYTES or one larger tensor."""
    portion: list[tuple[Stored, tuple[Piece, ...]]] = []
    size = 0
    for item in plan:
        stored = item[0]
        tensor_bytes = math.prod(stored.shape) * int(stored.dtype.strip("BF")) // 8
        if portion and (stored.file != portion[0][0].file or size + tensor_bytes > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += tensor_bytes
    if portion:
        yield portion


def _torch_dtype(stored: Stored) -> torch.dtype:
    import torch

    dtype: torch.dtype = getattr(torch, _DTYPES[stored.dtype])
    return dtype


def _text(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"
