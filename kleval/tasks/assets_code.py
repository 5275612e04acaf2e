"""The downloads of the code tasks: name, address, known sha256 -> revision, bytes (0: not known), licence, what for.

The published files have names of their own; here they are called as `kleval.tasks.code.files` looks for them. LiveCodeBench
is a family of its own because its six files take gigabytes; which of them hold the months that count is read from their rows.
"""

from __future__ import annotations

File = tuple[str, str, dict[str, str], int, str, str]

# sha256 of files that are known -> their revision.
KNOWN = {"8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96": "facebookresearch-cruxeval"}

_HUB = "https://huggingface.co/datasets"
_EVALPLUS = f"{_HUB}/evalplus"
_LIVECODEBENCH = f"{_HUB}/livecodebench/code_generation_lite/resolve/main"
_SHOTS = "few_shot_examples/generation"
_PROMPTS = "https://raw.githubusercontent.com/LiveCodeBench/LiveCodeBench/main/lcb_runner/prompts"
_UNKNOWN = "(no hash known; rows are checked when read)"

CODE: tuple[File, ...] = (
    (
        "humaneval_plus/test.parquet",
        f"{_EVALPLUS}/humanevalplus/resolve/main/data/test-00000-of-00001-5973903632b82d40.parquet",
        {},
        0,
        "Apache-2.0",
        f"humaneval_plus {_UNKNOWN}",
    ),
    (
        "mbpp_plus/test.parquet",
        f"{_EVALPLUS}/mbppplus/resolve/main/data/test-00000-of-00001-d5781c9c51e02795.parquet",
        {},
        0,
        "Apache-2.0",
        f"mbpp_plus {_UNKNOWN}",
    ),
    (
        "cruxeval/cruxeval.jsonl",
        "https://raw.githubusercontent.com/facebookresearch/cruxeval/main/data/cruxeval.jsonl",
        KNOWN,
        186_873,
        "MIT",
        "cruxeval_input_cot, cruxeval_output_cot",
    ),
)

LIVECODEBENCH: tuple[File, ...] = (
    *(
        (
            f"livecodebench/test{n}.jsonl",
            f"{_LIVECODEBENCH}/test{n}.jsonl",
            {},
            0,
            "CC",
            f"code/livecodebench_v6 {_UNKNOWN}",
        )
        for n in ("", 2, 3, 4, 5, 6)
    ),
    *(
        (
            f"livecodebench/{_SHOTS}/{kind}.json",
            f"{_PROMPTS}/{_SHOTS}/{kind}.json",
            {},
            0,
            "MIT",
            "code/livecodebench_v6 asked of base models (no hash known)",
        )
        for kind in ("func", "stdin")
    ),
)
