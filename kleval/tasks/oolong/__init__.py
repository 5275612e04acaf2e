"""OOLONG: questions about counts over everything that a long text holds (Bertsch et al. 2025, arXiv 2511.02817)."""
