"""MRCR v2: Google DeepMind's form of MRCR, one flat text in which writings of a format, a topic and a style come several times.

Source: google-deepmind/eval_hub @ 67b7fd2, eval_hub/mrcr_v2 (Apache-2.0): its forms of text and its metric. Only the card is here; the
code is MRCR's (`kleval.tasks.mrcr.v2`).
"""
