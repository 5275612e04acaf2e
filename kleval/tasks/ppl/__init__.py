"""Perplexity of the user's own texts by position, `--tasks ppl:FILE` or a folder: the plainest test of a base model's context."""
