"""Long Code Arena: library-based code generation and commit messages (Bogomolov et al. 2024, arXiv 2406.11612).

Source: JetBrains-Research/lca-baselines @ 5b1b564 (MIT); data on the Hugging Face hub (Apache-2.0).
"""
