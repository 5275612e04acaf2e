"""FRAMES: questions that need several articles, the articles in the context (Krishna et al. 2024, arXiv 2409.12941).

Source: google/frames-benchmark on the Hugging Face hub (Apache-2.0), which has no code, no prompt file and no documents;
prompt and exact match as in modelscope/evalscope @ fde259d (Apache-2.0), the judge's prompt as in the paper's appendix.
"""
