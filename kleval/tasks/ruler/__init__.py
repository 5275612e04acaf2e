"""RULER: 13 synthetic long-context tasks (Hsieh et al. 2024, arXiv 2404.06654; NVIDIA/RULER @ c3f5e3b, Apache-2.0).

spec       what the tasks are: parameters, budgets, metrics
niah, vt, cwe, fwe, qa
           the generators: a random state, a size -> one question
words, haystack, corpus
           what they are made of: word lists, essays or generated prose, question-answer documents
form       how a tokenizer and a protocol make a question of a draft
official   the official order of drawing and length search; rows are byte-equal to the official generator's
builtin    the same questions sized one by one, from material that kleval writes itself
editions   the official edition: its files, and rows by either of them
scoring, summary
           official scoring; effective length and weighted averages
task       the task objects
"""
