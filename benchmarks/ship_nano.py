"""Weights of `kleval train nano` into the package: files copied, hashes written.

    python benchmarks/ship_nano.py runs/nano

OUT has a folder per architecture that was trained to its end, all by one recipe and seed. Copied are config.json, model.safetensors and
training.json of each and their common tokenizer; kleval/cli/nano.sha256, which `kleval doctor` compares them with, is written anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "kleval"
NANO, SUMS = PACKAGE / "models" / "nano", PACKAGE / "cli" / "nano.sha256"
OWN, COMMON = ("config.json", "model.safetensors", "training.json"), ("tokenizer.json", "tokenizer_config.json")
DIFFER = ("architecture", "start", "seconds", "parameters", "loss", "final_training_accuracy", "hardware", "threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    made = {path.parent: json.loads(path.read_text("utf-8")) for path in sorted(out.glob("*/training.json"))}
    recipes = {json.dumps({k: v for k, v in one.items() if k not in DIFFER}, sort_keys=True) for one in made.values()}
    if len(recipes) != 1:
        sys.exit(f"{out} holds {len(recipes)} recipes of finished trainings, not one: train all by the same command")
    for folder in made:
        (NANO / folder.name).mkdir(exist_ok=True)
        for name in OWN:
            shutil.copyfile(folder / name, NANO / folder.name / name)
        for name in COMMON:
            shutil.copyfile(folder / name, NANO / name)
    files = sorted(path for path in NANO.rglob("*") if path.name in (*OWN[:2], *COMMON))
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(NANO).as_posix()}\n" for path in files
    ]
    SUMS.write_text("".join(lines), encoding="utf-8")
    print(
        f"{len(made)} models, {sum(path.stat().st_size for path in files):,} bytes: {', '.join(f.name for f in made)}"
    )


if __name__ == "__main__":
    main()
