"""What requests share, prefilled once: a 4-choice, 5-shot likelihood task with sharing on, off, and through lm-eval's hf backend.

    python benchmarks/prefix_sharing.py [--questions 16] [--quick]

The task: a short text and a question about it, four answers, each scored by its log-likelihood; five solved examples come first, a
block of about a thousand tokens that all requests begin with. Twice: answers of several tokens, then letters of one token.
The texts are made here. The model is that of `native_vs_transformers` (random weights, float32), the tokenizer a byte-level BPE of
512 tokens trained on the task, both written once into a folder that every engine opens; transformers is kept from fla-core and
Triton as there.
Each engine runs in its own process with one thread, after one question to warm up. The log-likelihoods of all three are compared
before any time is printed. Tokens are those that went through the model: counted by the native backend, and of transformers as the
size of its inputs, padding included.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import print_environment, print_goals, print_table, run_child

SHOTS, CHOICES, TOLERANCE = 5, 4, 1e-4
SENTENCES = 22  # of a text in the examples; the five make about a thousand tokens
BATCH = 8  # of lm-eval; the native backend has 16 by default, transformers is no faster with more on one thread
NAMES = ("Amira", "Bruno", "Chen", "Dalia", "Emeka", "Freya", "Goran", "Hina")
THINGS = ("a copper kettle", "the old atlas", "a box of chalk", "two lanterns", "the spare oars", "a roll of canvas")
PLACES = (
    "under the stairs",
    "behind the mill",
    "in the boat house",
    "next to the well",
    "above the bakery",
    "by the north gate",
)
Answers = list[tuple[float, bool]]
Score = Callable[[Sequence[tuple[str, str]]], Answers]


def text_and_answer(rng: random.Random, sentences: int, letters: bool) -> tuple[str, list[str], int]:
    """A prompt that ends before the answer, the four answers, and which of them is right."""
    who, what = rng.choice(NAMES), rng.choice(THINGS)
    others = [name for name in NAMES if name != who]
    story = [f"{rng.choice(others)} left {rng.choice(THINGS)} {rng.choice(PLACES)}." for _ in range(sentences)]
    places = rng.sample(PLACES, CHOICES)
    right = rng.randrange(CHOICES)
    story[rng.randrange(sentences)] = f"{who} left {what} {places[right]}."
    listed = "".join(f"\n{letter}. {place}" for letter, place in zip("ABCD", places, strict=True)) if letters else ""
    prompt = f"{' '.join(story)}\nQuestion: Where did {who} leave {what}?{listed}\nAnswer:"
    return prompt, [f" {letter}" for letter in "ABCD"] if letters else [f" {place}" for place in places], right


def make_task(questions: int, letters: bool) -> list[tuple[str, str]]:
    """(prompt, continuation), a question's four in a row; question 0 is for warming up and has examples of its own."""
    pairs = []
    for seed in (1, 0):
        rng = random.Random(seed)
        shots = [text_and_answer(rng, SENTENCES, letters) for _ in range(SHOTS)]
        block = "".join(f"{prompt}{answers[right]}\n\n" for prompt, answers, right in shots)
        for _ in range(1 if seed else questions):
            prompt, answers, _right = text_and_answer(rng, 3, letters)
            pairs += [(block + prompt, answer) for answer in answers]
    return pairs


