"""Growth of a tokenizer's counts with the text: filling a context by a count that does not grow would never end."""

from __future__ import annotations

from kleval.types import Tokenizer, UsageError

PROBE = "The quick brown fox, 12345 times: “naïve” 東京 🦊\n\n\tdef f(x):  return x  # ok\n"
_MOST_TOKENS = 32_768  # that a tokenizer is tried on
_MOST_COPIES = 4096  # of the probe: 300 kB


def check_growth(tokenizer: Tokenizer, tokens: int = 1024) -> None:
    """UsageError for a tokenizer that counts nothing, or stops counting at fewer than some `tokens` (a maximum length)."""
    one = tokenizer.count(PROBE)
    copies = min(max(2, min(tokens, _MOST_TOKENS) // max(one, 1)), _MOST_COPIES)
    many = tokenizer.count(PROBE * copies)
    if one < 1 or many < one * copies / 2:
        raise UsageError(
            f"the tokenizer {tokenizer.name} does not grow with the text: it counts {one} tokens in {len(PROBE)} characters and "
            f"{many} in {len(PROBE) * copies}; name the model's tokenizer with --tokenizer hf:PATH"
        )
