"""AA-LCR: questions over sets of long documents, answered freely and judged (Artificial Analysis, 2025; Apache-2.0)."""
