"""Palindrome, MQAR and Stack, the synthetic tests of the paper (arXiv 2510.26692, section 5.1), and zoology's own MQAR.

Not stated there, and chosen here: vocabularies, the number of pairs and queries, the share of pops. `<sep>`, `<push>` and `<pop>` are
the last tokens of a vocabulary. ids and labels are [N, T] int64; a label is what the model is to produce at that position, IGNORED
elsewhere.

- palindrome: T/2 letters, <sep>, the letters backwards. All of them are asked for; the paper's printed targets leave out the first.
- mqar: n = T/3 keys with their values, <sep>, all keys in another order; asked for is the value at each.
- stack: pushes `<push> s x` and pops `<pop> s x` of 64 stacks, half of them pops where something can be popped; asked for is x at s.
- zoology: `multiquery_ar` of HazyResearch/zoology @ d88d6f5, number for number where non-queries are not random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from kleval.train.loop import IGNORED

Rows = tuple[np.ndarray, np.ndarray]
LETTERS, PAIRED, STACKS, ELEMENTS = 64, 1024, 64, 64


def palindrome(rng: np.random.Generator, rows: int, length: int) -> Rows:
    n = length // 2
    letters = rng.integers(0, LETTERS, (rows, n))
    whole = np.concatenate([letters, np.full((rows, 1), LETTERS), letters[:, ::-1]], 1)
    return _asked(whole, np.arange(n, 2 * n))


def mqar(rng: np.random.Generator, rows: int, length: int) -> Rows:
    n = min((length - 1) // 3, PAIRED)
    keys = rng.permuted(np.tile(np.arange(PAIRED), (rows, 1)), axis=1)[:, :n]
    values = rng.integers(PAIRED, 2 * PAIRED, (rows, n))
    pairs = np.stack([keys, values], 2).reshape(rows, 2 * n)
    order = rng.permuted(np.tile(np.arange(n), (rows, 1)), axis=1)
    ids = np.concatenate([pairs, np.full((rows, 1), 2 * PAIRED), np.take_along_axis(keys, order, 1)], 1)
    labels = np.full_like(ids, IGNORED)
    labels[:, 2 * n + 1 :] = np.take_along_axis(values, order, 1)
    return ids, labels


def stack(rng: np.random.Generator, rows: int, length: int) -> Rows:
    push, pop = STACKS + ELEMENTS, STACKS + ELEMENTS + 1
    ids = np.zeros((rows, length // 3 * 3), dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for row in range(rows):
        held: list[list[int]] = [[] for _ in range(STACKS)]
        for at in range(0, ids.shape[1], 3):
            full = [s for s in range(STACKS) if held[s]]
            popping = bool(full) and rng.random() < 0.5
            s = int(rng.choice(full)) if popping else int(rng.integers(STACKS))
            if popping:
                element = held[s].pop()
                labels[row, at + 1] = STACKS + element
            else:
                element = int(rng.integers(ELEMENTS))
                held[s].append(element)
            ids[row, at : at + 3] = pop if popping else push, s, STACKS + element
    return ids, labels


def _asked(whole: np.ndarray, positions: np.ndarray) -> Rows:
    """Inputs and next-token labels of whole sequences [N, T + 1], asked for at these positions."""
    labels = np.full((len(whole), whole.shape[1] - 1), IGNORED, dtype=np.int64)
    labels[:, positions] = whole[:, positions + 1]
    return whole[:, :-1], labels


# task -> generator, size of its vocabulary.
TASKS: Mapping[str, tuple[Callable[[np.random.Generator, int, int], Rows], int]] = {
    "palindrome": (palindrome, LETTERS + 1),
    "mqar": (mqar, 2 * PAIRED + 1),
    "stack": (stack, STACKS + ELEMENTS + 2),
}


def zoology_mqar(
    vocab_size: int,
    num_examples: int,
    input_seq_len: int,
    seed: int,
    power_a: float = 0.01,
    num_kv_pairs: int = 8,
    random_non_queries: bool = True,
) -> Rows:
    """zoology's `multiquery_ar` with its names. Random non-queries come from numpy here, from torch's global state there."""
    if input_seq_len % 2 or vocab_size <= input_seq_len or num_kv_pairs * 4 > input_seq_len:
        raise ValueError("zoology's MQAR wants an even length below the vocabulary, and at least four tokens per pair")
    rng = np.random.RandomState(seed)
    half, context = vocab_size // 2, 2 * num_kv_pairs

    def drawn(choices: np.ndarray, p: np.ndarray | None = None) -> np.ndarray:
        return np.stack([rng.choice(choices, num_kv_pairs, replace=False, p=p) for _ in range(num_examples)])

    keys, values = drawn(np.arange(1, half)), drawn(np.arange(half, vocab_size))
    space = (input_seq_len - context) // 2
    p = power_a * np.arange(1, space + 1) ** (power_a - 1)
    at = context + 2 * drawn(np.arange(space), p / p.sum())
    ids = np.zeros((num_examples, input_seq_len + 1), dtype=np.int64)
    ids[:, 0:context:2], ids[:, 1:context:2] = keys, values
    np.put_along_axis(ids, at, keys, 1)
    labels = np.full_like(ids, IGNORED)
    np.put_along_axis(labels, at + 1, values, 1)
    ids, labels = ids[:, :-1], labels[:, 1:]
    if random_non_queries:
        ids = np.where(ids == 0, rng.randint(vocab_size, size=ids.shape), ids)
    return ids, labels
