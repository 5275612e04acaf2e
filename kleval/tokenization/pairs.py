"""Token pairs of a prompt and its continuation, which meet where the two texts do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kleval.tokenization.chat import Rendered, split_begin
from kleval.types import Tokenizer, UsageError


def encode_pair(tokenizer: Tokenizer, prompt: str, continuation: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Token ids of a rendered prompt and of the continuation whose probability is wanted.

    Both are encoded together, so that the continuation has the tokens it would have in running text; blanks at the end of
    the prompt belong to the continuation. An empty prompt is the token that begins a text; a continuation that begins with it
    brings it along. As lm-eval 0.4.13 does it (`TemplateLM._encode_pair`, `loglikelihood`), its numbers depend on it.
    UsageError when the prompt is empty and the tokenizer knows no such token.
    """
    begin, prompt = split_begin(prompt)
    if not prompt:
        first, ids = prefix_id(tokenizer), tokenizer.encode(continuation)
        return ((first,), tuple(ids)) if ids[:1] != [first] else ((first,), tuple(ids[1:]))
    spaces = len(prompt) - len(prompt.rstrip())
    if spaces:
        prompt, continuation = prompt[:-spaces], prompt[-spaces:] + continuation
    whole = tokenizer.encode(Rendered.of(begin, prompt + continuation))
    head = tokenizer.encode(Rendered.of(begin, prompt))
    return tuple(head), tuple(whole[len(head) :])


def decode_behind(tokenizer: Tokenizer, last: int | None, ids: Sequence[int]) -> str:
    """The text of an answer's tokens behind a prompt that ends with the token `last` (None where that is not known).

    Its blanks are all there, those too that the decoder of a whole text would take away; see `HFTokenizer.decode_behind`.
    """
    own: Callable[[int | None, Sequence[int]], str] | None = getattr(tokenizer, "decode_behind", None)
    return tokenizer.decode(ids) if own is None else own(last, ids)


def prefix_id(tokenizer: Tokenizer) -> int:
    """The token that stands where a text begins: the tokenizer's beginning of sequence, else its end of sequence."""
    special = getattr(tokenizer, "special", None)
    text = getattr(tokenizer, "begin", "") or (special.get("bos_token") if isinstance(special, dict) else None)
    if text:
        ids = tokenizer.encode(text)
        if len(ids) == 1:
            return ids[0]
    end: int | None = getattr(tokenizer, "eos_id", None)
    if end is None:
        raise UsageError(
            f"the tokenizer {tokenizer.name} names no token that begins or ends a text, so none can follow nothing"
        )
    return end