def make_model(folder: Path) -> None:
    from native_vs_transformers import VOCAB, make_weights
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    make_weights(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<|eos|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([prompt for letters in (False, True) for prompt, _ in make_task(2, letters)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|eos|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def open_native(folder: str, share: bool) -> tuple[Score, Callable[[], int]]:
    from kleval.backends import native
    from kleval.backends.spec import BackendSpec
    from kleval.types import Completion, Request

    backend = native.open_native(BackendSpec(model=folder, share_prefixes=share))

    def score(pairs: Sequence[tuple[str, str]]) -> Answers:
        answers: Answers = [(0.0, False)] * len(pairs)
        for position, outcome in backend.run([Request("loglikelihood", p, continuation=c) for p, c in pairs]):
            if not isinstance(outcome, Completion):
                raise SystemExit(outcome.message)
            answers[position] = (float(outcome.logprob_sum or 0), bool(outcome.greedy))
        return answers

    return score, lambda: backend.stats["prefilled_tokens"]


def open_lm_eval(folder: str) -> tuple[Score, Callable[[], int]]:
    sys.modules["fla"] = sys.modules["triton"] = None  # type: ignore[assignment]
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=BATCH)
    tokens = [0]
    call = model._model_call

    def counted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        tokens[0] += inputs.numel()
        return call(inputs, *args, **kwargs)

    model._model_call = counted

    def score(pairs: Sequence[tuple[str, str]]) -> Answers:
        return [
            (float(value), bool(greedy))
            for value, greedy in model.loglikelihood(
                [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)], disable_tqdm=True
            )
        ]

    return score, lambda: tokens[0]


def child(job: dict[str, Any]) -> dict[str, Any]:
    """{"engine", "folder", "questions", "letters"}: the answers, tokens run and CPU seconds for all but the first question."""
    import torch

    torch.set_num_threads(1)
    if job["engine"] == "lm-eval hf":
        score, tokens = open_lm_eval(job["folder"])
    else:
        score, tokens = open_native(job["folder"], job["engine"] == "sharing on")
    pairs = make_task(job["questions"], job["letters"])
    score(pairs[:CHOICES])
    before, started = tokens(), time.process_time()
    answers = score(pairs[CHOICES:])
    return {"answers": answers, "tokens": tokens() - before, "seconds": time.process_time() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="four questions, the native backend alone")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    versions = {}
    for package in ("torch", "transformers", "lm_eval"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "torch" or not given.quick:
                raise SystemExit(f"skipped: {package} is not installed (pip install -e '.[hf,lm-eval]')") from None
    print_environment(**versions)
    engines = ["sharing on", "sharing off"] + ([] if given.quick else ["lm-eval hf"])
    questions = 4 if given.quick else given.questions
    goals: list[tuple[str, float, float, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        for letters in (False, True):
            job = {"folder": folder, "questions": questions, "letters": letters}
            rows = {name: run_child(__file__, job | {"engine": name}) for name in engines}
            goals += report(folder, make_task(questions, letters)[CHOICES:], rows, "letters" if letters else "texts")
    print()
    print_goals(goals)


def report(
    folder: str, pairs: Sequence[tuple[str, str]], rows: dict[str, dict[str, Any]], answers: str
) -> list[tuple[str, float, float, str]]:
    """Print one task's table; its goals. SystemExit when the engines do not agree."""
    from kleval.tokenization import encode_pair, load_tokenizer

    tokenizer = load_tokenizer(f"hf:{folder}")
    lengths = [tuple(map(len, encode_pair(tokenizer, *pair))) for pair in pairs]
    on, off = rows["sharing on"], rows["sharing off"]
    worst = 0.0
    for name, row in rows.items():
        for (_, scored), ours, theirs in zip(lengths, on["answers"], row["answers"], strict=True):
            worst = max(worst, abs(ours[0] - theirs[0]) / scored)
            if ours[1] != theirs[1]:
                raise SystemExit(f"{name}: another token is the most likely one; no time is printed")
    prompts = sum(head for head, _ in lengths) / len(lengths)
    print(f"\nanswers are {answers}: {len(pairs)} requests of {prompts:.0f} prompt tokens on average")
    print(f"log-likelihoods per token: largest difference between engines {worst:.1e}")
    if not worst <= TOLERANCE:
        raise SystemExit(f"the engines disagree by more than {TOLERANCE}: no time is printed")
    body = []
    for name, row in rows.items():
        fewer, faster = row["tokens"] / on["tokens"], row["seconds"] / on["seconds"]
        body.append([name, str(row["tokens"]), f"{fewer:.1f}x", f"{row['seconds']:.2f}", f"{faster:.1f}x"])
    print_table(["engine", "tokens run", "ratio", "CPU s", "ratio"], body)
    return [
        (f"{answers}: tokens, off against on", off["tokens"] / on["tokens"], 3, "x"),
        (f"{answers}: time, off against on", off["seconds"] / on["seconds"], 2, "x"),
    ]


if __name__ == "__main__":
    main()
