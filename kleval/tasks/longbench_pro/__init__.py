"""LongBench Pro: 25 kinds of questions over natural documents of 8k to 256k tokens in English and Chinese (arXiv 2601.02872)."""
