"""Long Code Arena: library-based code generation and commit messages (Bogomolov et al. 2024, arXiv 2406.11612).

Source: JetBrains-Research/lca-baselines @ 5b1b564 (MIT); data on the Hugging Face hub (Apache-2.0).

prompts      the official prompts, BM25 and diffs included
lib_scoring  code in an answer, chrF, API recall
commit_scoring
             chrF, BLEU, ROUGE, B-Norm of a message; the official corpus scores
dataset      the official data
library      an invented library and a script to write with it
commits      invented commits and their messages
filling      material in pieces until ctx is full
task         the task objects
"""
