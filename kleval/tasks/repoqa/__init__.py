"""RepoQA, Search Needle Function: find the function that a description describes (Liu et al. 2024, arXiv 2406.06025).

Source: evalplus/repoqa @ ae876de (Apache-2.0); data: evalplus/repoqa_release 2024-06-23.

languages  what tree-sitter reads in the five languages: functions, comments
scoring    the function in an answer, its BLEU with the repository's needles, the thresholds
context    the files of a repository cut to a token budget around the needle
dataset    the official data
stdlib     the running Python's standard library as a repository whose docstrings are the descriptions
questions  the questions of an edition
task       the task object
"""
