"""HELMET-ICL: label a text by hundreds to thousands of labelled examples, labels being random numbers (Yen et al. 2024,
arXiv 2410.02694).

Source: princeton-nlp/HELMET @ 4526dfb (MIT), `data.py:load_icl`, `configs/icl*.yaml`.
"""
