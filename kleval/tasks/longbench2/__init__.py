"""LongBench v2: multiple-choice questions about long texts (Bai et al. 2024, arXiv 2412.15204).

Source: THUDM/LongBench @ 2e00731 (MIT); data THUDM/LongBench-v2 @ 2b48e49 on the Hugging Face hub (Apache-2.0).
"""
