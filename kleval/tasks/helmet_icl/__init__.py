"""HELMET-ICL: label a text by hundreds to thousands of labelled examples, labels being random numbers (Yen et al. 2024,
arXiv 2410.02694).

Source: princeton-nlp/HELMET @ 4526dfb (MIT), `data.py:load_icl`, `configs/icl*.yaml`.

drawing    examples and label numbers of an item, random state for random state
shots      how many examples a length has
scoring    what is read out of an answer, and its scores
dataset    the official data, in the authors' files or in the hub's shape
intents    invented intents and what people say who have them
editions   questions, each sized to ctx
task       the task objects
"""
