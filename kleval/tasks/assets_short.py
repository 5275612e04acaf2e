"""The downloads of the family `short`: name, address, known sha256 -> revision, bytes (0: not known), licence, what for.

Addresses hold a revision wherever one is known; hashes are given where the published file was at hand, the others are
checked row by row when they are read.
"""

from __future__ import annotations

from kleval.tasks.mmlu_subjects import SUBJECTS

_HUB = "https://huggingface.co/datasets"
_HMMT = f"{_HUB}/MathArena/hmmt_feb_2025/resolve/6fdc4277120810ff75aa22d2d5489b91f7a262a1"
_REDUX = f"{_HUB}/edinburgh-dawg/mmlu-redux-2.0/resolve/ecde1359227ae7c3291f6ca3e16417b4ee8040d0"
_MMLU = f"{_HUB}/cais/mmlu/resolve/c30699e8356da336a370243923dbaf21066bb9fe"
_CMATH = f"{_HUB}/weitianwen/cmath/resolve/6d35cae27b7ac7bcfc3ee08c06b17500103b4d52"
_POLYMATH = "https://raw.githubusercontent.com/QwenLM/PolyMath/fab12d62dd486c605d6da1faef4db93e9e4f22f4"
_CRUXEVAL = "https://raw.githubusercontent.com/facebookresearch/cruxeval/main/data/cruxeval.jsonl"
_UNKNOWN = "(no hash known; rows are checked when read)"

File = tuple[str, str, dict[str, str], int, str, str]

FILES: tuple[File, ...] = (
    (
        "hmmt_feb_2025.parquet",
        f"{_HMMT}/data/train-00000-of-00001.parquet",
        {},
        9_190,
        "CC BY-NC-SA 4.0",
        f"hmmt25 {_UNKNOWN}",
    ),
    *(
        (
            f"polymath/en/{level}.jsonl",
            f"{_POLYMATH}/data/en/{level}.jsonl",
            {},
            0,
            "Apache-2.0",
            f"polymath_en {_UNKNOWN}",
        )
        for level in ("low", "medium", "high", "top")
    ),
    (
        "mmlu_dev.parquet",
        f"{_MMLU}/all/dev-00000-of-00001.parquet",
        {},
        0,
        "MIT",
        f"mmlu_redux: its examples {_UNKNOWN}",
    ),
    *(
        (
            f"cmath_{part}.jsonl",
            f"{_CMATH}/cmath_{part}.jsonl",
            {},
            size_bytes,
            "CC BY 4.0",
            f"cmath {_UNKNOWN}",
        )
        for part, size_bytes in (("test", 222_000), ("dev", 120_000))
    ),
    (
        "cruxeval/cruxeval.jsonl",
        _CRUXEVAL,
        {"8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96": "facebookresearch-cruxeval"},
        186_873,
        "MIT",
        "cruxeval_output_cot",
    ),
    *(
        (
            f"mmlu_redux/{subject}.arrow",
            f"{_REDUX}/{subject}/data-00000-of-00001.arrow",
            {},
            0,
            "CC BY 4.0",
            f"mmlu_redux {_UNKNOWN}",
        )
        for subject in SUBJECTS
    ),
)
