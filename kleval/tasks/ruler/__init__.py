"""RULER: 13 synthetic long-context tasks (Hsieh et al. 2024, arXiv 2404.06654; NVIDIA/RULER @ c3f5e3b, Apache-2.0).

spec       what the tasks are: parameters, budgets, metrics
niah, vt, cwe, fwe, qa
           the generators: a random state, a size -> one question
words, haystack
           what they are made of: word lists, essays or generated prose
form       how a tokenizer and a protocol make a question of a draft
official, lm_eval
           the orders of drawing and length searches of the official generator and of lm-eval's; rows are byte-equal to theirs
builtin    the same questions sized one by one, from material that kleval writes itself
editions   the official edition: its files, and rows in either order
scoring, task
           official scoring; the task objects
"""
