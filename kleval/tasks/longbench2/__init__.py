"""LongBench v2: multiple-choice questions about long texts (Bai et al. 2024, arXiv 2412.15204).

Source: THUDM/LongBench @ 2e00731 (MIT); data THUDM/LongBench-v2 @ 2b48e49 on the Hugging Face hub (Apache-2.0).

prompts   the official prompts and the official cut out of the middle
scoring   the letter in an answer; the official table
exams     documents and questions that kleval makes, in the six official domains
editions  questions out of the official data and of exams, each sized to ctx
task      the task object
"""
