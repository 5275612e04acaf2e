"""RepoQA, Search Needle Function: find the function that a description describes (Liu et al. 2024, arXiv 2406.06025).

Source: evalplus/repoqa @ ae876de (Apache-2.0); data: evalplus/repoqa_release 2024-06-23.
"""
