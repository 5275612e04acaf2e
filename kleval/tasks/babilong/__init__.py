"""BABILong: a few facts hidden in a long text, and a question about them (Kuratov et al. 2024, arXiv 2406.10149)."""
